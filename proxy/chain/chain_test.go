package chain_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/chain"
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func conn(change func(*chain.Conn)) *chain.Conn {
	c := &chain.Conn{
		Destination: netip.MustParseAddrPort("192.0.2.1:443"), Transport: chain.Raw,
		Direct: netip.MustParseAddr("203.0.113.9"), Source: netip.MustParseAddrPort("203.0.113.9:5555"),
	}
	if change != nil {
		change(c)
	}
	return c
}

func tls(name string, alpn ...string) *chain.Conn {
	return conn(func(c *chain.Conn) { c.Transport, c.ServerName, c.ALPN = chain.TLS, name, alpn })
}

func TestFind(t *testing.T) {
	names := func(n ...string) model.ChainMatch { return model.ChainMatch{ServerNames: n} }
	from := func(a string) *chain.Conn {
		return conn(func(c *chain.Conn) {
			c.Source = netip.AddrPortFrom(netip.MustParseAddr(a), 5555)
			c.Direct = c.Source.Addr()
		})
	}
	for _, c := range []struct {
		name  string
		match []model.ChainMatch
		conn  *chain.Conn
		want  int
	}{
		{"no chain", nil, conn(nil), -1},
		{"an empty match is for all", []model.ChainMatch{{}}, conn(nil), 0},
		{"port", []model.ChainMatch{{}, {DestinationPort: 443}}, conn(nil), 1},
		{"other port", []model.ChainMatch{{}, {DestinationPort: 80}}, conn(nil), 0},
		{"longest destination prefix", []model.ChainMatch{{Destinations: prefixes("192.0.0.0/8")}, {Destinations: prefixes("10.0.0.0/8", "192.0.2.0/24")}, {}}, conn(nil), 1},
		{"prefix of the other family", []model.ChainMatch{{Destinations: prefixes("::/0")}}, conn(nil), -1},
		{"0.0.0.0/0 before none", []model.ChainMatch{{}, {Destinations: prefixes("0.0.0.0/0")}}, conn(nil), 1},
		{"exact name", []model.ChainMatch{names("*.example.com"), names("a.example.com")}, tls("a.example.com"), 1},
		{"wildcard", []model.ChainMatch{names("*.example.com"), names("a.example.com")}, tls("b.example.com"), 0},
		{"wildcard of two labels", []model.ChainMatch{names("*.example.com")}, tls("x.y.example.com"), 0},
		{"longest wildcard", []model.ChainMatch{names("*.com"), names("*.example.com"), {}}, tls("x.y.example.com"), 1},
		{"wildcard is not the name itself", []model.ChainMatch{names("*.example.com")}, tls("example.com"), -1},
		{"name is folded at compile time", []model.ChainMatch{names("A.Example.com")}, tls("a.example.com"), 0},
		{"no name, names wanted", []model.ChainMatch{names("a.example.com"), {}}, conn(nil), 1},
		{"transport", []model.ChainMatch{{Transport: chain.Raw}, {Transport: chain.TLS}}, tls(""), 1},
		{"transport, any", []model.ChainMatch{{}, {Transport: chain.TLS}}, conn(nil), 0},
		{"ALPN in the client's order", []model.ChainMatch{{ALPN: []string{"http/1.1"}}, {ALPN: []string{"h2"}}}, tls("", "h2", "http/1.1"), 1},
		{"ALPN that nobody names", []model.ChainMatch{{ALPN: []string{"h2"}}, {}}, tls("", "foo"), 1},
		{"source type local", []model.ChainMatch{{SourceType: model.SourceLocal}, {SourceType: model.SourceExternal}}, from("127.0.0.1"), 0},
		{"own address is local", []model.ChainMatch{{SourceType: model.SourceLocal}, {SourceType: model.SourceExternal}}, from("192.0.2.1"), 0},
		{"source type external", []model.ChainMatch{{SourceType: model.SourceLocal}, {SourceType: model.SourceExternal}}, from("203.0.113.9"), 1},
		{"source prefix", []model.ChainMatch{{Sources: prefixes("203.0.113.0/24")}, {Sources: prefixes("203.0.113.9/32")}}, from("203.0.113.9"), 1},
		{"mapped source", []model.ChainMatch{{Sources: prefixes("203.0.113.0/24")}}, from("::ffff:203.0.113.9"), 0},
		{"source port", []model.ChainMatch{{}, {SourcePorts: []uint16{1, 5555}}}, from("203.0.113.9"), 1},
		{"direct source", []model.ChainMatch{{}, {DirectSources: prefixes("203.0.113.9/32")}}, from("203.0.113.9"), 1},
		{"what was decided is not revisited", []model.ChainMatch{
			{DestinationPort: 443, ServerNames: []string{"other.example.com"}}, {ServerNames: []string{"a.example.com"}}}, tls("a.example.com"), -1},
		{"likewise with names", []model.ChainMatch{
			{ServerNames: []string{"a.example.com"}, ALPN: []string{"h2"}}, {ServerNames: []string{"*.example.com"}}}, tls("a.example.com", "http/1.1"), -1},
	} {
		table, err := chain.Compile(c.match)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := table.Find(c.conn); got != c.want {
			t.Errorf("%s: chain %d, want %d", c.name, got, c.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, c := range []struct {
		match []model.ChainMatch
		want  string
	}{
		{[]model.ChainMatch{{}, {}}, "filter chain 1: matches the same connections"},
		{[]model.ChainMatch{{ServerNames: []string{"a", "b"}}, {ServerNames: []string{"c", "B"}}}, "filter chain 1: matches the same"},
		{[]model.ChainMatch{{Sources: prefixes("10.0.0.0/8")}, {Sources: prefixes("10.1.0.0/8")}}, "filter chain 1: matches the same"},
		{[]model.ChainMatch{{ServerNames: []string{"*"}}}, "neither a name nor a wildcard"},
		{[]model.ChainMatch{{ServerNames: []string{"a*.example.com"}}}, "neither a name nor a wildcard"},
		{[]model.ChainMatch{{ServerNames: []string{"*a.example.com"}}}, "neither a name nor a wildcard"},
		{[]model.ChainMatch{{ServerNames: []string{""}}}, "neither a name nor a wildcard"},
		{[]model.ChainMatch{{Sources: make([]netip.Prefix, 1)}}, "no address prefix"},
	} {
		if _, err := chain.Compile(c.match); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.match, err, c.want)
		}
	}
	many := model.ChainMatch{}
	for i := range 400 {
		many.SourcePorts = append(many.SourcePorts, uint16(i+1))
		many.ServerNames = append(many.ServerNames, fmt.Sprint("n", i))
		many.ALPN = append(many.ALPN, fmt.Sprint("p", i))
	}
	if _, err := chain.Compile([]model.ChainMatch{many}); err == nil {
		t.Error("64 million combinations were accepted")
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	table, err := chain.Compile([]model.ChainMatch{{ServerNames: []string{"*.example.com"}, Sources: prefixes("203.0.113.0/24")}, {}})
	if err != nil {
		t.Fatal(err)
	}
	c := tls("x.y.example.com", "h2")
	if n := testing.AllocsPerRun(100, func() { table.Find(c) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// naive narrows the list of chains down property by property, as the documentation of Envoy tells it.
func naive(all []model.ChainMatch, c *chain.Conn) int {
	left := make([]int, len(all))
	for i := range all {
		left[i] = i
	}
	// narrow keeps those for which rank is highest; -1 is no match at all.
	narrow := func(rank func(m *model.ChainMatch) int) {
		best := -1
		for _, i := range left {
			best = max(best, rank(&all[i]))
		}
		left = slices.DeleteFunc(left, func(i int) bool { r := rank(&all[i]); return r < 0 || r != best })
	}
	in := func(ps []netip.Prefix, a netip.Addr) int {
		best := -1
		for _, p := range ps {
			if p.Contains(a.Unmap()) {
				best = max(best, p.Bits()+1)
			}
		}
		if len(ps) == 0 {
			best = 0
		}
		return best
	}
	exact := func(unset, equal bool) int {
		switch {
		case unset:
			return 0
		case equal:
			return 1
		}
		return -1
	}
	narrow(func(m *model.ChainMatch) int {
		return exact(m.DestinationPort == 0, m.DestinationPort == c.Destination.Port())
	})
	narrow(func(m *model.ChainMatch) int { return in(m.Destinations, c.Destination.Addr()) })
	narrow(func(m *model.ChainMatch) int {
		best := exact(len(m.ServerNames) == 0, false)
		for _, n := range m.ServerNames {
			if n == c.ServerName {
				return 1000
			}
			if rest, wild := strings.CutPrefix(n, "*"); wild && strings.HasSuffix(c.ServerName, rest) && len(c.ServerName) > len(rest) {
				best = max(best, len(rest))
			}
		}
		return best
	})
	narrow(func(m *model.ChainMatch) int { return exact(m.Transport == "", m.Transport == c.Transport) })
	narrow(func(m *model.ChainMatch) int {
		for i, p := range c.ALPN {
			if slices.Contains(m.ALPN, p) {
				return 100 - i
			}
		}
		return exact(len(m.ALPN) == 0, false)
	})
	narrow(func(m *model.ChainMatch) int { return in(m.DirectSources, c.Direct) })
	local := c.Source.Addr().IsLoopback() || c.Source.Addr() == c.Destination.Addr()
	narrow(func(m *model.ChainMatch) int {
		return exact(m.SourceType == model.SourceAny, (m.SourceType == model.SourceLocal) == local)
	})
	narrow(func(m *model.ChainMatch) int { return in(m.Sources, c.Source.Addr()) })
	narrow(func(m *model.ChainMatch) int {
		return exact(len(m.SourcePorts) == 0, slices.Contains(m.SourcePorts, c.Source.Port()))
	})
	if len(left) == 0 {
		return -1
	}
	return left[0]
}

func TestAgainstNaive(t *testing.T) {
	names := []string{"a.example.com", "b.example.com", "x.a.example.com", "example.com", "com", "other"}
	wild := append([]string{"*.example.com", "*.com", "*.a.example.com"}, names...)
	protocols := []string{"h2", "http/1.1", "foo"}
	nets := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "::/0", "fd00::/8", "127.0.0.0/8"}
	addrs := []string{"10.1.2.3", "10.1.2.4", "10.2.0.1", "127.0.0.1", "fd00::1", "2001:db8::1"}
	some := func(from []string) *rapid.Generator[[]string] {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 2, rapid.ID[string])
	}
	found, none := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var all []model.ChainMatch
		for range rapid.IntRange(0, 8).Draw(t, "chains") {
			m := model.ChainMatch{
				DestinationPort: rapid.SampledFrom([]uint16{0, 0, 443, 80}).Draw(t, "port"), ServerNames: some(wild).Draw(t, "names"),
				Transport:  rapid.SampledFrom([]string{"", "", chain.TLS, chain.Raw}).Draw(t, "transport"),
				SourceType: model.SourceType(rapid.IntRange(0, 2).Draw(t, "type")),
			}
			if rapid.Bool().Draw(t, "alpn?") {
				m.ALPN = some(protocols).Draw(t, "alpn")
			}
			if rapid.Bool().Draw(t, "sources?") {
				m.Sources, m.DirectSources = prefixes(some(nets).Draw(t, "sources")...), prefixes(some(nets).Draw(t, "direct")...)
			}
			if rapid.Bool().Draw(t, "destinations?") {
				m.Destinations = prefixes(some(nets).Draw(t, "destinations")...)
			}
			if rapid.Bool().Draw(t, "ports?") {
				m.SourcePorts = []uint16{1}
			}
			if _, err := chain.Compile(append(slices.Clone(all), m)); err == nil {
				all = append(all, m) // overlapping ones have no answer to compare
			}
		}
		table, err := chain.Compile(all)
		if err != nil {
			t.Fatal(err)
		}
		addr := func(label string) netip.Addr { return netip.MustParseAddr(rapid.SampledFrom(addrs).Draw(t, label)) }
		c := &chain.Conn{
			Destination: netip.AddrPortFrom(addr("to"), rapid.SampledFrom([]uint16{443, 80, 1}).Draw(t, "to port")),
			ServerName:  rapid.SampledFrom(append([]string{"", "z.com"}, names...)).Draw(t, "name"), ALPN: some(protocols).Draw(t, "alpn"),
			Transport: rapid.SampledFrom([]string{chain.TLS, chain.Raw}).Draw(t, "transport"), Direct: addr("direct"),
			Source: netip.AddrPortFrom(addr("from"), rapid.SampledFrom([]uint16{1, 2}).Draw(t, "from port")),
		}
		got, want := table.Find(c), naive(all, c)
		if got != want {
			t.Fatalf("chain %d, want %d, of %+v for %+v", got, want, all, c)
		}
		if got < 0 {
			none++
		} else {
			found++
		}
	})
	if found == 0 || none == 0 {
		t.Errorf("found %d, not found %d: the test does not look at both", found, none)
	}
}

func FuzzFind(f *testing.F) {
	f.Add("a.example.com", "h2", uint16(443), []byte{10, 1, 2, 3})
	f.Add(".example.com.", "", uint16(0), []byte{})
	f.Add("..", "h2", uint16(1), []byte{1})
	all := []model.ChainMatch{
		{ServerNames: []string{"a.example.com", "*.example.com"}}, {ServerNames: []string{"*.com"}, ALPN: []string{"h2"}},
		{DestinationPort: 443, Sources: prefixes("10.0.0.0/8")}, {Transport: chain.TLS},
	}
	table, err := chain.Compile(all)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, alpn string, port uint16, ip []byte) {
		a, _ := netip.AddrFromSlice(ip)
		c := &chain.Conn{Destination: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port), Transport: chain.TLS,
			ServerName: strings.ToLower(name), ALPN: []string{alpn}, Direct: a, Source: netip.AddrPortFrom(a, port)}
		if strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
			table.Find(c) // no name; it only has to end
			return
		}
		if got, want := table.Find(c), naive(all, c); got != want {
			t.Fatalf("chain %d, want %d", got, want)
		}
	})
}
