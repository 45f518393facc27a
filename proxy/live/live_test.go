package live_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// source remembers what is subscribed. Answers are given by the test, or at once from answer.
type source struct {
	mu     sync.Mutex
	have   map[string]bool // "service reviews.default"
	calls  []string
	answer func(live.Kind, string)
}

func (s *source) Subscribe(k live.Kind, name string)   { s.call(k, name, true) }
func (s *source) Unsubscribe(k live.Kind, name string) { s.call(k, name, false) }

func (s *source) call(k live.Kind, name string, on bool) {
	key := k.String() + " " + name
	s.mu.Lock()
	s.calls = append(s.calls, fmt.Sprint(on, " ", key))
	if on {
		s.have[key] = true
	} else {
		delete(s.have, key)
	}
	answer := s.answer
	s.mu.Unlock()
	if on && answer != nil {
		answer(k, name)
	}
}

func (s *source) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l []string
	for k := range s.have {
		l = append(l, k)
	}
	slices.Sort(l)
	return l
}

// fakeLoop runs what is posted when the test says so; its time is the test's.
type fakeLoop struct {
	loop.Loop
	mu     sync.Mutex
	now    time.Duration
	posted []func()
	timers map[*loop.Timer]time.Duration
}

func (l *fakeLoop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted = append(l.posted, f)
	return true
}
func (l *fakeLoop) Arm(t *loop.Timer, d time.Duration) { l.timers[t] = l.now + d }
func (l *fakeLoop) Disarm(t *loop.Timer)               { delete(l.timers, t) }

// turn runs what is posted, then what has expired after d.
func (l *fakeLoop) turn(d time.Duration) {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
	l.now += d
	for t, at := range l.timers {
		if at <= l.now {
			delete(l.timers, t)
			t.Expired()
		}
	}
}

type fixture struct {
	*live.Live
	t    *testing.T
	src  *source
	loop *fakeLoop
}

func start(t *testing.T, cfg live.Config) *fixture {
	f := &fixture{t: t, src: &source{have: map[string]bool{}}, loop: &fakeLoop{timers: map[*loop.Timer]time.Duration{}}}
	cfg.Source = f.src
	f.Live = live.New(cfg)
	t.Cleanup(f.Live.Close)
	return f
}

// got is what a callback was given.
type got struct {
	port  *live.Port
	why   failure.Reason
	calls int
}

func (f *fixture) ask(addr string) *got {
	g := &got{}
	f.ByAddress(f.loop, netip.MustParseAddrPort(addr), func(p *live.Port, why failure.Reason) {
		g.port, g.why = p, why
		g.calls++
	})
	if g.calls != 0 {
		f.t.Fatal("the callback was called from inside")
	}
	return g
}

func portName(s string) model.PortName {
	n, err := model.ParsePortName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func service(name string, vip string, ports ...uint16) *model.Service {
	n, err := model.ParseServiceName(name)
	if err != nil {
		panic(err)
	}
	s := &model.Service{Name: n, VIP4: netip.MustParseAddr(vip)}
	for _, p := range ports {
		s.Ports = append(s.Ports, model.ServicePort{Port: p})
	}
	return s
}

func table(name string, clusters ...string) *model.RouteTable {
	t := &model.RouteTable{Name: portName(name)}
	r := model.Route{Name: "Service/" + name, Match: model.Match{Path: "/"}}
	for _, c := range clusters {
		r.Backends = append(r.Backends, model.Backend{Cluster: portName(c), Weight: 1})
	}
	t.Routes = []model.Route{r}
	return t
}

// cluster makes a cluster of one endpoint known.
func (f *fixture) cluster(name string) {
	f.Cluster(name, &model.Cluster{Name: portName(name), ConnectTimeout: time.Second})
	f.Endpoints(name, endpoints(name, 1))
}

func endpoints(name string, n int) *model.Endpoints {
	e := &model.Endpoints{Cluster: portName(name)}
	for i := range n {
		e.Endpoints = append(e.Endpoints, model.Endpoint{Workload: fmt.Sprint("w", i), Namespace: "default", Weight: 1, Address: netip.MustParseAddrPort("127.0.0.1:1234")})
	}
	return e
}

// ready brings reviews.default:80 at 198.18.0.5 in force.
func (f *fixture) ready() *live.Port {
	f.t.Helper()
	g := f.ask("198.18.0.5:80")
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 80))
	f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
	f.cluster("reviews.default:80")
	f.loop.turn(0)
	if g.port == nil {
		f.t.Fatalf("no port: %v", g.why)
	}
	return g.port
}

