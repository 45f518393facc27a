// Package issuertest is the contract of an issuer as tests; every implementation runs them. Start reading at Run.
package issuertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// TrustDomain is that of every request of the contract.
const TrustDomain = "mesh.example"

// patience bounds everything that is waited for.
const patience = 60 * time.Second

// Rig is an issuer that works, and what the contract needs besides.
type Rig struct {
	Issuer issuer.Issuer
	// Rotate has whoever signs get a new root, which Roots answers soon; nil: that cannot be done from here.
	Rotate func(ctx context.Context)
	// Away has whoever signs be gone, so that Sign fails; nil: that cannot happen.
	Away func()
	// Secrets are texts that no error may have in it.
	Secrets []string
}

// Run holds an issuer to the contract; closing it is Run's. Its requests ask for an hour.
func Run(t *testing.T, open func(t *testing.T) Rig) {
	for name, test := range map[string]func(*testing.T, *suite){
		"Sign": sign, "Together": together, "Refuses": refuses, "Named": named, "Cancelled": cancelled, "Rotate": rotate, "Away": away,
	} {
		t.Run(name, func(t *testing.T) {
			rig := open(t)
			t.Cleanup(rig.Issuer.Close)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			test(t, &suite{Rig: rig, ctx: ctx})
		})
	}
}

type suite struct {
	Rig
	ctx context.Context
}

// ID answers an identity of the contract's trust domain.
func ID(account string) spiffe.ID {
	return spiffe.ID{TrustDomain: TrustDomain, Namespace: "default", ServiceAccount: account}
}

// Request answers a request of a new key for an hour, and the key.
func Request(t testing.TB, account string) (issuer.Request, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id := ID(account)
	csr, err := svid.Request(key, id)
	if err != nil {
		t.Fatal(err)
	}
	return issuer.Request{CSR: csr, ID: id, TTL: time.Hour, Now: time.Now()}, key
}

func (s *suite) roots(t *testing.T) []*x509.Certificate {
	t.Helper()
	roots, err := s.Issuer.Roots(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(roots) == 0 {
		t.Fatal("no roots, and no error")
	}
	return roots
}

// sign has a certificate signed and answers the root that it leads to.
func (s *suite) sign(t *testing.T, account string) *x509.Certificate {
	t.Helper()
	r, key := Request(t, account)
	issued, err := s.Issuer.Sign(s.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	r.Now = time.Now()
	checked, root, err := issuer.Check(issued, r, s.roots(t))
	if err != nil {
		t.Fatal(err)
	}
	id, err := svid.New(key, checked.Chain, [][]byte{root.Raw})
	if err != nil {
		t.Fatal(err)
	}
	if id.ID != r.ID || !issued.NotAfter.Truncate(time.Second).Equal(id.NotAfter) || !issued.NotBefore.Truncate(time.Second).Equal(id.NotBefore) {
		t.Errorf("%s from %s to %s, and said to be from %s to %s", id.ID, id.NotBefore, id.NotAfter, issued.NotBefore, issued.NotAfter)
	}
	if left := time.Until(id.NotAfter); left < 50*time.Minute {
		t.Errorf("valid for %s, an hour was asked for", left)
	}
	return root
}

// sign: what is signed passes Check, is for the key and the ID asked for, and lasts as long.
func sign(t *testing.T, s *suite) {
	s.sign(t, "cart")
	s.sign(t, "web") // another one
	s.sign(t, "cart")
}

// together: many at once.
func together(t *testing.T, s *suite) {
	var wg sync.WaitGroup
	for range 8 {
		r, _ := Request(t, "cart")
		wg.Go(func() {
			issued, err := s.Issuer.Sign(s.ctx, r)
			if err != nil {
				t.Error(err)
				return
			}
			roots, err := s.Issuer.Roots(s.ctx)
			if err != nil {
				t.Error(err)
				return
			}
			r.Now = time.Now()
			if _, _, err := issuer.Check(issued, r, roots); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// refuses: what is no request is not signed, and trying it again is no use.
func refuses(t *testing.T, s *suite) {
	r, _ := Request(t, "cart")
	for what, csr := range map[string][]byte{"nothing": nil, "no request": []byte("x"), "cut": r.CSR[:len(r.CSR)/2]} {
		bad := r
		bad.CSR = csr
		ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
		_, err := s.Issuer.Sign(ctx, bad)
		cancel()
		s.wrong(t, what, err)
		if issuer.Again(err) {
			t.Errorf("%s: to be tried again: %v", what, err)
		}
	}
}

// wrong holds an error to its form.
func (s *suite) wrong(t *testing.T, what string, err error) {
	t.Helper()
	e, ok := errors.AsType[*issuer.Error](err)
	if !ok {
		t.Errorf("%s: %v (%T), want an *issuer.Error", what, err, err)
		return
	}
	text := err.Error()
	if e.Issuer != s.Issuer.Name() || !strings.Contains(text, s.Issuer.Name()) || strings.ContainsAny(text, "\n\r") || len(text) > 2000 {
		t.Errorf("%s: not one line that names the issuer: %q", what, text)
	}
	for _, secret := range s.Secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s: a secret is in %q", what, text)
		}
	}
}

// named: the name is one line and tells no secret.
func named(t *testing.T, s *suite) {
	name := s.Issuer.Name()
	if name == "" || strings.ContainsAny(name, "\n\r") {
		t.Errorf("name %q", name)
	}
	for _, secret := range s.Secrets {
		if strings.Contains(name, secret) {
			t.Errorf("a secret is in the name")
		}
	}
}

// cancelled: nobody waits longer than his context; whoever has an answer at once may give it.
func cancelled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	r, _ := Request(t, "cart")
	if _, err := s.Issuer.Sign(ctx, r); err != nil {
		s.wrong(t, "cancelled", err)
	}
	if _, err := s.Issuer.Roots(ctx); err != nil {
		s.wrong(t, "cancelled", err)
	}
}

// rotate: a new root is answered; as long as it is not believed everywhere, an issuer that can choose signs below the old one, and
// afterwards what is signed leads to the new one or the old.
func rotate(t *testing.T, s *suite) {
	if s.Rotate == nil {
		return
	}
	before := s.roots(t)
	s.Rotate(s.ctx)
	var fresh *x509.Certificate
	for deadline := time.Now().Add(patience); fresh == nil; { // poll
		for _, c := range s.roots(t) {
			if !issuer.Holds(before, c) {
				fresh = c
			}
		}
		if fresh == nil && time.Now().After(deadline) {
			t.Fatal("the new root is not answered")
		}
		if fresh == nil {
			time.Sleep(20 * time.Millisecond) // poll
		}
	}
	s.sign(t, "cart")
	r, _ := Request(t, "cart")
	r.Below = []*x509.Certificate{fresh}
	issued, err := s.Issuer.Sign(s.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	r.Now = time.Now()
	if _, _, err := issuer.Check(issued, r, s.roots(t)); err != nil {
		t.Error(err)
	}
}

// away: while nobody answers, errors say who is gone; nothing is signed, and nobody waits longer than his context.
func away(t *testing.T, s *suite) {
	if s.Away == nil {
		return
	}
	s.sign(t, "cart")
	s.Away()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	r, _ := Request(t, "cart")
	begin := time.Now()
	issued, err := s.Issuer.Sign(ctx, r)
	if err == nil {
		t.Fatalf("signed %d certificates", len(issued.Chain))
	}
	s.wrong(t, "away", err)
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("waited for %s", d)
	}
}
