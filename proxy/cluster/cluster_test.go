package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

var name = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}

func endpoint(n int) model.Endpoint {
	return model.Endpoint{
		Workload: fmt.Sprintf("cart-%d", n), Namespace: "default", Port: 80, Weight: 1,
		Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(20000+n)), Identity: "spiffe://tulle.local/ns/default/sa/cart",
	}
}

func newCluster(n int) (*cluster.Cluster, *model.Endpoints) {
	c := cluster.New(&model.Cluster{Name: name, ConnectTimeout: time.Second})
	e := &model.Endpoints{Cluster: name}
	for i := range n {
		e.Endpoints = append(e.Endpoints, endpoint(i))
	}
	c.SetEndpoints(e)
	return c, e
}

func TestPickFromNothing(t *testing.T) {
	c, _ := newCluster(0)
	if e, from, why := c.Pick(0, 1, nil); e != nil || from != 0 || why != failure.NoEndpoint {
		t.Errorf("got %v, %d, %v", e, from, why)
	}
	c.SetEndpoints(nil)
	if e, _, _ := c.Pick(0, 1, nil); e != nil {
		t.Error("picked from no set at all")
	}
}

func TestExcludedIsNotPicked(t *testing.T) {
	c, _ := newCluster(3)
	var tried []*cluster.Endpoint
	for range 3 {
		e, from, why := c.Pick(0, rand.Uint64(), tried)
		if e == nil || from != 3 || why != failure.None {
			t.Fatalf("got %v, %d, %v", e, from, why)
		}
		for _, x := range tried {
			if x == e {
				t.Fatalf("%s was picked twice", e.Workload())
			}
		}
		tried = append(tried, e)
	}
	if e, from, why := c.Pick(0, 1, tried); e != nil || from != 3 || why != failure.NoEndpoint {
		t.Errorf("all excluded: %v, %d, %v", e, from, why)
	}
}

func TestCoolDown(t *testing.T) {
	c, _ := newCluster(2)
	dead := c.Endpoints()[0]
	now := 10 * time.Second
	dead.ConnectFailed(now)
	for range 200 {
		if e, _, _ := c.Pick(now+cluster.CoolDown/2, rand.Uint64(), nil); e == dead {
			t.Fatal("a cooling endpoint was picked although there is another")
		}
	}
	if e, _, _ := c.Pick(now, 1, c.Endpoints()[1:]); e != dead {
		t.Error("the only candidate left was not picked because it cools down")
	}
	c.Endpoints()[1].ConnectFailed(now)
	if e, _, _ := c.Pick(now, 1, nil); e == nil {
		t.Error("all cooling: nobody was picked")
	}
	seen := map[*cluster.Endpoint]bool{}
	for range 200 {
		e, _, _ := c.Pick(now+cluster.CoolDown, rand.Uint64(), nil)
		seen[e] = true
	}
	if len(seen) != 2 {
		t.Error("the cool-down does not end")
	}
	dead.ConnectFailed(now)
	dead.Connected()
	if dead.ConnectFailures() != 0 {
		t.Error("a connection does not end the count of failures")
	}
	dead.ConnectFailed(1000 * time.Hour) // by another clock
	if e, _, _ := c.Pick(now, 1, c.Endpoints()[1:]); e != dead {
		t.Error("a time of another clock shuts an endpoint out")
	}
}

func TestStateSurvivesUpdates(t *testing.T) {
	c, e := newCluster(3)
	kept, leaves := c.Endpoints()[0], c.Endpoints()[2]
	kept.Begin()
	next := &model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{e.Endpoints[0], e.Endpoints[1], endpoint(7)}}
	next.Endpoints[0].Weight, next.Endpoints[0].Learned = 5, model.LearnedHTTP
	c.SetEndpoints(next)
	if got := c.Endpoints()[0]; got != kept || got.InFlight() != 1 || got.Model().Weight != 5 {
		t.Error("an endpoint that stays lost its state, or did not get its new weight")
	}
	if !leaves.Gone() || kept.Gone() || c.Endpoints()[2] == leaves {
		t.Error("the endpoint that left was not told, or one that stays was")
	}
	moved := next.Endpoints[0]
	moved.Address = netip.MustParseAddrPort("10.0.0.9:1")
	c.SetEndpoints(&model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{moved}})
	if c.Endpoints()[0] == kept || !kept.Gone() {
		t.Error("an endpoint at another address is the same")
	}
	kept.End()
	if kept.InFlight() != 0 || kept.Total() != 1 {
		t.Error("the load of an endpoint that is gone is not counted to its end")
	}
}

