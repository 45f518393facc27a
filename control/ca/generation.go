package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// generation is one root with what belongs to it.
type generation struct {
	n      int // from 1 on
	root   authority
	issuer authority         // the intermediate in force
	cross  *x509.Certificate // the root's key as signed by the root before; nil: there is none
}

// former is a root that is believed no more. Its successor as signed by it is kept for join tokens that pin it.
type former struct {
	n     int
	root  *x509.Certificate
	cross *x509.Certificate // of its successor; nil: there is none
}

// newGeneration makes the successor of before; nil makes the first one.
func (c *CA) newGeneration(n int, before *generation, now time.Time) (*generation, error) {
	g := &generation{n: n}
	var err error
	if g.root, err = newRoot(n, c.trustDomain, c.cfg.Root, now); err != nil {
		return nil, err
	}
	if g.issuer, err = newIntermediate(g.root, c.trustDomain, c.cfg.Intermediate, now); err != nil {
		return nil, err
	}
	if before == nil || before.root.key == nil {
		return g, nil
	}
	if g.cross, err = crossSign(g.root, before.root); err != nil {
		return nil, err
	}
	// A root of an earlier version allows one intermediate below it, which the cross-signed root would be.
	if c.rehearse(g, now, before.root.cert) != nil {
		g.cross = nil
	}
	return g, nil
}

// sign answers a certificate for a key and its chain.
func (g *generation) sign(pub crypto.PublicKey, id spiffe.ID, ttl time.Duration, now time.Time) (*Issued, error) {
	leaf := leafTemplate(id, now, ttl)
	if leaf.NotAfter.After(g.issuer.cert.NotAfter) {
		leaf.NotAfter = g.issuer.cert.NotAfter
	}
	if !now.Before(leaf.NotAfter) {
		return nil, fmt.Errorf("certificate for %s: the authority's own has ended at %s", id, leaf.NotAfter)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, g.issuer.cert, pub, g.issuer.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	out := &Issued{Chain: [][]byte{der, g.issuer.cert.Raw}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if g.cross != nil {
		out.Chain = append(out.Chain, g.cross.Raw)
	}
	return out, nil
}

// rehearse signs a certificate as g would and verifies it as one does who believes only root.
func (c *CA) rehearse(g *generation, now time.Time, root *x509.Certificate) error {
	id := spiffe.ID{TrustDomain: c.trustDomain, Namespace: "default", ServiceAccount: "probe"}
	issued, err := g.sign(&g.issuer.key.PublicKey, id, time.Minute, now)
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, der := range issued.Chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(cert)
	}
	leaf, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}
