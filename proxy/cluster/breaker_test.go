package cluster_test

import (
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

func bounded(b model.Breakers) *model.Cluster {
	return &model.Cluster{Name: model.Free("c"), Breakers: [2]model.Breakers{b, {Requests: 1}}}
}

// TestBreaker: limits are those in force, by priority; counts outlive both settings and endpoints.
func TestBreaker(t *testing.T) {
	c := cluster.New(bounded(model.Breakers{Requests: 2}))
	b := c.Breaker(model.PriorityDefault)
	for i, want := range []bool{true, true, false} {
		if b.Take(cluster.Requests) != want {
			t.Fatalf("request %d of two: %v", i+1, !want)
		}
	}
	if h := c.Breaker(model.PriorityHigh); !h.Take(cluster.Requests) || h.Take(cluster.Requests) {
		t.Error("the other priority has a bound of its own")
	}
	for range 10 {
		if !b.Take(cluster.Pending) {
			t.Fatal("what has no bound was refused")
		}
	}
	c.Set(bounded(model.Breakers{Requests: 3}))
	c.SetEndpoints(nil)
	if c.Breaker(model.PriorityDefault) != b || !b.Take(cluster.Requests) || b.Take(cluster.Requests) || b.Now(cluster.Requests) != 3 || b.Refused(cluster.Requests) != 2 {
		t.Errorf("after a change: %d under way, %d refused", b.Now(cluster.Requests), b.Refused(cluster.Requests))
	}
	b.Force(cluster.Requests)
	if b.Give(cluster.Requests); b.Now(cluster.Requests) != 3 || b.Take(cluster.Requests) {
		t.Error("forced and given back")
	}
	if cluster.New(&model.Cluster{}).Breaker(model.PriorityHigh) != nil {
		t.Error("a cluster of the mesh has a breaker")
	}
}

// TestBreakerTogether: whatever loops do at once, there is never more than the limit, and all comes back.
func TestBreakerTogether(t *testing.T) {
	b := cluster.New(bounded(model.Breakers{Connections: 3})).Breaker(model.PriorityDefault)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10_000 {
				if b.Take(cluster.Connections) {
					if n := b.Now(cluster.Connections); n > 3 || n < 1 {
						t.Errorf("%d at once", n)
					}
					b.Give(cluster.Connections)
				}
			}
		})
	}
	all.Wait()
	if n := b.Now(cluster.Connections); n != 0 {
		t.Errorf("%d left", n)
	}
}
