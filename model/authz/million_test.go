package authz_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// random draws policies and requests from few values, so that they meet.
type random struct{ *rand.Rand }

func (r random) one(list ...string) string { return list[r.IntN(len(list))] }

// odds is true once in n times.
func (r random) odds(n int) bool { return r.IntN(n) == 0 }

func (r random) texts(list ...string) (out []model.StringMatch) {
	for range 1 + r.IntN(2) {
		m := model.StringMatch{Kind: model.StringMatchKind(max(0, r.IntN(9)-4)), Value: r.one(list...), IgnoreCase: r.odds(8)}
		switch m.Kind {
		case model.StringPrefix:
			m.Value = m.Value[:r.IntN(len(m.Value)+1)]
		case model.StringSuffix, model.StringContains:
			m.Value = m.Value[r.IntN(len(m.Value)+1):]
		case model.StringRegex:
			m.Value = r.one("[a-d]+", ".*", "GET|POST", "/a/.*", "/a(/[^/]*)?", "^/a.*$", "(?i)/A.*|/admin", "/adminx?.*", "spiffe://.*/cart", "spiffe://tulle.local/ns/shop/.*", "cart|web", "i/(a|b)")
		}
		out = append(out, m)
	}
	return out
}

var (
	accounts = []string{"cart", "web", "bank", "Cart"}
	spaces   = []string{"default", "shop", "prod"}
	methods  = []string{"GET", "POST", "PUT"}
	where    = []string{"/", "/a", "/a/b", "/a/7/b", "/a/b/c/d", "/admin", "/admin/x", "/ab", "/a/", "/a//b", "/b/a"}
	clients  = []netip.Addr{{}, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.1.3.3"), netip.MustParseAddr("::ffff:10.9.9.9"), netip.MustParseAddr("192.168.1.1"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd80::1%eth0"), netip.MustParseAddr("8.8.8.8")}
	ids = func() (out []string) {
		for _, d := range []string{"tulle.local", "other"} {
			for _, n := range spaces {
				for _, a := range accounts {
					out = append(out, "spiffe://"+d+"/ns/"+n+"/sa/"+a)
				}
			}
		}
		return out
	}()
)

func (r random) paths() (out []model.PolicyPath) {
	for _, m := range r.texts(where...) {
		p := model.PolicyPath{Match: m}
		if r.odds(3) {
			p = model.PolicyPath{Template: true, Match: model.StringMatch{Value: r.one("/a/{id}", "/a/{id}/b", "/a/{rest...}", "/{id}", "/{rest...}", "/admin",
				"/a/{id}/{rest...}", "/{id}/b", "/{id}/b/{rest...}", "/a//{id}", "/{id}/{id}/b", "/a/")}}
		}
		out = append(out, p)
	}
	return out
}

func (r random) nets() (out []string) {
	for range 1 + r.IntN(2) {
		out = append(out, r.one("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/23", "10.1.2.3/32", "192.168.0.0/16", "0.0.0.0/0", "fd00::/8", "fd00::/9", "fd00::1/128", "::/0"))
	}
	return out
}

// security draws policies: sometimes few, sometimes so many of one action that they are indexed.
func (r random) security() *model.Security {
	s := &model.Security{DenyByDefault: r.odds(4)}
	action, size := model.Action(r.IntN(4)), 1+3*r.IntN(5)
	for i := range r.IntN(5) {
		p := model.Policy{Name: fmt.Sprint("p", i), Action: model.Action(r.IntN(4))}
		if r.odds(2) {
			p.Action = action
		}
		if p.Action == model.ActionExternal {
			p.Authorizer = r.one("one", "two")
		}
		if r.odds(5) {
			p.Ports = []uint16{80}
		}
		if r.odds(8) {
			p.Labels = []model.Label{{Name: "version", Value: r.one("v1", "v2")}}
		}
		p.DryRun = r.odds(8)
		for k := range r.IntN(size) {
			p.Rules = append(p.Rules, r.rule(fmt.Sprint("rules[", k, "]")))
		}
		s.Policies = append(s.Policies, p)
	}
	return s
}

func (r random) source() (f model.PolicySource) {
	for range 1 + r.IntN(2) {
		switch r.IntN(20) {
		case 0, 1:
			f.Principals = r.texts(ids...)
		case 2:
			f.NotPrincipals = r.texts(ids...)
		case 3, 4:
			f.Accounts = r.texts(accounts...)
		case 5:
			f.NotAccounts = r.texts(accounts...)
		case 6, 7:
			f.Namespaces = r.texts(spaces...)
		case 8:
			f.NotNamespaces = r.texts(spaces...)
		case 9, 10:
			f.TrustDomains = r.texts("tulle.local", "other")
		case 11:
			f.NotTrustDomains = r.texts("tulle.local", "other")
		case 12, 13:
			f.IPs = r.nets()
		case 14:
			f.NotIPs = r.nets()
		case 15:
			f.RemoteIPs = r.nets()
		case 16:
			f.NotRemoteIPs = r.nets()
		case 17, 18:
			f.TokenPrincipals = r.texts("i/a", "i/b")
		case 19:
			f.NotTokenPrincipals = r.texts("i/a", "i/b")
		}
	}
	return f
}