func backend(t *testing.T, p *live.Port) string {
	t.Helper()
	r := p.Routes().Match(&message.Head{Method: []byte("GET"), Target: []byte("/")})
	if r == nil {
		return "no route"
	}
	c := p.Cluster(r.Choose(0).Cluster)
	if c == nil {
		return "no cluster"
	}
	return c.Name().String()
}

func TestFirstUseSubscribesAndWarms(t *testing.T) {
	f := start(t, live.Config{})
	addr := netip.MustParseAddrPort("198.18.0.5:80")
	g := f.ask(addr.String())
	if want := []string{"service 198.18.0.5"}; !slices.Equal(f.src.list(), want) {
		t.Fatalf("subscribed: %q", f.src.list())
	}
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 80))
	if want := []string{"cluster reviews.default:80", "endpoints reviews.default:80", "route table reviews.default:80", "service 198.18.0.5"}; !slices.Equal(f.src.list(), want) {
		t.Fatalf("subscribed: %q", f.src.list())
	}
	f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews-v1.default:80", "reviews-v2.default:80"))
	for _, step := range []func(){
		func() { f.cluster("reviews.default:80") },
		func() { f.cluster("reviews-v1.default:80") },
		func() { f.Cluster("reviews-v2.default:80", &model.Cluster{Name: portName("reviews-v2.default:80")}) },
	} {
		step()
		f.loop.turn(time.Millisecond)
		if _, known := f.Port(addr); known || g.calls != 0 {
			t.Fatal("the port is ready before its clusters are warm")
		}
	}
	f.Endpoints("reviews-v2.default:80", nil)
	f.loop.turn(time.Millisecond)
	p, known := f.Port(addr)
	if !known || g.calls != 1 || g.port != p || g.why != failure.None {
		t.Fatalf("not ready: %v %+v", known, g)
	}
	if backend(t, p) != "reviews-v1.default:80" || p.Name().String() != "reviews.default:80" || p.Service() == nil {
		t.Errorf("backend %s", backend(t, p))
	}
	f.loop.turn(time.Hour)
	if g.calls != 1 {
		t.Error("the callback was called again by the timer")
	}
}

func TestReasons(t *testing.T) {
	f := start(t, live.Config{MaxServices: 3})
	service1 := service("reviews.default", "198.18.0.5", 80)
	none, noPort, silent := f.ask("198.18.0.9:80"), f.ask("198.18.0.5:81"), f.ask("[::ffff:198.18.0.7]:80")
	f.Service("198.18.0.9", nil)
	f.Service("198.18.0.5", service1)
	many := f.ask("198.18.0.8:80")
	f.loop.turn(1900 * time.Millisecond)
	if none.why != failure.UnknownService || noPort.why != failure.UnknownPort || many.why != failure.Overload || silent.calls != 0 {
		t.Errorf("got %v, %v, %v, %d", none.why, noPort.why, many.why, silent.calls)
	}
	f.loop.turn(100 * time.Millisecond)
	if silent.why != failure.Unavailable || silent.calls != 1 {
		t.Errorf("after 2 s: %v", silent.why)
	}
	again := f.ask("198.18.0.9:80")
	f.loop.turn(0)
	if again.why != failure.UnknownService {
		t.Error("a known absence is not answered at once")
	}
	f.Service("198.18.0.9", service("late.default", "198.18.0.9", 80))
	f.RouteTable("late.default:80", nil)
	later := f.ask("198.18.0.9:80")
	f.Cluster("late.default:80", nil)
	f.RouteTable("late.default:80", nil)
	f.loop.turn(0)
	if later.port == nil || backend(t, later.port) != "no route" || later.port.Cluster(portName("late.default:80")) != nil {
		t.Errorf("a service without table and cluster: %v", later.why)
	}
}

