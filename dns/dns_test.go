package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tulle-mesh/tulle/model"
)

// names is the mesh of these tests. It remembers what it was asked.
type names struct {
	mu    sync.Mutex
	known map[string][2]netip.Addr
	away  bool
	asked []string
}

func (n *names) Lookup(_ context.Context, name model.ServiceName) (v4, v6 netip.Addr, known bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, name.String())
	a, known := n.known[name.String()]
	if !known && n.away {
		return v4, v6, false, errors.New("control plane is away")
	}
	return a[0], a[1], known, nil
}

func (n *names) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.asked
	n.asked = nil
	return a
}

func (o *outside) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.asked
	o.asked = nil
	return a
}

// outside is a resolver of the machine: it knows *.example., and a single label "printer.".
type outside struct {
	addr  netip.AddrPort
	mu    sync.Mutex
	asked []string
}

func (o *outside) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	o.mu.Lock()
	o.asked = append(o.asked, q.Question[0].Name)
	o.mu.Unlock()
	a := new(dns.Msg).SetReply(q)
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	name := strings.ToLower(q.Question[0].Name)
	switch {
	case name == "silent.example.":
		return
	case name == "large.example." && udp:
		a.Truncated = true
	case name == "large.example.":
		for range 100 {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 100)}})
		}
	case strings.HasSuffix(name, ".example.") || name == "printer.":
		a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 77}, A: net.IPv4(192, 0, 2, 1)}}
	default:
		a.Rcode = dns.RcodeNameError
	}
	w.WriteMsg(a)
}

func startOutside(t *testing.T) *outside {
	o := &outside{}
	p, l := listen(t)
	o.addr = netip.MustParseAddrPort(p.LocalAddr().String())
	for _, s := range []*dns.Server{{PacketConn: p, Handler: o}, {Listener: l, Handler: o}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			s.Shutdown()
			<-done
		})
	}
	return o
}

// listen opens UDP and TCP on the same loopback port.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		p, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", p.LocalAddr().String()); err == nil {
			return p, l
		}
		p.Close()
	}
	t.Fatal("no port that is free for UDP and TCP")
	return nil, nil
}

type fixture struct {
	t       *testing.T
	addr    string
	mesh    *names
	outside *outside
	server  *Server
}

func start(t *testing.T, change func(*Config)) *fixture {
	f := &fixture{t: t, outside: startOutside(t), mesh: &names{known: map[string][2]netip.Addr{
		"reviews.default": {netip.MustParseAddr("198.18.0.5"), netip.MustParseAddr("fd74:756c:6c65::5")},
		"old.default":     {netip.MustParseAddr("198.18.0.6"), {}},
		"db.data":         {netip.MustParseAddr("198.18.0.7"), netip.MustParseAddr("fd74:756c:6c65::7")},
	}}}
	p, l := listen(t)
	f.addr = p.LocalAddr().String()
	cfg := Config{
		Names: f.mesh, Namespace: "default", Packets: []net.PacketConn{p}, Listeners: []net.Listener{l},
		Resolvers: Resolvers{f.outside.addr}, Timeout: 5 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	f.server = Start(cfg)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fixture) query(network, name string, qtype uint16) *dns.Msg {
	f.t.Helper()
	c := dns.Client{Net: network, Timeout: 10 * time.Second}
	a, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, qtype), f.addr)
	if err != nil {
		f.t.Fatalf("%s %s: %v", network, name, err)
	}
	return a
}

// short is an answer in one line: code and addresses.
func short(a *dns.Msg) string {
	s := dns.RcodeToString[a.Rcode]
	for _, r := range a.Answer {
		switch r := r.(type) {
		case *dns.A:
			s += fmt.Sprintf(" %s/%d", r.A, r.Hdr.Ttl)
		case *dns.AAAA:
			s += fmt.Sprintf(" %s/%d", r.AAAA, r.Hdr.Ttl)
		}
	}
	return s
}

