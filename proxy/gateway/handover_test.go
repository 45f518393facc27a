package gateway_test

import (
	"crypto/tls"
	"net/netip"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// TestTakeOver: the next proxy gets the sockets and what session tickets are made from; one with another TLS context does
// not take the tickets. That no request fails meanwhile is tested in package cli.
func TestTakeOver(t *testing.T) {
	ca := newAuthority(t)
	one := origin(t, "one")
	boot := func(at netip.AddrPort, s *model.ServerTLS) *model.Bootstrap {
		b := &model.Bootstrap{Admin: &model.Admin{Address: loopback}}
		static(b, "one", one)
		c := httpChain("one")
		c.TLS = s
		l := listener("l", c)
		l.Addresses[0] = at
		b.Listeners = []model.Listener{l}
		return b
	}
	shown := ca.server("a.test")
	first := start(t, boot(loopback, shown))
	at := first.Listening("l")[0]
	cfg := &tls.Config{RootCAs: ca.pool(), ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	resumed := func() bool {
		r, err := client(t, at, cfg, "1").Get("https://a.test/")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.TLS.DidResume
	}
	resumed()
	if !resumed() {
		t.Fatal("sessions are not resumed at all")
	}
	after := func(old *gateway.Gateway, s *model.ServerTLS) *gateway.Gateway {
		offer, err := old.Offer()
		if err != nil {
			t.Fatal(err)
		}
		fds, took := map[string]int{}, map[string]bool{}
		for _, l := range offer.Listeners {
			fds[l.Address] = l.FD
		}
		b := boot(at, s)
		b.Admin.Address = netip.MustParseAddrPort(old.AdminAddress())
		next, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 1, Tickets: offer.Tickets, Inherited: func(a netip.AddrPort) (int, bool) {
			fd, ok := fds[a.String()]
			took[a.String()] = ok
			return fd, ok
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(next.Close)
		if len(took) != 2 || len(fds) != 2 {
			t.Errorf("%d sockets were offered, %d taken, want listener and admin", len(fds), len(took))
		}
		old.Yield(took)
		old.Leave()
		return next
	}
	second := after(first, shown)
	if !resumed() {
		t.Error("the next proxy does not resume sessions")
	}
	other := *shown
	other.ALPN = []string{"http/1.1"}
	third := after(second, &other)
	if resumed() {
		t.Error("another context took the ticket")
	}
	if got := get(t, client(t, netip.MustParseAddrPort(third.AdminAddress()), nil, "1"), "http://admin/ready"); got != "ready\n" {
		t.Errorf("admin: %q", got)
	}
}

// TestInheritedIsClosed: the sockets of a gateway do not outlive it.
func TestInheritedIsClosed(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "one", origin(t, "one"))
	b.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, b)
	at := g.Listening("l")[0]
	offer, err := g.Offer()
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	for _, l := range offer.Listeners {
		_ = unix.Close(l.FD)
	}
	if _, err := read(at, ""); err == nil {
		t.Error("port " + strconv.Itoa(int(at.Port())) + " still listens")
	}
}
