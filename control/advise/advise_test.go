package advise_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/advise"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
	"github.com/tulle-mesh/tulle/model/decision"
)

const now = 1_800_000_000

var cart = model.ServiceName{Namespace: "default", Name: "cart"}

// one is a registry of one service.
type one struct{ s *registry.Service }

func (o one) Services() []*registry.Service { return []*registry.Service{o.s} }

func (o one) Service(n model.ServiceName) (*registry.Service, bool) { return o.s, n == o.s.Name }

func compiler() compile.Compiler {
	return compile.Compiler{Index: compile.NewIndex(nil), Services: one{&registry.Service{Service: model.Service{Name: cart,
		Ports: []model.ServicePort{{Name: "http", Port: 80}, {Name: "admin", Port: 81}, {Name: "db", Port: 5432}}}}}}
}

func id(name string) string { return "spiffe://tulle.local/ns/default/sa/" + name }

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// request is all that there is about one, also what nobody records.
type request struct {
	authz.Attributes
	grpc   bool
	fields decision.Fields
	labels string
	first  netip.Addr // the first client, as a trusted hop says
	issuer string     // of its token; "": it bears none
	sub    string
}

func random(r *rand.Rand) (q request) {
	q.Principal = pick(r, "", id("web"), id("admin"), id("job"), id("web"), id("job"), "spiffe://other.example/ns/default/sa/web")
	q.TrustDomain, q.Namespace, q.Account, _ = decision.Parts(q.Principal)
	q.Federated = q.TrustDomain == "other.example"
	if q.Account != "" {
		q.Account = q.Namespace + "/" + q.Account
	}
	q.IP, q.first, q.Now = netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))}), netip.AddrFrom4([4]byte{10, 0, 1, byte(r.IntN(2))}), now
	q.RemoteIP = q.IP
	q.labels = pick(r, "version=v1", "version=v2")
	if r.IntN(5) == 0 {
		q.Port = 5432
		return q
	}
	q.Port, q.HTTP = pick[uint16](r, 80, 80, 81), true
	q.Method, q.Host = pick(r, "GET", "POST", "DELETE", "get"), pick(r, "cart", "cart.default")
	q.Path = pick(r, "/", "/items", fmt.Sprintf("/items/%d", r.IntN(50)), fmt.Sprintf("/u/%c%c/x", 'a'+r.IntN(26), 'a'+r.IntN(26)), "/a*", "/{id}", "/a/{b}", "/~x", "*", "", "/shop/")
	if r.IntN(6) == 0 {
		q.grpc, q.Method, q.Path = true, "POST", pick(r, "/shop.Cart/Get", "/shop.Cart/Put", "/shop.Cart/7")
		q.Procedure = q.Path[1:]
	}
	q.fields = decision.Fields{{Name: "x-team"}, {Name: "x-hidden"}}
	if r.IntN(2) == 0 {
		q.fields[0].Values = []string{pick(r, "blue", "red")}
		q.fields[1].Values = []string{pick(r, "yes", "no")}
	}
	if q.issuer = pick(r, "", "", issuerA, issuerA, issuerB, issuerC); q.issuer != "" {
		q.sub = pick(r, "alice", "bob")
		q.fields = append(q.fields, decision.Field{Kind: model.ConditionClaim, Name: "groups", Values: pick(r, []string{"staff"}, []string{"dev", "staff"}, []string{"dev"}, nil)},
			decision.Field{Kind: model.ConditionClaim, Name: "email", Values: []string{q.sub + pick(r, "@x", "@y")}})
	}
	q.Fields = q.fields
	return q
}

const issuerA, issuerB, issuerC = "https://a.example", "https://b.example", "https://c.example"

// published reports whether a request came in through a published port.
func (q *request) published() bool { return q.Principal == "" }

