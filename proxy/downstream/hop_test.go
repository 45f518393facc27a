package downstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// hop is one proxy on a real loop: a listener, a worker and a pool.
type hop struct {
	t      testing.TB
	loop   *loop.Epoll
	pool   *pool.Pool
	worker *exchange.Worker
	addr   string
	log    *records
}

// records keeps what was observed; its methods are for any goroutine.
type records struct {
	mu   sync.Mutex
	all  []record.Record
	keep bool
	n    int
}

func (r *records) Done(rec *record.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if r.keep {
		c := *rec
		c.Path = append([]byte(nil), rec.Path...)
		c.RequestID = append([]byte(nil), rec.RequestID...)
		r.all = append(r.all, c)
	}
}

// forget keeps no more records: keeping allocates.
func (r *records) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep = false
}

// clear forgets what was recorded so far.
func (r *records) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all, r.n = nil, 0
}

func (r *records) last() record.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return record.Record{}
	}
	return r.all[len(r.all)-1]
}

func (r *records) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

type setup struct {
	loop   *loop.Epoll // nil: a new one
	origin exchange.Origin
	http2  bool
	config *downstream.Config
	pool   pool.Config
	worker exchange.Config
	tls    *tls.ConnectionState                                                 // what a chain's connections are said to have agreed on
	cert   *x509.Certificate                                                    // theirs
	wrap   func(c loop.Conn, serve func(c loop.Conn) loop.Handler) loop.Handler // for TLS
}

func newLoop(t testing.TB) *loop.Epoll {
	t.Helper()
	l, err := loop.New(loop.Config{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	go l.Run()
	t.Cleanup(l.Close)
	return l
}

// newHop starts a proxy; every connection it accepts is served as s says.
func newHop(t testing.TB, s setup) *hop {
	t.Helper()
	h := &hop{t: t, loop: s.loop, log: &records{keep: true}}
	if h.loop == nil {
		h.loop = newLoop(t)
	}
	s.pool.Loop = h.loop
	if s.pool.Mesh == nil {
		s.pool.Mesh = func(d *pool.Target, timeout time.Duration, hd loop.Handler) loop.Conn {
			return h.loop.Dial(loop.Dial{Address: d.Address, Timeout: timeout}, hd)
		}
	}
	h.pool = pool.New(s.pool)
	s.worker.Loop, s.worker.Pool, s.worker.Observer, s.worker.Seed = h.loop, h.pool, h.log, 1
	h.worker = exchange.NewWorker(s.worker)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	t.Cleanup(func() { _ = f.Close() })
	h.addr = ln.Addr().String()
	serve := func(c loop.Conn) loop.Handler {
		o := s.origin
		o.Remote = c.Remote()
		if o.HTTP != nil {
			o.Conn = &observe.Connection{ID: 7, Remote: c.Remote(), Local: c.Local(), TLS: s.tls, Certificate: s.cert}
			return downstream.ServeChain(c, downstream.Context{Worker: h.worker, Origin: &o, Config: downstream.ConfigOf(o.HTTP)}, "")
		}
		return downstream.Serve(c, downstream.Context{Worker: h.worker, Origin: &o, HTTP2: s.http2, Config: s.config})
	}
	l, err := h.loop.Listen(int(f.Fd()), func(in loop.Incoming) {
		in.Adopt(h.loop, func(c loop.Conn) loop.Handler {
			if s.wrap != nil {
				return s.wrap(c, serve)
			}
			return serve(c)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return h
}

// do runs f on the hop's loop and waits for it.
func (h *hop) do(f func()) {
	done := make(chan struct{})
	if h.loop.Post(func() { f(); close(done) }) {
		<-done
	}
}

// until waits for cond, which runs on the loop.
func (h *hop) until(what string, cond func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for met := false; !met; {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited 10 s for: %s", what)
		}
		h.do(func() { met = cond() })
	}
}

// url answers path on the hop.
func (h *hop) url(path string) string { return "http://" + h.addr + path }

func addrOf(t testing.TB, srv *httptest.Server) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// program starts an HTTP server and a proxy in front of it that delivers to it.
func program(t testing.TB, handler http.HandlerFunc) *hop {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return newHop(t, setup{origin: inbound(addrOf(t, srv))})
}

func inbound(a netip.AddrPort) exchange.Origin {
	return exchange.Origin{Direction: record.Inbound, Program: a}
}

// nobody answers an address at which nothing listens.
func nobody(t testing.TB) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// client answers an HTTP client that is ended with the test and whose requests do not hang.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// services is a Destination made by hand.
type services struct {
	table    *router.Table
	clusters map[model.PortName]*cluster.Cluster
}

func (s *services) Routes() *router.Table { return s.table }

func (s *services) Cluster(n model.PortName) *cluster.Cluster { return s.clusters[n] }

var cart = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 8080}

// to is a Destination with one route to one cluster at the given mesh addresses.
func to(t testing.TB, timeouts model.Timeouts, addrs ...netip.AddrPort) *services {
	t.Helper()
	table, err := router.Compile(&model.RouteTable{Name: cart, Routes: []model.Route{{
		Name: "Service/default/cart", Match: model.Match{Path: "/"}, Timeouts: timeouts,
		Backends: []model.Backend{{Cluster: cart, Weight: 1}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.New(&model.Cluster{Name: cart, ConnectTimeout: 2 * time.Second})
	eps := &model.Endpoints{Cluster: cart}
	for i, a := range addrs {
		eps.Endpoints = append(eps.Endpoints, model.Endpoint{
			Workload: "cart-" + string(rune('a'+i)), Namespace: "default", Address: a, Port: 8080, Weight: 1,
			Identity: "spiffe://tulle.local/ns/default/sa/cart",
		})
	}
	c.SetEndpoints(eps)
	return &services{table: table, clusters: map[model.PortName]*cluster.Cluster{cart: c}}
}

// twoHops puts two proxies between the client and the program: HTTP/2 between them, in the clear.
func twoHops(t testing.TB, handler http.HandlerFunc) (out, in *hop) {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	o := inbound(addrOf(t, srv))
	o.Mesh = true
	in = newHop(t, setup{origin: o, http2: true})
	dest := to(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	out = newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: cart}})
	return out, in
}
