package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// patient is a server that answers its name, and health checks; what it answers can be changed.
type patient struct {
	name    string
	at      netip.AddrPort
	healthy atomic.Int32 // status of health checks
	status  atomic.Int32 // of requests
	asked   atomic.Int64
	served  atomic.Int64
	last    atomic.Pointer[http.Request] // health check
}

func newPatient(t *testing.T, name string) *patient {
	p := &patient{name: name}
	p.healthy.Store(200)
	p.status.Store(200)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.at = netip.MustParseAddrPort(s.Listener.Addr().String())
	return p
}

func (p *patient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/healthz") {
		p.last.Store(r)
		p.asked.Add(1)
		w.WriteHeader(int(p.healthy.Load()))
		return
	}
	p.served.Add(1)
	w.WriteHeader(int(p.status.Load()))
	io.WriteString(w, p.name)
}

// quick is an HTTP check many times a second.
func quick() model.HealthCheck {
	return model.HealthCheck{Kind: model.CheckHTTP, Path: "/healthz", Timeout: 5 * time.Second, Interval: 5 * time.Millisecond, NoTrafficInterval: 5 * time.Millisecond,
		UnhealthyThreshold: 2, HealthyThreshold: 2, ReuseConnection: true}
}

// states answers the health of a cluster's endpoints, in their order.
func states(g *gateway.Gateway, name string) (out []string) {
	for _, c := range g.Clusters() {
		if c.Name == name {
			for _, e := range c.Endpoints {
				out = append(out, e.Health)
			}
		}
	}
	return out
}

func waitStates(t *testing.T, g *gateway.Gateway, name string, want ...string) {
	t.Helper()
	waitFor(t, func() error {
		if got := states(g, name); !slices.Equal(got, want) {
			return fmt.Errorf("endpoints are %q, want %q", got, want)
		}
		return nil
	})
}

// spread sends requests and answers who has answered.
func spread(t *testing.T, c *http.Client, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		r, err := c.Get("http://a.test/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		got[string(body)]++
	}
	return got
}

// TestHealthCheck: one of three turns bad: it gets no request until it is well again. When all are bad all are used.
func TestHealthCheck(t *testing.T) {
	a, b, c := newPatient(t, "a"), newPatient(t, "b"), newPatient(t, "c")
	boot := &model.Bootstrap{Admin: &model.Admin{Address: loopback}}
	cl := static(boot, "one", a.at, b.at, c.at)
	check := quick()
	check.Path, check.Host, check.Method = "/healthz/deep?x=%2f", "health.test", "HEAD"
	check.Headers = []model.Header{{Name: "x-who", Value: "gateway"}}
	check.Statuses = []model.StatusRange{{From: 200, To: 201}, {From: 210, To: 220}}
	cl.HealthChecks, cl.Balancing.Policy = []model.HealthCheck{check}, model.RoundRobin
	a.healthy.Store(214)
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, boot)
	waitFor(t, g.Ready)
	if got := states(g, "one"); !slices.Equal(got, []string{"healthy", "healthy", "healthy"}) {
		t.Errorf("ready before its endpoints were asked: %q", got)
	}
	r := b.last.Load()
	if r.Method != "HEAD" || r.RequestURI != check.Path || r.Host != "health.test" || r.Header.Get("X-Who") != "gateway" || r.UserAgent() != "Tulle/HC" {
		t.Errorf("the check: %s %s %s %v", r.Method, r.RequestURI, r.Host, r.Header)
	}
	at := client(t, g.Listening("l")[0], nil, "1")
	if got := spread(t, at, 9); got["a"] != 3 || got["b"] != 3 || got["c"] != 3 {
		t.Errorf("all well: %v", got)
	}
	b.healthy.Store(209)
	waitStates(t, g, "one", "healthy", "/failed_active_hc", "healthy")
	if got := spread(t, at, 20); got["b"] != 0 || got["a"]+got["c"] != 20 {
		t.Errorf("b is unhealthy: %v", got)
	}
	for path, want := range map[string]string{"/clusters": b.at.String() + "::health_flags::/failed_active_hc\n", "/metrics": `tulle_cluster_endpoints{cluster="one",health="failed_active_hc"} 1`} {
		if got := get(t, http.DefaultClient, "http://"+g.AdminAddress()+path); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q", path, want)
		}
	}
	b.healthy.Store(200)
	waitStates(t, g, "one", "healthy", "healthy", "healthy")
	if got := spread(t, at, 9); got["b"] == 0 {
		t.Errorf("b is well again: %v", got)
	}
	a.healthy.Store(500)
	b.healthy.Store(500)
	waitStates(t, g, "one", "/failed_active_hc", "/failed_active_hc", "healthy")
	if got := spread(t, at, 9); got["a"] == 0 || got["b"] == 0 || got["c"] == 0 {
		t.Errorf("panic: %v", got)
	}
	var shown struct{ Clusters []admin.Cluster }
	if err := json.Unmarshal([]byte(get(t, http.DefaultClient, "http://"+g.AdminAddress()+"/clusters?format=json")), &shown); err != nil {
		t.Fatal(err)
	}
	if e := shown.Clusters[0].Endpoints; e[0].Checks < 3 || e[0].CheckFailures == 0 || e[2].CheckFailures != 0 || e[0].Health != "/failed_active_hc" {
		t.Errorf("%+v", e)
	}
}

