package gateway_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// alpn is a server over TLS that agrees on what says answers for each connection, and tells what it speaks.
func alpn(t *testing.T, ca *authority, says func() []string, serve http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(serve)
	s.EnableHTTP2 = true
	pair := ca.pair(ca.leaf("", "server.test"))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if got := fmt.Sprint(h.SupportedProtos); got != "[h2 http/1.1]" {
			t.Errorf("offered: %s", got)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: says()}, nil
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func versionOf(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Proto, r.TLS.NegotiatedProtocol, body)
}

// auto makes a cluster that speaks what ALPN says.
func auto(b *model.Bootstrap, ca *authority, name string, at netip.AddrPort) *model.Cluster {
	c := static(b, name, at)
	c.Upstream.Version, c.TLS, c.IdleTimeout = model.UpstreamAuto, ca.client("server.test"), 100*time.Millisecond
	c.Breakers[0] = model.Breakers{Connections: 4, Pending: 1000, Requests: 1000}
	return c
}

// TestAuto: the server's ALPN decides which version of HTTP is spoken; one that knows none speaks HTTP/1.1.
func TestAuto(t *testing.T) {
	ca := newAuthority(t)
	for want, says := range map[string][]string{"HTTP/2.0 h2 body": {"h2", "http/1.1"}, "HTTP/1.1 http/1.1 body": {"http/1.1"}, "HTTP/1.1  body": nil} {
		b := &model.Bootstrap{}
		auto(b, ca, "c", alpn(t, ca, func() []string { return says }, versionOf))
		b.Listeners = []model.Listener{listener("l", httpChain("c"))}
		g := start(t, b)
		for _, version := range []string{"1", "h2c"} {
			c := client(t, g.Listening("l")[0], nil, version)
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					r, err := c.Post("http://a.test/", "", strings.NewReader("body"))
					if err != nil {
						t.Error(err)
						return
					}
					defer r.Body.Close()
					if got, err := io.ReadAll(r.Body); err != nil || string(got) != want {
						t.Errorf("%v: %s %q %v, expected %q", says, r.Status, got, err, want)
					}
				})
			}
			all.Wait()
		}
		balanced(t, g)
	}
}

// TestAutoChanges: a server that is replaced by one of another version, again and again, gets every request in the
// version that its connection has agreed on, and none is lost.
func TestAutoChanges(t *testing.T) {
	ca := newAuthority(t)
	var old atomic.Bool
	var served [2]atomic.Int64
	at := alpn(t, ca, func() []string {
		if old.Load() {
			return []string{"http/1.1"}
		}
		return []string{"h2"}
	}, func(w http.ResponseWriter, r *http.Request) {
		served[r.ProtoMajor-1].Add(1)
		if old.Load() != (r.ProtoMajor == 1) { // a connection of before
			w.Header().Set("Connection", "close")
		}
		versionOf(w, r)
	})
	b := &model.Bootstrap{}
	auto(b, ca, "c", at)
	b.Listeners = []model.Listener{listener("l", httpChain("c"))}
	g := start(t, b)
	until := time.Now().Add(time.Second)
	var all sync.WaitGroup
	for i := range 16 {
		c := client(t, g.Listening("l")[0], nil, []string{"1", "h2c"}[i%2])
		all.Go(func() {
			for time.Now().Before(until) {
				r, err := c.Post("http://a.test/", "", strings.NewReader("body"))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil || r.StatusCode != 200 || !strings.HasSuffix(string(got), " body") {
					t.Errorf("%s %q %v", r.Status, got, err)
				}
			}
		})
	}
	for time.Now().Before(until) {
		time.Sleep(20 * time.Millisecond) // poll
		old.Store(!old.Load())
	}
	all.Wait()
	if n, m := served[0].Load(), served[1].Load(); n == 0 || m == 0 {
		t.Errorf("%d requests over HTTP/1.1, %d over HTTP/2", n, m)
	}
	balanced(t, g)
}

// TestTCPOffersNothing: what is relayed is of no known protocol, so none is offered to a server that ends TLS.
func TestTCPOffersNothing(t *testing.T) {
	ca := newAuthority(t)
	offered := make(chan []string, 1)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.pair(ca.leaf("", "server.test"))},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			offered <- h.SupportedProtos
			return nil, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	b := &model.Bootstrap{}
	static(b, "c", netip.MustParseAddrPort(l.Addr().String())).TLS = ca.client("server.test")
	b.Listeners = []model.Listener{listener("l", tcpChain("c"))}
	c := dial(t, start(t, b).Listening("l")[0], nil)
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if got := <-offered; len(got) > 0 {
		t.Errorf("offered: %v", got)
	}
}

// TestAutoDead: a server that breaks off the handshake fails who waits, whatever it spoke before.
func TestAutoDead(t *testing.T) {
	ca := newAuthority(t)
	var dead atomic.Bool
	at := alpn(t, ca, func() []string {
		if dead.Load() {
			return []string{"something-else"} // crypto/tls ends the handshake
		}
		return []string{"http/1.1"}
	}, versionOf)
	b := &model.Bootstrap{}
	auto(b, ca, "c", at)
	b.Listeners = []model.Listener{listener("l", httpChain("c"))}
	g := start(t, b)
	for _, v := range []struct {
		dead bool
		want int
	}{{false, 200}, {true, 502}, {false, 200}} {
		dead.Store(v.dead)
		var all sync.WaitGroup
		for range 10 {
			c := client(t, g.Listening("l")[0], nil, "1")
			all.Go(func() {
				if got := <-statusOf(c, "http://a.test/"); got != v.want {
					t.Errorf("dead %v: %d", v.dead, got)
				}
			})
		}
		all.Wait()
		balanced(t, g)
	}
}
