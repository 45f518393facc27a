package push_test

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/control/push"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/snapshot"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/client"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/server"
)

var quiet = slog.New(slog.DiscardHandler)

func meshID(sa string) spiffe.ID {
	return spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: sa}
}

// mesh is a control plane's registry, push and server over loopback, which can be killed and started again.
type mesh struct {
	t         *testing.T
	store     store.Store
	authority *svidtest.Authority
	address   string
	hold      time.Duration

	registry *registry.Registry
	push     *push.Push
	grpc     *grpc.Server
	listener net.Listener
	stats    chan string
	memory   outage.Memory
}

func newMesh(t *testing.T, hold time.Duration) *mesh {
	m := &mesh{t: t, store: mem.New(1000), authority: svidtest.New(t), address: "127.0.0.1:0", hold: hold, stats: make(chan string, 10)}
	t.Cleanup(func() { m.store.Close() })
	m.start()
	t.Cleanup(m.kill)
	return m
}

func (m *mesh) start() {
	var err error
	if m.registry, err = registry.Start(m.t.Context(), registry.Config{Store: m.store, Hold: m.hold}); err != nil {
		m.t.Fatal(err)
	}
	index, r := compile.NewIndex(nil), m.registry
	m.push = push.New(push.Config{Log: quiet, Snapshot: func() snapshot.Snapshot { return snapshot.Snapshot{Index: index, View: r, Recovery: m.memory.Learned} }})
	p := m.push
	r.Watch(func(c registry.Change) { p.Changed(c.Revision, c.Services, c.Endpoints) })
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.address, m.listener = l.Addr().String(), l
	m.grpc = grpc.NewServer(server.Options(m.authority.Issue(meshID("control")))...)
	sessions := &push.Sessions{Registry: r, Push: p, Recovered: func(list []recovery.Report) { m.memory.Report(list, time.Now()) }, Stats: func(w registry.Workload, json []byte) { m.stats <- w.Key() + " " + string(json) }}
	server.New(server.Config{Source: p, Sessions: sessions}).Register(m.grpc)
	go m.grpc.Serve(l) // ends with Stop
}

func (m *mesh) kill() {
	m.grpc.Stop()
	m.listener.Close() // also when Serve had not taken it yet
	m.registry.Close()
}

// proxy is a client with the endpoints and the connection's state that it was told last.
type proxy struct {
	*client.Client
	mu        sync.Mutex
	endpoints map[string]*model.Endpoints
	services  map[string]*model.Service
	clusters  map[string]*model.Cluster
	up        bool
}

func (p *proxy) Service(n string, s *model.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services[n] = s
}
func (p *proxy) Security(string, *model.Security) error { return nil }
func (p *proxy) Trust(string, *model.Trust) error       { return nil }
func (p *proxy) Endpoints(n string, e *model.Endpoints) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endpoints[n] = e
}
func (p *proxy) Connected(up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = up
}
func (*proxy) RouteTable(string, *model.RouteTable) {}
func (p *proxy) Cluster(n string, c *model.Cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clusters[n] = c
}

// count answers how many endpoints the proxy knows, -1 when it was told of none or that the name does not exist.
func (p *proxy) count(name model.PortName) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.endpoints[name.String()]; e != nil {
		return len(e.Endpoints)
	}
	return -1
}

func (p *proxy) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

func (m *mesh) join(service, name string) *proxy {
	p := &proxy{endpoints: map[string]*model.Endpoints{}, services: map[string]*model.Service{}, clusters: map[string]*model.Cluster{}}
	var err error
	p.Client, err = client.New(client.Config{
		Address: m.address, Identity: m.authority.Issue(meshID(service)), Server: meshID("control"), Log: quiet,
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
		Workload: client.Workload{Name: name, Namespace: "default", Service: service, Version: "v1",
			Ports: []client.Port{{Port: 80, Target: 8080}}, Address: netip.MustParseAddrPort("127.0.0.1:2000")},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	p.Start(p)
	m.t.Cleanup(p.Close)
	return p
}

// within fails unless holds comes to be true in time; it answers how long that took.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !holds() {
		if time.Since(begin) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond) // poll
	}
	return time.Since(begin)
}

