package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
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
	after := func(old *gateway.Gateway, s *model.ServerTLS) *gateway.Gateway { return succeed(t, old, boot(at, s)) }
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

// succeed starts a gateway that takes over from old, which leaves.
func succeed(t *testing.T, old *gateway.Gateway, b *model.Bootstrap) *gateway.Gateway {
	t.Helper()
	offer, err := old.Offer()
	if err != nil {
		t.Fatal(err)
	}
	fds, took := map[string]int{}, map[string]bool{}
	for _, l := range offer.Listeners {
		fds[l.Address] = l.FD
	}
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

// TestTakeOverUnderLoad: neither HTTP/2 connections that stay nor clients that come anew for every request, and resume
// their session with whoever is there, lose one when the gateway is replaced.
func TestTakeOverUnderLoad(t *testing.T) {
	ca := newAuthority(t)
	one, shown := origin(t, "one"), ca.server("a.test")
	boot := func(at netip.AddrPort) *model.Bootstrap {
		b := &model.Bootstrap{Admin: &model.Admin{Address: loopback}}
		static(b, "one", one)
		c := httpChain("one")
		c.TLS = shown
		l := listener("l", c)
		l.Addresses[0] = at
		b.Listeners = []model.Listener{l}
		return b
	}
	g := start(t, boot(loopback))
	at := g.Listening("l")[0]
	var n, fresh, resumed atomic.Int64
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 6 {
		cfg := &tls.Config{RootCAs: ca.pool(), ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		anew := i%2 == 0
		h := client(t, at, cfg, map[bool]string{true: "1", false: "h2"}[anew])
		all.Go(func() {
			for ctx.Err() == nil {
				r, err := h.Get("https://a.test/")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
				if err != nil || r.StatusCode != 200 {
					t.Errorf("%s %v", r.Status, err)
					return
				}
				n.Add(1)
				if anew {
					fresh.Add(1)
					if r.TLS.DidResume {
						resumed.Add(1)
					}
					h.CloseIdleConnections()
				}
			}
		})
	}
	more := func() {
		before := n.Load()
		waitFor(t, func() error {
			if got := n.Load() - before; got < 200 {
				return fmt.Errorf("%d requests", got)
			}
			return nil
		})
	}
	for range 5 {
		more()
		old := g
		g = succeed(t, old, boot(at))
		if left := old.Wait(nil); left > 0 {
			t.Errorf("%d connections stay with a proxy that has left", left)
		}
		old.Close()
	}
	more()
	cancel()
	all.Wait()
	if f, r := fresh.Load(), resumed.Load(); f < 100 || r < f-3 { // the first of each has nothing to resume
		t.Errorf("%d of %d connections have resumed a session", r, f)
	}
	t.Logf("%d requests", n.Load())
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
