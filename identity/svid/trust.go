package svid

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
)

// Trust is whom a holder of an identity believes: the roots of trust domains, and what was taken out of use. It is
// immutable; nil believes nobody.
type Trust struct {
	Model   *model.Trust // as it was told
	mesh    string       // the mesh's trust domain
	domains map[string]domain
	before  map[string]time.Time // certificates of an identity that begin before are revoked
	serials map[string]bool
}

type domain struct {
	roots *x509.CertPool
	pem   []byte
	alias bool
}

// ErrRevoked is in the error for a certificate that was taken out of use.
var ErrRevoked = errors.New("revoked")

// ErrCertificate is in the error too where that was this one certificate: its holder may have another.
var ErrCertificate = fmt.Errorf("%w", ErrRevoked)

// NewTrust reads m for a holder of the trust domain own. It refuses what does not say whom to believe of that domain, or that it is
// not the mesh's or one of its aliases.
func NewTrust(own string, m *model.Trust) (*Trust, error) {
	t := &Trust{Model: m, mesh: own, domains: map[string]domain{}, before: map[string]time.Time{}, serials: map[string]bool{}}
	same := map[string]domain{} // by roots: an alias has the mesh's
	for i := range m.Bundles {
		b := &m.Bundles[i]
		key := string(bytes.Join(b.Roots, nil))
		d, ok := same[key]
		if !ok {
			var err error
			if d.roots, d.pem, err = poolOf(b.Roots); err != nil {
				return nil, fmt.Errorf("trust: bundle of %s: %w", b.TrustDomain, err)
			}
			same[key] = d
		}
		if _, twice := t.domains[b.TrustDomain]; twice {
			return nil, fmt.Errorf("trust: two bundles of %s", b.TrustDomain)
		}
		d.alias = b.Alias
		t.domains[b.TrustDomain] = d
	}
	switch d, ok := t.domains[own]; {
	case !ok:
		return nil, fmt.Errorf("trust: there are no roots of our own trust domain %s", own)
	case d.alias: // the mesh has another one by now, which is the first that is told
		if t.mesh = m.Bundles[0].TrustDomain; m.Bundles[0].Alias {
			return nil, fmt.Errorf("trust: all trust domains are aliases")
		}
	}
	for _, r := range m.Revoked {
		if len(r.Serial) > 0 {
			t.serials[string(r.Serial)] = true
			continue
		}
		who := t.canonicalText(r.Identity)
		if at := time.Unix(r.Before, 0); at.After(t.before[who]) {
			t.before[who] = at
		}
	}
	return t, nil
}

// Roots answers the roots of a trust domain; nil: it is not believed. The pool is not to be changed.
func (t *Trust) Roots(trustDomain string) *x509.CertPool { return t.domains[trustDomain].roots }

// RootsPEM answers them as PEM.
func (t *Trust) RootsPEM(trustDomain string) []byte { return t.domains[trustDomain].pem }

// Federated reports whether identities of a trust domain are another mesh's: believed, and let in only by who names them.
func (t *Trust) Federated(trustDomain string) bool {
	_, ok := t.domains[trustDomain]
	return ok && !t.Ours(trustDomain)
}

// Ours reports whether a trust domain is the mesh's or one of its aliases.
func (t *Trust) Ours(trustDomain string) bool {
	return trustDomain == t.mesh || t.domains[trustDomain].alias
}

// Canonical answers id as the mesh knows it: an identity of an alias in the mesh's own trust domain. nil changes nothing.
func (t *Trust) Canonical(id spiffe.ID) spiffe.ID {
	if t != nil && t.domains[id.TrustDomain].alias {
		id.TrustDomain = t.mesh
	}
	return id
}

// canonicalText is Canonical for what is written; what is no SPIFFE ID stays as it is.
func (t *Trust) canonicalText(s string) string {
	id, err := spiffe.ParseID(s)
	if err != nil {
		return s
	}
	return t.Canonical(id).String()
}

// Refuses answers an error with ErrRevoked if one of chain (leaf first) was taken out of use; id is the leaf's identity.
func (t *Trust) Refuses(id spiffe.ID, chain []*x509.Certificate) error {
	if t == nil || len(t.before)+len(t.serials) == 0 || len(chain) == 0 {
		return nil
	}
	if at, ok := t.before[t.Canonical(id).String()]; ok && chain[0].NotBefore.Before(at) {
		return fmt.Errorf("the certificate of %s is %w", id, ErrRevoked)
	}
	for _, c := range chain {
		if t.serials[string(c.SerialNumber.Bytes())] {
			return fmt.Errorf("the certificate with serial number %x, of %s or its issuer, is %w", c.SerialNumber, id, ErrCertificate)
		}
	}
	return nil
}

// Revoked answers why s proves nothing any more although its identity may have another certificate: the control plane has said so, or
// its own Trust does. nil: neither.
func (s *SVID) Revoked() error {
	if s.Refused != nil {
		return s.Refused
	}
	if s.Trust == nil || len(s.Trust.serials) == 0 {
		return nil
	}
	var chain []*x509.Certificate
	for _, der := range s.Certificate.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	if err := s.Trust.Refuses(s.ID, chain); errors.Is(err, ErrCertificate) {
		return err
	}
	return nil
}

// Verify is the package's Verify with what t believes of the peer's trust domain.
func (t *Trust) Verify(chain []*x509.Certificate, now time.Time, usage x509.ExtKeyUsage) (spiffe.ID, error) {
	if len(chain) == 0 {
		return spiffe.ID{}, errNoCertificate
	}
	id, err := spiffe.FromCertificate(chain[0])
	if err != nil {
		return spiffe.ID{}, err
	}
	roots := t.Roots(id.TrustDomain)
	if roots == nil {
		return spiffe.ID{}, fmt.Errorf("%s is not of a trust domain that is believed", id)
	}
	if _, err := Verify(chain, roots, now, usage); err != nil {
		return spiffe.ID{}, err
	}
	return id, t.Refuses(id, chain)
}

// believed answers what s believes: its Trust, or its Roots for its own trust domain.
func (s *SVID) believed() *Trust {
	if s.Trust != nil {
		return s.Trust
	}
	return &Trust{mesh: s.ID.TrustDomain, domains: map[string]domain{s.ID.TrustDomain: {roots: s.Roots, pem: s.RootsPEM}}}
}

// Believing answers s with another trust. Who is told whom to believe is not refused.
func (s *SVID) Believing(t *Trust) *SVID {
	next := *s
	if t != nil {
		next.Refused = nil
		next.Trust, next.Roots, next.RootsPEM = t, t.Roots(s.ID.TrustDomain), t.RootsPEM(s.ID.TrustDomain)
	}
	return &next
}
