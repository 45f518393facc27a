package ca_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
)

// TestTrustDomainChanges: an authority whose trust domain is an alias goes on as one of another, below the same root, also in the middle
// of a rotation and over restarts; whoever knows the alias believes what it signs and has signed. Otherwise it is refused.
func TestTrustDomainChanges(t *testing.T) {
	r := newRig(t)
	old, bundle := r.sign(), r.RootsDER()
	if err := r.RotateRoot(r.now); err != nil {
		t.Fatal(err)
	}
	before := r.RootsDER()
	cfg := r.cfg
	cfg.TrustDomain = "new.example"
	if _, err := ca.Open(cfg, r.now); err == nil || !strings.Contains(err.Error(), "trustDomainAliases") {
		t.Fatalf("without the alias: %v", err)
	}
	cfg.Aliases = []string{"tulle.local"}
	r.cfg = cfg
	r.restart()
	for _, plain := range []bool{false, true} {
		if plain { // nobody says anything any more
			r.cfg.TrustDomain, r.cfg.Aliases = "", nil
			r.restart()
		}
		if r.TrustDomain() != "new.example" || len(r.RootsDER()) != len(before) || string(r.RootsDER()[0]) != string(bundle[0]) {
			t.Fatalf("it is of %s, with %d roots", r.TrustDomain(), len(r.RootsDER()))
		}
		now := cart
		now.TrustDomain = "new.example"
		issued, err := r.Sign(request(t, newKey(t), now.String()), now, 0, r.now)
		if err != nil {
			t.Fatal(err)
		}
		trust, err := svid.NewTrust("tulle.local", &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: bundle}, {TrustDomain: "new.example", Roots: bundle, Alias: true}}})
		if err != nil {
			t.Fatal(err)
		}
		for id, chain := range map[spiffe.ID]*ca.Issued{cart: old, now: issued} {
			var certs []*x509.Certificate
			for _, der := range chain.Chain {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				certs = append(certs, c)
			}
			if got, err := trust.Verify(certs, r.now, x509.ExtKeyUsageClientAuth); err != nil || got != id {
				t.Errorf("%s is believed as %s: %v", id, got, err)
			}
		}
		if _, err := r.Sign(request(t, newKey(t)), cart, 0, r.now); err == nil {
			t.Error("it signs for the trust domain of before")
		}
	}
	for end := 0; r.step(ca.Standing{}) != ca.Steady; end++ { // the rotation goes on to its end
		if r.now = r.now.Add(3 * time.Second); end > 20 {
			t.Fatal("the rotation does not end")
		}
	}
	if r.restart(); r.TrustDomain() != "new.example" {
		t.Errorf("after the rotation it is of %s", r.TrustDomain())
	}
}
