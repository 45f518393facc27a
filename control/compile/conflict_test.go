package compile_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// takes is the production router: compile.Takes.
func takes(r *model.Route, q *compile.Request) bool {
	t, err := router.Compile(&model.RouteTable{Routes: []model.Route{*r}})
	return err == nil && taken(t, q)
}

func taken(t *router.Table, q *compile.Request) bool {
	h := &message.Head{Method: []byte(q.Method), Target: []byte(q.Target), Authority: []byte(q.Host), Scheme: []byte("http")}
	for _, f := range q.Headers {
		h.Add([]byte(f.Name), []byte(f.Value))
	}
	return t.Match(h) != nil
}

// parts of random matches: small, so that many overlap and many do not.
var (
	paths = []model.Match{
		{Path: "/"}, {Path: "/a"}, {Path: "/a/b"}, {Path: "/ab"}, {Path: "/a/"},
		{PathKind: model.PathExact, Path: "/a"}, {PathKind: model.PathExact, Path: "/a/b"}, {PathKind: model.PathExact, Path: "/ab/c"},
		{PathKind: model.PathRegex, Path: "/[a-c]+"}, {PathKind: model.PathRegex, Path: "/a/[0-9]{2,3}"}, {PathKind: model.PathRegex, Path: "/(a|b)/.*"},
		{PathKind: model.PathRegex, Path: "/.*b$"}, {PathKind: model.PathRegex, Path: "(?i)/A/B"}, {PathKind: model.PathRegex, Path: `/\w+\b/?`},
		{PathKind: model.PathRegex, Path: "/a{3,5}"}, {PathKind: model.PathRegex, Path: "/b(a|b)*a(a|b){3}"},
	}
	methods = []string{"", "", "GET", "POST"}
	values  = []model.FieldMatch{
		{Value: "1"}, {Value: "2"}, {Value: "[0-9]+", Regex: true}, {Value: "a.*", Regex: true}, {Value: ".*z", Regex: true}, {Value: "a b&c", Regex: false},
	}
)

func randomMatch(rnd *rand.Rand) model.Match {
	m := paths[rnd.IntN(len(paths))]
	m.Method, m.GRPC = methods[rnd.IntN(len(methods))], rnd.IntN(6) == 0
	field := func(name string) (out []model.FieldMatch) {
		if rnd.IntN(2) == 0 {
			f := values[rnd.IntN(len(values))]
			f.Name = name
			out = append(out, f)
		}
		return out
	}
	m.Headers, m.Query = append(field("x"), field("y")...), field("q")
	return m
}

func randomRequest(rnd *rand.Rand) *compile.Request {
	sample := func(list []string) string { return list[rnd.IntN(len(list))] }
	r := &compile.Request{Method: sample([]string{"GET", "POST", "PUT"}), Host: "cart.default:80"}
	r.Target = sample([]string{"/", "/a", "/a/b", "/ab", "/ab/c", "/a/", "/c", "/abc", "/a/12", "/a/123", "/b/x", "/A/B", "/aaaa", "/bab", "/baaaa", "/bbabbb", "/w/", "/a/b/b", "/b/b"})
	field := []string{"1", "2", "12", "a", "az", "z", "a b&c", "0"}
	for _, name := range []string{"x", "y"} {
		if rnd.IntN(3) > 0 {
			r.Headers = append(r.Headers, model.Header{Name: name, Value: sample(field)})
		}
	}
	if rnd.IntN(3) == 0 {
		r.Headers = append(r.Headers, model.Header{Name: "content-type", Value: sample([]string{"application/grpc", "application/grpc+proto", "text/plain"})})
	}
	if rnd.IntN(3) > 0 {
		r.Target += "?q=" + url.QueryEscape(sample(field))
	}
	return r
}

// TestOverlaps: over random tables, every witness is taken by both routes when the router tries them, every pair that a
// sampler finds a request for is reported, and nothing undecided is left in a domain this small.
func TestOverlaps(t *testing.T) {
	reported, sampled := 0, 0
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table := &model.RouteTable{Name: port(80)}
		for i := range 8 {
			table.Routes = append(table.Routes, model.Route{Name: fmt.Sprintf("HTTPRoute/default/r%d", i), Match: randomMatch(rnd),
				Backends: []model.Backend{{Cluster: port(uint16(80 + i)), Weight: 1}}})
		}
		tried := make([]*router.Table, len(table.Routes))
		for i := range tried {
			var err error
			if tried[i], err = router.Compile(&model.RouteTable{Routes: table.Routes[i : i+1]}); err != nil {
				t.Fatal(err)
			}
		}
		found := map[[2]string]bool{}
		for _, c := range compiler(t).Overlaps(table, nil) { // nil: the router decides here, not there
			if c.Request == nil {
				t.Fatalf("seed %d: %s", seed, &c)
			}
			for _, who := range []string{c.Winner, c.Loser} {
				name, _, _ := strings.Cut(who, ",")
				for i := range table.Routes {
					if table.Routes[i].Name == name && !taken(tried[i], c.Request) {
						t.Fatalf("seed %d: %s does not take the witness %s\n%+v", seed, name, c.Request, table.Routes[i].Match)
					}
				}
			}
			found[[2]string{c.Winner, c.Loser}] = true
			reported++
		}
		for range 3000 {
			r := randomRequest(rnd)
			var who []string
			for i := range table.Routes {
				if taken(tried[i], r) {
					who = append(who, table.Routes[i].Name+", rule 0")
				}
			}
			for i := range who {
				for j := i + 1; j < len(who); j++ {
					sampled++
					if !found[[2]string{who[i], who[j]}] {
						t.Fatalf("seed %d: %s is taken by %s and %s, which was not reported", seed, r, who[i], who[j])
					}
				}
			}
		}
	}
	if reported < 100 || sampled < 1000 {
		t.Errorf("%d reported, %d sampled: the tables are too tame", reported, sampled)
	}
}

