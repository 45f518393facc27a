package router_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// hostTable has a virtual host for every list of domains, each with one route for everything.
func hostTable(domains ...[]string) *model.RouteTable {
	t := &model.RouteTable{Name: model.Free("t")}
	for i, d := range domains {
		t.Hosts = append(t.Hosts, model.VirtualHost{Name: fmt.Sprint("h", i), Domains: d,
			Routes: []model.Route{{Match: model.Match{Path: "/", PathPrefixText: true}}}})
	}
	return t
}

func at(authority string) *message.Head {
	h := head("GET", "/")
	h.Authority = []byte(authority)
	return h
}

func TestVirtualHosts(t *testing.T) {
	m := hostTable([]string{"*"}, []string{"example.com", "example.com:8080"}, []string{"*.example.com"}, []string{"*-bar.example.com"},
		[]string{"foo.*"}, []string{"foo.example.*", "[::1]:80"})
	for _, c := range []struct {
		authority string
		ignore    bool
		want      string
	}{
		{"example.com", false, "h1"}, {"EXAMPLE.com", false, "h1"}, {"example.com:8080", false, "h1"}, {"example.com:81", false, "h0"},
		{"example.com:81", true, "h1"}, {"www.example.com", false, "h2"}, {"a.b.example.com", false, "h2"}, {".example.com", false, "h0"},
		{"foo-bar.example.com", false, "h3"}, {"foo.example.com", false, "h2"}, {"foo.example.org", false, "h5"}, {"foo.org", false, "h4"},
		{"foo.", false, "h0"}, {"", false, "h0"}, {"[::1]:80", false, "h5"}, {"[::1]", true, "h0"},
		{strings.Repeat("x", 300) + ".example.com", false, "h0"},
	} {
		m.IgnorePort = c.ignore
		table, err := router.Compile(m)
		if err != nil {
			t.Fatal(err)
		}
		r := table.Match(at(c.authority))
		if r == nil || r.Host.Name != c.want {
			t.Errorf("%q: %+v, want %s", c.authority, r, c.want)
		}
	}
	table, err := router.Compile(hostTable([]string{"a"}, []string{"*.b"}))
	if err != nil {
		t.Fatal(err)
	}
	if r := table.Match(at("b")); r != nil {
		t.Errorf("nobody's authority was served by %s", r.Host.Name)
	}
}

func TestVirtualHostsRefuse(t *testing.T) {
	for _, c := range []struct {
		domains [][]string
		want    string
	}{
		{[][]string{{"a"}, {"b", "A"}}, `virtual hosts h0 and h1 share the domain "a"`},
		{[][]string{{"*"}, {"*"}}, `share the domain "*"`},
		{[][]string{{"a.*.b"}}, "stands at the start or at the end"},
		{[][]string{{"*.*"}}, "stands at the start or at the end"},
		{[][]string{{""}}, "an empty domain"},
	} {
		if _, err := router.Compile(hostTable(c.domains...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.domains, err, c.want)
		}
	}
}

// naiveHost looks at every domain.
func naiveHost(m *model.RouteTable, authority string) (best string) {
	rank := -1
	for _, h := range m.Hosts {
		for _, d := range h.Domains {
			now := -1
			a := strings.ToLower(authority)
			switch {
			case d == "*":
				now = 0
			case d == a:
				now = 10_000
			case d[0] == '*' && strings.HasSuffix(a, d[1:]) && len(a) > len(d)-1:
				now = 1000 + len(d)
			case d[len(d)-1] == '*' && strings.HasPrefix(a, d[:len(d)-1]) && len(a) > len(d)-1:
				now = 1 + len(d)
			}
			if now > rank {
				rank, best = now, h.Name
			}
		}
	}
	return best
}

func TestVirtualHostsAgainstNaive(t *testing.T) {
	labels := []string{"a", "b", "ab", "com"}
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(labels), 1, 3).Draw(t, "labels"), rapid.SampledFrom([]string{".", "-"}).Draw(t, "glue"))
	})
	domain := rapid.Custom(func(t *rapid.T) string {
		n := name.Draw(t, "name")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return "*." + n
		case 1:
			return "*" + n
		case 2:
			return n + ".*"
		case 3:
			return "*"
		}
		return n
	})
	rapid.Check(t, func(t *rapid.T) {
		taken := map[string]bool{}
		m := &model.RouteTable{Name: model.Free("t")}
		for i := range rapid.IntRange(1, 6).Draw(t, "hosts") {
			h := model.VirtualHost{Name: fmt.Sprint("h", i), Routes: []model.Route{{Match: model.Match{Path: "/", PathPrefixText: true}}}}
			for _, d := range rapid.SliceOfN(domain, 0, 3).Draw(t, "domains") {
				if !taken[d] {
					taken[d] = true
					h.Domains = append(h.Domains, d)
				}
			}
			m.Hosts = append(m.Hosts, h)
		}
		table, err := router.Compile(m)
		if err != nil {
			t.Fatal(err)
		}
		authority := name.Draw(t, "authority")
		got := ""
		if r := table.Match(at(authority)); r != nil {
			got = r.Host.Name
		}
		if want := naiveHost(m, authority); got != want {
			t.Fatalf("%q: %q, want %q", authority, got, want)
		}
	})
}

