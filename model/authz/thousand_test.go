package authz_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
)

// shape is policies of one rule each, of which the last is the only one that a request fits.
type shape struct {
	name  string
	rule  func(i int) model.PolicyRule
	asks  func(a *authz.Attributes, i int)
	found bool // the index finds the rule
}

const policies = 1000

func prefix(s string) []model.StringMatch {
	return []model.StringMatch{{Kind: model.StringPrefix, Value: s}}
}

func regex(s string) []model.PolicyPath {
	return []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringRegex, Value: s}}}
}

func to(t model.PolicyTarget) model.PolicyRule {
	return model.PolicyRule{Name: "rules[0]", To: []model.PolicyTarget{t}}
}

func when(kind model.ConditionKind, name, value string) model.PolicyRule {
	return model.PolicyRule{Name: "rules[0]", When: []model.PolicyCondition{{Kind: kind, Name: name, Values: exact(value)}}}
}

func spiffe(i int) string {
	return fmt.Sprintf("spiffe://tulle.local/ns/team%d/sa/s%d", i%40, i)
}

// callers are shapes of rules about who asks.
func callers() []shape {
	source := func(name string, f func(i int) model.PolicySource, asks func(*authz.Attributes, int)) shape {
		return shape{name, func(i int) model.PolicyRule { return from(f(i)) }, asks, true}
	}
	v4 := func(i int) string { return fmt.Sprintf("10.%d.%d.", i/250, i%250) }
	return []shape{
		source("principals", func(i int) model.PolicySource { return model.PolicySource{Principals: exact(spiffe(i))} },
			func(a *authz.Attributes, i int) { a.Principal = spiffe(i) }),
		source("principals, three each", func(i int) model.PolicySource {
			return model.PolicySource{Principals: exact(spiffe(i), spiffe(i+policies), spiffe(i+2*policies))}
		}, func(a *authz.Attributes, i int) { a.Principal = spiffe(i + policies) }),
		source("principal prefixes", func(i int) model.PolicySource {
			return model.PolicySource{Principals: prefix(fmt.Sprintf("spiffe://tulle.local/ns/team%d/", i))}
		}, func(a *authz.Attributes, i int) {
			a.Principal = fmt.Sprintf("spiffe://tulle.local/ns/team%d/sa/web", i)
		}),
		source("accounts", func(i int) model.PolicySource { return model.PolicySource{Accounts: exact(fmt.Sprint("shop/s", i))} },
			func(a *authz.Attributes, i int) { a.Account = fmt.Sprint("shop/s", i) }),
		source("namespaces", func(i int) model.PolicySource { return model.PolicySource{Namespaces: exact(fmt.Sprint("n", i))} },
			func(a *authz.Attributes, i int) { a.Namespace = fmt.Sprint("n", i) }),
		source("trust domains", func(i int) model.PolicySource {
			return model.PolicySource{TrustDomains: exact(fmt.Sprint("d", i))}
		}, func(a *authz.Attributes, i int) { a.TrustDomain = fmt.Sprint("d", i) }),
		source("ipBlocks", func(i int) model.PolicySource { return model.PolicySource{IPs: []string{v4(i) + "0/24"}} },
			func(a *authz.Attributes, i int) { a.IP = netip.MustParseAddr(v4(i) + "9") }),
		source("ipBlocks of IPv6", func(i int) model.PolicySource {
			return model.PolicySource{IPs: []string{fmt.Sprintf("2001:db8:%x::/45", 8*i)}}
		}, func(a *authz.Attributes, i int) { a.IP = netip.MustParseAddr(fmt.Sprintf("2001:db8:%x:1::1", 8*i+3)) }),
		source("remoteIpBlocks", func(i int) model.PolicySource { return model.PolicySource{RemoteIPs: []string{v4(i) + "7/32"}} },
			func(a *authz.Attributes, i int) { a.RemoteIP = netip.MustParseAddr("::ffff:" + v4(i) + "7") }),
		source("token principals", func(i int) model.PolicySource {
			return model.PolicySource{TokenPrincipals: exact(fmt.Sprint("https://issuer.example/u", i))}
		}, func(a *authz.Attributes, i int) { a.Token = fmt.Sprint("https://issuer.example/u", i) }),
		{"notPrincipals", func(i int) model.PolicyRule {
			return from(model.PolicySource{NotPrincipals: exact(spiffe(max(0, i+2-policies)))})
		}, func(a *authz.Attributes, _ int) { a.Principal = spiffe(0) }, false},
		{"principal suffixes", func(i int) model.PolicyRule {
			return from(model.PolicySource{Principals: []model.StringMatch{{Kind: model.StringSuffix, Value: fmt.Sprint("/sa/s", i)}}})
		}, func(a *authz.Attributes, i int) { a.Principal = spiffe(i) }, true},
	}
}

