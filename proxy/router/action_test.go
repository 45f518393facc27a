package router_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// one compiles a table of one route.
func one(t interface {
	Helper()
	Fatal(...any)
}, r model.Route) *router.Route {
	t.Helper()
	table, err := router.Compile(&model.RouteTable{Routes: []model.Route{r}})
	if err != nil {
		t.Fatal(err)
	}
	return &table.Routes[0]
}

// TestRewritePrefix: the table at Gateway API's HTTPPathModifier.replacePrefixMatch, and what Envoy's prefix_rewrite does
// with the same.
func TestRewritePrefix(t *testing.T) {
	for _, c := range []struct{ path, prefix, with, elements, text string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar", "/xyz//bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar", "/xyzbar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar", "/bar"},
		{"/foo/", "/foo", "", "/", "/"},
		{"/foo", "/foo", "", "/", "/"},
		{"/foo/", "/foo", "/", "/", "//"},
		{"/foo", "/foo", "/", "/", "/"},
		{"/bar", "/", "/xyz", "/xyz/bar", "/xyzbar"},
		{"/", "/", "/xyz", "/xyz/", "/xyz"},
	} {
		r := one(t, model.Route{Match: model.Match{Path: c.prefix}, Rewrite: model.Rewrite{Prefix: c.with, HasPrefix: true},
			Redirect: &model.Redirect{Change: model.PathPrefixed, Path: c.with, AsEnvoy: true}})
		if got := string(r.AppendRewritten([]byte("x"), []byte(c.path))); got != "x"+c.elements {
			t.Errorf("%s, %s by %q: %s, want %s", c.path, c.prefix, c.with, got, c.elements)
		}
		if got := string(r.AppendRedirected([]byte("x"), []byte(c.path))); got != "x"+c.text {
			t.Errorf("%s, %s by %q as text: %s, want %s", c.path, c.prefix, c.with, got, c.text)
		}
	}
}