func TestNames(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"reviews.", dns.TypeA, "NOERROR 198.18.0.5/5"},
		{"ReViews.", dns.TypeAAAA, "NOERROR fd74:756c:6c65::5/5"},
		{"reviews.default.", dns.TypeA, "NOERROR 198.18.0.5/5"},
		{"reviews.default.svc.cluster.local.", dns.TypeA, "NOERROR 198.18.0.5/5"},
		{"db.data.svc.cluster.local.", dns.TypeA, "NOERROR 198.18.0.7/5"},
		{"db.data.", dns.TypeA, "NOERROR 198.18.0.7/5"},
		{"reviews.", dns.TypeMX, "NOERROR"},
		{"reviews.", dns.TypeHTTPS, "NOERROR"},
		{"reviews.", dns.TypeANY, "NOERROR 198.18.0.5/5 fd74:756c:6c65::5/5"},
		{"old.", dns.TypeA, "NOERROR 198.18.0.6/5"},
		{"old.", dns.TypeAAAA, "NOERROR"},
		{"nobody.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"reviews.default.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"}, // by a search domain
		{"reviews.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"reviews.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"nobody.", dns.TypeA, "NXDOMAIN"},
		{"nobody.default.", dns.TypeA, "NXDOMAIN"},
		{"nobody.data.", dns.TypeA, "NXDOMAIN"},
		{"printer.", dns.TypeA, "NOERROR 192.0.2.1/77"},
		{"www.example.", dns.TypeA, "NOERROR 192.0.2.1/77"},
		{"a.b.c.example.", dns.TypeA, "NOERROR 192.0.2.1/77"},
		{"localhost.", dns.TypeA, "NOERROR 127.0.0.1/5"},
		{"localhost.", dns.TypeAAAA, "NOERROR ::1/5"},
		{"5.0.18.198.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			a := f.query(network, c.name, c.qtype)
			if got := short(a); got != c.want {
				t.Errorf("%s %s %s: %s, want %s", network, c.name, dns.TypeToString[c.qtype], got, c.want)
			}
			if len(a.Question) != 1 || a.Question[0].Name != c.name || !a.Response || !a.RecursionAvailable {
				t.Errorf("%s: the answer is to %v", c.name, a.Question)
			}
			if a.Authoritative && len(a.Answer) == 0 && len(a.Ns) != 1 {
				t.Errorf("%s: nothing, and no SOA says for how long", c.name)
			}
		}
	}
}

// TestWhoIsAsked: public names never reach the control plane, names of the mesh never leave.
func TestWhoIsAsked(t *testing.T) {
	f := start(t, nil)
	for _, n := range []string{"www.example.", "a.b.c.example.", "x.example.", "localhost.", "8.8.8.8.in-addr.arpa.", "_ldap._tcp.", "_x.default."} {
		f.query("udp", n, dns.TypeA)
	}
	if asked := f.mesh.take(); len(asked) > 0 {
		t.Errorf("the mesh was asked for %q", asked)
	}
	f.outside.take()
	for _, n := range []string{"reviews.", "reviews.default.", "nobody.default.svc.cluster.local.", "x.cluster.local.", "5.0.18.198.in-addr.arpa.",
		"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.6.c.6.c.6.5.7.4.7.d.f.ip6.arpa."} {
		f.query("udp", n, dns.TypeA)
	}
	if asked := f.outside.take(); len(asked) > 0 {
		t.Errorf("the machine's resolver was asked for %q", asked)
	}
}

