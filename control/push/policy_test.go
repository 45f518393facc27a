package push_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/push"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/snapshot"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/client"
)

// heard is a sink that counts.
type heard struct {
	tables, clusters chan string
	attempts         atomic.Uint32 // of cart's retries, as last heard
	requests         atomic.Uint32 // of cart's breaker
}

func (*heard) Service(string, *model.Service) {}
func (h *heard) RouteTable(name string, m *model.RouteTable) {
	if r := m.Routes[0].Retry; r != nil {
		h.attempts.Store(r.Attempts)
	}
	h.tables <- name
}
func (h *heard) Cluster(name string, m *model.Cluster) {
	h.requests.Store(m.Breakers[0].Requests)
	h.clusters <- name
}
func (*heard) Endpoints(string, *model.Endpoints)     {}
func (*heard) Security(string, *model.Security) error { return nil }
func (*heard) Trust(string, *model.Trust) error       { return nil }
func (*heard) Connected(bool)                         {}

// two is a registry with the services cart and web.
type two struct{ view }

func (v *two) Service(n model.ServiceName) (*registry.Service, bool) {
	if n.Name != "cart" && n.Name != "web" {
		return nil, false
	}
	return &registry.Service{Service: model.Service{Name: n, Ports: []model.ServicePort{{Port: 80}}}}, true
}

// TestPolicyTouches: a policy on one service reaches who calls that, over the wire, and nothing about another is sent again.
func TestPolicyTouches(t *testing.T) {
	var index atomic.Pointer[compile.Index]
	index.Store(compile.NewIndex(nil))
	p := push.New(push.Config{Log: slog.New(slog.DiscardHandler), Snapshot: func() snapshot.Snapshot {
		return snapshot.Snapshot{Index: index.Load(), View: &two{}}
	}})
	h := &heard{tables: make(chan string, 10), clusters: make(chan string, 10)}
	c := connect(t, p, h)
	web := cart
	web.Service.Name = "web"
	for _, n := range []model.PortName{cart, web} {
		c.Subscribe(client.KindRouteTable, n.String())
		c.Subscribe(client.KindCluster, n.String())
		next(t, h.tables)
		next(t, h.clusters)
	}
	attempts, requests := int32(5), int32(70)
	o := &v1alpha1.TrafficPolicy{Spec: v1alpha1.TrafficPolicySpec{TargetRefs: []v1alpha1.PolicyTarget{{Kind: "Service", Name: "cart"}},
		TrafficParts: v1alpha1.TrafficParts{Retries: &v1alpha1.Retries{Attempts: &attempts}, Breakers: &v1alpha1.Breakers{Requests: &requests}}}}
	o.Name = "p"
	v1alpha1.Default(o)
	next1 := index.Load().With([]compile.Policy{{Object: o, Created: 1}}, nil)
	index.Store(next1)
	p.Changed(2, next1.Touched(o), nil)
	if name := next(t, h.tables); name != cart.String() || h.attempts.Load() != 5 {
		t.Errorf("table %s with %d retries", name, h.attempts.Load())
	}
	if name := next(t, h.clusters); name != cart.String() || h.requests.Load() != 70 {
		t.Errorf("cluster %s with %d requests", name, h.requests.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if n := p.WaitSettled(ctx); n != 0 || len(h.tables)+len(h.clusters) > 0 {
		t.Errorf("%d have not acknowledged, %d and %d more were sent", n, len(h.tables), len(h.clusters))
	}
	if got := p.Callers(cart, ""); len(got) != 1 {
		t.Errorf("callers: %v", got)
	}
	if got := p.Callers(model.PortName{Service: cart.Service, Port: 81}, ""); len(got) != 0 {
		t.Errorf("callers of another port: %v", got)
	}
}