func TestRewritePath(t *testing.T) {
	exact := model.Match{PathKind: model.PathExact, Path: "/a"}
	for _, c := range []struct {
		name       string
		r          model.Route
		path, want string
	}{
		{"nothing", model.Route{Match: exact}, "/a", "/a"},
		{"full", model.Route{Match: exact, Rewrite: model.Rewrite{Path: "/b/c"}}, "/a", "/b/c"},
		{"full without a slash", model.Route{Match: exact, Rewrite: model.Rewrite{Path: "b"}}, "/a", "/b"},
		{"prefix of an exact match", model.Route{Match: exact, Rewrite: model.Rewrite{Prefix: "/b", HasPrefix: true}}, "/a", "/b"},
		{"groups", model.Route{Match: model.Match{Path: "/"}, Rewrite: model.Rewrite{Pattern: "^/service/([^/]+)(/.*)$", Replacement: `\2/instance/\1`}}, "/service/foo/v1/api", "/v1/api/instance/foo"},
		{"every match", model.Route{Match: model.Match{Path: "/"}, Rewrite: model.Rewrite{Pattern: "one", Replacement: "two"}}, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
		{"ignoring case", model.Route{Match: model.Match{Path: "/"}, Rewrite: model.Rewrite{Pattern: "(?i)/xxx/", Replacement: "/yyy/"}}, "/aaa/XxX/bbb", "/aaa/yyy/bbb"},
		{"all of the match", model.Route{Match: model.Match{Path: "/"}, Rewrite: model.Rewrite{Pattern: "[0-9]+", Replacement: `<\0>`}}, "/7", "/<7>"},
		{"dollars and backslashes", model.Route{Match: model.Match{Path: "/"}, Rewrite: model.Rewrite{Pattern: "(a)", Replacement: `$1\\\1`}}, "/a", `/$1\a`},
		{"not matched", model.Route{Match: model.Match{Path: "/"}, Rewrite: model.Rewrite{Pattern: "^/b", Replacement: "/c"}}, "/a", "/a"},
	} {
		if got := string(one(t, c.r).AppendRewritten(nil, []byte(c.path))); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if _, err := router.Compile(&model.RouteTable{Routes: []model.Route{{Rewrite: model.Rewrite{Pattern: "("}}}}); err == nil {
		t.Error("a pattern that is no RE2")
	}
}

// canary is a route that sends share of 100 to the second of three backends.
func canary(t *testing.T, share uint32, swapped bool) *router.Route {
	b := []model.Backend{{Cluster: model.Free("stable"), Weight: 100 - share}, {Cluster: model.Free("canary"), Weight: share}}
	if swapped {
		b[0], b[1] = b[1], b[0]
	}
	return one(t, model.Route{Backends: b})
}

// TestStickyCanary: while a canary grows from 1 to 50 percent nobody leaves it, its share is right, and at every step those
// who move are no more than have to: 99.9 percent stay where they should.
func TestStickyCanary(t *testing.T) {
	const users = 100_000
	rnd := rand.New(rand.NewPCG(3, 4))
	hashes := make([]uint64, users)
	for i := range hashes {
		hashes[i] = rnd.Uint64()
	}
	in := make([]bool, users)
	left, count := 0, 0
	for share := uint32(1); share <= 50; share++ {
		r := canary(t, share, share%2 == 0) // in whichever order they stand
		was := count
		count = 0
		for i, h := range hashes {
			now := r.Stick(h).Cluster == model.Free("canary")
			if in[i] && !now {
				left++
			}
			if in[i] = now; now {
				count++
			}
		}
		if want := users * int(share) / 100; count < want-users/200 || count > want+users/200 {
			t.Errorf("%d percent: %d of %d users", share, count, users)
		}
		if moved := count - was; moved > users/100+users/250 {
			t.Errorf("%d percent: %d users moved", share, moved)
		}
	}
	if left > 0 {
		t.Errorf("%d users left the canary while it grew", left)
	}
}

// TestStickyProperties: whatever the weights, a change of one moves users only to it or away from it, and every share is as
// the weights say.
func TestStickyProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "backends")
		var before, after []model.Backend
		for i := range n {
			w := rapid.Uint32Range(0, 1000).Draw(t, "weight")
			if i == 0 {
				w = max(w, 1)
			}
			b := model.Backend{Cluster: model.Free(fmt.Sprint("c", i)), Weight: w}
			before, after = append(before, b), append(after, b)
		}
		k := rapid.IntRange(0, n-1).Draw(t, "changed")
		after[k].Weight += rapid.Uint32Range(1, 1000).Draw(t, "more")
		a, b := one(t, model.Route{Backends: before}), one(t, model.Route{Backends: after})
		grown := model.Free(fmt.Sprint("c", k))
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range 500 {
			h := rnd.Uint64()
			was, is := a.Stick(h), b.Stick(h)
			if was.Weight == 0 || is.Weight == 0 {
				t.Fatal("a backend of weight 0 was chosen")
			}
			if was.Cluster != is.Cluster && is.Cluster != grown {
				t.Fatalf("a user moved from %s to %s when %s grew", was.Cluster, is.Cluster, grown)
			}
		}
	})
}

func TestStickyShares(t *testing.T) {
	weights := []uint32{70, 20, 10, 0}
	r := model.Route{}
	for i, w := range weights {
		r.Backends = append(r.Backends, model.Backend{Cluster: model.Free(fmt.Sprint(i)), Weight: w})
	}
	c, seen, rnd := one(t, r), map[string]int{}, rand.New(rand.NewPCG(5, 6))
	const n = 100_000
	for range n {
		seen[c.Stick(rnd.Uint64()).Cluster.String()]++
	}
	for i, w := range weights {
		if got, want := seen[fmt.Sprint(i)], int(w)*n/100; got < want-n/100 || got > want+n/100 {
			t.Errorf("backend %d: %d, want about %d", i, got, want)
		}
	}
	if one(t, model.Route{}).Stick(1) != nil {
		t.Error("a backend of none")
	}
}

