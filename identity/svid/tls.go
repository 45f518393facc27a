package svid

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Verify checks a peer's chain (leaf first) against roots at a time and answers whom it proves. usage is what
// the peer does with it: ExtKeyUsageServerAuth or ExtKeyUsageClientAuth.
func Verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (spiffe.ID, error) {
	if len(chain) == 0 {
		return spiffe.ID{}, errNoCertificate
	}
	if chain[0].IsCA || chain[0].KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 { // X.509-SVID section 5.2
		return spiffe.ID{}, errors.New("the peer's certificate is one for signing, not an identity")
	}
	id, err := spiffe.FromCertificate(chain[0])
	if err != nil {
		return spiffe.ID{}, err
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return spiffe.ID{}, fmt.Errorf("%s: %w", id, err)
	}
	return id, nil
}

var errNoCertificate = errors.New("the peer showed no certificate")

// PeerID answers whom the other end of a connection proved, the zero ID when it showed no certificate. The
// connection must have been made with a configuration of this package.
func PeerID(s tls.ConnectionState) spiffe.ID {
	if len(s.PeerCertificates) == 0 {
		return spiffe.ID{}
	}
	id, _ := spiffe.FromCertificate(s.PeerCertificates[0])
	return id
}

// ClientConfig is for dialing a peer that must prove want. It shows src's identity and reads
// src at every handshake, so it is made once.
func ClientConfig(src Source, want spiffe.ID) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // there is no host name to check; VerifyConnection checks chain and identity
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &src.Current().Certificate, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			return expect(s, src, want)
		},
	}
}

func expect(s tls.ConnectionState, src Source, want spiffe.ID) error {
	t := src.Current().believed()
	id, err := t.Verify(s.PeerCertificates, now(src), x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if t.Canonical(id) != t.Canonical(want) {
		return fmt.Errorf("the peer is %s, expected %s", id, want)
	}
	return nil
}

// ServerConfig is for accepting peers. A peer that shows a certificate must prove an identity of the trust
// domain; whether one that shows none is accepted is for whoever reads PeerID.
func ServerConfig(src Source) *tls.Config { return serverConfig(src, false) }

// HearingConfig is ServerConfig for who tells peers whose certificate was revoked that it was, and serves them nothing else: it lets
// them in. Whoever uses it asks Trust.Refuses himself.
func HearingConfig(src Source) *tls.Config { return serverConfig(src, true) }

func serverConfig(src Source, hearing bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &src.Current().Certificate, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			t := src.Current().believed()
			id, err := t.Verify(s.PeerCertificates, now(src), x509.ExtKeyUsageClientAuth)
			if hearing && errors.Is(err, ErrRevoked) {
				err = nil
			}
			if err == nil && !t.Ours(id.TrustDomain) {
				err = fmt.Errorf("%s is not of this trust domain", id)
			}
			return err
		},
	}
}
