package router_test

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

func head(method, target string, fields ...string) *message.Head {
	h := &message.Head{Method: []byte(method), Target: []byte(target), Authority: []byte("shop.example:8080")}
	for i := 0; i < len(fields); i += 2 {
		h.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return h
}

func compile(t interface {
	Helper()
	Fatal(...any)
}, matches ...model.Match) *router.Table {
	t.Helper()
	m := &model.RouteTable{Name: model.PortName{Service: model.ServiceName{Namespace: "d", Name: "s"}, Port: 80}}
	for i, x := range matches {
		m.Routes = append(m.Routes, model.Route{Name: fmt.Sprint("r", i), Match: x})
	}
	table, err := router.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestMatch(t *testing.T) {
	exact := func(p string) model.Match { return model.Match{PathKind: model.PathExact, Path: p} }
	prefix := func(p string) model.Match { return model.Match{Path: p} }
	regex := func(p string) model.Match { return model.Match{PathKind: model.PathRegex, Path: p} }
	header := func(n, v string, re bool) model.Match {
		return model.Match{Path: "/", Headers: []model.FieldMatch{{Name: n, Value: v, Regex: re}}}
	}
	query := func(n, v string, re bool) model.Match {
		return model.Match{Path: "/", Query: []model.FieldMatch{{Name: n, Value: v, Regex: re}}}
	}
	for _, c := range []struct {
		name  string
		match model.Match
		head  *message.Head
		want  bool
	}{
		{"all", prefix("/"), head("GET", "/x?y"), true},
		{"all, CONNECT", prefix("/"), head("CONNECT", ""), true},
		{"all, OPTIONS *", prefix("/"), head("OPTIONS", "*"), true},
		{"exact", exact("/a"), head("GET", "/a?x=1"), true},
		{"exact, slash", exact("/a"), head("GET", "/a/"), false},
		{"prefix itself", prefix("/a"), head("GET", "/a"), true},
		{"prefix below", prefix("/a"), head("GET", "/a/b"), true},
		{"prefix is whole elements", prefix("/a"), head("GET", "/ab"), false},
		{"prefix with slash, itself", prefix("/a/"), head("GET", "/a"), true},
		{"prefix with slash, below", prefix("/a/"), head("GET", "/a/b"), true},
		{"prefix, query after", prefix("/a"), head("GET", "/a?b"), true},
		{"path is case-sensitive", exact("/A"), head("GET", "/a"), false},
		{"regex whole", regex("/[0-9]+"), head("GET", "/42?x"), true},
		{"regex is anchored", regex("/[0-9]+"), head("GET", "/42/x"), false},
		{"regex alternation is anchored", regex("/a|/b"), head("GET", "/bc"), false},
		{"method", model.Match{Path: "/", Method: "POST"}, head("POST", "/"), true},
		{"other method", model.Match{Path: "/", Method: "POST"}, head("GET", "/"), false},
		{"header", header("x-user", "me", false), head("GET", "/", "X-User", "me"), true},
		{"header name in any case", header("X-UsEr", "me", false), head("GET", "/", "x-user", "me"), true},
		{"header value is case-sensitive", header("x-user", "me", false), head("GET", "/", "x-user", "Me"), false},
		{"header missing", header("x-user", "", false), head("GET", "/"), false},
		{"header empty", header("x-user", "", false), head("GET", "/", "x-user", ""), true},
		{"header, second line", header("x-user", "b", false), head("GET", "/", "x-user", "a", "x-user", "b"), true},
		{"header, lines joined", header("x-user", "a,b", false), head("GET", "/", "x-user", "a", "y", "z", "X-User", "b"), true},
		{"header, lines joined with a space", header("x-user", "a, b", false), head("GET", "/", "x-user", "a", "x-user", "b"), true},
		{"header, lines joined, too long", header("x-user", "a,b,c", false), head("GET", "/", "x-user", "a", "x-user", "b"), false},
		{"header regex", header("x-user", "v[12]", true), head("GET", "/", "x-user", "v2"), true},
		{"header regex anchored", header("x-user", "v[12]", true), head("GET", "/", "x-user", "v22"), false},
		{"header regex over joined lines", header("x-user", "a,.*", true), head("GET", "/", "x-user", "a", "x-user", "b"), true},
		{"header in any case", header("X-User", "(?i)ann", true), head("GET", "/", "x-user", "ANN"), true},
		{"header that is there", header("X-User", ".+", true), head("GET", "/", "x-user", "b"), true},
		{"header that is not there", header("X-User", ".+", true), head("GET", "/"), false},
		{"path in any case", model.Match{PathKind: model.PathRegex, Path: "(?i)/cart/.*"}, head("GET", "/CART/x"), true},
		{"host", header("Host", "shop.example:8080", false), head("GET", "/"), true},
		{"query", query("v", "2", false), head("GET", "/?u=1&v=2"), true},
		{"query name is case-sensitive", query("V", "2", false), head("GET", "/?v=2"), false},
		{"query, none", query("v", "2", false), head("GET", "/v=2"), false},
		{"query, first of two", query("v", "2", false), head("GET", "/?v=1&v=2"), false},
		{"query, empty value", query("v", "", false), head("GET", "/?v"), true},
		{"query, decoded", query("n m", "a+b=c&d", false), head("GET", "/?n+m=a%2Bb%3dc%26d"), true},
		{"query, bad escape stands for itself", query("v", "100%", false), head("GET", "/?v=100%"), true},
		{"query, second question mark", query("v", "a?b", false), head("GET", "/?v=a?b"), true},
		{"query regex", query("v", "[0-9]+", true), head("GET", "/?v=12"), true},
		{"query regex, decoded", query("v", "a b é", true), head("GET", "/?v=a+b%20%c3%A9"), true},
		{"query regex, decoded, not UTF-8", query("v", "a.", true), head("GET", "/?v=a%ff"), true},
	} {
		if got := compile(t, c.match).Match(c.head) != nil; got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestFirstMatchWins(t *testing.T) {
	table := compile(t, model.Match{PathKind: model.PathExact, Path: "/a"}, model.Match{Path: "/"}, model.Match{PathKind: model.PathExact, Path: "/b"})
	if r := table.Match(head("GET", "/a")); r.Index != 0 || r.Name != "r0" {
		t.Errorf("got %s", r.Name)
	}
	if r := table.Match(head("GET", "/b")); r.Index != 1 {
		t.Errorf("got %s", r.Name)
	}
	if r := compile(t).Match(head("GET", "/")); r != nil {
		t.Errorf("an empty table matched %s", r.Name)
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, r := range []model.Route{
		{Match: model.Match{PathKind: model.PathRegex, Path: "("}},
		{Match: model.Match{PathKind: model.PathRegex, Path: "a)(b"}},
		{Match: model.Match{Path: "/", Headers: []model.FieldMatch{{Name: "a", Value: "[", Regex: true}}}},
		{Match: model.Match{Path: "/", Query: []model.FieldMatch{{Name: "a", Value: `\1`, Regex: true}}}},
		{Match: model.Match{Path: "/"}, Backends: []model.Backend{{Weight: 0}}},
	} {
		r.Name = "HTTPRoute/d/x"
		_, err := router.Compile(&model.RouteTable{Routes: []model.Route{r}})
		if err == nil || !strings.Contains(err.Error(), "HTTPRoute/d/x") {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// naive is the oracle: the same semantics, written with strings, maps and net/url.
func naive(m model.Match, method, target string, fields [][2]string) bool {
	if m.Method != "" && m.Method != method {
		return false
	}
	path, rawQuery, _ := strings.Cut(target, "?")
	switch m.PathKind {
	case model.PathExact:
		if path != m.Path {
			return false
		}
	case model.PathRegex:
		if !regexp.MustCompile("^(?:" + m.Path + ")$").MatchString(path) {
			return false
		}
	default:
		want := strings.TrimRight(m.Path, "/") + "/"
		if !strings.HasPrefix(path+"/", want) && want != "/" {
			return false
		}
	}
	holds := func(f model.FieldMatch, v string) bool {
		if f.Regex {
			return regexp.MustCompile("^(?:" + f.Value + ")$").MatchString(v)
		}
		return v == f.Value
	}
	for _, f := range m.Headers {
		var lines []string
		for _, x := range fields {
			if strings.EqualFold(x[0], f.Name) {
				lines = append(lines, x[1])
			}
		}
		ok := len(lines) > 0 && (holds(f, strings.Join(lines, ",")) || !f.Regex && holds(f, strings.Join(lines, ", ")))
		for _, l := range lines {
			ok = ok || holds(f, l)
		}
		if !ok {
			return false
		}
	}
	for _, f := range m.Query {
		values, err := url.ParseQuery(rawQuery)
		if err != nil || !values.Has(f.Name) || !holds(f, values.Get(f.Name)) {
			return false
		}
	}
	return true
}

func TestMatchAgainstNaive(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "A", "b", "x-a"})
	value := rapid.StringMatching(`[ab1]{0,2}`)
	element := rapid.StringMatching(`(/[ab]{0,2}){0,3}`)
	field := rapid.Custom(func(t *rapid.T) model.FieldMatch {
		f := model.FieldMatch{Name: name.Draw(t, "name"), Value: value.Draw(t, "value"), Regex: rapid.Bool().Draw(t, "regex")}
		if f.Regex {
			f.Value += rapid.SampledFrom([]string{"", ".*", "[ab]", "|b"}).Draw(t, "expr")
		}
		return f
	})
	match := rapid.Custom(func(t *rapid.T) model.Match {
		m := model.Match{
			PathKind: rapid.SampledFrom([]model.PathKind{model.PathPrefix, model.PathExact, model.PathRegex}).Draw(t, "kind"),
			Path:     "/" + strings.TrimPrefix(element.Draw(t, "path"), "/"),
			Method:   rapid.SampledFrom([]string{"", "", "GET", "POST"}).Draw(t, "method"),
			Headers:  rapid.SliceOfN(field, 0, 2).Draw(t, "headers"),
			Query:    rapid.SliceOfN(field, 0, 2).Draw(t, "query"),
		}
		if m.PathKind == model.PathRegex {
			m.Path += rapid.SampledFrom([]string{"", ".*", "[ab]", "|/b"}).Draw(t, "expr")
		}
		return m
	})
	escape := rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		for _, c := range value.Draw(t, "plain") {
			if rapid.Bool().Draw(t, "escaped") {
				fmt.Fprintf(&b, "%%%02x", c)
			} else {
				b.WriteRune(c)
			}
		}
		return b.String()
	})
	rapid.Check(t, func(t *rapid.T) {
		matches := rapid.SliceOfN(match, 0, 4).Draw(t, "matches")
		table := compile(t, matches...)
		method := rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "method")
		target := "/" + strings.TrimPrefix(element.Draw(t, "target"), "/")
		for i := range rapid.IntRange(0, 3).Draw(t, "parameters") {
			target += "?&&"[min(i, 1):min(i, 1)+1] + name.Draw(t, "parameter")
			if rapid.Bool().Draw(t, "valued") {
				target += "=" + escape.Draw(t, "value")
			}
		}
		var fields [][2]string
		h := head(method, target)
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			f := [2]string{name.Draw(t, "field"), value.Draw(t, "value")}
			fields = append(fields, f)
			h.Add([]byte(f[0]), []byte(f[1]))
		}
		want := -1
		for i := range matches {
			if naive(matches[i], method, target, fields) {
				want = i
				break
			}
		}
		got := -1
		if r := table.Match(h); r != nil {
			got = r.Index
		}
		if got != want {
			t.Fatalf("%s %s %q: route %d, want %d of %+v", method, target, fields, got, want, matches)
		}
	})
}

func TestChoose(t *testing.T) {
	weights := []uint32{0, 9, 0, 1, 90, 0}
	r := model.Route{Match: model.Match{Path: "/"}}
	for i, w := range weights {
		r.Backends = append(r.Backends, model.Backend{Cluster: model.PortName{Port: uint16(i)}, Weight: w})
	}
	table, err := router.Compile(&model.RouteTable{Routes: []model.Route{r, {Match: model.Match{Path: "/"}}}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000 // evenly over all of uint32: exact shares, no chance
	got := make([]int, len(weights))
	for i := range n {
		got[table.Routes[0].Choose(uint32(uint64(i)*(math.MaxUint32+1)/n)).Cluster.Port]++
	}
	for i, w := range weights {
		if want := int(w) * n / 100; got[i] < want-1 || got[i] > want+1 {
			t.Errorf("backend %d of weight %d of 100: %d of %d", i, w, got[i], n)
		}
	}
	if got := table.Routes[0].Choose(math.MaxUint32); got.Cluster.Port != 4 {
		t.Errorf("the largest number chooses backend %d", got.Cluster.Port)
	}
	if table.Routes[1].Choose(1) != nil {
		t.Error("a route without backends has one")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	table := compile(t,
		model.Match{PathKind: model.PathRegex, Path: "/[0-9]+"},
		model.Match{Path: "/", Headers: []model.FieldMatch{{Name: "X-User", Value: "a,c"}, {Name: "cookie", Value: ".*a=b.*", Regex: true}}},
		model.Match{Path: "/a", Query: []model.FieldMatch{{Name: "v", Value: "a c"}}},
		model.Match{Path: "/a", Query: []model.FieldMatch{{Name: "v", Value: "a b"}, {Name: "w", Value: "[0-9]", Regex: true}}},
	)
	h := head("GET", "/a/b?u=%41&v=a+b&w=7", "x-user", "a", "x-user", "b", "cookie", "x=y; a=b")
	if n := testing.AllocsPerRun(1000, func() {
		if r := table.Match(h); r == nil || r.Index != 3 {
			t.Fatal("another route")
		}
	}); n != 0 {
		t.Errorf("%v allocations per match", n)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("/a?b=c", "x", "y")
	f.Add("/a?b=%", "b", "%zz")
	f.Add("*", "", "")
	f.Add("/?a=%e2%82", "a", "+")
	f.Fuzz(func(t *testing.T, target, name, value string) {
		table := compile(t,
			model.Match{Path: "/", Headers: []model.FieldMatch{{Name: name, Value: value}}},
			model.Match{Path: "/", Query: []model.FieldMatch{{Name: name, Value: value}}},
			model.Match{Path: "/", Query: []model.FieldMatch{{Name: name, Value: ".*", Regex: true}}},
		)
		r := table.Match(head("GET", target, name, value))
		if (r == nil || r.Index != 0) && !strings.EqualFold(name, "host") && isASCII(name) {
			t.Fatalf("a header does not match itself: %q", name)
		}
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func BenchmarkMatch(b *testing.B) {
	m := &model.RouteTable{}
	for i := range 10 {
		m.Routes = append(m.Routes, model.Route{Match: model.Match{Path: fmt.Sprintf("/p%d", i), Headers: []model.FieldMatch{{Name: "x-user", Value: "me"}}}})
	}
	table, err := router.Compile(m)
	if err != nil {
		b.Fatal(err)
	}
	h := head("GET", "/p9/x?y=z", "accept", "*/*", "user-agent", "x", "x-user", "me")
	b.ReportAllocs()
	for b.Loop() {
		table.Match(h)
	}
}
