// Package ca is the certificate authority of one mesh: a root and an intermediate, made on the first start and
// kept in files of mode 0600, the short-lived X.509-SVIDs that the intermediate signs, and the stages in which one root
// takes the place of another (stage.go). It promises that a crash at any moment leaves either no authority or a whole one,
// in the stage before or the one after, and that it signs nothing but the identity it was told, whatever the request asks
// for. It never sees the key of a workload, and moves on only when it is told how the mesh stands (Step). Safe for
// concurrent use. Start reading at Open, then Sign, then Step.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Lifetimes, where a Config says nothing else.
const (
	LeafTTL         = 24 * time.Hour
	IntermediateTTL = 365 * 24 * time.Hour
	RootTTL         = 10 * 365 * 24 * time.Hour
)

// Backdate is how long before it is made every certificate begins.
const Backdate = 5 * time.Minute

// Shortest life of a leaf, and how often it has to fit into the life of the intermediate, and that into the root's: one that
// is about to end is replaced while a leaf signed by it lasts.
const (
	ShortestLeaf = 5 * time.Second
	leafFits     = 3
	middleFits   = 2
)

// Config of an authority. Dir is needed.
type Config struct {
	Dir         string
	TrustDomain string // "": the one that is there, else DefaultTrustDomain
	// Aliases are trust domains that the mesh believes as its own: an authority of one of them goes on as one of TrustDomain.
	Aliases []string
	// Lifetimes of what is made from now on; 0: the default. At the end of two thirds a root or an intermediate is replaced.
	Root, Intermediate, Leaf time.Duration
}

// Validate reports lifetimes that do not fit into each other.
func (c Config) Validate() error {
	c = c.defaults()
	switch {
	case c.Leaf < ShortestLeaf:
		return fmt.Errorf("lifetime of identities %s: give %s at least", c.Leaf, ShortestLeaf)
	case c.Intermediate < leafFits*c.Leaf:
		return fmt.Errorf("lifetime of intermediates %s: give %s at least, %d times that of identities", c.Intermediate, leafFits*c.Leaf, leafFits)
	case c.Root < middleFits*c.Intermediate:
		return fmt.Errorf("lifetime of roots %s: give %s at least, %d times that of intermediates", c.Root, middleFits*c.Intermediate, middleFits)
	}
	return nil
}

func (c Config) defaults() Config {
	for _, d := range []struct {
		to *time.Duration
		is time.Duration
	}{{&c.Root, RootTTL}, {&c.Intermediate, IntermediateTTL}, {&c.Leaf, LeafTTL}} {
		if *d.to == 0 {
			*d.to = d.is
		}
	}
	return c
}

// CA is an open authority.
type CA struct {
	cfg         Config
	dir         string
	trustDomain string

	mu    sync.Mutex
	state state
	now   *generation // state.Current
	next  *generation // state.Next; nil: there is none
	past  []*former   // state.Past
}

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// life is how long it was made for.
func (a authority) life() time.Duration { return a.cert.NotAfter.Sub(a.cert.NotBefore) - Backdate }

// old reports whether two thirds of its life are over.
func (a authority) old(now time.Time) bool { return now.After(a.cert.NotAfter.Add(-a.life() / 3)) }

// Issued is a signed certificate.
type Issued struct {
	Chain     [][]byte // DER: leaf, intermediate, and while roots change the new root as signed by the old one; never a root
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

// Leaf answers for how long identities are valid, at most.
func (c *CA) Leaf() time.Duration { return c.cfg.Leaf }

// Backdate answers how long before it is made every certificate begins.
func (c *CA) Backdate() time.Duration { return Backdate }

// RootsPEM answers the bundle of the trust domain.
func (c *CA) RootsPEM() (out []byte) {
	for _, der := range c.RootsDER() {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// RootsDER answers the bundle, certificate by certificate, the one that signs first.
func (c *CA) RootsDER() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rootsDER()
}

func (c *CA) rootsDER() [][]byte {
	out := [][]byte{c.signing().root.cert.Raw}
	if other := c.other(); other != nil {
		out = append(out, other.root.cert.Raw)
	}
	return out
}

// Roots answers the bundle as a pool. The pool is the caller's own.
func (c *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.RootsPEM())
	return pool
}

// Pinnable answers what a control plane shows after its own chain, so that a join token that pins a root of before leads to
// the root of now: those roots, the newest first, and each one's successor as signed by it.
func (c *CA) Pinnable() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.rootsDER()
	for _, g := range []*generation{c.next, c.now} {
		if g != nil && g.cross != nil {
			out = append(out, g.cross.Raw)
		}
	}
	for _, f := range c.past {
		out = append(out, f.root.Raw)
		if f.cross != nil {
			out = append(out, f.cross.Raw)
		}
	}
	return out
}

// Sign answers a certificate for id and the key of a PKCS #10 request (DER), valid for ttl (0: as configured, which
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
	if ttl <= 0 || ttl > c.cfg.Leaf {
		ttl = c.cfg.Leaf
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.signing()
	if _, err := c.renewMiddle(g, now); err != nil {
		return nil, err
	}
	return g.sign(pub, id, ttl, now)
}

// renewMiddle replaces the intermediate of the generation that signs when it is old; it reports whether it did. One that
// cannot be replaced signs on until its end. The caller holds mu.
func (c *CA) renewMiddle(g *generation, now time.Time) (bool, error) {
	if !g.issuer.old(now) {
		return false, nil
	}
	if now.After(g.root.cert.NotAfter) {
		return false, errors.New("the mesh's root certificate has ended: stop the control plane, remove the ca folder of the data folder and restart every workload")
	}
	ended := now.After(g.issuer.cert.NotAfter)
	if g.root.key == nil {
		if ended {
			return false, fmt.Errorf("the intermediate certificate has ended: %w", ErrNoRootKey)
		}
		return false, nil
	}
	end := now.Add(c.cfg.Intermediate)
	if end.After(g.root.cert.NotAfter) {
		end = g.root.cert.NotAfter
	}
	if !ended && end.Sub(g.issuer.cert.NotAfter) < c.cfg.Leaf {
		return false, nil // nothing much longer can be had: the root is about to be replaced
	}
	return true, c.newMiddle(g, now)
}

// newMiddle puts a new intermediate in force. The caller holds mu.
func (c *CA) newMiddle(g *generation, now time.Time) error {
	next, err := newIntermediate(g.root, c.trustDomain, c.cfg.Intermediate, now)
	if err != nil {
		return err
	}
	if err := saveIntermediate(c.dir, g.n, next); err != nil {
		return fmt.Errorf("a new intermediate certificate cannot be kept: %w", err)
	}
	g.issuer = next
	return nil
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