// FuzzOverlap: whatever two expressions are, a request that is said to match both does, and the search ends.
func FuzzOverlap(f *testing.F) {
	for _, seed := range [][2]string{{"/a+b", "/[ab]*"}, {`/\bx\B.`, "/(?i)X[^y]"}, {"/(a|b)*c{2,4}$", "^/.*cc$"}, {"(?s)/.{3}", `/\pL+`}, {"(?m)^/a$", "/a\n?"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a)+len(b) > 100 || strings.Count(a+b, "{") > 3 {
			return // what is large is slow to compile for the router, too
		}
		table := &model.RouteTable{Name: port(80)}
		for i, expr := range []string{a, b} {
			table.Routes = append(table.Routes, model.Route{Name: fmt.Sprintf("HTTPRoute/default/r%d", i),
				Match: model.Match{PathKind: model.PathRegex, Path: expr, Headers: []model.FieldMatch{{Name: "x", Value: expr, Regex: true}}}})
			if _, err := router.Compile(&model.RouteTable{Routes: table.Routes[i:]}); err != nil {
				return // no expression
			}
		}
		for _, c := range compiler(t).Overlaps(table, nil) {
			for i := range table.Routes {
				if c.Request != nil && !takes(&table.Routes[i], c.Request) {
					t.Fatalf("%q does not match %s", table.Routes[i].Match.Path, c.Request)
				}
			}
		}
	})
}

// TestUndecided: what is beyond the bounds is said to be, and never left out.
func TestUndecided(t *testing.T) {
	table := &model.RouteTable{Name: port(80), Routes: []model.Route{
		{Name: "HTTPRoute/default/a", Match: model.Match{PathKind: model.PathRegex, Path: "/(?:[a-z]{300}0){2}.*x"}},
		{Name: "HTTPRoute/default/b", Match: model.Match{PathKind: model.PathRegex, Path: "/[a-z0-9]*1[0-9a-z]*"}},
	}}
	got := compiler(t).Overlaps(table, takes)
	if len(got) != 1 || got[0].Request != nil || !strings.Contains(got[0].String(), "cannot be told") {
		t.Errorf("got %v", got)
	}
}

const tie = `
metadata: {name: %s}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - matches: [{path: {value: /api}, headers: [{name: x-user, value: alice}]}]
    backendRefs: [{name: %s, port: 80}]
`

// TestConflicts: who wins, why, and what to do; what does the same is no conflict.
func TestConflicts(t *testing.T) {
	old, young := route(t, 1, fmt.Sprintf(tie, "old", "cart-v1")), route(t, 2, fmt.Sprintf(tie, "young", "cart-v2"))
	narrow := route(t, 3, strings.Replace(fmt.Sprintf(tie, "narrow", "cart-v2"), "/api", "/api/v2", 1))
	same := route(t, 4, fmt.Sprintf(tie, "same", "cart-v1"))
	var got []string
	for _, c := range compiler(t, young, old, narrow, same).Conflicts(port(80), takes) {
		got = append(got, c.String())
	}
	want := []string{
		"Service/default/cart:80: HTTPRoute/default/narrow, rule 0 and HTTPRoute/default/old, rule 0 both match `GET http://cart.default:80/api/v2 x-user: alice`; " +
			`HTTPRoute/default/narrow, rule 0 wins: "/api/v2" is longer than "/api". If that is not meant, make the match of HTTPRoute/default/narrow, rule 0 narrower`,
		"Service/default/cart:80: HTTPRoute/default/old, rule 0 and HTTPRoute/default/young, rule 0 both match `GET http://cart.default:80/api x-user: alice`; " +
			"HTTPRoute/default/old, rule 0 wins: they are equally specific, and it is older. Give them matches that differ, or put both rules into one route, where the order of the rules decides",
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n"), w) {
			t.Errorf("not told: %s", w)
		}
	}
	for _, g := range got {
		if strings.Contains(g, "/old, rule 0 and HTTPRoute/default/same") {
			t.Errorf("the same twice is no conflict: %s", g)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(got, "\n"))
	}
}
