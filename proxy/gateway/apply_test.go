package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// dynamic is a bootstrap whose listeners and clusters are told by Apply.
func dynamic(fetch time.Duration) *model.Bootstrap {
	return &model.Bootstrap{LDS: true, CDS: true, ADS: &model.ADS{InitialFetch: fetch}}
}

func apply(t *testing.T, g *gateway.Gateway, u model.Updates) {
	t.Helper()
	if err := g.Apply(u); err != nil {
		t.Fatal(err)
	}
}

func eds(name string) model.Cluster {
	return model.Cluster{Name: model.Free(name), ConnectTimeout: time.Second, Discovery: model.DiscoveryEDS}
}

func rds(name string) model.Chain {
	c := httpChain("")
	c.HTTP.Routes, c.HTTP.RDS = nil, name
	return c
}

// load sends requests on some connections that stay, until stop is called, which answers how many there were.
func load(t *testing.T, at string, conns int, check func(body string) error) (stop func() int64) {
	var n atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", at)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for ctx.Err() == nil {
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%s %q %v", resp.Status, body, err)
					return
				}
				if err := check(string(body)); err != nil {
					t.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	return func() int64 {
		cancel()
		wg.Wait()
		return n.Load()
	}
}

// TestRoutesChangeUnderLoad: a connection of a route table that changes just continues, and no request fails.
func TestRoutesChangeUnderLoad(t *testing.T) {
	g := start(t, dynamic(5*time.Second))
	one, two := origin(t, "one"), origin(t, "two")
	apply(t, g, model.Updates{Clusters: []model.Cluster{eds("one")}})
	apply(t, g, model.Updates{Listeners: []model.Listener{listener("l", rds("r"))}})
	if err := g.Ready(); err == nil || !strings.Contains(err.Error(), "route table r") {
		t.Errorf("ready without a route table: %v", err)
	}
	apply(t, g, model.Updates{Routes: []*model.RouteTable{routes("r", "one")}})
	if err := g.Ready(); err == nil {
		t.Error("ready without endpoints")
	}
	apply(t, g, model.Updates{Endpoints: []*model.Endpoints{endpoints("one", one)}})
	if err := g.Ready(); err != nil {
		t.Fatal(err)
	}
	var seen [2]atomic.Int64
	stop := load(t, g.Listening("l")[0].String(), 8, func(body string) error {
		seen[map[bool]int{true: 0, false: 1}[strings.HasPrefix(body, "one ")]].Add(1)
		return nil
	})
	until := time.Now().Add(1500 * time.Millisecond)
	changes := 0
	for ; time.Now().Before(until); changes++ {
		// A cluster comes, and the table names it before its endpoints have come; the one before serves meanwhile.
		apply(t, g, model.Updates{Clusters: []model.Cluster{eds("two")}})
		apply(t, g, model.Updates{Routes: []*model.RouteTable{routes("r", "two")}})
		apply(t, g, model.Updates{Endpoints: []*model.Endpoints{endpoints("two", two)}})
		apply(t, g, model.Updates{Routes: []*model.RouteTable{routes("r", "one")}})
		apply(t, g, model.Updates{Removed: []model.Removed{{Kind: model.ResourceEndpoints, Name: "none"}}})
	}
	n := stop()
	if n < 100 || seen[0].Load() == 0 || seen[1].Load() == 0 {
		t.Errorf("%d requests during %d changes, %d and %d", n, changes, seen[0].Load(), seen[1].Load())
	}
	t.Logf("%d requests, %d changes", n, changes)
}

