package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"
)

// maxChains bounds how many chains are remembered.
const maxChains = 1024

// chains remembers which chains of certificates led to a root: clients come back, and following a chain costs as much as
// the handshake's own signature. A chain is remembered for as long as its certificates are valid and the roots are the
// same; what a peer says is always compared with its bytes. Names, pins and revocation are not in here. Safe for
// concurrent use; nil remembers nothing.
type chains struct {
	mu    sync.Mutex
	roots any // what identifies the roots of good
	good  map[[sha256.Size]byte]span
}

type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return !t.Before(s.from) && !t.After(s.to) }

// verify is certs[0].Verify(opts) with the others as intermediates. roots identifies opts.Roots.
func (c *chains) verify(certs []*x509.Certificate, opts x509.VerifyOptions, roots any) error {
	if c == nil {
		_, err := follow(certs, opts)
		return err
	}
	key := digestOf(certs)
	c.mu.Lock()
	known := c.roots == roots && c.good[key].has(opts.CurrentTime)
	c.mu.Unlock()
	if known {
		return nil
	}
	found, err := follow(certs, opts)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots != roots || len(c.good) >= maxChains {
		c.roots, c.good = roots, map[[sha256.Size]byte]span{}
	}
	c.good[key] = validity(found[0])
	return nil
}

// follow answers the chains from certs to a root, at least one.
func follow(certs []*x509.Certificate, opts x509.VerifyOptions) ([][]*x509.Certificate, error) {
	opts.Intermediates = x509.NewCertPool()
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	found, err := certs[0].Verify(opts)
	if err != nil || !FIPS() {
		return found, err
	}
	return approvedChains(found)
}

// digestOf tells one list of certificates from another; DER says itself where it ends.
func digestOf(certs []*x509.Certificate) (d [sha256.Size]byte) {
	if len(certs) == 1 {
		return sha256.Sum256(certs[0].Raw)
	}
	h := sha256.New()
	for _, c := range certs {
		h.Write(c.Raw)
	}
	return [sha256.Size]byte(h.Sum(d[:0]))
}

// validity answers when all of chain are valid.
func validity(chain []*x509.Certificate) span {
	s := span{chain[0].NotBefore, chain[0].NotAfter}
	for _, c := range chain[1:] {
		if c.NotBefore.After(s.from) {
			s.from = c.NotBefore
		}
		if c.NotAfter.Before(s.to) {
			s.to = c.NotAfter
		}
	}
	return s
}