// under answers a request as a proxy that enforces s sees it, and why it is refused before policies are asked: the proxy's own ways,
// written down once more.
func (q *request) under(s *model.Security) (a authz.Attributes, bore, refused string) {
	a, labels := q.Attributes, decisions.ParseLabels(q.labels)
	if s.TrustedHops > 0 && q.published() && q.HTTP {
		a.RemoteIP = q.first
	}
	if s.Mode(q.Port, labels).Mode == model.ModeStrict && q.published() {
		return a, "", "mtls_required"
	}
	if !q.HTTP {
		return a, "", ""
	}
	believed, needs, any := false, false, false
	for i := range s.Tokens {
		t := &s.Tokens[i]
		if len(t.Ports) > 0 && !slices.Contains(t.Ports, q.Port) {
			continue
		}
		any, believed = true, believed || t.Issuer == q.issuer
		needs = needs || t.Required || slices.ContainsFunc(t.RequiredPaths, func(p model.PolicyPath) bool { return p.Match.Value == q.Path })
	}
	switch {
	case any && q.issuer == "" && needs:
		return a, "", "token_missing"
	case any && q.issuer != "" && !believed:
		return a, "", "token_invalid"
	case any && q.issuer != "":
		a.Token = q.issuer + "/" + q.sub
		return a, q.issuer, ""
	}
	a.Fields = slices.DeleteFunc(slices.Clone(q.fields), func(f decision.Field) bool { return f.Kind == model.ConditionClaim })
	return a, "", ""
}

// recorded answers what a proxy tells of a request under what is in force; it does not tell what x-hidden was.
func recorded(t *testing.T, c *world, q *request, n int) decision.Seen {
	t.Helper()
	s := decision.Seen{Key: decision.Key{Principal: q.Principal, Port: q.Port, TCP: !q.HTTP, GRPC: q.grpc, Method: q.Method, Host: q.Host, Path: q.Path, Verdict: decision.Allowed},
		Count: 1, First: int64(n), Last: int64(n), Request: fmt.Sprint(n)}
	in, set := c.enforced(t, q)
	a, bore, refused := q.under(in)
	var b []byte
	if issuers := decision.Issuers(in, decisions.ParseLabels(q.labels), q.Port); q.HTTP && issuers != "" && (refused == "" || refused == "token_missing") {
		b = decision.AppendToken(b, issuers, bore)
	}
	switch {
	case refused != "":
		s.Verdict, s.Rule = decision.Denied, refused
	case q.HTTP && !set.Empty():
		b = decision.AppendNamed(b, set, &a, func(_ model.ConditionKind, name string) bool { return name == "x-hidden" })
		b = decision.AppendFirst(b, int(in.TrustedHops), a.RemoteIP)
	}
	if q.Federated {
		b = decision.AppendFederated(b)
	}
	s.Fields = string(decision.AppendCaller(b, q.IP, q.published()))
	return s
}

func gather(t *testing.T, c *world, list []request) []decisions.Service {
	t.Helper()
	m := &decisions.Memory{}
	for i := range list {
		m.Report(cart, decisions.ParseLabels(list[i].labels), decision.Report{Of: []decision.Seen{recorded(t, c, &list[i], i+1)}}, time.UnixMilli(now))
	}
	return m.List(func(model.ServiceName) bool { return true }, time.Time{})
}

// world is what proxies enforce, by the labels of their workloads.
type world struct {
	compile.Compiler
	security *model.Security
	sets     map[string]*authz.Set
}

func newWorld(t *testing.T, c compile.Compiler) *world {
	t.Helper()
	s, ok := c.Security(cart)
	if !ok {
		t.Fatal("no service")
	}
	return &world{c, s, map[string]*authz.Set{}}
}

// enforced answers what the proxy that gets q enforces.
func (w *world) enforced(t *testing.T, q *request) (*model.Security, *authz.Set) {
	t.Helper()
	if w.sets[q.labels] == nil {
		set, err := authz.Compile(w.security, decisions.ParseLabels(q.labels), cel.Compile)
		if err != nil {
			t.Fatal(err)
		}
		w.sets[q.labels] = set
	}
	return w.security, w.sets[q.labels]
}

func verdict(t *testing.T, c *world, q *request) bool {
	t.Helper()
	s, set := c.enforced(t, q)
	a, _, refused := q.under(s)
	switch {
	case refused != "":
		return false
	case q.HTTP:
		return set.Request(&a).Allowed
	}
	return set.Connection(&a).Allowed && !set.HTTP(q.Port)
}