// TestListenerChange: connections of a chain that stays go on, those of one that changed drain, new ones are served by
// the new chain.
func TestListenerChange(t *testing.T) {
	b := dynamic(5 * time.Second)
	static(b, "one", origin(t, "one"))
	static(b, "two", origin(t, "two"))
	b.CDS = false
	g := start(t, b)
	named := func(c model.Chain, name string) model.Chain {
		c.Match.ServerNames = []string{name}
		return c
	}
	ca := newAuthority(t)
	stays, changes := named(httpChain("one"), "stays.test"), named(httpChain("one"), "changes.test")
	stays.TLS, changes.TLS = ca.server("stays.test"), ca.server("changes.test")
	l := listener("l", stays, changes)
	l.Inspect = true
	apply(t, g, model.Updates{Listeners: []model.Listener{l}})
	at := g.Listening("l")[0]
	open := func(name string) *http.Client {
		return client(t, at, &tls.Config{RootCAs: ca.pool(), ServerName: name}, "h2")
	}
	kept, old := open("stays.test"), open("changes.test")
	local := func(c *http.Client, url string) (body, addr string) {
		return get(t, c, url), localOf(t, c, url)
	}
	_, keptAt := local(kept, "https://stays.test/")
	_, oldAt := local(old, "https://changes.test/")
	// The same but for the idle timeout of one chain, and the routes of the other, which is no reason to drain it.
	next := l
	h1, h2 := *stays.HTTP, *changes.HTTP
	h1.Routes, h2.IdleTimeout = routes("inline", "two"), time.Minute
	next.Chains = []model.Chain{stays, changes}
	next.Chains[0].HTTP, next.Chains[1].HTTP = &h1, &h2
	apply(t, g, model.Updates{Listeners: []model.Listener{next}})
	if g.Listening("l")[0] != at {
		t.Error("the listener moved")
	}
	body, again := local(kept, "https://stays.test/")
	if again != keptAt || !strings.HasPrefix(body, "two ") {
		t.Errorf("the connection of the chain that stayed: %s then %s, served by %q", keptAt, again, body)
	}
	waitFor(t, func() error {
		if body, again := local(old, "https://changes.test/"); again == oldAt {
			return fmt.Errorf("the connection of the chain that changed is still used: %s", body)
		}
		return nil
	})
}

// localOf answers the client's address of the connection that a request is sent on.
func localOf(t *testing.T, c *http.Client, url string) (addr string) {
	t.Helper()
	ctx := withConn(context.Background(), func(a string) { addr = a })
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil { // else the connection is not used again
		t.Fatal(err)
	}
	r.Body.Close()
	return addr
}