func (r random) target() (to model.PolicyTarget) {
	for range 1 + r.IntN(2) {
		switch r.IntN(16) {
		case 0, 1:
			to.Methods = r.texts(methods...)
		case 2:
			to.NotMethods = r.texts(methods...)
		case 3, 4, 5, 6:
			to.Paths = r.paths()
		case 7:
			to.NotPaths = r.paths()
		case 8, 9:
			to.Hosts = r.texts("reviews", "cart")
		case 10:
			to.NotHosts = r.texts("reviews", "cart")
		case 11:
			to.Procedures = r.texts("", "p.S/M")
		case 12:
			to.NotProcedures = r.texts("", "p.S/M")
		case 13:
			to.Ports, to.NotServerNames = []uint16{80, 81}[r.IntN(2):], r.texts("db", "")
		case 14:
			to.NotPorts = []uint16{81}
		case 15:
			to.ServerNames = r.texts("db", "")
		}
	}
	return to
}

var kinds = []model.ConditionKind{model.ConditionHeader, model.ConditionQuery, model.ConditionCookie, model.ConditionClaim}

func (r random) rule(name string) model.PolicyRule {
	out := model.PolicyRule{Name: name}
	for range r.IntN(3) {
		out.From = append(out.From, r.source())
	}
	for range r.IntN(3) {
		out.To = append(out.To, r.target())
	}
	for r.odds(4) {
		w := model.PolicyCondition{Kind: kinds[r.IntN(len(kinds))], Name: r.one("a", "b")}
		if w.Kind == model.ConditionHeader {
			w.Name = r.one("X-A", "x-b")
		}
		if !r.odds(4) {
			w.Values = r.texts("1", "2")
		}
		if r.odds(3) {
			w.NotValues = r.texts("1", "2", "3")
		}
		out.When = append(out.When, w)
	}
	if r.odds(8) {
		out.Expression = r.one("is ", "fails ") + r.one(methods...)
	}
	if r.odds(10) {
		out.Begins = int64(r.IntN(100))
	}
	if r.odds(10) {
		out.Ends = int64(r.IntN(100))
	}
	return out
}

func (r random) asks() *authz.Attributes {
	domain, n, a := "tulle.local", r.one(spaces...), r.one(accounts...)
	federated := r.odds(6)
	if federated {
		domain = "other"
	}
	out := &authz.Attributes{Principal: "spiffe://" + domain + "/ns/" + n + "/sa/" + a, TrustDomain: domain, Namespace: n, Account: a, Federated: federated,
		IP: clients[r.IntN(len(clients))], Port: uint16(80 + r.IntN(2)), ServerName: r.one("", "db"), Now: int64(r.IntN(100)), HTTP: true,
		Method: r.one(methods...), Path: r.one(where...), Host: r.one("reviews", "cart"), Procedure: r.one("", "p.S/M"), Token: r.one("", "i/a", "i/b")}
	if r.odds(8) {
		out.Principal, out.TrustDomain, out.Namespace, out.Account, out.Federated = "", "", "", "", false
	}
	if r.odds(2) {
		out.RemoteIP = clients[r.IntN(len(clients))]
	}
	if r.odds(8) {
		return out
	}
	f := fields{}
	for range r.IntN(6) {
		k := r.one("0x-a", "0x-b", "1a", "1b", "2a", "2b", "3a", "3b")
		f[k] = append(f[k], r.one("1", "2", "3"))
	}
	out.Fields = f
	return out
}

// tally counts answers, so that none of them is rare.
type tally struct{ allowed, denied, absent, audited, asked, dry, rules, candidates int }

func (c *tally) add(v answer) {
	for _, one := range []struct {
		n  *int
		is bool
	}{{&c.allowed, v.allowed}, {&c.denied, !v.allowed && !v.absent}, {&c.absent, v.absent}, {&c.audited, v.audit != ""}, {&c.asked, v.external != ""}, {&c.dry, v.dry}} {
		if one.is {
			*one.n++
		}
	}
}

// TestMillion: a million pairs of policies and requests, decided as the naive evaluation decides, by the same rules.
func TestMillion(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))}
	labels := []model.Label{{Name: "version", Value: "v1"}}
	var c tally
	for range 10_000 {
		s := r.security()
		set, err := authz.Compile(s, labels, expressions)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			a, request := r.asks(), !r.odds(4)
			v := set.Connection(a)
			if request {
				v = set.Request(a)
			}
			got, want := answerOf(v), naive{s, labels, a, request}.verdict()
			if got != want {
				t.Fatalf("request %v\n%+v\nof %+v\nanswered %+v,\nthe reference %+v", request, s, a, got, want)
			}
			c.add(got)
			if v.Absent {
				if near, missing := set.Nearest(a, request); near != nil && len(missing) == 0 {
					t.Fatalf("nothing is missing of %+v\n%+v\n%+v", near, s, a)
				}
			}
		}
		all, some := set.Looked(r.asks())
		c.rules, c.candidates = c.rules+all, c.candidates+some
	}
	t.Logf("%+v", c)
	if min(c.allowed, c.denied, c.absent, c.audited, c.asked) < 50_000 || c.dry < 20_000 {
		t.Errorf("too much alike: %+v", c)
	}
	if c.candidates > c.rules*3/4 {
		t.Errorf("of %d rules %d were looked at: too few policies for an index", c.rules, c.candidates)
	}
}
