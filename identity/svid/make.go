package svid

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// NewKey makes a private key: ECDSA on P-256. It stays in memory.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// Request makes a certificate request (PKCS #10, DER) for key; id may be the zero ID when the authority decides.
func Request(key crypto.Signer, id spiffe.ID) ([]byte, error) {
	tpl := &x509.CertificateRequest{}
	if !id.IsZero() {
		tpl.URIs = []*url.URL{id.URL()}
	}
	return x509.CreateCertificateRequest(rand.Reader, tpl, key)
}

// New puts an identity together: key, chain (DER, leaf first, without the root) and roots (DER). It refuses a
// chain that is not for key; it does not verify it against the roots.
func New(key crypto.Signer, chain, roots [][]byte) (*SVID, error) {
	if len(chain) == 0 || len(roots) == 0 {
		return nil, errors.New("svid: no certificate or no roots")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("svid: certificate: %w", err)
	}
	id, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return nil, fmt.Errorf("svid: %w", err)
	}
	if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("svid: the certificate of %s is for another key", id)
	}
	s := &SVID{
		ID: id, Certificate: tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf},
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}
	if s.Roots, s.RootsPEM, err = poolOf(roots); err != nil {
		return nil, fmt.Errorf("svid: %w", err)
	}
	return s, nil
}

// poolOf reads roots (DER).
func poolOf(roots [][]byte) (pool *x509.CertPool, text []byte, err error) {
	pool = x509.NewCertPool()
	for _, der := range roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("root: %w", err)
		}
		pool.AddCert(c)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return pool, text, nil
}
