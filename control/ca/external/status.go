package external

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
)

// RootsDER answers the bundle, certificate by certificate, the one below which is signed first.
func (a *Authority) RootsDER() (out [][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.believed() {
		out = append(out, c.Raw)
	}
	return out
}

// Pinnable answers what a control plane shows after its own chain, for join tokens that pin a root.
func (a *Authority) Pinnable() [][]byte { return a.RootsDER() }

// believed answers the roots, the one below which is signed first. The caller holds mu.
func (a *Authority) believed() (list []*x509.Certificate) {
	for _, fits := range []func(r *root) bool{
		func(r *root) bool { return r.Listed && a.last.Root != nil && a.last.Root.Equal(r.cert) },
		func(r *root) bool { return r.Listed && r.Acked },
		func(r *root) bool { return r.Acked },
		func(*root) bool { return true },
	} {
		for i := range a.state.Roots {
			if r := &a.state.Roots[i]; fits(r) && !issuer.Holds(list, r.cert) {
				list = append(list, r.cert)
			}
		}
	}
	return list
}

// Status answers where the authority stands, given how the mesh does.
func (a *Authority) Status(now time.Time, m ca.Standing) ca.Status {
	var theirs []ca.Warning
	if w, ok := a.cfg.Issuer.(issuer.Warner); ok {
		theirs = w.Warnings(now)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := ca.Status{Stage: a.state.Stage, Phase: a.state.phase(), Since: a.state.Since, Renew: a.state.Renew, Issuer: a.cfg.Issuer.Name(),
		Warnings: append(theirs, a.warnings(now)...)}
	if s.Phase != ca.Steady && !a.state.Forced {
		s.Waits = a.state.waits(now, m)
	}
	list := a.believed()
	s.Signing = ca.Line{Root: list[0]}
	if a.last.Root != nil && a.last.Root.Equal(list[0]) {
		s.Signing.Intermediate = a.last.Intermediate
	}
	other := a.other()
	for _, c := range list[1:] {
		if other != nil && other.Equal(c) {
			s.Other = ca.Line{Root: c}
		} else {
			s.More = append(s.More, ca.Line{Root: c})
		}
	}
	return s
}

// other answers the root that the next step is about; nil: there is none. The caller holds mu.
func (a *Authority) other() *x509.Certificate {
	switch a.state.phase() {
	case ca.Announced:
		for _, r := range a.state.Roots {
			if !r.Acked {
				return r.cert
			}
		}
	case ca.Signing:
		return a.state.Roots[a.state.leaving()].cert
	}
	return nil
}

// patience is for how long an issuer may fail before that is told; stale is how long after the last failure nobody is waiting
// any more: who waits asks again every minute at least.
const (
	patience = 5 * time.Second
	stale    = 5 * time.Minute
)

// warnings answers what will hurt. The caller holds mu.
func (a *Authority) warnings(now time.Time) (list []ca.Warning) {
	for _, f := range []struct {
		failure
		what string
	}{{a.failing, "the issuer of certificates"}, {a.blind, "the issuer's roots"}} {
		if f.err != nil && now.Sub(f.last) < stale && now.Sub(f.since) >= min(patience, a.cfg.Leaf/10) {
			list = append(list, ca.Warning{What: f.what, First: true,
				Message: fmt.Sprintf("for %s: %v; what workloads have stays in force", now.Sub(f.since).Round(time.Second), f.err)})
		}
	}
	return list
}
