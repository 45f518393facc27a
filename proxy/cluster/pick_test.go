package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// spread makes a cluster with so many endpoints of each priority.
func spread(b model.Balancing, perPriority ...int) *cluster.Cluster {
	c := cluster.New(&model.Cluster{Name: model.Free("c"), ConnectTimeout: time.Second, Balancing: b})
	e := &model.Endpoints{Cluster: model.Free("c")}
	for p, n := range perPriority {
		for i := range n {
			e.Endpoints = append(e.Endpoints, model.Endpoint{Weight: 1, Priority: uint32(p),
				Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:80", p, i+1))})
		}
	}
	c.SetEndpoints(e)
	return c
}

// shares answers how many of 10,000 picks went to each priority, in percent, and how many to nobody.
func shares(c *cluster.Cluster) (to [3]int, none int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		ep, _, why := c.Choose(&cluster.Choice{Now: time.Hour, Random: rnd.Uint64()})
		if why != failure.None {
			none++
			continue
		}
		to[ep.Model().Priority]++
	}
	for i := range to {
		to[i] = (to[i] + 50) / 100
	}
	return to, none / 100
}

// TestPriorities: Envoy's documented examples of how priorities share the requests, with 140 percent overprovisioning.
func TestPriorities(t *testing.T) {
	for _, c := range []struct {
		name      string
		unhealthy [2]int // of ten in each priority
		want      [2]int // percent
	}{
		{"all are well", [2]int{0, 0}, [2]int{100, 0}},
		{"72 percent are enough", [2]int{2, 0}, [2]int{100, 0}},
		{"70 percent are not", [2]int{3, 0}, [2]int{98, 2}},
		{"half", [2]int{5, 0}, [2]int{70, 30}},
		{"none of the first", [2]int{10, 0}, [2]int{0, 100}},
		{"a quarter of both: what is left is shared", [2]int{8, 8}, [2]int{50, 50}},
	} {
		cl := spread(model.Balancing{Policy: model.RoundRobin}, 10, 10)
		for p, n := range c.unhealthy {
			for i, k := 0, 0; k < n; i++ {
				if e := cl.Endpoints()[i]; int(e.Model().Priority) == p {
					e.SetUnhealthy(true)
					k++
				}
			}
		}
		to, none := shares(cl)
		for p := range c.want {
			if d := to[p] - c.want[p]; d < -2 || d > 2 || none > 0 {
				t.Errorf("%s: %v percent and %d to nobody, expected %v", c.name, to, none, c.want)
				break
			}
		}
	}
}

// TestPanic: below the threshold everybody is picked, well or not; with a threshold of 0 nobody is.
func TestPanic(t *testing.T) {
	c := spread(model.Balancing{Policy: model.Random}, 4)
	for _, e := range c.Endpoints() {
		e.SetEjected(true)
	}
	if to, none := shares(c); to[0] != 100 || none != 0 {
		t.Errorf("in panic: %v, nobody %d", to, none)
	}
	never := 0.0
	c.Set(&model.Cluster{Name: model.Free("c"), ConnectTimeout: time.Second, Balancing: model.Balancing{Policy: model.Random, Panic: &never}})
	if _, none := shares(c); none != 100 {
		t.Errorf("with no panic %d percent went to nobody", none)
	}
	c.Endpoints()[2].SetEjected(false)
	for range 100 {
		if ep, _, _ := c.Choose(&cluster.Choice{Random: rand.Uint64()}); ep != c.Endpoints()[2] {
			t.Fatalf("%v was picked, which is ejected", ep)
		}
	}
}

// TestDegraded: degraded endpoints get what the healthy ones cannot take.
func TestDegraded(t *testing.T) {
	c := cluster.New(&model.Cluster{Name: model.Free("c"), ConnectTimeout: time.Second})
	e := &model.Endpoints{}
	for i := range 10 {
		m := model.Endpoint{Weight: 1, Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", i+1))}
		if i < 5 {
			m.Health = model.Degraded
		}
		e.Endpoints = append(e.Endpoints, m)
	}
	c.SetEndpoints(e)
	weak := 0
	for range 10_000 {
		if ep, _, _ := c.Choose(&cluster.Choice{Random: rand.Uint64()}); ep.Model().Health == model.Degraded {
			weak++
		}
	}
	if weak < 2700 || weak > 3300 {
		t.Errorf("%d of 10000 went to degraded endpoints, expected about 3000", weak)
	}
}

// TestPolicies: round robin goes round, a hash goes to one place, and to another when that one is excluded.
func TestPolicies(t *testing.T) {
	c := spread(model.Balancing{Policy: model.RoundRobin}, 4)
	seen := map[*cluster.Endpoint]int{}
	for range 40 {
		ep, from, _ := c.Choose(&cluster.Choice{})
		if seen[ep]++; from != 4 {
			t.Fatalf("out of %d", from)
		}
	}
	for _, n := range seen {
		if n != 10 {
			t.Errorf("a turn of %d of 40", n)
		}
	}
	for _, p := range []model.LBPolicy{model.RingHash, model.Maglev} {
		c := spread(model.Balancing{Policy: p}, 5)
		first, _, _ := c.Choose(&cluster.Choice{Hash: 42, Hashed: true, Random: 1})
		for i := range uint64(20) {
			if again, _, _ := c.Choose(&cluster.Choice{Hash: 42, Hashed: true, Random: i}); again != first {
				t.Fatalf("policy %d: one hash, two places", p)
			}
		}
		if other, _, _ := c.Choose(&cluster.Choice{Hash: 42, Hashed: true, Excluded: []*cluster.Endpoint{first}}); other == nil || other == first {
			t.Errorf("policy %d: %v in place of the excluded one", p, other)
		}
	}
}

func TestChooseAllocatesNothing(t *testing.T) {
	for _, p := range []model.LBPolicy{model.LeastRequest, model.RoundRobin, model.Random, model.RingHash, model.Maglev} {
		c := spread(model.Balancing{Policy: p}, 20, 5)
		n := uint64(0)
		if a := testing.AllocsPerRun(1000, func() {
			n += 0x9e3779b97f4a7c15
			choice := cluster.Choice{Now: time.Hour, Random: n, Hash: n, Hashed: true}
			c.Choose(&choice)
		}); a > 0 {
			t.Errorf("policy %d: %v allocations", p, a)
		}
	}
}

// TestPlansOvertake: of plans that are made at the same time the last one knows everything.
func TestPlansOvertake(t *testing.T) {
	const n = 8
	c := spread(model.Balancing{}, n, 1)
	e := c.Endpoints()
	for round := range 5000 {
		for _, v := range []bool{true, false} {
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() { e[i].SetUnhealthy(v) })
			}
			all.Wait()
			if got, _, _ := c.Pick(0, uint64(round)<<51, nil); (got == e[n]) != v {
				t.Fatalf("round %d, all of the first priority unhealthy: %v; picked of priority %d", round, v, got.Model().Priority)
			}
		}
	}
}