// edits answers what is stored when policies are applied as files.
func edits(t *testing.T, list []*v1alpha1.AuthorizationPolicy) (out []compile.Edit) {
	t.Helper()
	for _, p := range list {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		docs, errs := decode.Read("suggested.yaml", text)
		if len(errs) > 0 {
			t.Fatalf("%s\n%s", errs, text)
		}
		for _, d := range docs {
			out = append(out, compile.Edit{Object: d.Object})
		}
	}
	return out
}

// TestSuggest: everything that was observed is allowed by what is suggested, and nobody else is, whatever he asks for; a caller is not
// allowed a method, a port or a path of another.
func TestSuggest(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var list []request
		for range 1 + r.IntN(300) {
			list = append(list, random(r))
		}
		got, err := advise.Suggest(gather(t, newWorld(t, compiler()), list), compiler(), advise.Options{Now: now, Hosts: seed%2 == 0})
		if err != nil || len(got) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		c := newWorld(t, compiler().Edited(edits(t, got[0].Policies)))
		count := uint64(0)
		for _, u := range got[0].Rules {
			count += u.Count
		}
		if want := uint64(len(list)); count < want {
			t.Errorf("seed %d: %d uses of %d", seed, count, want)
		}
		for i := range list {
			if !verdict(t, c, &list[i]) {
				t.Fatalf("seed %d: %+v was observed and is not allowed by %+v", seed, list[i].Attributes, got[0].Policies)
			}
		}
		for range 100 {
			q := random(r)
			if q.Principal = id(fmt.Sprintf("stranger%d", r.IntN(9))); verdict(t, c, &q) {
				t.Fatalf("seed %d: a stranger may %+v", seed, q.Attributes)
			}
			q = random(r)
			if q.Method == "DELETE" && !slices.ContainsFunc(list, func(o request) bool { return o.Principal == q.Principal && o.Port == q.Port && o.Method == q.Method }) && verdict(t, c, &q) {
				t.Fatalf("seed %d: nobody of that name has deleted anything: %+v", seed, q.Attributes)
			}
		}
	}
}

