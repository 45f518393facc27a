package gateway_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// holder is a server that answers /held when it is let go, and everything else at once.
type holder struct {
	at    netip.AddrPort
	free  chan struct{}
	conns atomic.Int64
	most  atomic.Int64 // connections at once
}

func newHolder(t *testing.T) *holder {
	h := &holder{free: make(chan struct{})}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/held") {
			select {
			case <-h.free:
			case <-r.Context().Done():
			}
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			n := h.conns.Add(1)
			for was := h.most.Load(); n > was && !h.most.CompareAndSwap(was, n); was = h.most.Load() {
			}
		case http.StateClosed:
			h.conns.Add(-1)
		}
	}
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	h.at = netip.MustParseAddrPort(s.Listener.Addr().String())
	return h
}

// broken makes a gateway with one cluster, "c", that has bounds of the default priority, and a listener "http" whose paths
// with /x-high have the high one, and "tcp".
func broken(t *testing.T, loops int, at netip.AddrPort, b model.Breakers, version model.UpstreamVersion) *gateway.Gateway {
	t.Helper()
	boot := &model.Bootstrap{}
	c := static(boot, "c", at)
	c.Breakers, c.Upstream.Version, c.IdleTimeout = [2]model.Breakers{b, {Connections: 1024, Pending: 1024, Requests: 1024}}, version, 100*time.Millisecond
	chain := httpChain("c")
	host := &chain.HTTP.Routes.Hosts[0]
	high := host.Routes[0]
	high.Match.Path, high.Priority = "/x-high", model.PriorityHigh
	host.Routes = append([]model.Route{high}, host.Routes...)
	boot.Listeners = []model.Listener{listener("http", chain), listener("tcp", tcpChain("c"))}
	g, err := gateway.Start(gateway.Config{Bootstrap: boot, Loops: loops, Drain: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// until waits for what the admin server tells of the default priority of cluster c.
func until(t *testing.T, g *gateway.Gateway, what string, ok func(b *admin.Breaker) bool) {
	t.Helper()
	waitFor(t, func() error {
		b := g.Clusters()[0].Breakers[model.PriorityDefault]
		if ok(&b) {
			return nil
		}
		return fmt.Errorf("waited for %s: %+v", what, b)
	})
}

// balanced waits until nothing is counted any more.
func balanced(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	waitFor(t, func() error {
		for _, c := range g.Clusters() {
			for _, b := range c.Breakers {
				if b.Connections != 0 || b.Pending != 0 || b.Requests != 0 || b.Retries != 0 {
					return fmt.Errorf("not given back: %+v", b)
				}
			}
			for _, e := range c.Endpoints {
				if e.Active != 0 {
					return fmt.Errorf("not given back: %+v", e)
				}
			}
		}
		return nil
	})
}

// statusOf sends a request and gives its status to the channel, 0 for none.
func statusOf(c *http.Client, url string) chan int {
	out := make(chan int, 1)
	go func() {
		r, err := c.Get(url)
		if err != nil {
			out <- 0
			return
		}
		_, err = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if err != nil {
			out <- 0
			return
		}
		out <- r.StatusCode
	}()
	return out
}

// TestBreakerRequests: one request more than max_requests is refused at once, in whatever version of HTTP, while those of
// the high priority pass.
func TestBreakerRequests(t *testing.T) {
	for _, v := range []model.UpstreamVersion{model.UpstreamHTTP1, model.UpstreamHTTP2} {
		for _, down := range []string{"1", "h2c"} {
			h := newHolder(t)
			g := broken(t, 2, h.at, model.Breakers{Connections: 100, Pending: 100, Requests: 2}, v)
			c := client(t, g.Listening("http")[0], nil, down)
			first, second := statusOf(c, "http://a/held"), statusOf(c, "http://a/held")
			until(t, g, "two requests", func(b *admin.Breaker) bool { return b.Requests == 2 })
			r, err := c.Get("http://a/")
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if r.StatusCode != 503 || r.Header.Get("x-envoy-overloaded") != "true" || r.Header.Get("tulle-reason") != "overflow" {
				t.Errorf("the third of two: %s %v", r.Status, r.Header)
			}
			for range 20 {
				if got := <-statusOf(c, "http://a/"); got != 503 {
					t.Errorf("more of two: %d", got)
				}
			}
			if n := h.most.Load(); n > 4 {
				t.Errorf("%d connections: what is refused has to leave its connection to the next", n)
			}
			if got := get(t, c, "http://a/x-high"); got != "ok" {
				t.Errorf("high priority: %q", got)
			}
			close(h.free)
			if a, b := <-first, <-second; a != 200 || b != 200 {
				t.Errorf("the two that were held: %d %d", a, b)
			}
			get(t, c, "http://a/")
			balanced(t, g)
		}
	}
}

// TestBreakerPending: beyond max_connections requests wait for a connection that becomes free, as many as
// max_pending_requests, even where no more requests are allowed than connections.
func TestBreakerPending(t *testing.T) {
	h := newHolder(t)
	g := broken(t, 1, h.at, model.Breakers{Connections: 1, Pending: 2, Requests: 1}, model.UpstreamHTTP1)
	c := client(t, g.Listening("http")[0], nil, "1")
	held := statusOf(c, "http://a/held")
	until(t, g, "one request", func(b *admin.Breaker) bool { return b.Requests == 1 && b.Connections == 1 })
	second, third := statusOf(c, "http://a/2"), statusOf(c, "http://a/3")
	until(t, g, "two that wait", func(b *admin.Breaker) bool { return b.Pending == 2 })
	if got := <-statusOf(c, "http://a/4"); got != 503 {
		t.Errorf("the fourth: %d", got)
	}
	ctx, cancel := context.WithCancel(t.Context()) // one that goes away makes room for another
	cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://a/5", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Do(req); err == nil {
		r.Body.Close()
	}
	close(h.free)
	for i, got := range []int{<-held, <-second, <-third} {
		if got != 200 {
			t.Errorf("request %d: %d", i, got)
		}
	}
	if n := h.most.Load(); n != 1 {
		t.Errorf("%d connections at once", n)
	}
	balanced(t, g)
}

// TestBreakerConnections: loops together make no more connections than max_connections, but one each; nobody waits
// for ever.
func TestBreakerConnections(t *testing.T) {
	const loops, limit = 4, 2
	for _, v := range []model.UpstreamVersion{model.UpstreamHTTP1, model.UpstreamHTTP2} {
		h := newHolder(t)
		g := broken(t, loops, h.at, model.Breakers{Connections: limit, Pending: 1000, Requests: 1000}, v)
		var all sync.WaitGroup
		for range 32 {
			c := client(t, g.Listening("http")[0], nil, "1")
			all.Go(func() {
				for range 30 {
					if got := <-statusOf(c, "http://a/"); got != 200 {
						t.Errorf("%d", got)
					}
				}
			})
		}
		all.Wait()
		if n := h.most.Load(); n > limit+loops-1 {
			t.Errorf("%d connections at once", n)
		}
		balanced(t, g)
	}
}

// TestBreakerDead: those who wait for a connection to a server that cannot be reached are told so together.
func TestBreakerDead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	g := broken(t, 2, at, model.Breakers{Connections: 1, Pending: 100, Requests: 100, Retries: 1}, model.UpstreamHTTP1)
	var all []chan int
	for range 20 {
		all = append(all, statusOf(client(t, g.Listening("http")[0], nil, "1"), "http://a/"))
	}
	for _, c := range all {
		if got := <-c; got != 503 {
			t.Errorf("%d", got)
		}
	}
	balanced(t, g)
}

// TestBreakerTCP: relayed connections count as connections, and one too many is refused.
func TestBreakerTCP(t *testing.T) {
	h := newHolder(t)
	g := broken(t, 2, h.at, model.Breakers{Connections: 2, Pending: 1, Requests: 1}, model.UpstreamHTTP1)
	at := g.Listening("tcp")[0]
	first, second := dial(t, at, []byte("GET /held HTTP/1.1\r\n")), dial(t, at, []byte("GET /held HTTP/1.1\r\n"))
	until(t, g, "two connections", func(b *admin.Breaker) bool { return b.Connections == 2 })
	if third, err := net.Dial("tcp", at.String()); err == nil { // else the connect has seen the reset already
		if n, err := third.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("the third of two: %d %v", n, err)
		}
		third.Close()
	}
	first.Close()
	until(t, g, "one connection", func(b *admin.Breaker) bool { return b.Connections == 1 })
	again := dial(t, at, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	if n, err := again.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("one in its place: %d %v", n, err)
	}
	again.Close()
	second.Close()
	balanced(t, g)
}