// TestHealthCheckStart: who does not answer at the beginning gets nothing, and is known before the listener accepts.
func TestHealthCheckStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	a, b := newPatient(t, "a"), newPatient(t, "b")
	boot := &model.Bootstrap{}
	static(boot, "one", a.at, dead, b.at).HealthChecks = []model.HealthCheck{quick()}
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, boot)
	waitFor(t, g.Ready)
	if got := states(g, "one"); !slices.Equal(got, []string{"healthy", "/failed_active_hc", "healthy"}) {
		t.Errorf("%q", got)
	}
}

// TestHealthCheckMoves: endpoints that stay keep what was found, those that come are asked first, those that go are not
// asked any more; other settings change nothing at once.
func TestHealthCheckMoves(t *testing.T) {
	a, b, c := newPatient(t, "a"), newPatient(t, "b"), newPatient(t, "c")
	b.healthy.Store(500)
	g := start(t, dynamic(time.Minute))
	cl := eds("one")
	cl.HealthChecks = []model.HealthCheck{quick()}
	apply(t, g, model.Updates{Clusters: []model.Cluster{cl}, Endpoints: []*model.Endpoints{endpoints("one", a.at, b.at)}})
	waitStates(t, g, "one", "healthy", "/failed_active_hc")
	apply(t, g, model.Updates{Endpoints: []*model.Endpoints{endpoints("one", a.at, b.at, c.at)}})
	if got := states(g, "one"); got[0] != "healthy" || got[1] != "/failed_active_hc" {
		t.Errorf("after another came: %q", got)
	}
	waitStates(t, g, "one", "healthy", "/failed_active_hc", "healthy")
	slower := cl
	slower.HealthChecks = []model.HealthCheck{quick()}
	slower.HealthChecks[0].Path, slower.HealthChecks[0].Interval = "/healthz/other", 6*time.Millisecond
	apply(t, g, model.Updates{Clusters: []model.Cluster{slower}})
	for until := a.asked.Load() + 3; a.asked.Load() < until || a.last.Load().URL.Path != "/healthz/other"; {
		if got := states(g, "one"); !slices.Equal(got, []string{"healthy", "/failed_active_hc", "healthy"}) {
			t.Fatalf("flapped: %q", got)
		}
	}
	apply(t, g, model.Updates{Endpoints: []*model.Endpoints{endpoints("one", a.at, b.at)}})
	waitFor(t, func() error { // the check that is under way ends
		was := c.asked.Load()
		time.Sleep(50 * time.Millisecond) // poll
		if c.asked.Load() != was {
			return errors.New("who has gone is asked still")
		}
		return nil
	})
	apply(t, g, model.Updates{Clusters: []model.Cluster{eds("one")}})
	waitStates(t, g, "one", "healthy", "healthy")
}