func TestDrainingTakesNothingNew(t *testing.T) {
	c, e := newCluster(2)
	next := &model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{e.Endpoints[0], e.Endpoints[1]}}
	next.Endpoints[1].Health = model.Draining
	c.SetEndpoints(next)
	for range 50 {
		if e, from, _ := c.Pick(0, rand.Uint64(), nil); from != 1 || e.Workload() != "cart-0" {
			t.Fatalf("picked %s out of %d", e.Workload(), from)
		}
	}
	if len(c.Endpoints()) != 2 || c.Endpoints()[1].Gone() {
		t.Error("a draining endpoint has left")
	}
	stale := &model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{e.Endpoints[0]}}
	stale.Endpoints[0].Health = model.Stale
	c.SetEndpoints(stale)
	if e, _, _ := c.Pick(0, 1, nil); e == nil {
		t.Error("a stale endpoint is not picked")
	}
}

func TestProtocol(t *testing.T) {
	c, e := newCluster(2)
	set := func(a, b model.Protocol) {
		next := &model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{e.Endpoints[0], e.Endpoints[1]}}
		next.Endpoints[0].Learned, next.Endpoints[1].Learned = a, b
		c.SetEndpoints(next)
	}
	want := func(what string, p model.Protocol) {
		t.Helper()
		if got := c.Protocol(); got != p {
			t.Errorf("%s: %v, want %v", what, got, p)
		}
	}
	want("at first", model.ProtocolUnknown)
	set(model.LearnedHTTP, model.ProtocolUnknown)
	want("one has learned", model.LearnedHTTP)
	set(model.LearnedHTTP, model.LearnedServerFirst)
	want("they differ", model.ProtocolUnknown)
	set(model.LearnedServerFirst, model.LearnedServerFirst)
	want("they agree", model.LearnedServerFirst)
	c.Contradict(model.LearnedServerFirst)
	c.Contradict(model.LearnedServerFirst)
	want("proven wrong", model.ProtocolUnknown)
	set(model.ProtocolUnknown, model.ProtocolUnknown)
	set(model.LearnedServerFirst, model.ProtocolUnknown)
	want("learned again after a reset", model.LearnedServerFirst)
	c.Contradict(model.LearnedServerFirst)
	set(model.LearnedHTTP, model.LearnedHTTP)
	want("mixed", model.ProtocolUnknown)
	c.Set(&model.Cluster{Name: name, Protocol: model.ProtocolTCP})
	want("declared", model.ProtocolTCP)
	c.Contradict(model.ProtocolTCP)
	want("declared cannot be contradicted", model.ProtocolTCP)
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	c, e := newCluster(5)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 500 {
			c.SetEndpoints(&model.Endpoints{Cluster: name, Endpoints: e.Endpoints[:1+i%5]})
		}
	}()
	for range 5000 {
		ep, _, _ := c.Pick(0, rand.Uint64(), nil)
		if ep == nil {
			t.Fatal("nobody")
		}
		ep.Begin()
		ep.ConnectFailed(0)
		ep.End()
	}
	<-done
}

func TestPickDoesNotAllocate(t *testing.T) {
	c, _ := newCluster(5)
	excluded := c.Endpoints()[:2]
	if n := testing.AllocsPerRun(1000, func() { c.Pick(0, rand.Uint64(), excluded) }); n != 0 {
		t.Errorf("%v allocations per pick", n)
	}
}

func BenchmarkPick(b *testing.B) {
	c, _ := newCluster(10)
	for b.Loop() {
		c.Pick(0, rand.Uint64(), nil)
	}
}