func TestControlPlaneAway(t *testing.T) {
	f := start(t, nil)
	f.mesh.mu.Lock()
	f.mesh.away = true
	f.mesh.mu.Unlock()
	for name, want := range map[string]string{
		"reviews.":                          "NOERROR 198.18.0.5/5",
		"nobody.":                           "SERVFAIL",
		"nobody.default.svc.cluster.local.": "SERVFAIL",
		"www.example.":                      "NOERROR 192.0.2.1/77",
		"x.cluster.local.":                  "NXDOMAIN",
	} {
		if got := short(f.query("udp", name, dns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestForwardedOverTCPWhenTruncated(t *testing.T) {
	f := start(t, nil)
	a := f.query("udp", "large.example.", dns.TypeTXT)
	if !a.Truncated {
		t.Error("an answer that does not fit into the client's UDP says nothing of it")
	}
	if a := f.query("tcp", "large.example.", dns.TypeTXT); len(a.Answer) != 100 || a.Truncated {
		t.Errorf("over TCP %d records, truncated %v", len(a.Answer), a.Truncated)
	}
	q := new(dns.Msg).SetQuestion("large.example.", dns.TypeTXT)
	q.SetEdns0(60000, false)
	c := dns.Client{UDPSize: 60000, Timeout: 10 * time.Second}
	if a, _, err := c.Exchange(q, f.addr); err != nil || len(a.Answer) != 100 || a.IsEdns0() == nil {
		t.Errorf("with a large buffer: %v, %v", err, a)
	}
}

func TestResolverThatIsSilentOrGone(t *testing.T) {
	f := start(t, func(c *Config) {
		p, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions, answers nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		c.Timeout = 100 * time.Millisecond
		c.Resolvers = append(Resolvers{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort(p.LocalAddr().String())}, c.Resolvers...)
	})
	if got := short(f.query("udp", "www.example.", dns.TypeA)); got != "NOERROR 192.0.2.1/77" {
		t.Errorf("got %s", got)
	}
	if got := short(f.query("udp", "silent.example.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("nobody answers: %s", got)
	}
}

// TestMachineWithoutResolver: the mesh works on a machine without any network.
func TestMachineWithoutResolver(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Resolvers, c.Timeout = Resolvers{netip.MustParseAddrPort("127.0.0.1:1")}, 100*time.Millisecond
	})
	for name, want := range map[string]string{
		"reviews.":         "NOERROR 198.18.0.5/5",
		"reviews.default.": "NOERROR 198.18.0.5/5",
		"db.data.":         "NOERROR 198.18.0.7/5",
		"www.example.":     "SERVFAIL",
		"nobody.":          "SERVFAIL",
	} {
		if got := short(f.query("udp", name, dns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestBoundOfQueries(t *testing.T) {
	f := start(t, func(c *Config) { c.Queries = 1; c.Timeout = 2 * time.Second })
	first := make(chan string)
	go func() {
		c := dns.Client{Timeout: 10 * time.Second}
		a, _, err := c.Exchange(new(dns.Msg).SetQuestion("silent.example.", dns.TypeA), f.addr)
		if err != nil {
			first <- err.Error()
			return
		}
		first <- short(a)
	}()
	for deadline := time.Now().Add(5 * time.Second); ; { // until the first one occupies the only place
		if time.Now().After(deadline) {
			t.Fatal("the first question never went out")
		}
		f.outside.mu.Lock()
		n := len(f.outside.asked)
		f.outside.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond) // poll
	}
	if got := short(f.query("udp", "reviews.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("over the bound: %s", got)
	}
	if got := <-first; got != "SERVFAIL" {
		t.Errorf("the silent one: %s", got)
	}
	if got := short(f.query("udp", "reviews.", dns.TypeA)); got != "NOERROR 198.18.0.5/5" {
		t.Errorf("after it: %s", got)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	f := start(t, nil)
	c := dns.Conn{}
	var err error
	if c.Conn, err = net.Dial("tcp", f.addr); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 { // one connection, several questions; then it stays silent
		if err := c.WriteMsg(new(dns.Msg).SetQuestion("reviews.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if a, err := c.ReadMsg(); err != nil || short(a) != "NOERROR 198.18.0.5/5" {
			t.Fatal(a, err)
		}
	}
	begun := time.Now()
	f.server.Close()
	if d := time.Since(begun); d > streamIdle/2 {
		t.Errorf("Close took %v", d)
	}
	if _, err := c.ReadMsg(); err == nil {
		t.Error("the connection is still open")
	}
}

func TestReadResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	conf := "# x\nsearch corp.example\nnameserver 192.0.2.53\n nameserver\t2001:db8::53\nnameserver fe80::1%eth0\nnameserver 192.0.2.54\nnameserver nonsense\noptions ndots:5\n"
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ReadResolvers(path)
	if err != nil || fmt.Sprint(r) != "[192.0.2.53:53 [2001:db8::53]:53 [fe80::1%eth0]:53]" {
		t.Errorf("got %v, %v", r, err)
	}
	if r := ParseResolvers("nameserver 192.0.2.53:5353\nnameserver [::1]:54\n"); fmt.Sprint(r) != "[192.0.2.53:5353 [::1]:54]" {
		t.Errorf("got %v", r)
	}
	if r := ParseResolvers("options x\n"); fmt.Sprint(r) != "[127.0.0.1:53]" {
		t.Errorf("no name server means %v", r)
	}
	if _, err := ReadResolvers(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestOddMessages(t *testing.T) {
	s := newServer(Config{Names: &names{}, Namespace: "default"})
	defer s.Close()
	code := func(change func(*dns.Msg)) int {
		q := new(dns.Msg).SetQuestion("reviews.", dns.TypeA)
		change(q)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		a := s.reply(t.Context(), b, false)
		if a == nil {
			return -1
		}
		var m dns.Msg
		if err := m.Unpack(a); err != nil || m.Id != q.Id {
			t.Fatalf("answer %x: %v", a, err)
		}
		return m.Rcode
	}
	for what, c := range map[string]struct {
		change func(*dns.Msg)
		want   int
	}{
		"a response":    {func(m *dns.Msg) { m.Response = true }, -1},
		"NOTIFY":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"no question":   {func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"two questions": {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"CHAOS":         {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
	} {
		if got := code(c.change); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
	if a := s.reply(t.Context(), []byte{1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63}, false); len(a) != 12 || a[3]&15 != dns.RcodeFormatError {
		t.Errorf("broken message: %x", a)
	}
	if a := s.reply(t.Context(), []byte{1, 2}, false); a != nil {
		t.Errorf("two bytes are answered: %x", a)
	}
}

func FuzzReply(f *testing.F) {
	s := newServer(Config{Names: &names{known: map[string][2]netip.Addr{"reviews.default": {netip.MustParseAddr("198.18.0.5"), {}}}}, Namespace: "default"})
	for _, n := range []string{"reviews.", "reviews.default.svc.cluster.local.", "localhost.", "5.0.18.198.in-addr.arpa.", "x.ip6.arpa.", "nobody."} {
		q := new(dns.Msg).SetQuestion(n, dns.TypeA)
		q.SetEdns0(1232, true)
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		a := s.reply(context.Background(), packet, tcp)
		if a == nil {
			return
		}
		var m dns.Msg
		if err := m.Unpack(a); err != nil || !m.Response || m.Id != uint16(packet[0])<<8|uint16(packet[1]) {
			t.Fatalf("answer %x to %x: %v", a, packet, err)
		}
		var q dns.Msg
		if !tcp && len(a) > dns.MinMsgSize && (q.Unpack(packet) != nil || q.IsEdns0() == nil) {
			t.Fatalf("%d bytes to a client that takes 512", len(a))
		}
	})
}

// registry is what is outside of the mesh in these tests.
type registry struct {
	mu    sync.Mutex
	heard map[string][]netip.Addr
}

func (r *registry) Host(name string) (model.ServiceName, bool, bool) {
	switch {
	case name == "pay.example":
		return model.ServiceName{Namespace: "default", Name: "reviews"}, true, true
	case name == "late.example":
		return model.ServiceName{Namespace: "default", Name: "nobody"}, true, true
	}
	return model.ServiceName{}, false, strings.HasSuffix(name, ".cloud.example")
}

func (r *registry) Learned(name string, addrs []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil {
		r.heard = map[string][]netip.Addr{}
	}
	r.heard[name] = addrs
}

// TestExternalHosts: hosts of ExternalServices have virtual addresses, or their own, which are then remembered.
func TestExternalHosts(t *testing.T) {
	r := &registry{}
	f := start(t, func(c *Config) { c.Outside = r })
	if got := short(f.query("udp", "Pay.example.", dns.TypeA)); got != "NOERROR 198.18.0.5/5" {
		t.Errorf("a virtual address: %s", got)
	}
	if got := short(f.query("udp", "late.example.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("one whose address is not known yet: %s", got)
	}
	if asked := f.outside.take(); len(asked) != 0 {
		t.Errorf("the machine's resolver was asked %q", asked)
	}
	if got := short(f.query("udp", "A.cloud.example.", dns.TypeA)); got != "NOERROR 192.0.2.1/77" {
		t.Errorf("its own address: %s", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := r.heard["a.cloud.example"]; len(got) != 1 || got[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("remembered: %v", r.heard)
	}
}