// requests are shapes of rules about what is asked for.
func requests() []shape {
	target := func(name string, f func(i int) model.PolicyTarget, asks func(*authz.Attributes, int)) shape {
		return shape{name, func(i int) model.PolicyRule { return to(f(i)) }, asks, true}
	}
	at := func(name, path, asks string) shape {
		return target(name, func(i int) model.PolicyTarget { return model.PolicyTarget{Paths: paths(fmt.Sprintf(path, i))} },
			func(a *authz.Attributes, i int) { a.Path = fmt.Sprintf(asks, i) })
	}
	verbs := []string{"GET", "POST", "PUT", "DELETE"}
	return []shape{
		at("paths", "/v1/items%d", "/v1/items%d"),
		at("path prefixes", "/v1/items%d/*", "/v1/items%d/a/b"),
		at("path templates", "/v1/items%d/{id}", "/v1/items%d/17"),
		at("path templates with the name behind", "/v1/{tenant}/items%d/{rest...}", "/v1/acme/items%d/a/b"),
		target("methods and paths", func(i int) model.PolicyTarget {
			return model.PolicyTarget{Methods: exact(verbs[i%4]), Paths: paths(fmt.Sprintf("/v1/items%d/{id}", i/4))}
		}, func(a *authz.Attributes, i int) { a.Method, a.Path = verbs[i%4], fmt.Sprintf("/v1/items%d/17", i/4) }),
		target("regex paths with their own beginning", func(i int) model.PolicyTarget {
			return model.PolicyTarget{Paths: regex(fmt.Sprintf("/v1/items%d/[0-9]+", i))}
		}, func(a *authz.Attributes, i int) { a.Path = fmt.Sprintf("/v1/items%d/17", i) }),
		{"regex paths", func(i int) model.PolicyRule {
			return to(model.PolicyTarget{Paths: regex(fmt.Sprintf("/v1/[a-z]+/items%d", i))})
		}, func(a *authz.Attributes, i int) { a.Path = fmt.Sprintf("/v1/acme/items%d", i) }, false},
		target("hosts", func(i int) model.PolicyTarget { return model.PolicyTarget{Hosts: exact(fmt.Sprintf("s%d.example", i))} },
			func(a *authz.Attributes, i int) { a.Host = fmt.Sprintf("s%d.example", i) }),
		target("procedures", func(i int) model.PolicyTarget {
			return model.PolicyTarget{Procedures: prefix(fmt.Sprintf("shop.S%d/", i))}
		}, func(a *authz.Attributes, i int) { a.Procedure = fmt.Sprintf("shop.S%d/Get", i) }),
		target("server names", func(i int) model.PolicyTarget {
			return model.PolicyTarget{ServerNames: exact(fmt.Sprintf("s%d.example", i))}
		}, func(a *authz.Attributes, i int) { a.ServerName = fmt.Sprintf("s%d.example", i) }),
		target("ports", func(i int) model.PolicyTarget { return model.PolicyTarget{Ports: []uint16{uint16(2000 + i)}} },
			func(a *authz.Attributes, i int) { a.Port = uint16(2000 + i) }),
	}
}

// mixed are shapes of rules about both, and about more.
func mixed() []shape {
	caller := func(s string) model.PolicySource { return model.PolicySource{Principals: exact(s)} }
	return []shape{
		{"one caller with path templates", func(i int) model.PolicyRule {
			return from(caller(spiffe(0)), model.PolicyTarget{Paths: paths(fmt.Sprintf("/v1/items%d/{id}", i))})
		}, func(a *authz.Attributes, i int) { a.Principal, a.Path = spiffe(0), fmt.Sprintf("/v1/items%d/17", i) }, true},
		{"30 callers with 34 paths", func(i int) model.PolicyRule {
			return from(caller(spiffe(i%30)), model.PolicyTarget{Paths: paths(fmt.Sprintf("/v1/items%d/{id}", i/30))})
		}, func(a *authz.Attributes, i int) {
			a.Principal, a.Path = spiffe(i%30), fmt.Sprintf("/v1/items%d/17", i/30)
		}, true},
		{"callers with methods and paths", func(i int) model.PolicyRule {
			return from(caller(spiffe(i)), model.PolicyTarget{Methods: exact("GET", "POST"), Paths: paths(fmt.Sprintf("/v1/items%d/{id}", i%7), "/health")})
		}, func(a *authz.Attributes, i int) { a.Principal, a.Path = spiffe(i), fmt.Sprintf("/v1/items%d/17", i%7) }, true},
		{"alternatives of several attributes", func(i int) model.PolicyRule {
			return model.PolicyRule{Name: "rules[0]", From: []model.PolicySource{caller(spiffe(i)), {Namespaces: exact(fmt.Sprint("n", i))}},
				To: []model.PolicyTarget{{Paths: paths("/health")}, {Methods: exact("GET")}}}
		}, func(a *authz.Attributes, i int) { a.Namespace = fmt.Sprint("n", i) }, true},
		{"namespaces but callers", func(i int) model.PolicyRule {
			return from(model.PolicySource{Namespaces: exact(fmt.Sprint("n", i)), NotPrincipals: exact(spiffe(0))})
		}, func(a *authz.Attributes, i int) { a.Namespace = fmt.Sprint("n", i) }, true},
		{"headers", func(i int) model.PolicyRule { return when(model.ConditionHeader, "X-Team", fmt.Sprint(i)) },
			func(a *authz.Attributes, i int) { a.Fields = oneField{model.ConditionHeader, "x-team", fmt.Sprint(i)} }, true},
		{"claims", func(i int) model.PolicyRule { return when(model.ConditionClaim, "team", fmt.Sprint(i)) },
			func(a *authz.Attributes, i int) { a.Fields = oneField{model.ConditionClaim, "team", fmt.Sprint(i)} }, true},
		{"contained texts", func(i int) model.PolicyRule {
			return from(model.PolicySource{Principals: []model.StringMatch{{Kind: model.StringContains, Value: fmt.Sprintf("team%d/sa/s%d", i%40, i)}}})
		}, func(a *authz.Attributes, i int) { a.Principal = spiffe(i) }, false},
		{"expressions with paths", func(i int) model.PolicyRule {
			r := to(model.PolicyTarget{Paths: paths(fmt.Sprintf("/v1/items%d", i))})
			r.Expression = `request.method == "GET"`
			return r
		}, func(a *authz.Attributes, i int) { a.Path = fmt.Sprintf("/v1/items%d", i) }, true},
		{"expressions", func(i int) model.PolicyRule {
			return model.PolicyRule{Name: "rules[0]", Expression: fmt.Sprintf(`request.path == "/v1/items%d"`, i)}
		}, func(a *authz.Attributes, i int) { a.Path = fmt.Sprintf("/v1/items%d", i) }, false},
	}
}