func TestNewTableWaitsForItsClusters(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	old := p.Routes()
	f.RouteTable("reviews.default:80", table("reviews.default:80", "canary.default:80"))
	if p.Routes() != old {
		t.Fatal("the new table is in force before its cluster is known")
	}
	f.Cluster("canary.default:80", &model.Cluster{Name: portName("canary.default:80")})
	if p.Routes() != old {
		t.Fatal("the new table is in force before its endpoints are known")
	}
	f.Endpoints("canary.default:80", endpoints("canary.default:80", 1))
	if backend(t, p) != "canary.default:80" {
		t.Errorf("backend %s", backend(t, p))
	}
	f.RouteTable("reviews.default:80", &model.RouteTable{Name: p.Name(), Routes: []model.Route{{Match: model.Match{PathKind: model.PathRegex, Path: "("}}}})
	if backend(t, p) != "canary.default:80" {
		t.Error("a table that cannot be compiled is in force")
	}
}

func TestRequestsOfTheOldTableFindTheirCluster(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	f.RouteTable("reviews.default:80", table("reviews.default:80", "a.default:80"))
	f.cluster("a.default:80")
	matched := p.Routes().Match(&message.Head{Target: []byte("/")}).Choose(0)
	f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
	if p.Cluster(matched.Cluster) == nil {
		t.Error("the cluster of a route that was matched a moment ago is gone")
	}
}

func TestOneRouteTouchesNoOther(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	c := p.Cluster(p.Name())
	e := c.Endpoints()[0]
	e.Begin()
	view := p.Routes()
	f.ask("198.18.0.6:80")
	f.Service("198.18.0.6", service("cart.default", "198.18.0.6", 80))
	f.RouteTable("cart.default:80", table("cart.default:80", "reviews.default:80"))
	f.cluster("cart.default:80")
	f.RouteTable("cart.default:80", table("cart.default:80", "cart.default:80"))
	f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
	if p.Cluster(p.Name()) != c || c.Endpoints()[0] != e || e.InFlight() != 1 || e.Gone() {
		t.Error("cluster or endpoint of another route was replaced")
	}
	if p.Routes() == view {
		t.Error("its own new table is not in force")
	}
}

func TestClusterGoesAndComes(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	was := p.Cluster(p.Name()).Endpoints()[0]
	f.Cluster("reviews.default:80", nil)
	if backend(t, p) != "no cluster" {
		t.Error("a cluster that does not exist is there")
	}
	defer func() {
		if p.Cluster(p.Name()).Endpoints()[0] != was {
			t.Error("the endpoint has lost its state")
		}
	}()
	f.Cluster("reviews.default:80", &model.Cluster{Name: p.Name(), Protocol: model.ProtocolHTTP})
	if backend(t, p) != "reviews.default:80" || len(p.Cluster(p.Name()).Endpoints()) != 1 || p.Protocol() != model.ProtocolHTTP {
		t.Error("the cluster came back without its endpoints or protocol")
	}
	f.Endpoints("reviews.default:80", endpoints("reviews.default:80", 3))
	if len(p.Cluster(p.Name()).Endpoints()) != 3 {
		t.Error("new endpoints are not in force")
	}
}

func TestServiceGoesAndComes(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	addr := netip.MustParseAddrPort("198.18.0.5:80")
	f.Service("198.18.0.5", nil)
	if _, known := f.Port(addr); known || p.Service() != nil {
		t.Error("the service is gone and its address is still known")
	}
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 81))
	if _, known := f.Port(addr); known {
		t.Error("a port that the service has lost is still known")
	}
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 80))
	if q, known := f.Port(addr); !known || q != p {
		t.Error("the port came back as another, or not")
	}
}

func TestKnownStaysWhileControlPlaneIsAway(t *testing.T) {
	f := start(t, live.Config{})
	f.Connected(true)
	f.ready()
	f.Connected(false)
	if _, known := f.Port(netip.MustParseAddrPort("198.18.0.5:80")); !known || f.Up() {
		t.Error("what was known is forgotten")
	}
}

