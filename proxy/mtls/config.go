package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// ServerOptions of ServerConfig. Its functions are called from handshake goroutines.
type ServerOptions struct {
	// Known reports whether the server name is one of ours; an unknown one is refused with the alert
	// unrecognized_name before anything else. nil: all are.
	Known func(sni string) bool
	// Authorize decides whether peer may talk to the server name. An error ends the handshake (alert
	// bad_certificate, the nearest that crypto/tls can send). nil: whoever proved an identity may.
	Authorize func(sni string, peer spiffe.ID) error
	Time      func() time.Time // nil: time.Now
	// Outside: clients are no proxies. They prove an identity of the mesh all the same, and may speak HTTP or anything else.
	Outside bool
}

// ServerConfig answers the configuration for Server. Make one per Source and keep it.
func ServerConfig(src Source, o ServerOptions) *tls.Config {
	cfg := baseConfig(o.Time)
	protocol := ALPN
	if o.Outside {
		protocol, cfg.NextProtos = "", []string{"h2", "http/1.1"}
		cfg.CurvePreferences = append(cfg.CurvePreferences, tls.CurveP256)
	}
	known := &chains{}
	cfg.ClientAuth = tls.RequireAnyClientCert // verified below: the verification of crypto/tls knows no SPIFFE
	cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if o.Known != nil && !o.Known(hello.ServerName) {
			return nil, nil // with no certificate configured: alert unrecognized_name
		}
		id := src.Identity()
		if id == nil {
			return nil, errNoIdentity
		}
		return &id.Certificate, nil
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		peer, err := verify(src, cs, protocol, x509.ExtKeyUsageClientAuth, cfg.Time, known)
		if err != nil {
			return &identityError{err}
		}
		if id := src.Identity(); o.Authorize == nil && id != nil && id.Trust != nil && id.Trust.Federated(peer.TrustDomain) {
			return &identityError{fmt.Errorf("%s is another mesh's, and nothing lets it in here", peer)}
		}
		if o.Authorize != nil {
			if err := o.Authorize(cs.ServerName, peer); err != nil {
				return &identityError{err}
			}
		}
		return nil
	}
	return cfg
}

// ClientConfig answers the configuration for Client. expected is whom the server must prove to be; the zero ID
// accepts any identity that chains to the roots. serverName is the SNI; it is not compared with the certificate.
func ClientConfig(src Source, serverName string, expected spiffe.ID) *tls.Config {
	var now func() time.Time
	if t, ok := src.(svid.Timed); ok {
		now = t.Now
	}
	cfg := baseConfig(now)
	cfg.ServerName = serverName
	cfg.InsecureSkipVerify = true // verified below: the name to compare is not the SNI
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		id := src.Identity()
		if id == nil {
			return nil, errNoIdentity
		}
		return &id.Certificate, nil
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		peer, err := verify(src, cs, ALPN, x509.ExtKeyUsageServerAuth, cfg.Time, nil)
		if err == nil && !expected.IsZero() && peer != src.Identity().Trust.Canonical(expected) {
			err = fmt.Errorf("%s is %s, expected %s", cs.ServerName, peer, expected)
		}
		if err != nil {
			return &identityError{err}
		}
		return nil
	}
	return cfg
}

func baseConfig(now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return &tls.Config{
		Time:                        now,
		MinVersion:                  tls.VersionTLS13,
		MaxVersion:                  tls.VersionTLS13,
		CurvePreferences:            []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		NextProtos:                  []string{ALPN},
		SessionTicketsDisabled:      true, // a ticket carries the client's certificates: 1.2 KB more per connection
		DynamicRecordSizingDisabled: true, // nobody here waits for the first bytes of a record
	}
}

var errNoIdentity = errors.New("we have no identity yet; is the control plane reachable?")

// identityError marks what makes HandshakeError.Identity true.
type identityError struct{ err error }

func (e *identityError) Error() string { return e.err.Error() }
func (e *identityError) Unwrap() error { return e.err }

// verify holds the peer's certificates to X.509-SVID: a chain to our roots, both key usages, exactly one SPIFFE ID.
// It runs on full and on resumed handshakes. protocol, if not empty, is what both must speak. It answers whom the mesh knows the
// peer as: an identity of an alias in the mesh's own trust domain.
func verify(src Source, cs tls.ConnectionState, protocol string, role x509.ExtKeyUsage, now func() time.Time, known *chains) (spiffe.ID, error) {
	id := src.Identity()
	switch {
	case id == nil:
		return spiffe.ID{}, errNoIdentity
	case protocol != "" && cs.NegotiatedProtocol != protocol:
		return spiffe.ID{}, fmt.Errorf("peer speaks %q, not %q", cs.NegotiatedProtocol, ALPN)
	case len(cs.PeerCertificates) == 0:
		return spiffe.ID{}, errors.New("peer sent no certificate")
	}
	leaf := cs.PeerCertificates[0]
	peer, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return spiffe.ID{}, err
	}
	roots := id.Roots
	if id.Trust != nil {
		if roots = id.Trust.Roots(peer.TrustDomain); roots == nil {
			return spiffe.ID{}, fmt.Errorf("%s is not of a trust domain that the mesh believes", peer)
		}
	}
	if roots == nil {
		return spiffe.ID{}, errors.New("we have no roots to verify the peer with")
	}
	opts := x509.VerifyOptions{Roots: roots, CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{role}}
	if err := known.verify(cs.PeerCertificates, opts, roots); err != nil {
		return spiffe.ID{}, err
	}
	if err := id.Trust.Refuses(peer, cs.PeerCertificates); err != nil {
		return spiffe.ID{}, err
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if !slices.Contains(leaf.ExtKeyUsage, usage) {
			return spiffe.ID{}, errors.New("peer's certificate is not for both server and client")
		}
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return spiffe.ID{}, errors.New("peer's certificate has the wrong key usage for an SVID")
	}
	return id.Trust.Canonical(peer), nil
}
