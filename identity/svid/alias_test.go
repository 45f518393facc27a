package svid_test

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/model"
)

// in answers an identity in another trust domain.
func in(domain string, id spiffe.ID) spiffe.ID {
	id.TrustDomain = domain
	return id
}

func trustOf(t *testing.T, own string, m *model.Trust) *svid.Trust {
	t.Helper()
	trust, err := svid.NewTrust(own, m)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// TestMigration: a mesh changes its trust domain. In each state that two ends can be in at the same time, as long as the alias was told
// before the change, they believe each other, whichever name their certificates and their expectations have.
func TestMigration(t *testing.T) {
	ca := svidtest.New(t)
	roots := [][]byte{ca.Root.Raw}
	before := &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: roots}, {TrustDomain: "new.example", Roots: roots, Alias: true}}}
	after := &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "new.example", Roots: roots}, {TrustDomain: "tulle.local", Roots: roots, Alias: true}}}
	type state struct {
		domain string
		told   *model.Trust
	}
	states := []state{{"tulle.local", before}, {"tulle.local", after}, {"new.example", after}, {"new.example", before}}
	source := func(s state, id spiffe.ID) svid.Source {
		return svidtest.Fixed{SVID: ca.Issue(in(s.domain, id)).Current().Believing(trustOf(t, s.domain, s.told))}
	}
	for _, server := range states {
		for _, client := range states {
			for _, want := range []spiffe.ID{in("tulle.local", cart), in("new.example", cart)} {
				if _, s, c := shake(t, svid.ServerConfig(source(server, cart)), svid.ClientConfig(source(client, web), want)); s != nil || c != nil {
					t.Errorf("%s to %s, expecting %s: %v, %v", client.domain, server.domain, want, s, c)
				}
			}
			if _, s, c := shake(t, svid.ServerConfig(source(server, cart)), svid.ClientConfig(source(client, web), in(client.domain, web))); s == nil && c == nil {
				t.Errorf("%s to %s: the server is somebody else, and nobody minds", client.domain, server.domain)
			}
		}
	}
	// Who is revoked is revoked under both names.
	gone := *after
	gone.Revoked = []model.Revocation{{Identity: in("tulle.local", web).String(), Before: time.Now().Unix()}}
	server := svidtest.Fixed{SVID: ca.Issue(in("new.example", cart)).Current().Believing(trustOf(t, "new.example", &gone))}
	for _, domain := range []string{"tulle.local", "new.example"} {
		_, err, _ := shake(t, svid.ServerConfig(server), svid.ClientConfig(source(state{domain, after}, web), in("new.example", cart)))
		if !errors.Is(err, svid.ErrRevoked) {
			t.Errorf("revoked, with a certificate of %s: %v", domain, err)
		}
	}
	for own, trust := range map[string]*svid.Trust{"tulle.local": trustOf(t, "tulle.local", after), "new.example": trustOf(t, "new.example", after)} {
		if got := trust.Canonical(in("tulle.local", cart)); got != in("new.example", cart) {
			t.Errorf("a holder of %s knows it as %s", own, got)
		}
		if trust.Federated("tulle.local") || trust.Federated("new.example") || !trust.Ours("tulle.local") || trust.Ours("other") {
			t.Errorf("a holder of %s takes the mesh's own for another's", own)
		}
	}
}

// TestFederatedAuthority: the authority of a federated trust domain vouches for that domain alone. Its certificates for us, for an alias
// of ours or for a third domain are refused, and so are ours for it.
func TestFederatedAuthority(t *testing.T) {
	ours, theirs, third := svidtest.New(t), svidtest.New(t), svidtest.New(t)
	trust := trustOf(t, "tulle.local", &model.Trust{Bundles: []model.TrustBundle{
		{TrustDomain: "tulle.local", Roots: [][]byte{ours.Root.Raw}},
		{TrustDomain: "old.local", Roots: [][]byte{ours.Root.Raw}, Alias: true},
		{TrustDomain: "other.example", Roots: [][]byte{theirs.Root.Raw}},
		{TrustDomain: "third.example", Roots: [][]byte{third.Root.Raw}}}})
	for _, c := range []struct {
		by     *svidtest.Authority
		domain string
		good   bool
	}{
		{ours, "tulle.local", true}, {ours, "old.local", true}, {theirs, "other.example", true}, {third, "third.example", true},
		{theirs, "tulle.local", false}, {theirs, "old.local", false}, {theirs, "third.example", false},
		{ours, "other.example", false}, {third, "other.example", false}, {ours, "unknown.example", false},
	} {
		leaf := c.by.Issue(in(c.domain, web)).Current().Certificate.Leaf
		id, err := trust.Verify([]*x509.Certificate{leaf}, time.Now(), x509.ExtKeyUsageClientAuth)
		if (err == nil) != c.good {
			t.Errorf("%s: %s, %v", c.domain, id, err)
		}
	}
	if !trust.Federated("other.example") || trust.Federated("unknown.example") || trust.Federated("old.local") {
		t.Error("who is another mesh's is not told apart")
	}
	// The control plane hears nobody of another mesh.
	client := svidtest.Fixed{SVID: theirs.Issue(in("other.example", web)).Current().Believing(trustOf(t, "other.example", &model.Trust{Bundles: []model.TrustBundle{
		{TrustDomain: "other.example", Roots: [][]byte{theirs.Root.Raw}}, {TrustDomain: "tulle.local", Roots: [][]byte{ours.Root.Raw}}}}))}
	server := svidtest.Fixed{SVID: ours.Issue(cart).Current().Believing(trust)}
	if _, err, _ := shake(t, svid.ServerConfig(server), svid.ClientConfig(client, cart)); err == nil {
		t.Error("a federated identity was let in where only the mesh's own are")
	}
	for _, bad := range []*model.Trust{
		{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{ours.Root.Raw}, Alias: true}}},
		{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{ours.Root.Raw}}, {TrustDomain: "tulle.local", Roots: [][]byte{theirs.Root.Raw}}}},
	} {
		if _, err := svid.NewTrust("tulle.local", bad); err == nil {
			t.Errorf("%+v was understood", bad)
		}
	}
}