func TestUnusedIsRetiredAndRevived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, live.Config{Retire: 10 * time.Minute})
		p := f.ready()
		addr := netip.MustParseAddrPort("198.18.0.5:80")
		for range 10 {
			time.Sleep(5 * time.Minute)
			p.Routes() // a connection that stays, with a request now and then
		}
		if len(f.src.list()) != 4 {
			t.Fatalf("what is in use was retired: %q", f.src.list())
		}
		time.Sleep(9 * time.Minute)
		if len(f.src.list()) != 4 {
			t.Fatalf("retired too early: %q", f.src.list())
		}
		time.Sleep(2 * time.Hour)
		if l := f.src.list(); len(l) != 0 {
			t.Fatalf("still subscribed: %q", l)
		}
		if _, known := f.Port(addr); known {
			t.Error("a retired port is known")
		}
		if backend(t, p) != "reviews.default:80" {
			t.Error("who holds a retired port has nothing")
		}
		want := []string{"cluster reviews.default:80", "endpoints reviews.default:80", "route table reviews.default:80", "service reviews.default"}
		if l := f.src.list(); !slices.Equal(l, want) {
			t.Fatalf("use of a retired port subscribes to %q", l)
		}
		f.Service("reviews.default", service("reviews.default", "198.18.0.5", 80))
		f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
		f.cluster("reviews.default:80")
		if q, known := f.Port(addr); !known || q != p {
			t.Error("the revived port is another, or not ready")
		}
	})
}

func TestRoutesGivenUpAreUnsubscribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, live.Config{Retire: 10 * time.Minute})
		p := f.ready()
		f.RouteTable("reviews.default:80", table("reviews.default:80", "canary.default:80"))
		f.cluster("canary.default:80")
		f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
		for range 2 {
			if !slices.Contains(f.src.list(), "cluster canary.default:80") {
				t.Error("given up at once")
			}
			time.Sleep(5*time.Minute + time.Second)
			p.Routes()
		}
		if l := f.src.list(); slices.Contains(l, "cluster canary.default:80") || !slices.Contains(l, "cluster reviews.default:80") {
			t.Errorf("subscribed: %q", l)
		}
	})
}

func TestFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, live.Config{})
		name := model.ServiceName{Namespace: "default", Name: "reviews"}
		go func() {
			time.Sleep(time.Second)
			f.Service("reviews.default", service("reviews.default", "198.18.0.5", 80))
		}()
		if s, why := f.Find(context.Background(), name); s == nil || why != failure.None {
			t.Errorf("got %v, %v", s, why)
		}
		begun := time.Now()
		if s, why := f.Find(context.Background(), model.ServiceName{Namespace: "default", Name: "silent"}); s != nil || why != failure.Unavailable || time.Since(begun) != 2*time.Second {
			t.Errorf("got %v, %v after %v", s, why, time.Since(begun))
		}
		f.Service("silent.default", nil)
		if s, why := f.Find(context.Background(), model.ServiceName{Namespace: "default", Name: "silent"}); s != nil || why != failure.None {
			t.Errorf("got %v, %v for what does not exist", s, why)
		}
		g := f.ask("198.18.0.5:80") // known by name: its address is no second subscription
		if slices.Contains(f.src.list(), "service 198.18.0.5") {
			t.Error("the address of a known service is subscribed to")
		}
		f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
		f.cluster("reviews.default:80")
		f.loop.turn(0)
		if g.port == nil {
			t.Errorf("no port: %v", g.why)
		}
	})
}

func TestByName(t *testing.T) {
	f := start(t, live.Config{})
	var port *live.Port
	f.ByName(f.loop, portName("reviews.default:80"), func(p *live.Port, _ failure.Reason) { port = p })
	f.Service("reviews.default", service("reviews.default", "198.18.0.5", 80))
	f.RouteTable("reviews.default:80", table("reviews.default:80"))
	f.cluster("reviews.default:80")
	f.loop.turn(0)
	if port == nil || port.Name().String() != "reviews.default:80" {
		t.Error("no port")
	}
}

// TestSourceThatAnswersFromInside: neither deadlock nor lost answer when Subscribe calls the sink.
func TestSourceThatAnswersFromInside(t *testing.T) {
	f := start(t, live.Config{})
	f.src.answer = func(k live.Kind, name string) {
		switch k {
		case live.KindService:
			f.Service(name, service("reviews.default", "198.18.0.5", 80))
		case live.KindRouteTable:
			f.RouteTable(name, table(name, name, "v2.default:80"))
		case live.KindCluster:
			f.Cluster(name, &model.Cluster{Name: portName(name)})
		case live.KindEndpoints:
			f.Endpoints(name, endpoints(name, 1))
		}
	}
	g := f.ask("198.18.0.5:80")
	f.loop.turn(0)
	if g.port == nil || backend(t, g.port) == "no cluster" {
		t.Errorf("got %+v", g)
	}
	d := f.Dump()
	if len(d.Services) != 1 || len(d.Ports) != 1 || len(d.Clusters) != 2 || d.Ports[0].State != "ready" || len(d.Clusters[0].Endpoints) != 1 {
		t.Errorf("dump: %+v", d)
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 2000 {
				if b := backend(t, p); b == "no cluster" {
					t.Error(b)
				}
				f.Port(netip.MustParseAddrPort("198.18.0.5:80"))
			}
		})
	}
	for i := range 500 {
		to := fmt.Sprintf("v%d.default:80", i%3)
		f.RouteTable("reviews.default:80", table("reviews.default:80", to))
		f.cluster(to)
		f.Dump()
	}
	wg.Wait()
}