func TestListenerRemoved(t *testing.T) {
	b := dynamic(5 * time.Second)
	static(b, "one", origin(t, "one"))
	b.CDS = false
	g := start(t, b)
	apply(t, g, model.Updates{Listeners: []model.Listener{listener("l", httpChain("one"))}})
	at := g.Listening("l")[0]
	c := client(t, at, nil, "h2c")
	get(t, c, "http://a.test/")
	apply(t, g, model.Updates{Removed: []model.Removed{{Kind: model.ResourceListener, Name: "l"}}})
	if _, err := read(at, ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after its removal: %v, want refused", err)
	}
	waitFor(t, func() error {
		if n := g.Connections(); n > 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
}

func TestNACK(t *testing.T) {
	b := dynamic(5 * time.Second)
	b.CDS = false
	static(b, "one", origin(t, "one"))
	b.Listeners = []model.Listener{listener("static", httpChain("one"))}
	g := start(t, b)
	bad := listener("bad", httpChain("one"), httpChain("one"))
	taken := listener("taken", httpChain("one"))
	taken.Addresses = g.Listening("static")
	for _, c := range []struct {
		u    model.Updates
		want string
	}{
		{model.Updates{Listeners: []model.Listener{bad, listener("good", httpChain("one"))}}, "listener bad: filter chain 1: matches the same connections"},
		{model.Updates{Listeners: []model.Listener{bad, bad}}, "; listener bad: filter chain 1"},
		{model.Updates{Listeners: []model.Listener{taken}}, "listener taken: address " + taken.Addresses[0].String() + " is in use"},
		{model.Updates{Listeners: []model.Listener{listener("static", httpChain("one"))}}, "listener static: the bootstrap has one"},
		{model.Updates{Clusters: []model.Cluster{eds("one")}}, "cluster one: the bootstrap has one"},
	} {
		if err := g.Apply(c.u); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if at := g.Listening("good"); len(at) == 0 {
		t.Error("what was good beside something bad is not in force")
	}
	get(t, http.DefaultClient, "http://"+g.Listening("static")[0].String()+"/")
}

// TestFirstFetch: what does not come is waited for no longer than the bootstrap says.
func TestFirstFetch(t *testing.T) {
	b := dynamic(100 * time.Millisecond)
	b.Listeners = []model.Listener{listener("l", rds("never"))}
	g := start(t, b)
	if len(g.Listening("l")) > 0 {
		t.Error("it did not wait at all")
	}
	waitFor(t, g.Ready)
	r, err := http.Get("http://" + g.Listening("l")[0].String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 503 {
		t.Errorf("%s, want 503", r.Status)
	}
}

// TestSecrets: a listener waits for its certificate; a new one is shown to new connections while old ones go on.
func TestSecrets(t *testing.T) {
	b := dynamic(5 * time.Second)
	b.CDS = false
	static(b, "one", origin(t, "one"))
	g := start(t, b)
	ca := newAuthority(t)
	c := httpChain("one")
	c.TLS = &model.ServerTLS{Certificates: []model.SecretRef{{SDS: "cert"}}}
	apply(t, g, model.Updates{Listeners: []model.Listener{listener("l", c)}})
	if err := g.Ready(); err == nil {
		t.Fatal("ready without its certificate")
	}
	tell := func(name string) {
		s := ca.leaf("", name)
		s.Name = "cert"
		apply(t, g, model.Updates{Secrets: []model.Secret{*s}})
	}
	tell("first.test")
	if err := g.Ready(); err != nil {
		t.Fatal(err)
	}
	first := client(t, g.Listening("l")[0], &tls.Config{RootCAs: ca.pool(), ServerName: "first.test"}, "1")
	before := localOf(t, first, "https://first.test/")
	tell("second.test")
	get(t, client(t, g.Listening("l")[0], &tls.Config{RootCAs: ca.pool(), ServerName: "second.test"}, "1"), "https://second.test/")
	if after := localOf(t, first, "https://first.test/"); after != before {
		t.Error("a new certificate has closed a connection")
	}
}

// TestDrain: nothing under way is lost, nothing new is accepted, and Drain returns when all is done.
func TestDrain(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "one", echo(t, "one"))
	static(b, "http", origin(t, "http"))
	b.Listeners = []model.Listener{listener("tcp", tcpChain("one")), listener("http", httpChain("http"))}
	g := start(t, b)
	tcp := dial(t, g.Listening("tcp")[0], []byte("hello"))
	http1, http2 := client(t, g.Listening("http")[0], nil, "1"), client(t, g.Listening("http")[0], nil, "h2c")
	get(t, http1, "http://a.test/")
	get(t, http2, "http://a.test/")
	waitFor(t, func() error {
		if n := g.Connections(); n != 3 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	at := g.Listening("http")[0]
	g.DrainListeners()
	if err := g.Ready(); err == nil {
		t.Error("ready while draining")
	}
	waitFor(t, func() error {
		if n := g.Connections(); n != 1 {
			return fmt.Errorf("%d connections, want the relay alone", n)
		}
		return nil
	})
	if _, err := read(at, "x"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, want refused", err)
	}
	if got := said(t, tcp); got != "one\nhello" {
		t.Errorf("the relay under way: %q", got)
	}
	done := make(chan struct{})
	go func() { g.Drain(nil); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("Drain does not return")
	}
}

// asked remembers what is wanted.
type asked struct{ names map[model.ResourceKind]string }

func (a *asked) Want(kind model.ResourceKind, names []string) {
	a.names[kind] = strings.Join(names, " ")
}

func TestWants(t *testing.T) {
	b := dynamic(5 * time.Second)
	static(b, "one", origin(t, "one"))
	g := start(t, b)
	a := &asked{names: map[model.ResourceKind]string{}}
	g.SetControl(a)
	want := func(what, endpoints, routes, secrets string) {
		t.Helper()
		got := a.names
		if got[model.ResourceEndpoints] != endpoints || got[model.ResourceRoutes] != routes || got[model.ResourceSecret] != secrets {
			t.Errorf("%s: %v, want %q, %q, %q", what, got, endpoints, routes, secrets)
		}
	}
	apply(t, g, model.Updates{Clusters: []model.Cluster{eds("b"), eds("a")}})
	want("clusters", "a b", "", "")
	c := rds("r")
	c.TLS = &model.ServerTLS{Certificates: []model.SecretRef{{SDS: "cert"}}, Validation: &model.Validation{Roots: model.SecretRef{SDS: "roots"}}}
	apply(t, g, model.Updates{Listeners: []model.Listener{listener("l", c)}})
	want("a listener", "a b", "r", "cert roots")
	apply(t, g, model.Updates{Removed: []model.Removed{{Kind: model.ResourceCluster, Name: "a"}, {Kind: model.ResourceListener, Name: "l"}}})
	want("their removal", "b", "", "")
}
