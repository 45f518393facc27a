package cluster_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

func wanting(at string) *cluster.Choice {
	a, _ := netip.ParseAddrPort(at)
	return &cluster.Choice{Wanted: a}
}

func TestOriginal(t *testing.T) {
	m := &model.Cluster{Name: name, Discovery: model.DiscoveryOriginal}
	c := cluster.New(m)
	one, from, why := c.Choose(wanting("192.0.2.1:80"))
	if one == nil || from != 1 || why != failure.None || one.Address().String() != "192.0.2.1:80" {
		t.Fatalf("%v, %d, %v", one, from, why)
	}
	if again, _, _ := c.Choose(wanting("[::ffff:192.0.2.1]:80")); again != one {
		t.Error("the same address is another endpoint")
	}
	if other, _, _ := c.Choose(wanting("192.0.2.1:81")); other == nil || other == one {
		t.Error("another port is the same endpoint")
	}
	ch := wanting("192.0.2.1:80")
	ch.Excluded = []*cluster.Endpoint{one}
	if ep, from, why := c.Choose(ch); ep != nil || from != 1 || why != failure.NoEndpoint {
		t.Errorf("excluded: %v, %d, %v", ep, from, why)
	}
	for _, bad := range []string{"", "0.0.0.0:80", "[::]:80", "192.0.2.1:0", "224.0.0.1:80"} {
		if ep, from, why := c.Choose(wanting(bad)); ep != nil || from != 0 || why != failure.NoEndpoint {
			t.Errorf("%q: %v, %d, %v", bad, ep, from, why)
		}
	}
	next := *m
	next.Original.Port = 8080
	c.Set(&next)
	if ep, _, _ := c.Choose(wanting("192.0.2.1:80")); ep == nil || ep.Address().String() != "192.0.2.1:8080" {
		t.Errorf("with another port: %v", ep)
	}
	if n := len(c.Endpoints()); n != 3 {
		t.Errorf("%d endpoints, want 3", n)
	}
	c.Set(&model.Cluster{Name: name})
	if !one.Gone() || len(c.Endpoints()) != 0 {
		t.Error("a cluster of another kind has kept them")
	}
	if ep, _, _ := c.Choose(wanting("192.0.2.1:80")); ep != nil {
		t.Error("picked from a cluster of another kind")
	}
}

// TestOriginalSweep: what was not used since the last sweep but one, and has nothing in flight, is forgotten.
func TestOriginalSweep(t *testing.T) {
	c := cluster.New(&model.Cluster{Name: name, Discovery: model.DiscoveryOriginal})
	idle, _, _ := c.Choose(wanting("192.0.2.1:80"))
	busy, _, _ := c.Choose(wanting("192.0.2.2:80"))
	used, _, _ := c.Choose(wanting("192.0.2.3:80"))
	busy.Begin()
	if c.Sweep() {
		t.Error("forgotten before it could be used")
	}
	used.Begin()
	used.End()
	if !c.Sweep() || !idle.Gone() || busy.Gone() || used.Gone() {
		t.Errorf("gone: idle %v, busy %v, used %v", idle.Gone(), busy.Gone(), used.Gone())
	}
	busy.End()
	c.Sweep()
	if n := len(c.Endpoints()); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
	if again, _, _ := c.Choose(wanting("192.0.2.1:80")); again == nil || again == idle {
		t.Error("an address that was forgotten cannot come back")
	}
}

// TestOriginalBound: clients cannot make it more than MaxOriginals, from any number of loops; Sweep makes room.
func TestOriginalBound(t *testing.T) {
	c := cluster.New(&model.Cluster{Name: name, Discovery: model.DiscoveryOriginal})
	var all sync.WaitGroup
	for k := range 4 {
		all.Go(func() {
			for i := range cluster.MaxOriginals/2 + 100 {
				n := k/2*cluster.MaxOriginals/2 + i
				c.Choose(&cluster.Choice{Wanted: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(k / 2), byte(n >> 8), byte(n)}), 80)})
			}
		})
	}
	all.Wait()
	if n := len(c.Endpoints()); n != cluster.MaxOriginals {
		t.Errorf("%d endpoints, want %d", n, cluster.MaxOriginals)
	}
	if ep, _, why := c.Choose(wanting("192.0.2.1:80")); ep != nil || why != failure.Overload {
		t.Errorf("one more: %v, %v", ep, why)
	}
	c.Sweep()
	c.Sweep()
	if ep, _, _ := c.Choose(wanting("192.0.2.1:80")); ep == nil {
		t.Error("there is no room after a sweep")
	}
}

func TestOriginalAllocatesNothing(t *testing.T) {
	c := cluster.New(&model.Cluster{Name: name, Discovery: model.DiscoveryOriginal})
	ch := wanting("192.0.2.1:80")
	c.Choose(ch)
	if n := testing.AllocsPerRun(100, func() { c.Choose(ch) }); n != 0 {
		t.Errorf("%v allocations for a known address", n)
	}
}
