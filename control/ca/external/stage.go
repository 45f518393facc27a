package external

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/own"
)

// state is what outlives the process, in one file.
type state struct {
	TrustDomain string

	Stage  uint64 // counts changes of what is believed
	Roots  []root
	Since  time.Time // of the last change
	Forced bool      // the next step is taken whoever stands in its way
	Renew  time.Time // certificates made before are to be renewed soon; zero: none
}

// root is one that is believed.
type root struct {
	DER    []byte
	Acked  bool      // every proxy believes it
	Listed bool      // the issuer has it
	Ends   time.Time // when the last certificate below it ends; counts when it is not listed
	cert   *x509.Certificate
}

func (s state) clone() state {
	s.Roots = slices.Clone(s.Roots)
	return s
}

// phase answers where s stands.
func (s *state) phase() ca.Phase {
	switch {
	case slices.ContainsFunc(s.Roots, func(r root) bool { return !r.Acked }):
		return ca.Announced
	case slices.ContainsFunc(s.Roots, func(r root) bool { return !r.Listed }):
		return ca.Signing
	}
	return ca.Steady
}

const stateFile = "roots.json"

// TrustDomain answers that of an authority which is kept in a folder, "" if none is.
func TrustDomain(dir string) (string, error) {
	s, err := load(dir)
	return s.TrustDomain, err
}

// load reads what is known of roots; nothing is known at first.
func load(dir string) (s state, err error) {
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && (len(s.Roots) == 0 || s.TrustDomain == "") {
		err = errors.New("there is no root in it")
	}
	for i := range s.Roots {
		if err == nil {
			s.Roots[i].cert, err = x509.ParseCertificate(s.Roots[i].DER)
		}
	}
	if err != nil {
		return state{}, fmt.Errorf("read what is known of the issuer's roots: %s: %w: restore it from a copy, or remove it and start every workload again", path, err)
	}
	return s, nil
}

// rename takes the trust domain of now, which an authority that is kept may have as an alias.
func (a *Authority) rename(now time.Time) error {
	s := a.state.clone()
	switch {
	case len(s.Roots) == 0 || s.TrustDomain == a.cfg.TrustDomain:
		return nil
	case !slices.Contains(a.cfg.Aliases, s.TrustDomain):
		return fmt.Errorf("the certificates of this mesh are of trust domain %s, not %s: start with that one, or name it in spec.trustDomainAliases of MeshConfig for the mesh to change its trust domain", s.TrustDomain, a.cfg.TrustDomain)
	}
	s.TrustDomain, s.Stage, s.Renew = a.cfg.TrustDomain, s.Stage+1, now // everybody gets a certificate of the new one soon
	return a.keep(s)
}

// keep puts a state in force once it is on disk. The caller holds mu, or is alone.
func (a *Authority) keep(s state) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = ca.KeepFile(a.cfg.Dir, stateFile, 0o600, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("what is known of the issuer's roots cannot be kept: %w", err)
	}
	a.state = s
	return nil
}

