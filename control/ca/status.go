package ca

import (
	"bytes"
	"crypto/x509"
	"time"
)

// Status is where the authority stands.
type Status struct {
	Stage uint64
	Phase Phase
	Back  bool
	Since time.Time // of the phase
	Renew time.Time // certificates made before are to be renewed soon; zero: none
	Waits []Wait    // what stands in the way of the next step
	// Signing is the generation that signs; Other the one that is believed besides, its certificates nil if there is none; More
	// are further roots of an issuer that is not ours.
	Signing, Other Line
	More           []Line
	Issuer         string    // who signs, and where; "": the mesh's own authority
	Warnings       []Warning // of an issuer that is not ours
}

// Warning is something that will hurt unless somebody does something.
type Warning struct {
	What, Message string
	Left          time.Duration // until it hurts; 0: not known
	// First: it hurts when the first certificate in use ends.
	First bool
}

// Lines answers the roots that are believed, the one that signs first.
func (s *Status) Lines() (list []Line) {
	for _, l := range append([]Line{s.Signing, s.Other}, s.More...) {
		if l.Root != nil {
			list = append(list, l)
		}
	}
	return list
}

// Line is one root with its intermediate.
type Line struct {
	Generation         int
	Root, Intermediate *x509.Certificate
	Cross              *x509.Certificate // the root as signed by the one before; nil: there is none
	RootKey            bool              // the root's key is there
}

func lineOf(g *generation) Line {
	if g == nil {
		return Line{}
	}
	return Line{Generation: g.n, Root: g.root.cert, Intermediate: g.issuer.cert, Cross: g.cross, RootKey: g.root.key != nil}
}

// Status answers where the authority stands, given how the mesh does.
func (c *CA) Status(now time.Time, m Standing) Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Stage: c.state.Stage, Phase: c.state.Phase, Back: c.state.Back, Since: c.state.Since, Renew: c.state.Renew,
		Signing: lineOf(c.signing()), Other: lineOf(c.other())}
	if c.state.Phase != Steady && !c.state.Forced {
		s.Waits = c.waits(now, m)
	}
	return s
}

// SignedByOther reports whether a chain (leaf first) leads to the root that is believed and does not sign.
func (s Status) SignedByOther(chain []*x509.Certificate) bool {
	if s.Other.Root == nil {
		return false
	}
	for _, c := range chain { // the first one that either has signed: what follows leads on to older roots
		switch {
		case IssuedBy(c, s.Signing.Root):
			return false
		case IssuedBy(c, s.Other.Root):
			return true
		}
	}
	return false
}

// IssuedBy reports whether root has signed a certificate.
func IssuedBy(c, root *x509.Certificate) bool {
	if len(c.AuthorityKeyId) > 0 && len(root.SubjectKeyId) > 0 {
		return bytes.Equal(c.AuthorityKeyId, root.SubjectKeyId)
	}
	return bytes.Equal(c.RawIssuer, root.RawSubject) && c.CheckSignatureFrom(root) == nil
}
