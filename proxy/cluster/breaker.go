package cluster

import (
	"math"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
)

// Bound is one of the things that a Breaker counts.
type Bound uint8

// Bounds, in the words of Envoy's circuit_breakers: max_connections, max_pending_requests, max_requests, max_retries.
const (
	Connections Bound = iota // that stand or are being made
	Pending                  // requests that wait for a connection
	Requests                 // requests that have a connection, until their response is complete
	Retries                  // requests that are further attempts of an exchange
	bounds
)

// String answers the name in labels and in the admin's answers.
func (b Bound) String() string {
	return [...]string{"connections", "pending_requests", "requests", "retries"}[b]
}

// Breaker counts what is under way in a cluster with one priority, on all loops together, and says when it is too much
// (Envoy's circuit breakers). What it counts outlives changes of the settings; its limits are those of the settings in
// force. Everything that was taken must be given back once. Safe for concurrent use; nothing locks or allocates.
type Breaker struct {
	cluster  *Cluster // nil: own has the limits
	priority model.Priority
	own      atomic.Pointer[model.Breakers]
	counts   [bounds]count
}

type count struct {
	now     atomic.Int64
	refused atomic.Uint64
}

func newBreakers(c *Cluster) *[model.PriorityHigh + 1]Breaker {
	all := &[model.PriorityHigh + 1]Breaker{}
	for p := range all {
		all[p].cluster, all[p].priority = c, model.Priority(p)
	}
	return all
}

// Breaker answers what bounds requests of a priority, nil if the settings have no bound for it.
func (c *Cluster) Breaker(p model.Priority) *Breaker {
	if p > model.PriorityHigh || c.model.Load().Breakers[p] == (model.Breakers{}) {
		return nil
	}
	return &c.breakers[p]
}

// Take counts one more, unless that is more than the settings allow: then it answers false.
func (b *Breaker) Take(what Bound) bool { return b.take(what, b.mostOr(what, 0)) }

func (b *Breaker) take(what Bound, most int64) bool {
	n := &b.counts[what]
	for {
		now := n.now.Load()
		if now >= most {
			n.refused.Add(1)
			return false
		}
		if n.now.CompareAndSwap(now, now+1) {
			return true
		}
	}
}

// Force counts one more, whatever the settings allow.
func (b *Breaker) Force(what Bound) { b.counts[what].now.Add(1) }

// Give takes back one that was counted.
func (b *Breaker) Give(what Bound) { b.counts[what].now.Add(-1) }

// Now answers how many are under way.
func (b *Breaker) Now(what Bound) int64 { return b.counts[what].now.Load() }

// Refused answers how often Take has answered false.
func (b *Breaker) Refused(what Bound) uint64 { return b.counts[what].refused.Load() }

// mostOr is what the settings in force allow; of what they do not bound it is other, and 0 is no bound.
func (b *Breaker) mostOr(what Bound, other int64) int64 {
	m := b.own.Load()
	if b.cluster != nil {
		m = &b.cluster.model.Load().Breakers[b.priority]
	}
	limit := int64([bounds]uint32{m.Connections, m.Pending, m.Requests, m.Retries}[what])
	if limit == 0 {
		limit = other
	}
	if limit == 0 {
		return math.MaxInt64
	}
	return limit
}
