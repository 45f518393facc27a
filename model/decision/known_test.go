package decision_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
	"github.com/tulle-mesh/tulle/model/decision"
)

// TestKnown: what is told of who came is read again; what was not told is not known.
func TestKnown(t *testing.T) {
	b := decision.AppendToken(nil, "abc", "https://i&s=s.example")
	b = decision.AppendFirst(b, 2, netip.MustParseAddr("2001:db8::1"))
	b = decision.AppendCaller(decision.AppendFederated(b), netip.MustParseAddr("::ffff:10.0.0.7"), true)
	k := decision.Key{Fields: string(b)}
	want := decision.Known{Caller: netip.MustParseAddr("10.0.0.7"), Published: true, Federated: true, First: netip.MustParseAddr("2001:db8::1"), Hops: 2, Token: true, Issuers: "abc", Issuer: "https://i&s=s.example"}
	if got := k.Known(); got != want {
		t.Errorf("%s: %+v", b, got)
	}
	if got := (&decision.Key{Fields: string(decision.AppendToken(nil, "abc", ""))}).Known(); !got.Token || got.Issuer != "" || got.Caller.IsValid() {
		t.Errorf("%+v", got)
	}
	if got := (&decision.Key{Fields: "h:x-user=i:=10.0.0.1&q:page"}).Known(); got != (decision.Known{}) {
		t.Errorf("recorded before: %+v", got)
	}
	if f := decision.WithoutCaller("h:a=i:&" + string(b) + "&q:x"); strings.Contains(f, "10.0.0.7") || strings.Contains(f, "2001") || !strings.HasPrefix(f, "h:a=i:&t:abc=") || !strings.HasSuffix(f, "&q:x") {
		t.Error(f)
	}
	if f := decision.WithoutCaller("h:a=i:"); f != "h:a=i:" {
		t.Error(f)
	}
}

// TestAppendNamed: of claims that policies only compare as a whole there is a hash, of others the value, of the token's principal a hash
// where a policy looks at it; of claims that nobody names there is nothing. It allocates nothing.
func TestAppendNamed(t *testing.T) {
	rule := func(w ...model.PolicyCondition) model.PolicyRule { return model.PolicyRule{Name: "r", When: w} }
	text := func(s string) []model.StringMatch { return []model.StringMatch{{Value: s}} }
	s := &model.Security{Policies: []model.Policy{{Name: "p", Action: model.ActionAudit, Rules: []model.PolicyRule{
		rule(model.PolicyCondition{Kind: model.ConditionClaim, Name: "groups", Values: text("staff")}),
		rule(model.PolicyCondition{Kind: model.ConditionClaim, Name: "email", Values: []model.StringMatch{{Kind: model.StringSuffix, Value: "@x"}}}),
		{Name: "e", Expression: `token.claims["tenant"] == "a" && request.headers["X-Team"] == "b"`}}}}}
	a := &authz.Attributes{Port: 80, HTTP: true, Token: "https://issuer/alice", Fields: decision.Fields{
		{Kind: model.ConditionClaim, Name: "groups", Values: []string{strings.Repeat("dev", 99), "staff"}}, {Kind: model.ConditionClaim, Name: "email", Values: []string{"alice@x"}},
		{Kind: model.ConditionClaim, Name: "tenant", Values: []string{"a"}}, {Kind: model.ConditionClaim, Name: "secret", Values: []string{"never"}}, {Name: "x-team", Values: []string{"b"}}}}
	open := func(model.ConditionKind, string) bool { return false }
	compiled := func() *authz.Set {
		set, err := authz.Compile(s, nil, cel.Compile)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	set := compiled()
	want := "K:groups=" + decision.Hash(strings.Repeat("dev", 99)) + "&K:groups=" + decision.Hash("staff") + "&k:email=alice@x&k:tenant=a&h:x-team=b"
	b := decision.AppendNamed(nil, set, a, open)
	if string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
	if n := testing.AllocsPerRun(100, func() { b = decision.AppendNamed(b[:0], set, a, open) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	f := decision.ParseFields(string(b))
	if len(f) != 4 || !f[0].Hashed || f[1].Hashed || len(f[0].Values) != 2 {
		t.Errorf("%+v", f)
	}
	s.Policies[0].Rules[0].From = []model.PolicySource{{TokenPrincipals: text("https://issuer/bob")}}
	b = decision.AppendNamed(nil, compiled(), a, open)
	if k := (&decision.Key{Fields: string(b)}).Known(); k.Subject != decision.Hash("https://issuer/alice") || strings.Contains(string(b), "alice/") {
		t.Errorf("%s", b)
	}
}

// TestIssuers: whose tokens are believed has a name of its own, whoever needs one and in whatever order they are written.
func TestIssuers(t *testing.T) {
	a, b := model.TokenIssuer{Name: "a", Issuer: "https://a", Keys: "{}"}, model.TokenIssuer{Name: "b", Issuer: "https://b", Keys: "{}"}
	name := func(list ...model.TokenIssuer) string {
		return decision.Issuers(&model.Security{Tokens: list}, nil, 80)
	}
	needs, other, elsewhere := a, a, b
	needs.Required, needs.RequiredPaths = true, []model.PolicyPath{{}}
	other.Audiences = []string{"x"}
	elsewhere.Ports = []uint16{81}
	if name() != "" || name(a, b) != name(b, a) || name(a) != name(needs) || name(a) != name(a, other) || name(a) != name(a, elsewhere) {
		t.Error("what is the same has different names")
	}
	if name(a) == name(other) || name(a) == name(a, b) {
		t.Error("what is different has the same name")
	}
}
