package authz_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// fields are the values of conditions, by kind and name.
type fields map[string][]string

func (f fields) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	v := f[string(rune('0'+kind))+name]
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