func TestReadsDoNotAllocate(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	addr := netip.MustParseAddrPort("198.18.0.5:80")
	if n := testing.AllocsPerRun(100, func() {
		f.Port(addr)
		p.Routes()
		p.Cluster(p.Name())
		p.Protocol()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestConsumerRoutes: where the workload's namespace has routes of its own for a service their table is asked for; the one in
// force stays until the other comes, both ways.
func TestConsumerRoutes(t *testing.T) {
	f := start(t, live.Config{Namespace: "shop"})
	p := f.ready()
	consumed := service("reviews.default", "198.18.0.5", 80)
	consumed.Consumers = []string{"other", "shop"}
	f.Service("198.18.0.5", consumed)
	if l := f.src.list(); !slices.Contains(l, "route table reviews.default:80@shop") || slices.Contains(l, "route table reviews.default:80") {
		t.Fatalf("subscribed: %q", l)
	}
	f.RouteTable("reviews.default:80", table("reviews.default:80", "late.default:80")) // was on its way
	if backend(t, p) != "reviews.default:80" {
		t.Fatalf("backend %s before the consumer's table has come", backend(t, p))
	}
	own := table("reviews.default:80", "mine.shop:80")
	own.Caller, own.Routes[0].Name = "shop", "HTTPRoute/shop/reviews"
	f.RouteTable("reviews.default:80@shop", own)
	f.cluster("mine.shop:80")
	if backend(t, p) != "mine.shop:80" || p.Protocol() != model.ProtocolHTTP {
		t.Fatalf("backend %s, protocol %v", backend(t, p), p.Protocol())
	}
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 80))
	if backend(t, p) != "mine.shop:80" {
		t.Fatal("the consumer's table is gone before another has come")
	}
	f.RouteTable("reviews.default:80", table("reviews.default:80", "reviews.default:80"))
	if backend(t, p) != "reviews.default:80" {
		t.Errorf("backend %s without a consumer route", backend(t, p))
	}
}

// TestRelayedClusters: what only connections go to, and what requests fall back to, is subscribed and warmed like the rest.
func TestRelayedClusters(t *testing.T) {
	f := start(t, live.Config{})
	p := f.ready()
	next := table("reviews.default:80", "reviews.default:80")
	next.Routes[0].Fallback = &model.Backend{Cluster: portName("static.default:80"), Weight: 1}
	next.Relay = []model.RelayRoute{{Backends: []model.Backend{{Cluster: portName("db.default:80"), Weight: 1}, {Cluster: portName("bad.default:80"), Weight: 1, Invalid: true}}}}
	f.RouteTable("reviews.default:80", next)
	f.cluster("db.default:80")
	if p.Relays() != nil {
		t.Fatal("in force before its clusters are warm")
	}
	f.cluster("static.default:80")
	if len(p.Relays()) != 1 || p.Cluster(portName("db.default:80")) == nil || p.Cluster(portName("static.default:80")) == nil {
		t.Errorf("relays %+v", p.Relays())
	}
}

// TestTrustRefused: whom the mesh believes is what it was before while a new one is refused.
func TestTrustRefused(t *testing.T) {
	l := live.New(live.Config{Source: &source{have: map[string]bool{}}})
	bad := errors.New("no root")
	l.FollowTrust(func(m *model.Trust) error {
		if m.Stage == 2 {
			return bad
		}
		return nil
	})
	for _, one := range []struct {
		stage, then uint64
		err         error
	}{{1, 1, nil}, {2, 1, bad}, {3, 3, nil}} {
		if err := l.Trust("trust", &model.Trust{Stage: one.stage}); err != one.err {
			t.Errorf("%d: %v", one.stage, err)
		}
		if _, m := l.Believed(); m == nil || m.Stage != one.then {
			t.Errorf("%d: %+v is believed", one.stage, m)
		}
	}
}
