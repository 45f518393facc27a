package authz_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// fields are the values of conditions, by kind and name.
type fields map[string][]string

func (f fields) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	v := f[fmt.Sprint(kind)+name]
	if i >= len(v) {
		return "", false
	}
	return v[i], true
}

func exact(list ...string) (out []model.StringMatch) {
	for _, s := range list {
		out = append(out, model.StringMatch{Value: s})
	}
	return out
}

func paths(list ...string) (out []model.PolicyPath) {
	for _, s := range list {
		p := model.PolicyPath{Match: model.StringMatch{Value: s}}
		switch {
		case strings.Contains(s, "{"):
			p.Template = true
		case strings.HasSuffix(s, "*"):
			p.Match = model.StringMatch{Kind: model.StringPrefix, Value: strings.TrimSuffix(s, "*")}
		}
		out = append(out, p)
	}
	return out
}

func allow(name string, rules ...model.PolicyRule) model.Policy {
	return model.Policy{Name: name, Action: model.ActionAllow, Rules: rules}
}

func deny(name string, rules ...model.PolicyRule) model.Policy {
	return model.Policy{Name: name, Action: model.ActionDeny, Rules: rules}
}

func from(s model.PolicySource, to ...model.PolicyTarget) model.PolicyRule {
	return model.PolicyRule{Name: "rules[0]", From: []model.PolicySource{s}, To: to}
}

