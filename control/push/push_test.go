package push_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/push"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/snapshot"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/client"
	"github.com/tulle-mesh/tulle/xds/server"
)

var (
	cart = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	vip  = netip.MustParseAddr("198.18.0.9")
)

// view is a registry with one service, which can lose it.
type view struct{ gone atomic.Bool }

func (v *view) Service(n model.ServiceName) (*registry.Service, bool) {
	if n != cart.Service || v.gone.Load() {
		return nil, false
	}
	return &registry.Service{Service: model.Service{Name: n, VIP4: vip, Ports: []model.ServicePort{{Port: 80}}}}, true
}
func (v *view) Services() []*registry.Service {
	if s, ok := v.Service(cart.Service); ok {
		return []*registry.Service{s}
	}
	return nil
}
func (v *view) ByAddress(a netip.Addr) (*registry.Service, bool) {
	if a != vip {
		return nil, false
	}
	return v.Service(cart.Service)
}
func (v *view) Endpoints(n model.PortName) (*model.Endpoints, bool) {
	_, ok := v.Service(n.Service)
	return &model.Endpoints{Cluster: n}, ok
}

// told is a sink that hands everything to the test.
type told struct {
	services chan *model.Service
	tables   chan *model.RouteTable
}

func (s told) Service(_ string, m *model.Service)       { s.services <- m }
func (s told) RouteTable(_ string, m *model.RouteTable) { s.tables <- m }
func (told) Cluster(string, *model.Cluster)             {}
func (told) Endpoints(string, *model.Endpoints)         {}
func (told) Security(string, *model.Security) error     { return nil }
func (told) Trust(string, *model.Trust) error           { return nil }
func (told) Connected(bool)                             {}

func next[T any](t *testing.T, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent")
		panic("unreachable")
	}
}

// TestPush: a proxy gets what it asks for, and only that; a route and the end of a service reach it; the author is told
// how many enforce it.
func TestPush(t *testing.T) {
	v := &view{}
	var index atomic.Pointer[compile.Index]
	index.Store(compile.NewIndex(nil))
	p := push.New(push.Config{Log: slog.New(slog.DiscardHandler), Snapshot: func() snapshot.Snapshot {
		return snapshot.Snapshot{Index: index.Load(), View: v}
	}})
	sink := told{make(chan *model.Service, 10), make(chan *model.RouteTable, 10)}
	c := connect(t, p, sink)

	c.Subscribe(client.KindService, vip.String())
	if s := next(t, sink.services); s == nil || s.Name != cart.Service {
		t.Fatalf("by its address: %+v", s)
	}
	c.Subscribe(client.KindRouteTable, cart.String())
	if m := next(t, sink.tables); len(m.Routes) != 1 || m.Routes[0].Name != "Service/default/cart" {
		t.Fatalf("without a route: %+v", m)
	}

	r := &v1alpha1.HTTPRoute{}
	r.Namespace, r.Name = "default", "mine"
	parent := v1alpha1.ParentService("cart")
	r.Spec.ParentRefs = []v1alpha1.ParentRef{parent}
	r.Spec.Rules = []v1alpha1.HTTPRouteRule{{}}
	index.Store(compile.NewIndex([]compile.Route{{Object: r, Created: 1}}))
	p.Changed(7, []model.ServiceName{cart.Service}, nil)
	if m := next(t, sink.tables); m.Routes[0].Name != "HTTPRoute/default/mine" {
		t.Fatalf("with a route: %+v", m)
	}
	if s := next(t, sink.services); s.Ports[0].Protocol != model.ProtocolHTTP {
		t.Fatalf("a port with a route: %+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if n := p.WaitSettled(ctx); n != 0 {
		t.Fatalf("%d proxies have not acknowledged", n)
	}
	if a, n := p.Enforced(cart, ""); a != 1 || n != 1 {
		t.Errorf("enforced by %d of %d", a, n)
	}
	if p.Revision() != 7 {
		t.Errorf("revision %d", p.Revision())
	}
	testConsumer(t, c, sink, p, &index)
	v.gone.Store(true)
	p.Changed(8, []model.ServiceName{cart.Service}, nil)
	if s := next(t, sink.services); s != nil {
		t.Errorf("a service that is gone: %+v", s)
	}
	if m := next(t, sink.tables); m != nil {
		t.Errorf("a table that is gone: %+v", m)
	}
}

// testConsumer: a route of another namespace makes a table for that namespace's callers, who are told of it, and changes
// nobody else's. It is taken back before the test goes on.
func testConsumer(t *testing.T, c *client.Client, sink told, p *push.Push, index *atomic.Pointer[compile.Index]) {
	before := index.Load()
	r := &v1alpha1.HTTPRoute{}
	r.Namespace, r.Name = "shop", "theirs"
	parent := v1alpha1.ParentService("cart")
	ns := v1alpha1.Namespace("default")
	parent.Namespace = &ns
	r.Spec.ParentRefs, r.Spec.Rules = []v1alpha1.ParentRef{parent}, []v1alpha1.HTTPRouteRule{{}}
	index.Store(compile.NewIndex(append([]compile.Route{{Object: r, Created: 2}}, before.Routes()...)))
	p.Changed(7, []model.ServiceName{cart.Service}, nil)
	if s := next(t, sink.services); len(s.Consumers) != 1 || s.Consumers[0] != "shop" {
		t.Fatalf("consumers: %+v", s)
	}
	c.Subscribe(client.KindRouteTable, cart.For("shop"))
	if m := next(t, sink.tables); m.Caller != "shop" || m.Routes[0].Name != "HTTPRoute/shop/theirs" {
		t.Fatalf("the consumer's table: %+v", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p.WaitSettled(ctx)
	if a, n := p.Enforced(cart, "shop"); a != 1 || n != 1 {
		t.Errorf("the consumer's table is enforced by %d of %d", a, n)
	}
	c.Unsubscribe(client.KindRouteTable, cart.For("shop"))
	index.Store(before)
	p.Changed(7, []model.ServiceName{cart.Service}, nil)
	if s := next(t, sink.services); len(s.Consumers) != 0 {
		t.Fatalf("consumers without a consumer route: %+v", s)
	}
}

func connect(t *testing.T, p *push.Push, sink client.Sink) *client.Client {
	t.Helper()
	id := func(sa string) spiffe.ID {
		return spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: sa}
	}
	authority := svidtest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(server.Options(authority.Issue(id("control")))...)
	server.New(server.Config{Source: p, Sessions: anyone{}}).Register(g)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	c, err := client.New(client.Config{Address: l.Addr().String(), Identity: authority.Issue(id("web")), Server: id("control"),
		Workload: client.Workload{Name: "web-1", Namespace: "default", Service: "web"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(sink)
	t.Cleanup(c.Close)
	return c
}

// anyone takes every session and forgets it.
type anyone struct{}

func (anyone) Begin(spiffe.ID, server.Hello) (server.Session, error) { return anyone{}, nil }
func (anyone) Ready(bool)                                            {}
func (anyone) Learned(uint16, model.Protocol)                        {}
func (anyone) Stats([]byte)                                          {}
func (anyone) Shown(server.Proof)                                    {}
func (anyone) Decided(decision.Report)                               {}
func (anyone) Captured(server.Capture)                               {}
func (anyone) Recovered([]recovery.Report)                           {}
func (anyone) Goodbye(context.Context) int                           { return 0 }
func (anyone) End(bool)                                              {}