// TestMatchForeign is what only foreign tables say.
func TestMatchForeign(t *testing.T) {
	field := func(f model.FieldMatch) model.Match {
		f.Name = "x-n"
		return model.Match{Path: "/", Headers: []model.FieldMatch{f}}
	}
	query := func(f model.FieldMatch) model.Match {
		f.Name = "n"
		return model.Match{Path: "/", Query: []model.FieldMatch{f}}
	}
	with := func(v string) *message.Head { return head("GET", "/", "X-N", v) }
	asked := func(q string) *message.Head { return head("GET", "/?"+q) }
	for _, c := range []struct {
		name  string
		match model.Match
		head  *message.Head
		want  bool
	}{
		{"text prefix", model.Match{Path: "/a", PathPrefixText: true}, head("GET", "/ab"), true},
		{"text prefix with slash", model.Match{Path: "/a/", PathPrefixText: true}, head("GET", "/a"), false},
		{"prefix, any case", model.Match{Path: "/Ab", IgnoreCase: true}, head("GET", "/aB/c"), true},
		{"exact, any case", model.Match{PathKind: model.PathExact, Path: "/Ab", IgnoreCase: true}, head("GET", "/aB"), true},
		{"regex, any case", model.Match{PathKind: model.PathRegex, Path: "/a+", IgnoreCase: true}, head("GET", "/AaA"), true},
		{"grpc", model.Match{Path: "/", GRPC: true}, head("POST", "/", "content-type", "application/grpc"), true},
		{"grpc+proto", model.Match{Path: "/", GRPC: true}, head("POST", "/", "content-type", "application/grpc+proto"), true},
		{"grpc-web is not gRPC", model.Match{Path: "/", GRPC: true}, head("POST", "/", "content-type", "application/grpc-web"), false},
		{"no grpc", model.Match{Path: "/", GRPC: true}, head("POST", "/"), false},
		{"connect", model.Match{Connect: true}, head("CONNECT", ""), true},
		{"not connect", model.Match{Connect: true}, head("GET", "/"), false},
		{"present", field(model.FieldMatch{Kind: model.FieldPresent}), with(""), true},
		{"not present", field(model.FieldMatch{Kind: model.FieldPresent}), head("GET", "/"), false},
		{"absent", field(model.FieldMatch{Kind: model.FieldPresent, Invert: true}), head("GET", "/"), true},
		{"not absent", field(model.FieldMatch{Kind: model.FieldPresent, Invert: true}), with(""), false},
		{"prefix", field(model.FieldMatch{Kind: model.FieldPrefix, Value: "ab"}), with("abc"), true},
		{"no prefix", field(model.FieldMatch{Kind: model.FieldPrefix, Value: "ab"}), with("a"), false},
		{"suffix, any case", field(model.FieldMatch{Kind: model.FieldSuffix, Value: "BC", IgnoreCase: true}), with("abc"), true},
		{"suffix", field(model.FieldMatch{Kind: model.FieldSuffix, Value: "BC"}), with("abc"), false},
		{"contains", field(model.FieldMatch{Kind: model.FieldContains, Value: "b"}), with("abc"), true},
		{"contains not", field(model.FieldMatch{Kind: model.FieldContains, Value: "x"}), with("abc"), false},
		{"contains, inverted", field(model.FieldMatch{Kind: model.FieldContains, Value: "x", Invert: true}), with("abc"), true},
		{"inverted and missing", field(model.FieldMatch{Value: "x", Invert: true}), head("GET", "/"), false},
		{"value, any case", field(model.FieldMatch{Value: "aBc", IgnoreCase: true}), with("AbC"), true},
		{"regex, any case", field(model.FieldMatch{Value: "a+", Regex: true, IgnoreCase: true}), with("AA"), true},
		{"range", field(model.FieldMatch{Kind: model.FieldRange, From: -10, To: 0}), with("-1"), true},
		{"range, end", field(model.FieldMatch{Kind: model.FieldRange, From: -10, To: 0}), with("0"), false},
		{"range, no number", field(model.FieldMatch{Kind: model.FieldRange, From: -10, To: 10}), with("1a"), false},
		{"range, too long", field(model.FieldMatch{Kind: model.FieldRange, From: -10, To: 10}), with("99999999999999999999"), false},
		{"range, least", field(model.FieldMatch{Kind: model.FieldRange, From: -1 << 63, To: 0}), with("-9223372036854775808"), true},
		{"method as a field", model.Match{Path: "/", Headers: []model.FieldMatch{{Name: ":method", Value: "GET"}}}, head("GET", "/"), true},
		{"path as a field", model.Match{Path: "/", Headers: []model.FieldMatch{{Name: ":path", Value: "/x", Kind: model.FieldPrefix}}}, head("GET", "/xy?z"), true},
		{"query present", query(model.FieldMatch{Kind: model.FieldPresent}), asked("a=1&n"), true},
		{"query absent", query(model.FieldMatch{Kind: model.FieldPresent, Invert: true}), asked("a=1"), true},
		{"query prefix, encoded", query(model.FieldMatch{Kind: model.FieldPrefix, Value: "a b"}), asked("n=a%20bc"), true},
		{"query, any case, encoded", query(model.FieldMatch{Value: "A B", IgnoreCase: true}), asked("n=a+b"), true},
		{"query suffix", query(model.FieldMatch{Kind: model.FieldSuffix, Value: "c"}), asked("n=abc"), true},
	} {
		if got := compile(t, c.match).Match(c.head) != nil; got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestConnectInHosts: where there are virtual hosts, only a route for CONNECT takes it; its extended form has a path.
func TestConnectInHosts(t *testing.T) {
	m := hostTable([]string{"*"})
	table, err := router.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	connect := head("CONNECT", "")
	if table.Match(connect) != nil {
		t.Error("CONNECT was taken by a path")
	}
	extended := head("CONNECT", "/chat")
	extended.Upgrade = []byte("websocket")
	if table.Match(extended) == nil {
		t.Error("extended CONNECT has a path, and it was not looked at")
	}
	m.Hosts[0].Routes = append(m.Hosts[0].Routes, model.Route{Match: model.Match{Connect: true}})
	if table, err = router.Compile(m); err != nil {
		t.Fatal(err)
	}
	if r := table.Match(connect); r == nil || r.Index != 1 {
		t.Errorf("CONNECT: %+v", r)
	}
}

func TestFraction(t *testing.T) {
	table := compile(t, model.Match{Path: "/", Fraction: 250_000}, model.Match{Path: "/"})
	n, total := 0, 1<<12
	for i := range total {
		if table.Find(head("GET", "/"), uint32(i)<<20).Index == 0 {
			n++
		}
	}
	if n != total/4 {
		t.Errorf("%d of %d, want a quarter", n, total)
	}
	if table.Match(head("GET", "/")).Index != 0 {
		t.Error("Match does not count the request among every fraction")
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	m := hostTable([]string{"*.example.com", "foo.*"}, []string{"www.example.com"})
	m.Hosts[0].Routes[0].Match = model.Match{Path: "/A", IgnoreCase: true, PathPrefixText: true, GRPC: true, Fraction: 900_000,
		Headers: []model.FieldMatch{{Name: "x", Kind: model.FieldContains, Value: "Y", IgnoreCase: true}, {Name: "n", Kind: model.FieldRange, To: 9}},
		Query:   []model.FieldMatch{{Name: "q", Kind: model.FieldPrefix, Value: "a b"}}}
	table, err := router.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	h := head("POST", "/a?q=a%20bc", "content-type", "application/grpc", "x", "xyz", "n", "5")
	h.Authority = []byte("Sub.Example.com")
	if table.Find(h, 0) == nil {
		t.Fatal("no match")
	}
	if n := testing.AllocsPerRun(100, func() { table.Find(h, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFind holds the choice of the virtual host to naiveHost for any authority.
func FuzzFind(f *testing.F) {
	for _, s := range []string{"", "a", "*", ":80", "[::1]:80", "www.example.com", "foo.", "foo.x:1", "X-bar.example.com", strings.Repeat("a", 270)} {
		f.Add(s, "/a?b=c")
	}
	m := hostTable([]string{"*"}, []string{"example.com"}, []string{"*.example.com"}, []string{"*-bar.example.com"}, []string{"foo.*"})
	table, err := router.Compile(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, authority, target string) {
		for i := range len(authority) {
			if authority[i] >= 0x80 {
				return // strings.ToLower folds more than ASCII
			}
		}
		h := head("GET", target)
		h.Authority = []byte(authority)
		got := ""
		if r := table.Match(h); r != nil {
			got = r.Host.Name
		}
		want := naiveHost(m, authority)
		if len(authority) > 264 {
			want = "h0"
		}
		if !strings.HasPrefix(target, "/") {
			want = ""
		}
		if got != want {
			t.Fatalf("%q: %q, want %q", authority, got, want)
		}
	})
}