func compile(t testing.TB, s *model.Security, labels ...model.Label) *authz.Set {
	t.Helper()
	set, err := authz.Compile(s, labels, nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func cart(method, at string) *authz.Attributes {
	return &authz.Attributes{Principal: "spiffe://tulle.local/ns/default/sa/cart", TrustDomain: "tulle.local", Namespace: "default", Account: "cart",
		IP: netip.MustParseAddr("10.1.2.3"), Port: 80, HTTP: true, Method: method, Path: at, Host: "reviews"}
}

// TestOrder: deny before allow; where something allows, the rest is denied; the default is for where nothing is said.
func TestOrder(t *testing.T) {
	fromCart := model.PolicySource{Accounts: exact("cart")}
	get := model.PolicyTarget{Methods: exact("GET")}
	admin := model.PolicyTarget{Paths: paths("/admin*")}
	for name, c := range map[string]struct {
		policies []model.Policy
		deny     bool
		asks     *authz.Attributes
		allowed  bool
		by       string
		absent   bool
	}{
		"nothing":              {nil, false, cart("GET", "/"), true, "", false},
		"nothing, denied":      {nil, true, cart("GET", "/"), false, "", true},
		"allowed":              {[]model.Policy{allow("a", from(fromCart, get))}, false, cart("GET", "/"), true, "a", false},
		"nothing allows":       {[]model.Policy{allow("a", from(fromCart, get))}, false, cart("POST", "/"), false, "", true},
		"an empty policy":      {[]model.Policy{allow("a")}, false, cart("GET", "/"), false, "", true},
		"deny wins":            {[]model.Policy{allow("a", from(fromCart)), deny("d", from(fromCart, admin))}, false, cart("GET", "/admin/x"), false, "d", false},
		"deny is for others":   {[]model.Policy{deny("d", from(fromCart, admin))}, false, cart("GET", "/x"), true, "", false},
		"a rule for all":       {[]model.Policy{allow("a", model.PolicyRule{})}, true, cart("GET", "/"), true, "a", false},
		"allowed by default":   {[]model.Policy{deny("d", from(fromCart, admin))}, true, cart("GET", "/x"), false, "", true},
		"a policy of a port":   {[]model.Policy{{Name: "p", Action: model.ActionAllow, Ports: []uint16{81}}}, false, cart("GET", "/"), true, "", false},
		"a policy of the port": {[]model.Policy{{Name: "p", Action: model.ActionAllow, Ports: []uint16{80}}}, false, cart("GET", "/"), false, "", true},
	} {
		v := compile(t, &model.Security{DenyByDefault: c.deny, Policies: c.policies}).Request(c.asks)
		by := ""
		if v.By != nil {
			by = v.By.Policy
		}
		if v.Allowed != c.allowed || by != c.by || v.Absent != c.absent {
			t.Errorf("%s: allowed %v by %q, absent %v", name, v.Allowed, by, v.Absent)
		}
	}
}

// TestConnection: what needs a request does not open a connection that is none, and closes it where it denies.
func TestConnection(t *testing.T) {
	a := cart("", "")
	a.HTTP = false
	set := compile(t, &model.Security{Policies: []model.Policy{
		allow("get", from(model.PolicySource{Accounts: exact("cart")}, model.PolicyTarget{Methods: exact("GET")})),
		allow("web", from(model.PolicySource{Accounts: exact("web")})),
	}})
	if v := set.Connection(a); v.Allowed || !v.Absent {
		t.Errorf("a connection was allowed by a rule about requests: %+v", v)
	}
	if !set.HTTP(80) {
		t.Error("the port is not known to be HTTP")
	}
	a.Account = "web"
	if v := set.Connection(a); !v.Allowed {
		t.Errorf("refused: %+v", v)
	}
	set = compile(t, &model.Security{Policies: []model.Policy{deny("d", from(model.PolicySource{Accounts: exact("cart")}, model.PolicyTarget{Paths: paths("/admin")}))}})
	if v := set.Connection(a); !v.Allowed {
		t.Errorf("refused: %+v", v)
	}
	a.Account = "cart"
	if v := set.Connection(a); v.Allowed || v.By == nil || v.By.Policy != "d" {
		t.Errorf("a denial about requests let a connection through: %+v", v)
	}
}

// TestDryRun: it decides nothing and says what it would have decided.
func TestDryRun(t *testing.T) {
	d := deny("d", from(model.PolicySource{Accounts: exact("cart")}))
	d.DryRun = true
	v := compile(t, &model.Security{Policies: []model.Policy{d}}).Request(cart("GET", "/"))
	if !v.Allowed || !v.Dry || v.DryBy == nil || v.DryBy.Policy != "d" || !v.DryBy.DryRun {
		t.Errorf("%+v", v)
	}
	a := allow("a", from(model.PolicySource{Accounts: exact("web")}))
	a.DryRun = true
	v = compile(t, &model.Security{Policies: []model.Policy{a}}).Request(cart("GET", "/"))
	if !v.Allowed || !v.Dry || !v.DryAbsent {
		t.Errorf("%+v", v)
	}
}

func TestLabels(t *testing.T) {
	d := deny("d", model.PolicyRule{})
	d.Labels = []model.Label{{Name: "version", Value: "v2"}}
	s := &model.Security{Policies: []model.Policy{d}}
	if !compile(t, s, model.Label{Name: "version", Value: "v1"}).Request(cart("GET", "/")).Allowed {
		t.Error("a policy for v2 denied v1")
	}
	if compile(t, s, model.Label{Name: "version", Value: "v2"}).Request(cart("GET", "/")).Allowed {
		t.Error("a policy for v2 did not deny v2")
	}
}

// failing is an expression that cannot be evaluated.
type failing struct{}

func (failing) Holds(*authz.Attributes) (bool, error) { return false, errors.New("too expensive") }

// TestExpressionFails: it neither lets anybody in nor lets anybody by.
func TestExpressionFails(t *testing.T) {
	for _, action := range []model.Action{model.ActionAllow, model.ActionDeny} {
		s := &model.Security{Policies: []model.Policy{{Name: "p", Action: action, Rules: []model.PolicyRule{{Expression: "x"}}}}}
		set, err := authz.Compile(s, nil, func(string) (authz.Expression, error) { return failing{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		if set.Request(cart("GET", "/")).Allowed {
			t.Errorf("action %d: allowed", action)
		}
	}
	if _, err := authz.Compile(&model.Security{Policies: []model.Policy{allow("p", model.PolicyRule{Expression: "x"})}}, nil, nil); err == nil {
		t.Error("an expression was left out")
	}
}

func TestNearest(t *testing.T) {
	set := compile(t, &model.Security{Policies: []model.Policy{
		allow("far", from(model.PolicySource{Accounts: exact("web")}, model.PolicyTarget{Methods: exact("PUT"), Paths: paths("/x")})),
		allow("near", from(model.PolicySource{Accounts: exact("cart")}, model.PolicyTarget{Methods: exact("GET", "HEAD"), Paths: paths("/items/{id}")})),
	}})
	r, m := set.Nearest(cart("POST", "/items/7"), true)
	if r == nil || r.Policy != "near" || len(m) != 1 || m[0].String() != "method POST instead of GET or HEAD" {
		t.Errorf("%+v, %v", r, m)
	}
	a := cart("GET", "/items/7")
	a.Account, a.Principal = "", ""
	if r, m = set.Nearest(a, true); r == nil || r.Policy != "near" || len(m) != 1 || m[0].String() != "no service account where cart is wanted" {
		t.Errorf("%+v, %v", r, m)
	}
}

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template, path string
		fits           bool
	}{
		{"/a/{id}/b", "/a/1/b", true}, {"/a/{id}/b", "/a//b", false}, {"/a/{id}/b", "/a/1/2/b", false}, {"/a/{id}", "/a/", false}, {"/a/{id}", "/a/1/", false},
		{"/{any...}", "/", true}, {"/a/{r...}", "/a", true}, {"/a/{r...}", "/a/b/c", true}, {"/a/{r...}", "/ab", false}, {"/", "/", true}, {"/", "/a", false}, {"/a", "", false},
	} {
		set := compile(t, &model.Security{Policies: []model.Policy{allow("a", model.PolicyRule{To: []model.PolicyTarget{{Paths: []model.PolicyPath{{Template: true, Match: model.StringMatch{Value: c.template}}}}}})}})
		if got := set.Request(cart("GET", c.path)).Allowed; got != c.fits {
			t.Errorf("%s, %s: %v", c.template, c.path, got)
		}
	}
	for _, bad := range []string{"", "a", "/{a}b", "/{a...}/b", "/{", "/{{a}}"} {
		if authz.CheckTemplate(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// reference evaluates as the documentation says, rule by rule, without an index.
func reference(s *model.Security, labels []model.Label, a *authz.Attributes, request bool) (allowed bool, by string, absent bool) {
	match := func(m model.StringMatch, v string) bool {
		w := m.Value
		if m.IgnoreCase && m.Kind != model.StringRegex {
			v, w = strings.ToLower(v), strings.ToLower(w)
		}
		switch m.Kind {
		case model.StringPrefix:
			return strings.HasPrefix(v, w)
		case model.StringSuffix:
			return strings.HasSuffix(v, w)
		case model.StringContains:
			return strings.Contains(v, w)
		case model.StringRegex:
			if m.IgnoreCase {
				w = "(?i)" + w
			}
			return regexp.MustCompile("^(?:" + w + ")$").MatchString(v)
		}
		return v == w
	}
	texts := func(is, not []model.StringMatch, v string) bool {
		fits := func(m model.StringMatch) bool { return match(m, v) }
		return (len(is) == 0 || slices.ContainsFunc(is, fits)) && !slices.ContainsFunc(not, fits)
	}
	ips := func(is, not []string, a netip.Addr) bool {
		in := func(s string) bool { return netip.MustParsePrefix(s).Contains(a) }
		return (len(is) == 0 || slices.ContainsFunc(is, in)) && (len(not) == 0 || a.IsValid() && !slices.ContainsFunc(not, in))
	}
	ports := func(is, not []uint16, p uint16) bool {
		return (len(is) == 0 || slices.Contains(is, p)) && !slices.Contains(not, p)
	}
	inPath := func(p model.PolicyPath) bool {
		if !p.Template {
			return match(p.Match, a.Path)
		}
		pattern := p.Match.Value
		if i := strings.Index(pattern, "/{rest...}"); i >= 0 {
			return a.Path == pattern[:i] || strings.HasPrefix(a.Path, pattern[:i]+"/") && i > 0 || i == 0 && strings.HasPrefix(a.Path, "/") ||
				a.Path != "" && templated(pattern[:i], a.Path)
		}
		ok, _ := path.Match(strings.ReplaceAll(pattern, "{id}", "?*"), a.Path)
		return ok
	}
	holds := func(act model.Action, r *model.PolicyRule) bool {
		stripped := !request && act != model.ActionAllow
		one := len(r.From) == 0
		for _, f := range r.From {
			tok := texts(f.TokenPrincipals, f.NotTokenPrincipals, a.Token)
			if !request {
				tok = stripped || len(f.TokenPrincipals)+len(f.NotTokenPrincipals) == 0 // nothing is said about tokens
			}
			one = one || tok && texts(f.Principals, f.NotPrincipals, a.Principal) && texts(f.Namespaces, f.NotNamespaces, a.Namespace) &&
				texts(f.Accounts, f.NotAccounts, a.Account) && texts(f.TrustDomains, f.NotTrustDomains, a.TrustDomain) &&
				ips(f.IPs, f.NotIPs, a.IP) && ips(f.RemoteIPs, f.NotRemoteIPs, a.RemoteIP)
		}
		if !one {
			return false
		}
		one = len(r.To) == 0
		for _, to := range r.To {
			http := texts(to.Methods, to.NotMethods, a.Method) && texts(to.Hosts, to.NotHosts, a.Host) && texts(to.Procedures, to.NotProcedures, a.Procedure) &&
				(len(to.Paths) == 0 || slices.ContainsFunc(to.Paths, inPath)) && !slices.ContainsFunc(to.NotPaths, inPath)
			if !request {
				http = stripped || !aboutRequests(to)
			}
			one = one || http && ports(to.Ports, to.NotPorts, a.Port) && texts(to.ServerNames, to.NotServerNames, a.ServerName)
		}
		if !one {
			return false
		}
		for _, w := range r.When {
			if !request {
				if stripped {
					continue
				}
				return false
			}
			var values []string
			for i := 0; ; i++ {
				v, ok := a.Fields.Value(w.Kind, w.Name, i)
				if !ok {
					break
				}
				values = append(values, v)
			}
			some := func(list []model.StringMatch) bool {
				return slices.ContainsFunc(values, func(v string) bool {
					return slices.ContainsFunc(list, func(m model.StringMatch) bool { return match(m, v) })
				})
			}
			switch {
			case some(w.NotValues):
				return false
			case len(w.Values) > 0 && !some(w.Values), len(w.Values)+len(w.NotValues) == 0 && len(values) == 0:
				return false
			}
		}
		return (r.Begins == 0 || a.Now >= r.Begins) && (r.Ends == 0 || a.Now < r.Ends)
	}
	allows, found := false, ""
	for _, act := range []model.Action{model.ActionDeny, model.ActionAllow} {
		for i := range s.Policies {
			p := &s.Policies[i]
			if p.Action != act || p.DryRun || len(p.Ports) > 0 && !slices.Contains(p.Ports, a.Port) ||
				slices.ContainsFunc(p.Labels, func(l model.Label) bool { return !slices.Contains(labels, l) }) {
				continue
			}
			allows = allows || act == model.ActionAllow
			for k := range p.Rules {
				r := &p.Rules[k]
				if found != "" || !holds(act, r) {
					continue
				}
				found = p.Name + " " + r.Name
			}
		}
		if found != "" {
			return act == model.ActionAllow, found, false
		}
	}
	return !allows && !s.DenyByDefault, "", allows || s.DenyByDefault
}

func templated(pattern, p string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(p, "/")
	if len(got) < len(want) {
		return false
	}
	for i, w := range want {
		if w == "{id}" && got[i] == "" || w != "{id}" && w != got[i] {
			return false
		}
	}
	return true
}

func aboutRequests(to model.PolicyTarget) bool {
	return len(to.Methods)+len(to.NotMethods)+len(to.Hosts)+len(to.NotHosts)+len(to.Procedures)+len(to.NotProcedures)+len(to.Paths)+len(to.NotPaths) > 0
}

// random draws policies and requests from few values, so that they meet.
type random struct{ *rand.Rand }

func (r random) one(list ...string) string { return list[r.IntN(len(list))] }

func (r random) texts(list ...string) (out []model.StringMatch) {
	for range max(0, r.IntN(5)-2) {
		m := model.StringMatch{Kind: model.StringMatchKind(max(0, r.IntN(8)-3)), Value: r.one(list...), IgnoreCase: r.IntN(6) == 0}
		switch m.Kind {
		case model.StringPrefix:
			m.Value = m.Value[:r.IntN(len(m.Value)+1)]
		case model.StringSuffix, model.StringContains:
			m.Value = m.Value[r.IntN(len(m.Value)+1):]
		case model.StringRegex:
			m.Value = r.one("[a-d]+", ".*", "GET|POST", "/a/.*", "spiffe://.*/cart")
		}
		out = append(out, m)
	}
	return out
}

var (
	accounts = []string{"cart", "web", "bank", "Cart"}
	spaces   = []string{"default", "shop", "prod"}
	methods  = []string{"GET", "POST", "PUT"}
	where    = []string{"/", "/a", "/a/b", "/a/7/b", "/a/b/c/d", "/admin", "/admin/x", "/ab", "/a/"}
)

func (r random) ids() (out []string) {
	for _, n := range spaces {
		for _, a := range accounts {
			out = append(out, "spiffe://tulle.local/ns/"+n+"/sa/"+a)
		}
	}
	return out
}

func (r random) paths() (out []model.PolicyPath) {
	for _, m := range r.texts(where...) {
		p := model.PolicyPath{Match: m}
		if r.IntN(3) == 0 {
			p = model.PolicyPath{Template: true, Match: model.StringMatch{Value: r.one("/a/{id}", "/a/{id}/b", "/a/{rest...}", "/{id}", "/{rest...}", "/admin", "/a/{id}/{rest...}")}}
		}
		out = append(out, p)
	}
	return out
}

func (r random) nets() (out []string) {
	for range max(0, r.IntN(6)-4) {
		out = append(out, r.one("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "fd00::/8"))
	}
	return out
}

func (r random) security() *model.Security {
	s := &model.Security{DenyByDefault: r.IntN(4) == 0}
	for i := range r.IntN(5) {
		p := model.Policy{Name: fmt.Sprint("p", i), Action: model.Action(1 + r.IntN(2))}
		if r.IntN(5) == 0 {
			p.Ports = []uint16{80}
		}
		if r.IntN(8) == 0 {
			p.Labels = []model.Label{{Name: "version", Value: r.one("v1", "v2")}}
		}
		p.DryRun = r.IntN(10) == 0
		for k := range r.IntN(4) {
			p.Rules = append(p.Rules, r.rule(fmt.Sprint("rules[", k, "]")))
		}
		s.Policies = append(s.Policies, p)
	}
	return s
}

func (r random) rule(name string) model.PolicyRule {
	out := model.PolicyRule{Name: name}
	for range r.IntN(3) {
		f := model.PolicySource{IPs: r.nets(), RemoteIPs: r.nets(), NotIPs: r.nets()}
		switch r.IntN(4) {
		case 0:
			f.Principals = r.texts(r.ids()...)
		case 1:
			f.Accounts, f.Namespaces = r.texts(accounts...), r.texts(spaces...)
		case 2:
			f.NotAccounts, f.TrustDomains = r.texts(accounts...), r.texts("tulle.local", "other")
		case 3:
			f.NotPrincipals, f.TokenPrincipals, f.NotNamespaces = r.texts(r.ids()...), r.texts("i/a", "i/b"), r.texts(spaces...)
		}
		out.From = append(out.From, f)
	}
	for range r.IntN(3) {
		to := model.PolicyTarget{}
		switch r.IntN(5) {
		case 0:
			to.Methods, to.Paths = r.texts(methods...), r.paths()
		case 1:
			to.NotMethods, to.Paths = r.texts(methods...), r.paths()
		case 2:
			to.Hosts, to.NotPaths, to.Procedures = r.texts("reviews", "cart"), r.paths(), r.texts("", "p.S/M")
		case 3:
			to.Ports, to.ServerNames = []uint16{80, 81}, r.texts("db", "")
		case 4:
			to.NotPorts = []uint16{81}
		}
		out.To = append(out.To, to)
	}
	if r.IntN(5) == 0 {
		out.When = append(out.When, model.PolicyCondition{Kind: model.ConditionHeader, Name: r.one("x-a", "x-b"), Values: r.texts("1", "2"), NotValues: r.texts("1", "2")})
	}
	if r.IntN(10) == 0 {
		out.Begins = int64(r.IntN(100))
	}
	if r.IntN(10) == 0 {
		out.Ends = int64(r.IntN(100))
	}
	return out
}

func (r random) asks() *authz.Attributes {
	n, a := r.one(spaces...), r.one(accounts...)
	out := &authz.Attributes{Principal: "spiffe://tulle.local/ns/" + n + "/sa/" + a, TrustDomain: "tulle.local", Namespace: n, Account: a,
		IP: netip.MustParseAddr(r.one("10.1.2.3", "10.9.9.9", "192.168.1.1", "fd00::1", "8.8.8.8")), Port: uint16(80 + r.IntN(2)), ServerName: r.one("", "db"),
		Now: int64(r.IntN(100)), HTTP: true, Method: r.one(methods...), Path: r.one(where...), Host: r.one("reviews", "cart"), Procedure: r.one("", "p.S/M"), Token: r.one("", "i/a", "i/b")}
	if r.IntN(8) == 0 {
		out.Principal, out.TrustDomain, out.Namespace, out.Account = "", "", "", ""
	}
	if r.IntN(3) == 0 {
		out.RemoteIP = netip.MustParseAddr("192.168.1.1")
	}
	f := fields{}
	for range r.IntN(3) {
		k := "0" + r.one("x-a", "x-b")
		f[k] = append(f[k], r.one("1", "2", "3"))
	}
	out.Fields = f
	return out
}

// TestReference: a million pairs of policies and requests, decided as the reference decides, by the same rule.
func TestReference(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))}
	labels := []model.Label{{Name: "version", Value: "v1"}}
	var allowed, denied, absent int
	for range 20_000 {
		s := r.security()
		set, err := authz.Compile(s, labels, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			a := r.asks()
			request := r.IntN(4) > 0
			v := set.Connection(a)
			if request {
				v = set.Request(a)
			}
			by := ""
			if v.By != nil {
				by = v.By.Policy + " " + v.By.Name
			}
			ok, who, none := reference(s, labels, a, request)
			if v.Allowed != ok || by != who || v.Absent != none {
				t.Fatalf("request %v\n%+v\nof %+v\nanswered %v %q absent %v, the reference %v %q absent %v", request, s, a, v.Allowed, by, v.Absent, ok, who, none)
			}
			switch {
			case v.Absent:
				absent++
				if near, missing := set.Nearest(a, request); near != nil && len(missing) == 0 {
					t.Fatalf("nothing is missing of %+v\n%+v\n%+v", near, s, a)
				}
			case v.Allowed:
				allowed++
			default:
				denied++
			}
		}
	}
	if min(allowed, denied, absent) < 50_000 {
		t.Errorf("too much alike: %d allowed, %d denied, %d by nothing", allowed, denied, absent)
	}
}