// TestBreakerMetric: what was refused is told, by cluster, priority and bound.
func TestBreakerMetric(t *testing.T) {
	h := newHolder(t)
	boot := &model.Bootstrap{Admin: &model.Admin{Address: loopback}}
	static(boot, "c", h.at).Breakers[0] = model.Breakers{Connections: 7, Requests: 1}
	boot.Listeners = []model.Listener{listener("l", httpChain("c"))}
	g := start(t, boot)
	c := client(t, g.Listening("l")[0], nil, "1")
	held := statusOf(c, "http://a/held")
	until(t, g, "one request", func(b *admin.Breaker) bool { return b.Requests == 1 })
	if got := <-statusOf(c, "http://a/"); got != 503 {
		t.Errorf("the second of one: %d", got)
	}
	for path, want := range map[string]string{
		"/metrics":              `tulle_breaker_overflows_total{cluster="c",priority="default",bound="requests"} 1`,
		"/clusters":             "c::default_priority::max_connections::7\nc::default_priority::max_pending_requests::4294967295\nc::default_priority::max_requests::1\n",
		"/clusters?format=json": `"max_requests": 1`,
	} {
		if got := get(t, http.DefaultClient, "http://"+g.AdminAddress()+path); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q: %.1000s", path, want, got)
		}
	}
	if got := get(t, http.DefaultClient, "http://"+g.AdminAddress()+"/clusters"); !strings.Contains(got, "c::default_priority::rq_active::1\n") {
		t.Errorf("/clusters: %s", got)
	}
	close(h.free)
	if got := <-held; got != 200 {
		t.Errorf("the one that was held: %d", got)
	}
}

