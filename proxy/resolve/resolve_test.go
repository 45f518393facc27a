package resolve

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// server answers on loopback, over UDP and TCP at one port, what answer says.
func server(t *testing.T, answer func(w dns.ResponseWriter, q *dns.Msg)) netip.AddrPort {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: tcp}, {PacketConn: udp}} {
		s.Handler = dns.HandlerFunc(answer)
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go s.ActivateAndServe()
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	return netip.MustParseAddrPort(tcp.Addr().String())
}

// zone answers records by name; more than eight do not fit into a datagram.
func zone(lines ...string) func(w dns.ResponseWriter, q *dns.Msg) {
	var all []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			panic(err)
		}
		all = append(all, rr)
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		found := false
		for _, rr := range all {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			found = true
			if c, ok := rr.(*dns.CNAME); ok {
				m.Answer = append(m.Answer, rr)
				name = c.Target
			} else if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if !found {
			m.Rcode = dns.RcodeNameError
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m.Truncate(dns.MinMsgSize)
		}
		w.WriteMsg(m)
	}
}

func conf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAsk(t *testing.T) {
	lines := []string{"alias.test. 5 CNAME one.test.", "one.test. 30 A 192.0.2.1", "one.test. 20 A 192.0.2.2", "one.test. 10 AAAA 2001:db8::1",
		"zero.test. 0 A 192.0.2.3", "short.lan.test. 60 A 192.0.2.4"}
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("many.test. 40 A 198.51.100.%d", i))
	}
	r := New(Config{Servers: []netip.AddrPort{server(t, zone(lines...))}, Conf: conf(t, "search lan.test\n")})
	for _, c := range []struct {
		name   string
		v4, v6 bool
		n      int
		ttl    time.Duration
	}{
		{"one.test", true, true, 3, 10 * time.Second}, {"one.test", true, false, 2, 20 * time.Second}, {"one.test.", false, true, 1, 10 * time.Second},
		{"alias.test", true, false, 2, 5 * time.Second}, {"ONE.Test", true, false, 2, 20 * time.Second}, {"zero.test", true, true, 1, 0},
		{"short", true, true, 1, time.Minute}, {"many.test", true, true, 100, 40 * time.Second}, {"nobody.test", true, true, 0, 0},
		{"one.test", false, false, 0, 0}, {"192.0.2.9", true, true, 1, 0},
	} {
		a, err := r.Ask(t.Context(), c.name, c.v4, c.v6)
		if len(a.Addresses) != c.n || a.TTL != c.ttl || (err == nil) != (c.n > 0) {
			t.Errorf("%s %v %v: %v, %v, %v; want %d and %v", c.name, c.v4, c.v6, a.Addresses, a.TTL, err, c.n, c.ttl)
		}
	}
}

// TestServers: who does not answer, or does not know, is passed over; another answer than to the question is none.
func TestServers(t *testing.T) {
	broken := server(t, func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)) })
	silent := server(t, func(dns.ResponseWriter, *dns.Msg) {})
	liar := server(t, func(w dns.ResponseWriter, q *dns.Msg) {
		id := q.Id
		q = q.Copy().SetQuestion("other.test.", q.Question[0].Qtype)
		q.Id = id
		zone("other.test. 1 A 203.0.113.1")(w, q)
	})
	var asked atomic.Int64
	good := server(t, func(w dns.ResponseWriter, q *dns.Msg) { asked.Add(1); zone("one.test. 30 A 192.0.2.1")(w, q) })
	empty := conf(t, "")
	for name, first := range map[string]netip.AddrPort{"broken": broken, "silent": silent, "liar": liar} {
		r := New(Config{Servers: []netip.AddrPort{first, good}, Timeout: 300 * time.Millisecond, Conf: empty})
		if a, err := r.Ask(t.Context(), "one.test", true, false); err != nil || !slices.Equal(a.Addresses, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
			t.Errorf("%s first: %v, %v", name, a, err)
		}
		if a, err := New(Config{Servers: []netip.AddrPort{first}, Timeout: 300 * time.Millisecond, Conf: empty}).Ask(t.Context(), "one.test", true, true); err == nil {
			t.Errorf("%s alone: %v", name, a)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("the good one was asked %d times", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Config{Servers: []netip.AddrPort{good}, Conf: empty}).Ask(ctx, "one.test", true, true); err == nil {
		t.Error("an answer after the end")
	}
}

func TestLoop(t *testing.T) {
	r := New(Config{Servers: []netip.AddrPort{server(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, l := range []string{"a.test. 1 CNAME b.test.", "b.test. 1 CNAME a.test."} {
			rr, _ := dns.NewRR(l)
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	})}, Conf: conf(t, "")})
	if a, err := r.Ask(t.Context(), "a.test", true, true); err == nil {
		t.Errorf("aliases of each other: %v", a)
	}
}

// FuzzAnswer: whatever a server says, only addresses of the name and its aliases are taken, of the family asked for.
func FuzzAnswer(f *testing.F) {
	m := new(dns.Msg).SetQuestion("a.test.", dns.TypeA)
	m.Response = true
	for _, l := range []string{"a.test. 7 CNAME b.test.", "b.test. 9 A 192.0.2.1", "c.test. 3 A 192.0.2.2", "b.test. 4 AAAA ::1"} {
		rr, err := dns.NewRR(l)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, packet []byte) {
		var m dns.Msg
		if m.Unpack(packet) != nil {
			return
		}
		for kind, want := range map[uint16]bool{dns.TypeA: true, dns.TypeAAAA: false} {
			a := addresses(&m, "a.test.", kind)
			if len(a.Addresses) > maxAnswers || len(a.Addresses) > len(m.Answer) || a.TTL < 0 || len(a.Addresses) == 0 && a.TTL != 0 {
				t.Fatalf("%v of %v", a, &m)
			}
			for _, ip := range a.Addresses {
				if ip.Is4() != want {
					t.Fatalf("%v was not asked for", ip)
				}
				found := false
				for _, rr := range m.Answer {
					found = found || strings.HasSuffix(rr.String(), "\t"+net.IP(ip.AsSlice()).String()) && uint64(rr.Header().Ttl) >= uint64(a.TTL/time.Second)
				}
				if !found {
					t.Fatalf("%v, to be kept %v, is of no record of %v", ip, a.TTL, &m)
				}
			}
		}
	})
}