func TestMesh(t *testing.T) {
	m := newMesh(t, 0)
	web := m.join("web", "web-1")
	one, two := m.join("cart", "cart-1"), m.join("cart", "cart-2")
	web.Subscribe(client.KindEndpoints, cart.String())
	web.Subscribe(client.KindService, "cart.default")
	one.SetReady(true)
	within(t, 5*time.Second, "the first instance is an endpoint", func() bool { return web.count(cart) == 1 })
	two.SetReady(true)
	within(t, 5*time.Second, "the second too", func() bool { return web.count(cart) == 2 })
	within(t, 5*time.Second, "the service is known by its virtual address", func() bool {
		web.mu.Lock()
		defer web.mu.Unlock()
		s := web.services["cart.default"]
		return s != nil && s.VIP4.IsValid()
	})
	one.Report([]byte("{}"))
	if got := <-m.stats; got != "default/cart-1 {}" {
		t.Errorf("stats %q", got)
	}

	// A goodbye is answered when the callers know.
	if err := two.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := web.count(cart); n != 1 {
		t.Errorf("%d endpoints known to the caller when the withdrawal was answered, want 1", n)
	}

	// The control plane dies and comes back: it forgets nobody, and nobody is told otherwise.
	m.kill()
	within(t, 5*time.Second, "the loss is noticed", func() bool { return !web.connected() })
	if n := web.count(cart); n != 1 {
		t.Errorf("%d endpoints while the control plane is away, want 1", n)
	}
	m.start()
	within(t, 5*time.Second, "the proxies are back", func() bool { return web.connected() && one.connected() })
	if e, _ := m.registry.Endpoints(cart); e == nil || len(e.Endpoints) != 1 {
		t.Errorf("after the restart the registry knows %+v", e)
	}
	if n := web.count(cart); n != 1 {
		t.Errorf("%d endpoints after the restart, want 1", n)
	}
}

// TestDeadSession is in real time: a proxy that ends without a word is out of its callers' endpoints within 3 s.
// TestProxiesByName: a proxy that asks for nothing is known by its name all the same.
func TestProxiesByName(t *testing.T) {
	m := newMesh(t, time.Nanosecond)
	named := func() bool {
		list := m.push.Proxies()
		return len(list) == 1 && list[0].Node == "default/cart-1" && list[0].Resources == 0 && list[0].Settled
	}
	m.join("cart", "cart-1")
	within(t, 10*time.Second, "the proxy is known", named)
	m.kill()
	m.start()
	within(t, 10*time.Second, "the proxy is known after a restart", named)
}

func TestDeadSession(t *testing.T) {
	m := newMesh(t, time.Nanosecond)
	web, one, two := m.join("web", "web-1"), m.join("cart", "cart-1"), m.join("cart", "cart-2")
	web.Subscribe(client.KindEndpoints, cart.String())
	one.SetReady(true)
	two.SetReady(true)
	within(t, 5*time.Second, "both are endpoints", func() bool { return web.count(cart) == 2 })
	two.Close() // without a goodbye
	took := within(t, 3*time.Second, "the dead one is gone", func() bool { return web.count(cart) == 1 })
	if took < registry.Grace/2 {
		t.Errorf("gone after %v: there was no grace", took)
	}
}

// A proxy announces only what its identity stands for.
func TestForeignAnnouncement(t *testing.T) {
	m := newMesh(t, 0)
	sessions := &push.Sessions{Registry: m.registry, Push: m.push}
	if _, err := sessions.Begin(meshID("thief"), server.Hello{Workload: "cart-9", Namespace: "default", Service: "cart", ServiceAccount: "cart"}); err == nil {
		t.Error("announced another service account")
	}
	other := server.Hello{Workload: "cart-9", Namespace: "default", Service: "cart", ServiceAccount: "thief"}
	if _, err := sessions.Begin(meshID("thief"), other); err == nil {
		t.Error("announced a service that its account is not bound to")
	}
	sessions.Serves = func(_, _, _ string) error { return nil }
	if _, err := sessions.Begin(meshID("thief"), other); err != nil {
		t.Errorf("one that it is bound to: %v", err)
	}
}

// What one caller has learned about how long failures last comes to another that has seen none, and to one that is new.
func TestRecoveryIsShared(t *testing.T) {
	m := newMesh(t, 0)
	one := m.join("cart", "cart-1")
	one.SetReady(true)
	web := m.join("web", "web-1")
	web.Subscribe(client.KindCluster, cart.String())
	knows := func(p *proxy) float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		c := p.clusters[cart.String()]
		if c == nil {
			return -1
		}
		l, err := recovery.DecodeLearned(c.Recovery)
		if err != nil {
			return 0
		}
		return l.Service.Weight()
	}
	within(t, 5*time.Second, "the cluster is known, and nothing of its failures", func() bool { return knows(web) == 0 })
	r := recovery.Report{Cluster: cart.String()}
	for range 7 {
		r.Learned.Service.Add(time.Now(), time.Second)
	}
	m.join("shell", "shell-1").Recovered([]recovery.Report{r})
	within(t, 5*time.Second, "the report has come", func() bool {
		names := m.memory.Due(time.Now())
		m.push.Renew(resource.TypeCluster, names)
		return len(names) > 0
	})
	within(t, 5*time.Second, "another caller knows it", func() bool { return knows(web) > 6.9 })
	late := m.join("late", "late-1")
	late.Subscribe(client.KindCluster, cart.String())
	within(t, 5*time.Second, "a new caller knows it", func() bool { return knows(late) > 6.9 })
}
