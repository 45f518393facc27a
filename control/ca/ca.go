// Package ca is the certificate authority of one mesh: a root and an intermediate, made on the first start and
// kept in files of mode 0600, and the short-lived X.509-SVIDs that the intermediate signs. It promises that a
// crash at any moment leaves either no authority or a whole one, and that it signs nothing but the identity it
// was told, whatever the request asks for. It never sees the key of a workload. Safe for concurrent use.
// Start reading at Open, then Sign.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Lifetimes.
const (
	LeafTTL         = 24 * time.Hour
	intermediateTTL = 365 * 24 * time.Hour
	rootTTL         = 10 * 365 * 24 * time.Hour
	clockSkew       = 5 * time.Minute // every certificate begins this long before it is made
)

// CA is an open authority.
type CA struct {
	dir         string
	trustDomain string
	root        authority

	mu     sync.Mutex
	issuer authority // the intermediate in force
}

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Issued is a signed certificate.
type Issued struct {
	Chain     [][]byte // DER: leaf, intermediate; never the root
	NotBefore time.Time
	NotAfter  time.Time
}

// ChainPEM answers the chain as PEM.
func (i *Issued) ChainPEM() []byte {
	var out []byte
	for _, der := range i.Chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// TrustDomain answers the trust domain of every identity that the authority signs.
func (c *CA) TrustDomain() string { return c.trustDomain }

// RootsPEM answers the bundle of the trust domain.
func (c *CA) RootsPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.root.cert.Raw})
}

// RootsDER answers the bundle, certificate by certificate.
func (c *CA) RootsDER() [][]byte { return [][]byte{c.root.cert.Raw} }

// Roots answers the bundle as a pool. The pool is the caller's own.
func (c *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.root.cert)
	return pool
}

// Sign answers a certificate for id and the key of a PKCS #10 request (DER), valid for ttl (0: LeafTTL, which
// is also the most) from now. The request must prove its key, and may carry id as its only name or no name at
// all; its subject and extensions are not copied.
func (c *CA) Sign(csr []byte, id spiffe.ID, ttl time.Duration, now time.Time) (*Issued, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request for %s: %w", id, err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request for %s: its signature does not prove the key: %w", id, err)
	}
	if len(req.DNSNames)+len(req.EmailAddresses)+len(req.IPAddresses) > 0 ||
		len(req.URIs) > 1 || len(req.URIs) == 1 && req.URIs[0].String() != id.String() {
		return nil, fmt.Errorf("certificate request for %s asks for other names: %v", id, names(req))
	}
	return c.SignKey(req.PublicKey, id, ttl, now)
}

// SignKey is Sign for a key that is known to be id's, such as the control plane's own.
func (c *CA) SignKey(pub crypto.PublicKey, id spiffe.ID, ttl time.Duration, now time.Time) (*Issued, error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("certificate request for %s: the key must be ECDSA on P-256 or P-384", id)
	}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.TrustDomain != c.trustDomain {
		return nil, fmt.Errorf("%s is not of the trust domain %s", id, c.trustDomain)
	}
	if ttl <= 0 || ttl > LeafTTL {
		ttl = LeafTTL
	}
	issuer, err := c.issuerAt(now)
	if err != nil {
		return nil, err
	}
	leaf := leafTemplate(id, now, ttl)
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer.cert, pub, issuer.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	return &Issued{Chain: [][]byte{der, issuer.cert.Raw}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}, nil
}

// issuerAt answers the intermediate, a new one when a third of its life is left.
func (c *CA) issuerAt(now time.Time) (authority, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.issuer.cert.NotAfter.Add(-intermediateTTL / 3)) {
		return c.issuer, nil
	}
	if now.Add(intermediateTTL).After(c.root.cert.NotAfter) && now.Add(LeafTTL).Before(c.issuer.cert.NotAfter) {
		return c.issuer, nil // the root is about to end: nothing longer can be had
	}
	if now.After(c.root.cert.NotAfter) {
		return authority{}, errors.New("the mesh's root certificate has ended: remove the ca folder of the data folder and restart every workload")
	}
	next, err := newIntermediate(c.root, c.trustDomain, now)
	if err != nil {
		return authority{}, err
	}
	if err := saveIntermediate(c.dir, next); err != nil {
		return authority{}, err
	}
	c.issuer = next
	return next, nil
}

func names(req *x509.CertificateRequest) []string {
	list := append(append([]string{}, req.DNSNames...), req.EmailAddresses...)
	for _, ip := range req.IPAddresses {
		list = append(list, ip.String())
	}
	for _, u := range req.URIs {
		list = append(list, u.String())
	}
	return list
}
