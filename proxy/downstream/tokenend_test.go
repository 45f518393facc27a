package downstream_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/token"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// mint is a key that signs tokens.
type mint struct {
	id  string
	key ed25519.PrivateKey
}

func newMint(t testing.TB, id string) mint {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return mint{id, key}
}

// bearer answers a field with a token.
func (m mint) bearer(t testing.TB, claims string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: m.key, KeyID: m.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	text, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: Bearer " + text + "\r\n"
}

// keySet answers the public keys of all.
func keySet(t testing.TB, all ...mint) string {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, m := range all {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: m.key.Public(), KeyID: m.id})
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTokenEnds: of streams that are open, by WebSocket and gRPC, with a token of web's that ends after 30 s and one of batch's that
// does not, those end within a second, with a status, whose token is not believed any more, by the time or by a policy, or is
// missing by now; and none of the others, nor any where nothing looks at tokens. Time is virtual.
func TestTokenEnds(t *testing.T) {
	const end, skew, change = 30 * time.Second, 5 * time.Second, 10 * time.Second
	first, next := newMint(t, "first"), newMint(t, "next")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(end).Unix() // as the simulator's calendar has it
	says := map[string]string{
		"web":   first.bearer(t, fmt.Sprintf(`{"iss":"me","sub":"web","aud":["a"],"exp":%d}`, at)),
		"batch": first.bearer(t, fmt.Sprintf(`{"iss":"me","sub":"batch","aud":["a","b"],"exp":%d}`, at+86400)),
	}
	issuer := func(change ...func(i *model.TokenIssuer)) *model.Security {
		i := model.TokenIssuer{Issuer: "me", Keys: keySet(t, first), Algorithms: []string{"EdDSA"}, Skew: skew, From: []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}}}
		for _, f := range change {
			f(&i)
		}
		return &model.Security{Tokens: []model.TokenIssuer{i}}
	}
	required := func(i *model.TokenIssuer) { i.Required = true }
	both := func(s *model.Security, r model.PolicyRule) *model.Security {
		s.Policies = append(s.Policies, only(model.ActionAllow, "who", r))
		return s
	}
	bearers := model.PolicyRule{Name: "r", From: []model.PolicySource{{TokenPrincipals: exactly("me/web", "me/batch")}}}
	for name, c := range map[string]struct {
		before, after *model.Security
		changes       time.Duration // to after; 0: never
		web, batch    time.Duration // when they end; 0: never
		reason        string
	}{
		"required": {before: issuer(required), web: end + skew, reason: "token_invalid"},
		"required by path": {before: issuer(func(i *model.TokenIssuer) {
			i.RequiredPaths = []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/"}}}
		}), web: end + skew, reason: "token_invalid"},
		"not on this path": {before: issuer(func(i *model.TokenIssuer) {
			i.RequiredPaths = []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/x"}}}
		})},
		"a rule about it":           {before: both(issuer(), bearers), web: end + skew, reason: "token_invalid"},
		"a rule about others":       {before: both(issuer(), model.PolicyRule{Name: "r", From: []model.PolicySource{{Principals: exactly(account("web").String(), account("batch").String())}}})},
		"nothing looks":             {before: issuer()},
		"another issuer":            {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Issuer = "you" }), changes: change, web: change, batch: change, reason: "token_invalid"},
		"another audience":          {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Audiences = []string{"b"} }), changes: change, web: change, reason: "token_invalid"},
		"another key":               {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Keys = keySet(t, next) }), changes: change, web: change, batch: change, reason: "token_invalid"},
		"one more key":              {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Keys = keySet(t, next, first) }), changes: change, web: end + skew, reason: "token_invalid"},
		"keys that have to come":    {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Keys, i.KeysURL = "", "https://issuer.invalid" }), changes: change, web: end + skew, reason: "token_invalid"},
		"another algorithm":         {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Algorithms = []string{"ES256"} }), changes: change, web: change, batch: change, reason: "token_invalid"},
		"more is forgiven":          {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Skew = 3 * skew }), changes: change, web: end + 3*skew, reason: "token_invalid"},
		"less is forgiven":          {before: issuer(required), after: issuer(required, func(i *model.TokenIssuer) { i.Skew = 0 }), changes: end + time.Second, web: end + time.Second, reason: "token_invalid"},
		"required later":            {before: issuer(), after: issuer(required), changes: change, web: end + skew, reason: "token_invalid"},
		"required after its end":    {before: issuer(), after: issuer(required), changes: end + 2*skew, web: end + 2*skew, reason: "token_invalid"},
		"required of those without": {before: &model.Security{}, after: issuer(required), changes: change, web: change, batch: change, reason: "token_missing"},
		"no issuer any more":        {before: issuer(required), after: &model.Security{}, changes: change},
		"no issuer, and a rule":     {before: both(issuer(), bearers), after: both(&model.Security{}, bearers), changes: change, web: change, batch: change, reason: "authz_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			simtest.Each(t, 1, func(t *testing.T, seed uint64) {
				w := newTown(t, seed, 3, says)
				ring := token.NewRing(token.Config{Fetch: unreachable})
				t.Cleanup(ring.Close)
				put := func(s *model.Security) {
					guards, keep, err := ring.Guards(s, nil, []uint16{80})
					if err != nil {
						t.Fatal(err)
					}
					if err := w.policies.Set(s); err != nil {
						t.Fatal(err)
					}
					w.tokens.Set(guards[80])
					keep()
					w.proxy.Post(func() { w.worker.Review(w.policies) })
				}
				put(c.before)
				count := func(who string, is func(g *guest) bool) (n int) {
					for _, g := range w.guests[who] {
						if is(g) {
							n++
						}
					}
					return n
				}
				if !w.Until(5*time.Second, func() bool { return count("web", (*guest).up)+count("batch", (*guest).up) == 12 }) {
					t.Fatalf("%d and %d are up", count("web", (*guest).up), count("batch", (*guest).up))
				}
				ended := func(g *guest) bool { return g.ended || bytes.Contains(g.got, []byte("grpc-status")) }
				look := func(when time.Duration) {
					w.Run(when - w.Now())
					for who, ends := range map[string]time.Duration{"web": c.web, "batch": c.batch} {
						want := 0
						if ends != 0 && when > ends {
							want = 6
						}
						if n := count(who, ended); n != want {
							t.Errorf("after %v %d of 6 streams of %s have ended, expected %d", when, n, who, want)
						}
					}
				}
				if c.changes != 0 {
					look(c.changes)
					put(c.after)
				}
				for _, ends := range []time.Duration{c.web, 2 * time.Minute} { // batch ends with web or never
					if ends != c.changes && ends != 0 {
						look(ends)
					}
					if ends != 0 {
						look(ends + time.Second)
					}
				}
				want := 0
				for _, ends := range []time.Duration{c.web, c.batch} {
					if ends != 0 {
						want += 6
					}
				}
				refused := 0
				for _, r := range w.log.all {
					if r.Reason == c.reason && (r.Decision.Verdict == record.Unasked || c.reason == "authz_denied") {
						refused++
					}
				}
				status := []byte("grpc-status: 16")
				if c.reason == "authz_denied" {
					status = []byte("grpc-status: 7")
				}
				calls := func(g *guest) bool { return bytes.Contains(g.got, status) }
				if n := count("web", calls) + count("batch", calls); n != want/2 || refused != want {
					t.Errorf("%d records have the reason, and %d calls the status; expected %d and %d", refused, n, want, want/2)
				}
			})
		})
	}
}