// TestHealthCheckGRPC: NOT_SERVING is believed at once, over h2c and TLS, for the service that is asked for.
func TestHealthCheckGRPC(t *testing.T) {
	ca := newAuthority(t)
	boot := &model.Bootstrap{}
	servers := map[string]*grpchealth.Server{}
	for _, name := range []string{"plain", "tls"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		if name == "tls" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{ca.pair(ca.leaf("", "server.test"))}, NextProtos: []string{"h2"}})
		}
		s := grpc.NewServer()
		servers[name] = grpchealth.NewServer()
		servers[name].SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
		grpc_health_v1.RegisterHealthServer(s, servers[name])
		go s.Serve(l)
		t.Cleanup(s.Stop)
		c := static(boot, name, at)
		check := quick()
		check.Kind, check.Service = model.CheckGRPC, "shop.Cart"
		c.HealthChecks = []model.HealthCheck{check}
		if name == "tls" {
			c.TLS = ca.client("server.test")
		}
	}
	unknown := quick()
	unknown.Kind, unknown.Service = model.CheckGRPC, "shop.Nothing"
	static(boot, "unknown", boot.Endpoints[0].Endpoints[0].Address).HealthChecks = []model.HealthCheck{unknown}
	g := start(t, boot)
	for name, s := range servers {
		waitStates(t, g, name, "healthy")
		s.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		waitStates(t, g, name, "/failed_active_hc")
		s.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
		waitStates(t, g, name, "healthy")
	}
	waitStates(t, g, "unknown", "/failed_active_hc")
}

// TestHealthCheckTCP: what is said and heard, in order; on another port; behind a PROXY header; a connection is enough.
func TestHealthCheckTCP(t *testing.T) {
	boot := &model.Bootstrap{}
	a := newPatient(t, "a")
	talk := func(name string, at netip.AddrPort, receive ...string) *model.Cluster {
		c := static(boot, name, at)
		check := quick()
		check.Kind, check.Timeout = model.CheckTCP, 300*time.Millisecond
		if len(receive) > 0 {
			check.Send = []byte("ping\n")
		}
		for _, r := range receive {
			check.Receive = append(check.Receive, []byte(r))
		}
		c.HealthChecks = []model.HealthCheck{check}
		return c
	}
	e := echo(t, "hello")
	talk("talks", e, "pi", "g") // the greeting comes once, and stands before it
	talk("wrong order", e, "ping", "hello")
	talk("connects", a.at)
	talk("port", netip.AddrPortFrom(a.at.Addr(), 1))
	boot.Endpoints[len(boot.Endpoints)-1].Endpoints[0].CheckPort = a.at.Port()
	once := talk("once", e, "hello", "ping")
	once.HealthChecks[0].ReuseConnection = false
	for v, name := range map[uint8]string{1: "v1", 2: "v2"} {
		c := static(boot, name, proxied(t))
		check := quick()
		c.HealthChecks, c.SendProxy = []model.HealthCheck{check}, v
	}
	g := start(t, boot)
	for _, name := range []string{"talks", "connects", "port", "once", "v1", "v2"} {
		waitStates(t, g, name, "healthy")
	}
	waitFor(t, func() error {
		for _, c := range g.Clusters() {
			if e := c.Endpoints[0]; e.Checks < 2 {
				return fmt.Errorf("%s was asked %d times", c.Name, e.Checks)
			} else if c.Name != "wrong order" && e.CheckFailures > 0 {
				t.Fatalf("%s: %d of %d checks failed", c.Name, e.CheckFailures, e.Checks)
			}
		}
		return nil
	})
	waitStates(t, g, "wrong order", "/failed_active_hc")
}