// TestSuggestIsSmall: callers that did the same share a rule, and identifiers become a template.
func TestSuggestIsSmall(t *testing.T) {
	var list []request
	for i := range 40 {
		q := request{Attributes: authz.Attributes{Principal: id(pick(rand.New(rand.NewPCG(1, uint64(i))), "web", "job")), Port: 80, HTTP: true, Method: "GET", Path: fmt.Sprintf("/items/%d", i)},
			fields: decision.Fields{{Name: "x-team"}}}
		list = append(list, q)
	}
	services := gather(t, newWorld(t, compiler()), list)
	services[0].Entries[0].Verdict, services[0].Others = decision.Denied, 3
	got, err := advise.Suggest(services, compiler(), advise.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	p := got[0].Policies
	if len(p) != 1 || len(p[0].Spec.Rules) != 1 || len(p[0].Spec.Rules[0].From[0].Principals) != 2 || len(p[0].Spec.Rules[0].To) != 1 {
		t.Fatalf("%+v", p)
	}
	if to := p[0].Spec.Rules[0].To[0]; !slices.Equal(to.Paths, []string{"/items/{id}"}) || !slices.Equal(to.Methods, []string{"GET"}) || !slices.Equal(to.Ports, []string{"80"}) {
		t.Errorf("%+v", to)
	}
	if u := got[0].Rules[0]; u.Count != 39 || u.Last != 40 || u.What != "GET /items/39" || u.Request != "40" || u.Rule != "job-and-1-more" {
		t.Errorf("%+v", u)
	}
	if notes := strings.Join(got[0].Notes, "; "); !strings.Contains(notes, "1 requests or connections that were denied") || !strings.Contains(notes, "3 decisions were counted") {
		t.Error(notes)
	}
}

// TestUnused: a rule that decides nothing of what was recorded is named, also one in dry run, and no other.
func TestUnused(t *testing.T) {
	p := policy("cart", v1alpha1.ActionAllow, rule("web", id("web")), rule("nobody", id("nobody")))
	d := policy("no", v1alpha1.ActionDeny, rule("job", id("job")), rule("ghost", id("ghost")))
	d.Spec.DryRun = true
	c := compiler().Edited([]compile.Edit{{Object: p}, {Object: d}})
	list := []request{}
	for _, who := range []string{"web", "job"} {
		list = append(list, request{Attributes: authz.Attributes{Principal: id(who), Port: 80, HTTP: true, Method: "GET", Path: "/"}, fields: decision.Fields{{}}})
	}
	got, err := advise.Suggest(gather(t, newWorld(t, c), list), c, advise.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if u := fmt.Sprint(got[0].Unused); u != "[{AuthorizationPolicy/default/cart nobody Allow} {AuthorizationPolicy/default/no ghost Deny}]" {
		t.Error(u)
	}
}

func policy(name, action string, rules ...v1alpha1.AuthorizationRule) *v1alpha1.AuthorizationPolicy {
	p := &v1alpha1.AuthorizationPolicy{}
	p.Namespace, p.Name, p.Spec.Action, p.Spec.Rules = "default", name, action, rules
	return p
}

func rule(name, principal string) v1alpha1.AuthorizationRule {
	return v1alpha1.AuthorizationRule{Name: name, From: []v1alpha1.AuthorizationSource{{Principals: []string{principal}}}}
}

// randomPolicy is about what is recorded, and with hidden about what is not as well.
func randomPolicy(r *rand.Rand, name string, hidden bool) *v1alpha1.AuthorizationPolicy {
	p := policy(name, pick(r, v1alpha1.ActionAllow, v1alpha1.ActionAllow, v1alpha1.ActionDeny, v1alpha1.ActionAudit))
	p.Spec.DryRun = r.IntN(5) == 0
	if r.IntN(3) == 0 {
		p.Spec.TargetRefs = []v1alpha1.PolicyTarget{{Kind: "Service", Name: "cart", SectionName: pick(r, "80", "db", "")}}
	}
	if r.IntN(4) == 0 {
		p.Spec.Selector = map[string]string{"version": pick(r, "v1", "v2")}
	}
	for i := range 1 + r.IntN(3) {
		u := v1alpha1.AuthorizationRule{Name: fmt.Sprintf("rules[%d]", i)}
		if r.IntN(3) > 0 {
			s := v1alpha1.AuthorizationSource{}
			switch n := r.IntN(10); {
			case n == 0:
				s.IPBlocks = []string{"10.0.0.1"}
			case n == 3:
				s.NotIPBlocks = []string{"10.0.0.0/31"}
			case n == 4:
				s.RemoteIPBlocks = []string{"10.0.1.1", "10.0.0.2"}
			case n == 5:
				s.RequestPrincipals = []string{pick(r, issuerA+"/alice", issuerB+"/bob", "*", issuerA+"/*")}
			case n == 6:
				s.NotRequestPrincipals = []string{pick(r, issuerA+"/alice", issuerB+"/*")}
			case n == 7 && hidden:
				s.RequestPrincipals = []string{pick(r, "*/alice", issuerA+"/al*")}
			case n == 1:
				s.NotPrincipals = []string{id("web")}
			case n == 8:
				s.TrustDomains = []string{pick(r, "other.example", "tulle.local")}
			case n == 2:
				s.Namespaces = []string{"default"}
			default:
				s.Principals = []string{pick(r, id("web"), id("job"), "*")}
			}
			u.From = append(u.From, s)
			if r.IntN(3) == 0 {
				u.From = append(u.From, v1alpha1.AuthorizationSource{ServiceAccounts: []string{"admin"}})
			}
		}
		if r.IntN(3) > 0 {
			u.To = append(u.To, pick(r, v1alpha1.AuthorizationTarget{Methods: []string{"GET"}}, v1alpha1.AuthorizationTarget{Paths: []string{"/items/{id}", "/u/*"}},
				v1alpha1.AuthorizationTarget{Ports: []string{"5432", "81"}}, v1alpha1.AuthorizationTarget{Hosts: []string{"cart"}, NotPaths: []string{"/"}}, v1alpha1.AuthorizationTarget{Procedures: []string{"shop.Cart/*"}}))
		}
		if r.IntN(4) == 0 {
			u.When = append(u.When, v1alpha1.AuthorizationCondition{Header: "X-Team", Values: []string{"blue"}})
		}
		if r.IntN(5) == 0 {
			u.When = append(u.When, pick(r, v1alpha1.AuthorizationCondition{Claim: "groups", Values: []string{"staff"}}, v1alpha1.AuthorizationCondition{Claim: "groups", NotValues: []string{"dev"}},
				v1alpha1.AuthorizationCondition{Claim: "email", Values: []string{"*@x"}}))
		}
		if r.IntN(6) == 0 {
			u.Expression = pick(r, `source.ip.within("10.0.0.0/31")`, `source.remoteIP == "10.0.1.1"`, `request.headers["X-Team"] == "blue"`, `token.claims["email"].endsWith("@x")`, `request.method != "GET"`)
			if hidden && r.IntN(2) == 0 {
				u.Expression = pick(r, `token.principal == "`+issuerA+`/alice"`, `"staff" in token.claims.values("groups")`, `["x-team"].exists(n, n in request.headers)`, `"sid" in request.cookies`)
			}
		}
		if hidden && r.IntN(4) == 0 {
			u.When = append(u.When, v1alpha1.AuthorizationCondition{Header: "x-hidden", NotValues: []string{"yes"}})
		}
		p.Spec.Rules = append(p.Spec.Rules, u)
	}
	return p
}

// watched is a policy in dry run that has what later ones look at recorded.
func watched() *v1alpha1.AuthorizationPolicy {
	p := policy("watched", v1alpha1.ActionAudit, v1alpha1.AuthorizationRule{Name: "w", From: []v1alpha1.AuthorizationSource{{RequestPrincipals: []string{"*"}}}, When: []v1alpha1.AuthorizationCondition{
		{Header: "X-Team"}, {Claim: "groups"}, {Claim: "email", Values: []string{"*a*"}}}})
	p.Spec.DryRun = true
	return p
}

// believes is an AuthenticationPolicy about tokens of issuers.
func believes(name string, issuers ...string) *v1alpha1.AuthenticationPolicy {
	p := &v1alpha1.AuthenticationPolicy{}
	p.Namespace, p.Name = "default", name
	for _, i := range issuers {
		p.Spec.JWT = append(p.Spec.JWT, v1alpha1.JWTIssuer{Issuer: i, JWKS: "{}"})
	}
	return p
}

// randomProof is a policy about modes and about who needs a token; hidden: also about whose tokens are believed.
func randomProof(r *rand.Rand, hidden bool) *v1alpha1.AuthenticationPolicy {
	p := believes("proof", pick(r, issuerA, issuerB))
	if r.IntN(2) == 0 {
		p.Spec.MTLS = &v1alpha1.AuthenticationMTLS{Mode: pick(r, v1alpha1.ModeStrict, v1alpha1.ModePermissive, v1alpha1.ModeDisabled)}
	}
	switch r.IntN(3) {
	case 0:
		p.Spec.JWT[0].Required = true
	case 1:
		p.Spec.JWT[0].RequiredPaths = []string{"/items", "/shop/"}
	}
	if r.IntN(3) == 0 {
		p.Spec.TargetRefs = []v1alpha1.PolicyTarget{{Kind: "Service", Name: "cart", SectionName: pick(r, "80", "81", "")}}
	}
	if hidden && r.IntN(2) == 0 {
		p.Spec.JWT = append(p.Spec.JWT, v1alpha1.JWTIssuer{Issuer: issuerC, JWKS: "{}"})
	}
	return p
}

// hops is a MeshConfig that believes so many proxies in front of published ports.
func hops(n int32) *v1alpha1.MeshConfig {
	m := &v1alpha1.MeshConfig{}
	m.Spec.TrustedHops = n
	return m
}

// TestReplay: with random policies and random traffic, what is told to flip does so when the change is made and all is asked again, and
// nothing else does. What looks at something that was not recorded may be told as not known; where policies do not, nothing is.
func TestReplay(t *testing.T) {
	flips, unknown := 0, 0
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 2))
		hidden := seed%2 == 1
		c := compiler().Edited([]compile.Edit{{Object: watched()}, {Object: believes("base", issuerA, issuerB)}, {Object: hops(int32(r.IntN(2)))}})
		for i := range r.IntN(4) {
			c = c.Edited([]compile.Edit{{Object: randomPolicy(r, fmt.Sprintf("p%d", i), hidden)}})
		}
		if r.IntN(2) == 0 {
			c = c.Edited([]compile.Edit{{Object: randomProof(r, hidden)}})
		}
		change := []compile.Edit{{Object: randomPolicy(r, fmt.Sprintf("p%d", r.IntN(4)), hidden), Delete: r.IntN(3) == 0}}
		if r.IntN(3) == 0 {
			change = append(change[:r.IntN(2)], compile.Edit{Object: randomProof(r, hidden), Delete: r.IntN(3) == 0})
		}
		if hidden && r.IntN(8) == 0 {
			change = append(change, compile.Edit{Object: hops(int32(r.IntN(2)))})
		}
		after := c.Edited(change)
		var list []request
		for range 60 {
			list = append(list, random(r))
		}
		was, is := newWorld(t, c), newWorld(t, after)
		got, err := advise.Replay(gather(t, was, list), c, after, now)
		if err != nil || got.Requests != 60 {
			t.Fatalf("%+v, %v", got, err)
		}
		for i := range got.Unknown { // of what was refused before policies looked at it little is known
			if u := &got.Unknown[i]; !hidden && u.Rule != "mtls_required" && u.Rule != "token_missing" && u.Rule != "token_invalid" {
				t.Fatalf("seed %d: not known: %+v", seed, u)
			}
		}
		flips, unknown = flips+len(got.Flips), unknown+len(got.Unknown)
		selected := slices.ContainsFunc(append(got.Flips, got.Unknown...), func(f advise.Flip) bool { return f.Labels != "" })
		for i := range list {
			q := &list[i]
			k := recorded(t, was, q, 0).Key
			same := func(f advise.Flip) bool { return f.Key == k && (!selected || f.Labels == q.labels) }
			before, will := verdict(t, was, q), verdict(t, is, q)
			at := slices.IndexFunc(got.Flips, same)
			switch {
			case at >= 0 && (before == will || (got.Flips[at].After == decision.Allowed) != will):
				t.Fatalf("seed %d: %+v was to flip, but %v → %v", seed, got.Flips[at], before, will)
			case at < 0 && before != will && !slices.ContainsFunc(got.Unknown, same):
				t.Fatalf("seed %d: %+v flips, and nobody has said so", seed, q.Attributes)
			}
		}
	}
	if flips < 600 || unknown < 300 {
		t.Errorf("%d flips, %d not known: the traffic does not try much", flips, unknown)
	}
}