func shapes() []shape { return append(append(callers(), requests()...), mixed()...) }

// oneField is a request with one field.
type oneField struct {
	kind        model.ConditionKind
	name, value string
}

func (f oneField) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	return f.value, i == 0 && kind == f.kind && name == f.name
}

// set makes n policies of the shape, and the request of the last; every tenth denies, but the last.
func (s shape) set(t testing.TB, n int) (*authz.Set, *authz.Attributes) {
	t.Helper()
	all := &model.Security{DenyByDefault: true}
	for i := range n {
		p := allow(fmt.Sprint("p", i), s.rule(i+policies-n))
		if i%10 == 0 {
			p.Action = model.ActionDeny
		}
		all.Policies = append(all.Policies, p)
	}
	set, err := authz.Compile(all, nil, func(text string) (authz.Expression, error) { return cel.Compile(text) })
	if err != nil {
		t.Fatal(err)
	}
	a := cart("GET", "/")
	s.asks(a, policies-1)
	if v := set.Request(a); !v.Allowed || v.By.Policy != fmt.Sprint("p", n-1) {
		t.Fatalf("%s: %+v, by %+v", s.name, v, v.By)
	}
	return set, a
}

// TestCandidates: of a thousand policies a request is held against few, whatever they have in common; and nothing is allocated.
func TestCandidates(t *testing.T) {
	for _, s := range shapes() {
		set, a := s.set(t, policies)
		if n := set.Candidates(a); (n <= 8) != s.found {
			t.Errorf("%s: %d rules are looked at", s.name, n)
		}
		if s.name == "expressions" || s.name == "expressions with paths" {
			continue // evaluating them allocates
		}
		if n := testing.AllocsPerRun(10, func() { set.Request(a) }); n > 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}

func BenchmarkThousand(b *testing.B) {
	for _, s := range shapes() {
		b.Run(s.name, func(b *testing.B) {
			set, a := s.set(b, policies)
			b.ReportAllocs()
			for b.Loop() {
				if !set.Request(a).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}

// ownPorts is policies of which every other one is about a port of its own.
func ownPorts(n int) *model.Security {
	all := &model.Security{}
	for i := range n {
		all.Policies = append(all.Policies, allow(fmt.Sprint("p", i), from(model.PolicySource{Principals: exact(spiffe(i))})))
		if i%2 == 0 {
			all.Policies[i].Ports = []uint16{uint16(i + 1)}
		}
	}
	return all
}

// TestOwnPorts: what is about every port is indexed once, not for each port that a policy names.
func TestOwnPorts(t *testing.T) {
	count := func(n int) float64 {
		all := ownPorts(n)
		return testing.AllocsPerRun(1, func() { compile(t, all) })
	}
	if few, many := count(100), count(800); many > 16*few {
		t.Errorf("eight times the policies take %v allocations instead of %v", many, few)
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		all := &model.Security{}
		for i := range n {
			all.Policies = append(all.Policies, allow(fmt.Sprint("p", i), from(model.PolicySource{Principals: exact(spiffe(i%300), spiffe(i%301))},
				model.PolicyTarget{Methods: exact("GET", "POST"), Paths: paths(fmt.Sprintf("/v1/items%d/{id}", i), "/health")})))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				compile(b, all)
			}
		})
	}
	b.Run("500 ports", func(b *testing.B) {
		all := ownPorts(1000)
		for b.Loop() {
			compile(b, all)
		}
	})
}