// TestTokenEndsByTheClock: a clock that is set beyond a token's end is noticed, and one that is set back ends nothing.
func TestTokenEndsByTheClock(t *testing.T) {
	simtest.Each(t, 1, func(t *testing.T, seed uint64) {
		m := newMint(t, "k")
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
		field := m.bearer(t, fmt.Sprintf(`{"iss":"me","iat":%d,"exp":%d}`, at, at+86400))
		w := newTown(t, seed, 1, map[string]string{"web": field, "batch": field})
		ring := token.NewRing(token.Config{})
		t.Cleanup(ring.Close)
		s := &model.Security{Tokens: []model.TokenIssuer{{Issuer: "me", Keys: keySet(t, m), Algorithms: []string{"EdDSA"}, Required: true, From: []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}}}}}
		guards, keep, err := ring.Guards(s, nil, []uint16{80})
		if err == nil {
			err = w.policies.Set(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		keep()
		w.tokens.Set(guards[80])
		open := func(n int) func() bool { return func() bool { return w.worker.Open() == n } }
		up := func() bool {
			for _, all := range w.guests {
				for _, g := range all {
					if !g.up() {
						return false
					}
				}
			}
			return true
		}
		if !w.Until(5*time.Second, up) {
			t.Fatal("not all are up")
		}
		w.ShiftWall(-time.Hour)
		w.proxy.Post(func() { w.worker.Review(w.policies) })
		w.Run(time.Minute)
		if !open(4)() {
			t.Errorf("%d of 4 are open after the clock was set back", w.worker.Open())
		}
		w.ShiftWall(48 * time.Hour)
		if !w.Until(16*time.Second, open(0)) {
			t.Errorf("%d of 4 are open after the clock was set beyond the end of their tokens", w.worker.Open())
		}
	})
}

// TestNoAllocationToken: requests with a token that was seen before, which is required and whose end is followed, allocate nothing.
func TestNoAllocationToken(t *testing.T) {
	m := newMint(t, "k")
	ring := token.NewRing(token.Config{})
	t.Cleanup(ring.Close)
	s := &model.Security{Tokens: []model.TokenIssuer{{Issuer: "me", Keys: keySet(t, m), Algorithms: []string{"EdDSA"}, Required: true, From: []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}}}}}
	guards, keep, err := ring.Guards(s, nil, []uint16{80})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	in := policy.New(policy.Config{})
	if err := in.Set(s); err != nil {
		t.Fatal(err)
	}
	o := inbound(fixed(t))
	o.Policies, o.Caller, o.Tokens = in, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80), &token.InForce{}
	o.Tokens.Set(guards[80])
	h := newHop(t, setup{origin: o})
	h.log.forget()
	noAllocation(t, 0, driveWith(t, h, m.bearer(t, `{"iss":"me","sub":"a","exp":99999999999}`)))
}

// unreachable is where no keys come from.
func unreachable(context.Context, *model.TokenIssuer) ([]byte, error) { return nil, errors.New("away") }