// TestReplaySays: who is affected, by what, with a sample.
func TestReplaySays(t *testing.T) {
	c := compiler().Edited([]compile.Edit{{Object: policy("cart", v1alpha1.ActionAllow, rule("web", id("web")), rule("job", id("job")))}})
	after := c.Edited([]compile.Edit{{Object: policy("cart", v1alpha1.ActionAllow, rule("web", id("web")))}})
	var list []request
	for i := range 3 {
		list = append(list, request{Attributes: authz.Attributes{Principal: id("job"), Port: 80, HTTP: true, Method: "GET", Path: "/"}, fields: decision.Fields{{}}},
			request{Attributes: authz.Attributes{Principal: id("web"), Port: 80, HTTP: true, Method: "GET", Path: fmt.Sprint("/", i)}, fields: decision.Fields{{}}})
	}
	got, err := advise.Replay(gather(t, newWorld(t, c), list), c, after, now)
	if err != nil || len(got.Flips) != 1 || len(got.Unknown) != 0 || got.Requests != 6 {
		t.Fatalf("%+v, %v", got, err)
	}
	f := got.Flips[0]
	if f.Count != 3 || f.Before != decision.Allowed || f.After != decision.Denied || f.Request != "5" || !slices.Equal(got.Affected, []string{id("job")}) ||
		!strings.Contains(f.By, "nothing allows it; nearest is AuthorizationPolicy/default/cart web: principal "+id("job")+" instead of "+id("web")) {
		t.Errorf("%+v", f)
	}
}