func TestBackendNames(t *testing.T) {
	r := one(t, model.Route{Backends: []model.Backend{{Cluster: model.Free("a"), Weight: 1}, {Cluster: model.Free("a"), Weight: 1},
		{Cluster: model.Free("a"), Weight: 1, Subset: []model.Label{{Name: "v", Value: "2"}}}, {Cluster: model.Free("b")}}})
	seen := map[uint64]bool{}
	for i := range r.Backends {
		n := r.NameOf(&r.Backends[i])
		if n == 0 || seen[n] || r.Named(n) != &r.Backends[i] {
			t.Errorf("backend %d has the name %d", i, n)
		}
		seen[n] = true
	}
	if r.Named(12345) != nil || r.NameOf(&model.Backend{}) != 0 {
		t.Error("a name of nothing")
	}
}

func TestOrigins(t *testing.T) {
	r := one(t, model.Route{CORS: &model.CORS{Origins: []model.OriginMatch{{Exact: "https://shop.example:8443"},
		{Prefix: "https://", Suffix: ".a.example", Wildcard: true}, {Regex: `http://localhost:\d+`}}}})
	for origin, want := range map[string]bool{"https://shop.example:8443": true, "https://shop.example": false, "https://x.a.example": true,
		"https://x.y.a.example": true, "https://.a.example": false, "https://a.example": false, "http://localhost:3": true, "http://localhost:3x": false, "": false, "null": false} {
		if r.Allows([]byte(origin)) != want {
			t.Errorf("%s: %v", origin, !want)
		}
	}
	if any := one(t, model.Route{CORS: &model.CORS{Origins: []model.OriginMatch{{Any: true}}}}); !any.Allows([]byte("null")) || any.Allows(nil) {
		t.Error("any origin")
	}
	if none := one(t, model.Route{CORS: &model.CORS{}}); none.Allows([]byte("https://a")) {
		t.Error("no origin")
	}
}

// TestPreflightMatchesItsMethod: a route that shares and matches by method gets the preflights of that method, in the mesh.
func TestPreflightMatchesItsMethod(t *testing.T) {
	route := model.Route{Match: model.Match{Path: "/", Method: "PUT"}, CORS: &model.CORS{}}
	ask := func(m string) *message.Head {
		return head("OPTIONS", "/", "Origin", "https://a", "Access-Control-Request-Method", m)
	}
	table, err := router.Compile(&model.RouteTable{Routes: []model.Route{route}})
	if err != nil {
		t.Fatal(err)
	}
	if table.Match(ask("PUT")) == nil || table.Match(ask("GET")) != nil || table.Match(head("OPTIONS", "/")) != nil {
		t.Error("of the mesh")
	}
	table, err = router.Compile(&model.RouteTable{Hosts: []model.VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []model.Route{route}}}})
	if err != nil {
		t.Fatal(err)
	}
	if table.Match(ask("PUT")) != nil {
		t.Error("of a foreign table: Envoy does not")
	}
}

func TestFaultConcerns(t *testing.T) {
	f, err := router.CompileFault(&model.Fault{Headers: []model.FieldMatch{{Name: "X-Try", Value: "a+", Regex: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if !f.Concerns(head("GET", "/", "x-try", "aa")) || f.Concerns(head("GET", "/", "x-try", "b")) || f.Concerns(head("GET", "/")) {
		t.Error("headers are not compared")
	}
	if f, err := router.CompileFault(nil); f != nil || err != nil {
		t.Error("a fault of nothing")
	}
	if _, err := router.CompileFault(&model.Fault{Headers: []model.FieldMatch{{Name: "a", Value: "(", Regex: true}}}); err == nil {
		t.Error("no RE2")
	}
}

func TestActionsDoNotAllocate(t *testing.T) {
	r := one(t, model.Route{Match: model.Match{Path: "/a"}, Rewrite: model.Rewrite{Prefix: "/b", HasPrefix: true},
		Backends: []model.Backend{{Cluster: model.Free("a"), Weight: 1}, {Cluster: model.Free("b"), Weight: 9}},
		CORS:     &model.CORS{Origins: []model.OriginMatch{{Regex: "https://.*"}}}})
	dst, path, origin, rnd := make([]byte, 0, 100), []byte("/a/b"), []byte("https://a"), uint64(1)
	if n := testing.AllocsPerRun(1000, func() {
		rnd = rnd*6364136223846793005 + 1
		b := r.Stick(rnd)
		r.Named(r.NameOf(b))
		r.Allows(origin)
		dst = r.AppendRewritten(dst[:0], path)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
