package cluster

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// Choice is what a pick depends on besides the endpoints.
type Choice struct {
	// Now is loop time: loops of one process share its origin; being apart by less than CoolDown does no harm.
	Now    time.Duration
	Random uint64 // uniform over uint64
	// Hash decides with RingHash and Maglev, if Hashed; otherwise chance does.
	Hash   uint64
	Hashed bool
	// Excluded are endpoints that failed this exchange already.
	Excluded []*Endpoint
	// Wanted is the address of a cluster of model.DiscoveryOriginal; zero: nobody has said where to.
	Wanted netip.AddrPort
}

// Pick answers the endpoint that takes the next request, and out of how many it was picked. It is Choose without a hash.
func (c *Cluster) Pick(now time.Duration, rnd uint64, excluded []*Endpoint) (ep *Endpoint, from int, why failure.Reason) {
	return c.Choose(&Choice{Now: now, Random: rnd, Excluded: excluded})
}

// Choose answers the endpoint that takes the next request, and out of how many it was picked. The priority is drawn by the
// plan (plan.go), the endpoint within it by the cluster's policy. Endpoints that are excluded are not picked; nor are
// unhealthy and ejected ones, unless the priority is in panic, and those that are cooling down, unless there is no other.
// When nothing can be picked the endpoint is nil and the reason NoEndpoint: from is then 0 if the cluster has no usable
// endpoint at all, and more than 0 if all of them are excluded or unwell, so that the caller keeps the reason of its last
// attempt. Nothing is allocated.
func (c *Cluster) Choose(ch *Choice) (ep *Endpoint, from int, why failure.Reason) {
	s, p := c.set.Load(), c.plan.Load()
	if len(s.levels) == 0 {
		if o := c.originals.Load(); o != nil {
			return c.original(o, ch)
		}
		return nil, 0, failure.NoEndpoint
	}
	first := p.draw(ch.Random)
	for k := range len(s.levels) {
		at := (first.level + k) % len(s.levels)
		l, want := &s.levels[at], first.class
		if k > 0 {
			want = wellOrDegraded
		}
		if p.panics(at) {
			want = whatever
		}
		for _, warm := range []bool{true, false} {
			if ep = c.within(l, ch, want, warm); ep != nil {
				return ep, s.usable, failure.None
			}
		}
	}
	return nil, s.usable, failure.NoEndpoint
}

// class is which endpoints of a level may be picked.
type class uint8

const (
	well class = iota
	degraded
	wellOrDegraded
	whatever
)

// level is the endpoints of one priority, and how one of them is found.
type level struct {
	endpoints []*Endpoint
	wheel     *balancer.Wheel
	ring      *balancer.Ring     // RingHash
	table     *balancer.Table    // Maglev
	rotation  *balancer.Rotation // RoundRobin
}

// levels makes the levels of a generation.
func levels(all []*Endpoint, b *model.Balancing) []level {
	byPriority := map[uint32][]*Endpoint{}
	var priorities []uint32
	for _, e := range all {
		m := e.Model()
		if m.Health == model.Draining {
			continue
		}
		if byPriority[m.Priority] == nil {
			priorities = append(priorities, m.Priority)
		}
		byPriority[m.Priority] = append(byPriority[m.Priority], e)
	}
	slices.Sort(priorities)
	out := make([]level, len(priorities))
	for i, p := range priorities {
		out[i].fill(byPriority[p], b)
	}
	return out
}

func (l *level) fill(endpoints []*Endpoint, b *model.Balancing) {
	l.endpoints = endpoints
	weights, names := make([]uint32, len(endpoints)), make([]string, len(endpoints))
	for i, e := range endpoints {
		m := e.Model()
		weights[i], names[i] = m.Weight, m.Address.String()
	}
	l.wheel = balancer.NewWheel(weights)
	switch b.Policy {
	case model.RoundRobin:
		l.rotation = balancer.NewRotation(weights)
	case model.RingHash:
		l.ring = balancer.NewRing(names, weights, b.MinRing, b.MaxRing)
	case model.Maglev:
		l.table = balancer.NewTable(names, weights, b.TableSize)
	}
}

// within answers an endpoint of a level, nil if none may be picked. Ones that cool down may only if not warm.
func (c *Cluster) within(l *level, ch *Choice, want class, warm bool) *Endpoint {
	may := func(i int) bool {
		e := l.endpoints[i]
		return e.is(want) && !(warm && e.cooling(ch.Now)) && !slices.Contains(ch.Excluded, e)
	}
	b, i := &c.model.Load().Balancing, -1
	switch {
	case b.Policy == model.RoundRobin && l.rotation != nil:
		i = l.rotation.Pick(c.turns.Add(1), may)
	case b.Policy == model.RingHash && l.ring != nil && ch.Hashed:
		i = l.ring.Pick(ch.Hash, may)
	case b.Policy == model.Maglev && l.table != nil && ch.Hashed:
		i = l.table.Pick(ch.Hash, may)
	case b.Policy == model.LeastRequest:
		i = l.wheel.Least(ch.Random, b.ChoiceCount, func(i int) (int64, bool) { return l.endpoints[i].inflight.Load(), may(i) })
	default:
		i = l.wheel.Random(ch.Random, may)
	}
	if i < 0 {
		return nil
	}
	return l.endpoints[i]
}
