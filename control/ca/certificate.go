package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// newRoot makes the n-th root. Nothing bounds how many certificates may be below it: the successor that it signs is one more.
func newRoot(n int, trustDomain string, ttl time.Duration, now time.Time) (authority, error) {
	name := "Tulle root of " + trustDomain
	if n > 1 {
		name = fmt.Sprintf("Tulle root %d of %s", n, trustDomain)
	}
	return issue(authorityTemplate(name, trustDomain, now, ttl), nil)
}

func newIntermediate(root authority, trustDomain string, ttl time.Duration, now time.Time) (authority, error) {
	t := authorityTemplate("Tulle intermediate of "+trustDomain, trustDomain, now, ttl)
	t.MaxPathLenZero = true
	// The name constraint binds whoever gets hold of the intermediate to this trust domain.
	t.PermittedDNSDomainsCritical = true
	t.PermittedURIDomains = []string{trustDomain}
	if t.NotAfter.After(root.cert.NotAfter) {
		t.NotAfter = root.cert.NotAfter
	}
	return issue(t, &root)
}

// crossSign answers the certificate of next's key and name that root signs. It ends when either does.
func crossSign(next, root authority) (*x509.Certificate, error) {
	t := *next.cert
	t.SerialNumber = serial()
	t.AuthorityKeyId, t.RawSubject = nil, next.cert.RawSubject
	if t.NotAfter.After(root.cert.NotAfter) {
		t.NotAfter = root.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &t, root.cert, &next.key.PublicKey, root.key)
	if err != nil {
		return nil, fmt.Errorf("cross-signing %s: %w", next.cert.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func authorityTemplate(name, trustDomain string, now time.Time, ttl time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Tulle"}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(ttl),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// X.509-SVID section 3.2: an authority may carry the ID of its trust domain, without a path.
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
}

// issue makes a key and a certificate for it, signed by parent or, for nil, by itself.
func issue(t *x509.Certificate, parent *authority) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	signer, by := key, t
	if parent != nil {
		signer, by = parent.key, parent.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by, &key.PublicKey, signer)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert: cert, key: key}, err
}

// LeafTemplate answers what an identity is signed with, for issuers that sign here.
func LeafTemplate(id spiffe.ID, now time.Time, ttl time.Duration) *x509.Certificate {
	return leafTemplate(id, now, ttl)
}

// leafTemplate is an X.509-SVID: one URI, no subject (then the URI must be critical, which Go sees to).
func leafTemplate(id spiffe.ID, now time.Time, ttl time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial(),
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{id.URL()},
	}
}

// serial answers 127 random bits: positive, and at most 20 octets (RFC 5280 section 4.1.2.2).
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b[:])
}