// TestCloseOnHealthFailure: a relay to an endpoint that becomes unhealthy is reset if the cluster says so.
func TestCloseOnHealthFailure(t *testing.T) {
	e, a := echo(t, "hello"), newPatient(t, "a")
	boot := &model.Bootstrap{}
	for _, name := range []string{"stays", "ends"} {
		c := static(boot, name, e)
		boot.Endpoints[len(boot.Endpoints)-1].Endpoints[0].CheckPort = a.at.Port()
		c.HealthChecks, c.CloseOnHealthFailure = []model.HealthCheck{quick()}, name == "ends"
		boot.Listeners = append(boot.Listeners, listener(name, tcpChain(name)))
	}
	g := start(t, boot)
	waitFor(t, g.Ready)
	conns := map[string]*net.TCPConn{}
	for _, name := range []string{"stays", "ends"} {
		conns[name] = dial(t, g.Listening(name)[0], nil)
		if _, err := io.ReadFull(conns[name], make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
	}
	a.healthy.Store(503)
	waitStates(t, g, "ends", "/failed_active_hc")
	waitStates(t, g, "stays", "/failed_active_hc")
	if _, err := conns["ends"].Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) || err == io.EOF {
		t.Errorf("the relay: %v", err)
	}
	fmt.Fprint(conns["stays"], "x")
	if _, err := io.ReadFull(conns["stays"], make([]byte, 1)); err != nil {
		t.Errorf("the other: %v", err)
	}
}

// strict ejects after three failures, for a short time.
func strict() *model.Outlier {
	return &model.Outlier{Consecutive5xx: 3, ConsecutiveGateway: 3, ConsecutiveLocal: 3, Interval: 20 * time.Millisecond, BaseEjection: 150 * time.Millisecond,
		MaxEjection: 10 * time.Second, MaxPercent: 50, Enforce5xx: 100, EnforceLocal: 100}
}

// TestOutlier: who answers 5xx three times in a row is ejected, for a while; what goes wrong on the way there counts too.
func TestOutlier(t *testing.T) {
	a, b, c := newPatient(t, "a"), newPatient(t, "b"), newPatient(t, "c")
	boot := &model.Bootstrap{Admin: &model.Admin{Address: loopback}}
	cl := static(boot, "one", a.at, b.at, c.at)
	cl.Outlier, cl.Balancing.Policy = strict(), model.RoundRobin
	cl.Outlier.BaseEjection = time.Minute
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, boot)
	at := client(t, g.Listening("l")[0], nil, "1")
	b.status.Store(500)
	spread(t, at, 6)
	if got := states(g, "one"); !slices.Equal(got, []string{"healthy", "healthy", "healthy"}) {
		t.Errorf("ejected after two: %q", got)
	}
	spread(t, at, 3)
	waitStates(t, g, "one", "healthy", "/failed_outlier_check", "healthy")
	was := b.served.Load()
	if got := spread(t, at, 10); got["a"] == 0 || got["c"] == 0 || b.served.Load() != was {
		t.Errorf("b is ejected: %v", got)
	}
	a.status.Store(503)
	spread(t, at, 12)
	if got := states(g, "one"); !slices.Equal(got, []string{"healthy", "/failed_outlier_check", "healthy"}) {
		t.Errorf("more than half were ejected: %q", got)
	}
	for path, want := range map[string]string{"/clusters": b.at.String() + "::ejections::1\n", "/metrics": `tulle_ejections_total{cluster="one",why="consecutive_5xx"} 1`} {
		if got := get(t, http.DefaultClient, "http://"+g.AdminAddress()+path); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q", path, want)
		}
	}
}

// TestOutlierRestored: an ejection ends by itself; with an active check that is passed, at once.
func TestOutlierRestored(t *testing.T) {
	a, b := newPatient(t, "a"), newPatient(t, "b")
	boot := &model.Bootstrap{}
	for _, name := range []string{"passive", "checked", "stays"} {
		cl := static(boot, name, a.at, b.at)
		cl.Outlier, cl.Balancing.Policy = strict(), model.RoundRobin
		if name != "passive" {
			cl.HealthChecks, cl.Outlier.BaseEjection, cl.Outlier.StayEjected = []model.HealthCheck{quick()}, time.Hour, name == "stays"
			cl.Outlier.MaxEjection = time.Hour
		}
		boot.Listeners = append(boot.Listeners, listener(name, httpChain(name)))
	}
	g := start(t, boot)
	waitFor(t, g.Ready)
	b.status.Store(502)
	ejections := func(name string) uint64 {
		for _, c := range g.Clusters() {
			if c.Name == name {
				return c.Endpoints[1].Ejections
			}
		}
		return 0
	}
	for _, name := range []string{"passive", "checked", "stays"} {
		spread(t, client(t, g.Listening(name)[0], nil, "1"), 6)
		waitFor(t, func() error {
			if n := ejections(name); n != 1 {
				return fmt.Errorf("%s: %d ejections", name, n)
			}
			return nil
		})
	}
	waitStates(t, g, "passive", "healthy", "healthy")
	waitStates(t, g, "checked", "healthy", "healthy")
	waitStates(t, g, "stays", "healthy", "/failed_outlier_check")
}

