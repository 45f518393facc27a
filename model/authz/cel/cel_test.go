package cel_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
)

// told is what a request says, by kind and name. Like the data plane's it answers memory that it uses again.
type told map[model.ConditionKind]map[string][]string

func (f told) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	if v := f[kind][name]; i < len(v) {
		return v[i], true
	}
	return "", false
}

func attributes() *authz.Attributes {
	return &authz.Attributes{
		Principal: "spiffe://tulle.local/ns/shop/sa/cart", TrustDomain: "tulle.local", Namespace: "shop", Account: "shop/cart",
		IP: netip.MustParseAddr("10.1.2.3"), RemoteIP: netip.MustParseAddr("::ffff:192.0.2.7"), Port: 9080, ServerName: "db.example",
		Now: time.Date(2026, 11, 21, 17, 30, 0, 0, time.UTC).Unix(), HTTP: true, Method: "GET", Host: "reviews", Path: "/items/7",
		Procedure: "shop.Reviews/Get", Token: "https://issuer/alice",
		Fields: told{
			model.ConditionHeader: {"x-user": {"alice"}, "x-two": {"a", "b"}, "content-length": {"17"}},
			model.ConditionQuery:  {"page": {"2"}, "tag": {"a", "b"}},
			model.ConditionCookie: {"session": {"s1"}},
			model.ConditionClaim:  {"groups": {"staff", "admin"}, "org.name": {"acme"}},
		},
	}
}

func TestHolds(t *testing.T) {
	a := attributes()
	for text, want := range map[string]string{
		`true`: "true",
		`request.method == "GET" && request.path.startsWith("/items/") && request.host == "reviews"`:                                               "true",
		`request.procedure == "shop.Reviews/Get"`:                                                                                                  "true",
		`source.namespace == "shop" && source.account == "shop/cart" && source.principal.endsWith("/cart") && source.trustDomain == "tulle.local"`: "true",
		`source.ip.within("10.0.0.0/8") && !source.remoteIP.within("10.0.0.0/8") && source.remoteIP == "192.0.2.7"`:                                "true",
		`source.ip.within("10.0.0.0/40")`:                         "error",
		`destination.port in [80, 9080]`:                          "true",
		`destination.serverName == "db.example"`:                  "true",
		`request.headers["x-user"] == "alice"`:                    "true",
		`request.headers["X-User"] == "alice"`:                    "true",
		`request.headers["x-two"] == "a,b"`:                       "true",
		`"x-user" in request.headers`:                             "true",
		`"x-nobody" in request.headers`:                           "false",
		`request.headers["x-nobody"] == ""`:                       "error",
		`int(request.headers["content-length"]) < 100`:            "true",
		`request.query["page"] == "2"`:                            "true",
		`request.query["tag"] == "a"`:                             "error",
		`request.query.values("tag") == ["a", "b"]`:               "true",
		`"b" in request.query.values("tag")`:                      "true",
		`request.query.values("none").size() == 0`:                "true",
		`request.cookies["session"] == "s1"`:                      "true",
		`token.principal.startsWith("https://issuer/")`:           "true",
		`"staff" in token.claims.values("groups")`:                "true",
		`token.claims["org.name"] == "acme"`:                      "true",
		`token.claims.values("groups").exists(g, g == "x")`:       "false",
		`now < timestamp("2027-01-01T00:00:00Z")`:                 "true",
		`now.getHours() == 17 && now.getHours("+02:00") == 19`:    "true",
		`request.path.matches("^/items/[0-9]+$")`:                 "true",
		`request.headers["x-user"] == request.cookies["session"]`: "false",
		`1 / (destination.port - 9080) == 1`:                      "error",
		// What fails on one side decides nothing where the other side does.
		`request.method == "GET" || request.headers["x-nobody"] == "a"`: "true",
	} {
		e, err := cel.Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := "false"
		switch ok, err := e.Holds(a); {
		case err != nil:
			got = "error"
		case ok:
			got = "true"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestNothingKnown: what is not known is an error or false, and never a panic.
func TestNothingKnown(t *testing.T) {
	for _, text := range []string{`request.headers["a"] == ""`, `"a" in token.claims`, `source.ip.within("0.0.0.0/0")`} {
		e, err := cel.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := e.Holds(&authz.Attributes{}); ok {
			t.Errorf("%s holds where nothing is known", text)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                                                           "line 1, column 1: ",
		`request.method == `:                                         "line 1, column ",
		`requst.method == "GET"`:                                     "line 1, column 7: undeclared reference to 'requst.method'",
		"true &&\n  request.metod == \"GET\"":                        "line 2, column ",
		`request.method`:                                             "answers string, and must answer bool",
		`request.headers.exists(k, k == "a")`:                        "line 1, column ",
		`request.headers["a"] == 1`:                                  "line 1, column ",
		`request.headers == request.query`:                           "line 1, column ",
		`size(request.headers) > 0`:                                  "line 1, column ",
		`now.getHours("Europe/Berlin") < 8`:                          "getHours takes a time zone as a difference to UTC",
		`now.getHours(request.headers["tz"]) < 8`:                    "getHours takes a time zone as a difference to UTC",
		`true || "` + strings.Repeat("x", 5000) + `" == ""`:          "at most 4096",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "",
		`request.path.matches("(")`:                                  "",
	} {
		_, err := cel.Compile(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}

// TestBounded: an evaluation has a bound, and goes no further.
func TestBounded(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 60), ",") + "]"
	text := list + ".all(a, " + list + ".all(b, " + list + ".all(c, a + b + c > 0)))"
	e, err := cel.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := e.Holds(attributes()); err == nil || ok {
		t.Errorf("216000 steps: %v, %v, want an error", ok, err)
	}
}

// TestFailsSafe: an expression that fails lets nothing in, and keeps out.
func TestFailsSafe(t *testing.T) {
	for act, allowed := range map[model.Action]bool{model.ActionAllow: false, model.ActionDeny: false} {
		s := &model.Security{Policies: []model.Policy{{Name: "p", Action: act, Rules: []model.PolicyRule{{Name: "r", Expression: `request.headers["x-nobody"] == "a"`}}}}}
		set, err := authz.Compile(s, nil, cel.Compile)
		if err != nil {
			t.Fatal(err)
		}
		if v := set.Request(attributes()); v.Allowed != allowed {
			t.Errorf("action %d: allowed is %v", act, v.Allowed)
		}
	}
}

// FuzzCompile: nothing that can be written panics, and what compiles evaluates within its bounds.
func FuzzCompile(f *testing.F) {
	f.Add(`request.method == "GET"`)
	f.Add(`token.claims.values("a").exists(x, x.matches("a+"))`)
	f.Add(`now.getHours("+02:00") in [1,2]`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := cel.Compile(text)
		if err != nil {
			return
		}
		_, _ = e.Holds(attributes())
		_, _ = e.Holds(&authz.Attributes{})
	})
}

func BenchmarkHolds(b *testing.B) {
	e, err := cel.Compile(`request.method == "GET" && request.headers["x-user"] == "alice"`)
	if err != nil {
		b.Fatal(err)
	}
	a := attributes()
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := e.Holds(a); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cel.Compile(`request.method == "GET" && request.headers["x-user"] == "alice"`); err != nil {
			b.Fatal(err)
		}
	}
}
