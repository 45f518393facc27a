package gateway_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// TestRespectTTL: a name is asked for again when its answer is too old, however seldom the cluster would ask by itself.
func TestRespectTTL(t *testing.T) {
	one := netip.MustParseAddrPort("127.0.0.1:0")
	ln, err := net.Listen("tcp", one.String())
	if err != nil {
		t.Fatal(err)
	}
	one = netip.MustParseAddrPort(ln.Addr().String())
	ln.Close()
	two := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), one.Port())
	serveAt(t, one)
	serveAt(t, two)
	var now atomic.Pointer[string]
	say := func(a netip.AddrPort) {
		line := fmt.Sprintf("server.test. 1 A %s", a.Addr())
		now.Store(&line)
	}
	say(one)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: udp, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		rr, err := dns.NewRR(*now.Load())
		if err != nil || q.Question[0].Name != "server.test." || q.Question[0].Qtype != dns.TypeA {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
			return
		}
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{rr}
		w.WriteMsg(m)
	})}
	go s.ActivateAndServe()
	t.Cleanup(func() { udp.Close() })
	b := &model.Bootstrap{}
	for _, d := range []model.Discovery{model.DiscoveryStrictDNS, model.DiscoveryLogicalDNS} {
		name := fmt.Sprint("c", d)
		b.Clusters = append(b.Clusters, model.Cluster{Name: model.Free(name), ConnectTimeout: time.Second, Discovery: d,
			Hosts: []model.Host{{Name: "server.test.", Port: one.Port(), Weight: 1}}, DNS: model.DNSOptions{Refresh: time.Hour, RespectTTL: true}})
		b.Listeners = append(b.Listeners, listener(name, httpChain(name)))
	}
	g, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 2, NameServers: []netip.AddrPort{netip.MustParseAddrPort(udp.LocalAddr().String())}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	waitFor(t, g.Ready)
	served := func(by netip.AddrPort) {
		t.Helper()
		for i := range b.Clusters {
			waitFor(t, func() error {
				if _, body := ask(t, g.Listening(b.Clusters[i].Name.String())[0], "1"); !strings.Contains(body, by.String()) {
					return fmt.Errorf("%s: %q, want it from %s", b.Clusters[i].Name, body, by)
				}
				return nil
			})
		}
	}
	served(one)
	say(two)
	served(two)
}