// Mend writes again what is missing in the folder. It answers the names of those files.
func (a *Authority) Mend() ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := os.Stat(filepath.Join(a.cfg.Dir, stateFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return []string{stateFile}, a.keep(a.state)
}

// Step moves on as far as the mesh allows: it takes roots that are new at the issuer, counts on those that everybody has
// acknowledged, and drops those that are gone there and that nothing in force leads to. It reports whether what is believed has
// changed; the caller tells the mesh. Call it again and again; it waits for nobody.
func (a *Authority) Step(now time.Time, m ca.Standing) (moved bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state.clone()
	if a.mute(&s) && !m.Lapses.IsZero() && now.After(m.Lapses.Add(-a.cfg.Leaf/10)) && !s.Forced {
		a.log.Warn("certificates are about to end and nobody can sign below a root that everybody has acknowledged: those who are away are waited for no more", "first to end", m.Lapses, "waited for", m.Behind)
		s.Forced = true
	}
	if !s.take(a.listed, now, a.cfg.Leaf) && !s.move(now, m, a.cfg.Leaf) {
		return false, nil
	}
	s.Stage, s.Since, s.Forced = s.Stage+1, now, false
	if err := a.keep(s); err != nil {
		return false, err
	}
	for _, r := range s.Roots {
		a.log.Info("a root of the issuer", "subject", r.cert.Subject.String(), "stage", s.Stage, "acknowledged", r.Acked, "listed", r.Listed)
	}
	return true, nil
}

// mute reports whether nobody can sign anything that every proxy believes, while roots wait to be acknowledged.
func (a *Authority) mute(s *state) bool {
	return s.phase() == ca.Announced && !slices.ContainsFunc(s.Roots, func(r root) bool { return r.Acked && (r.Listed || issuer.Holds(a.before, r.cert)) })
}

// Over reports whether nothing but roots is believed in a folder, so that who signs below them needs nothing of what is kept there.
func Over(dir string, roots [][]byte) (bool, error) {
	s, err := load(dir)
	if err != nil {
		return false, err
	}
	return s.phase() == ca.Steady && !slices.ContainsFunc(s.Roots, func(r root) bool {
		return !slices.ContainsFunc(roots, func(der []byte) bool { return bytes.Equal(der, r.DER) })
	}), nil
}

// take takes what the issuer lists; nil: that is not known.
func (s *state) take(listed []*x509.Certificate, now time.Time, leaf time.Duration) (changed bool) {
	if len(listed) == 0 {
		return false
	}
	var known []*x509.Certificate
	for i := range s.Roots {
		r := &s.Roots[i]
		known = append(known, r.cert)
		switch has := issuer.Holds(listed, r.cert); {
		case has && !r.Listed:
			r.Listed, r.Ends, changed = true, time.Time{}, true
		case !has && r.Listed:
			r.Listed, changed = false, true
			if r.Acked { // otherwise nothing below it was handed to anybody
				r.Ends, s.Renew = now.Add(leaf), now
			}
		}
	}
	for _, c := range listed {
		if !issuer.Holds(known, c) {
			s.Roots, changed = append(s.Roots, root{cert: c, DER: c.Raw, Listed: true}), true
		}
	}
	return changed
}

// move takes the next step if nobody stands in its way.
func (s *state) move(now time.Time, m ca.Standing, leaf time.Duration) bool {
	phase := s.phase()
	if phase == ca.Steady || !s.Forced && len(s.waits(now, m)) > 0 {
		return false
	}
	if phase == ca.Signing {
		n := s.leaving()
		s.Roots = slices.Delete(s.Roots, n, n+1)
		return true
	}
	for i := range s.Roots {
		r := &s.Roots[i]
		if !r.Acked && !r.Listed { // it came and went
			s.Roots = slices.Delete(s.Roots, i, i+1)
			return true
		}
		r.Acked = true
		if !r.Listed { // of the authority before: it has signed until now
			r.Ends, s.Renew = now.Add(leaf), now
		}
	}
	return true
}

// leaving answers which root goes next.
func (s *state) leaving() int {
	return slices.IndexFunc(s.Roots, func(r root) bool { return !r.Listed })
}

// waits answers what stands in the way of the next step.
func (s *state) waits(now time.Time, m ca.Standing) (out []ca.Wait) {
	for _, who := range m.Behind {
		out = append(out, ca.Wait{Who: who, Why: "has not acknowledged the roots of this stage"})
	}
	if s.phase() != ca.Signing {
		return out
	}
	for _, who := range m.Held {
		out = append(out, ca.Wait{Who: who, Why: "shows a certificate of the root that is to go"})
	}
	if r := s.Roots[s.leaving()]; now.Before(r.Ends) {
		out = append(out, ca.Wait{Why: "certificates of the root that is to go may be valid where they cannot be seen", End: r.Ends})
	}
	return out
}

// notOurs says where something is done that cannot be done here.
func (a *Authority) notOurs(what string) error {
	if _, ok := a.cfg.Issuer.(own.Issuer); ok {
		return fmt.Errorf("%w yet: roots of the issuer before are still believed ('tulle cert' shows until when); start the control plane again when they are not", ca.ErrNotOurs)
	}
	return fmt.Errorf("%w: %s is replaced at the issuer, %s; what is new there is believed, acknowledged and then used by itself", ca.ErrNotOurs, what, a.cfg.Issuer.Name())
}

// RotateRoot answers that this is the issuer's to do.
func (a *Authority) RotateRoot(time.Time) error { return a.notOurs("the root") }

// RotateIntermediate answers that this is the issuer's to do.
func (a *Authority) RotateIntermediate(time.Time) error { return a.notOurs("the intermediate") }

// Rollback answers that this is the issuer's to do.
func (a *Authority) Rollback() error { return a.notOurs("a root that is taken back") }

// RotateLeaves asks every workload to have its certificate renewed soon.
func (a *Authority) RotateLeaves(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state.clone()
	s.Stage, s.Renew = s.Stage+1, now
	return a.keep(s)
}

// Force has the next step taken whoever stands in its way.
func (a *Authority) Force() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.phase() == ca.Steady {
		return ca.ErrNoneToDo
	}
	s := a.state.clone()
	s.Forced = true
	return a.keep(s)
}