// moody is a server that ends in every way.
func moody(t *testing.T) netip.AddrPort {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch rand.IntN(6) {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			w.Header().Set("Connection", "close")
		case 2:
			select { // longer than the route's timeout
			case <-time.After(40 * time.Millisecond):
			case <-r.Context().Done():
			}
		case 3:
			w.Write(make([]byte, 100_000))
			panic(http.ErrAbortHandler)
		case 4:
			io.Copy(io.Discard, r.Body)
		}
		io.WriteString(w, "ok")
	}))
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// TestBreakerBalance: whatever happens to requests and connections, everything that was counted is given back.
func TestBreakerBalance(t *testing.T) {
	at := []netip.AddrPort{moody(t), moody(t), netip.MustParseAddrPort("127.0.0.1:1")}
	boot := &model.Bootstrap{}
	chain := httpChain("c")
	host := &chain.HTTP.Routes.Hosts[0]
	host.Routes[0].Timeouts.Request = 20 * time.Millisecond
	high := host.Routes[0]
	high.Match.Path, high.Priority = "/x-high", model.PriorityHigh
	host.Routes = append([]model.Route{high}, host.Routes...)
	boot.Listeners = []model.Listener{listener("http", chain), listener("tcp", tcpChain("c"))}
	g, err := gateway.Start(gateway.Config{Bootstrap: boot, Loops: 4, Drain: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	settings := func(n int) { // another version of HTTP, other limits, other endpoints, in turn
		b := model.Breakers{Connections: uint32(1 + n%5), Pending: uint32(1 + n%7), Requests: uint32(1 + n%11), Retries: uint32(n % 2)}
		c := model.Cluster{Name: model.Free("c"), ConnectTimeout: time.Second, IdleTimeout: 100 * time.Millisecond, Breakers: [2]model.Breakers{b, b},
			Upstream: model.UpstreamHTTP{Version: []model.UpstreamVersion{model.UpstreamHTTP1, model.UpstreamHTTP2}[n%2]}}
		u := model.Updates{Clusters: []model.Cluster{c}, Endpoints: []*model.Endpoints{endpoints("c", at[n%3:]...)}}
		if err := g.Apply(u); err != nil {
			t.Error(err)
		}
	}
	settings(0)
	until := time.Now().Add(1500 * time.Millisecond)
	var all sync.WaitGroup
	for i := range 24 {
		c := client(t, g.Listening("http")[0], nil, []string{"1", "h2c"}[i%2])
		all.Go(func() {
			for time.Now().Before(until) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(60))*time.Millisecond)
				req, _ := http.NewRequestWithContext(ctx, "POST", "http://a/"+[]string{"", "x-high"}[rand.IntN(2)], strings.NewReader(strings.Repeat("x", rand.IntN(20_000))))
				if r, err := c.Do(req); err == nil {
					io.CopyN(io.Discard, r.Body, int64(rand.IntN(50_000)))
					r.Body.Close()
				}
				cancel()
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for time.Now().Before(until) {
				c, err := net.Dial("tcp", g.Listening("tcp")[0].String())
				if err != nil {
					continue
				}
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				c.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(10)) * time.Millisecond))
				c.Read(make([]byte, 100))
				if rand.IntN(2) == 0 {
					c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
			}
		})
	}
	for n := 1; time.Now().Before(until); n++ {
		settings(n)
		time.Sleep(10 * time.Millisecond) // poll
	}
	all.Wait()
	balanced(t, g)
}