// TestOutlierLocal: connections that cannot be made are failures, of HTTP and TCP; with split counting, on their own.
func TestOutlierLocal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	a, e := newPatient(t, "a"), echo(t, "hello")
	boot := &model.Bootstrap{}
	for _, name := range []string{"http", "http split", "tcp", "tcp split", "tcp not enforced"} {
		cl := static(boot, name, a.at, dead)
		if strings.HasPrefix(name, "tcp") {
			boot.Endpoints[len(boot.Endpoints)-1] = *endpoints(name, e, dead)
		}
		cl.Outlier = strict()
		cl.Outlier.SplitLocal = strings.HasSuffix(name, "split")
		cl.Outlier.BaseEjection, cl.Outlier.MaxEjection = time.Hour, time.Hour
		if cl.Outlier.ConsecutiveLocal = 1; !cl.Outlier.SplitLocal { // what cools down is not tried again soon
			cl.Outlier.Consecutive5xx = 1
		} else {
			cl.Outlier.Enforce5xx = 0
		}
		chain := httpChain(name)
		if strings.HasPrefix(name, "tcp") {
			chain = tcpChain(name)
			chain.TCP.MaxConnectAttempts = 2
			if strings.HasSuffix(name, "enforced") {
				cl.Outlier.Enforce5xx = 0
			}
		}
		boot.Listeners = append(boot.Listeners, listener(name, chain))
	}
	g := start(t, boot)
	for _, name := range []string{"http", "http split", "tcp", "tcp split", "tcp not enforced"} {
		for range 20 { // by chance
			if strings.HasPrefix(name, "http") {
				spread(t, client(t, g.Listening(name)[0], nil, "1"), 1)
				continue
			}
			c := dial(t, g.Listening(name)[0], nil)
			if _, err := io.ReadFull(c, make([]byte, 6)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			c.Close()
		}
		if name == "tcp not enforced" {
			waitStates(t, g, name, "healthy", "healthy")
			continue
		}
		waitStates(t, g, name, "healthy", "/failed_outlier_check")
	}
}

// TestOutlierRates: who answers every second request with 500 never fails twice in a row, and is ejected all the same; and
// what is not run any more is undone.
func TestOutlierRates(t *testing.T) {
	a, b, c := newPatient(t, "a"), newPatient(t, "b"), newPatient(t, "c")
	g := start(t, dynamic(time.Minute))
	cl := eds("one")
	cl.Balancing.Policy = model.RoundRobin
	cl.Outlier = strict()
	cl.Outlier.BaseEjection, cl.Outlier.MaxEjection = time.Hour, time.Hour
	cl.Outlier.EnforceFailurePercent, cl.Outlier.FailureThreshold, cl.Outlier.FailureMinimumHosts, cl.Outlier.FailureRequestVolume = 100, 50, 3, 4
	l := listener("l", httpChain("one"))
	apply(t, g, model.Updates{Clusters: []model.Cluster{cl}, Endpoints: []*model.Endpoints{endpoints("one", a.at, b.at, c.at)}, Listeners: []model.Listener{l}})
	waitFor(t, g.Ready)
	at := client(t, g.Listening("l")[0], nil, "1")
	waitFor(t, func() error {
		for i := range 40 {
			c.status.Store(int32(200 + i%2*300))
			spread(t, at, 3) // one for each
		}
		if got := states(g, "one"); !slices.Equal(got, []string{"healthy", "healthy", "/failed_outlier_check"}) {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	cl.Outlier = nil
	apply(t, g, model.Updates{Clusters: []model.Cluster{cl}})
	waitStates(t, g, "one", "healthy", "healthy", "healthy")
}
