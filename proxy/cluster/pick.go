package cluster

import (
	"math/bits"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// Choice is what a pick depends on besides the endpoints.
type Choice struct {
	// Now is loop time: loops of one process share its origin; being apart by less than CoolDown does no harm.
	Now    time.Duration
	Random uint64 // uniform over uint64
	// Hash decides with RingHash and Maglev, if Hashed; otherwise chance does. It says the slot where there are shards.
	Hash   uint64
	Hashed bool
	// Excluded are endpoints that failed this exchange already.
	Excluded []*Endpoint
	// Wanted is the address of a cluster of model.DiscoveryOriginal; zero: nobody has said where to.
	Wanted netip.AddrPort
	// Subset: only endpoints that have all of these labels, as far as model.Balancing.Subsets does not say otherwise. They are not changed.
	Subset []model.Label
	// NoProbe: the request must not be the one that decides about an ejected endpoint.
	NoProbe bool
	// Once: the request must not be sent twice. It decides about an ejected endpoint only where none that may has come for a while.
	Once bool

	// Probe is answered by Choose: the request decides about the endpoint, which has to be told (Endpoint.Probed).
	Probe bool
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
	s := c.set.Load()
	if len(s.all) == 0 {
		if o := c.originals.Load(); o != nil {
			return c.original(o, ch)
		}
	}
	v := c.subset(s, ch.Subset)
	if v != nil && v.slots != nil {
		v = v.owners(ch, c.model.Load().Balancing.Shards)
	}
	if v == nil || v.usable == 0 {
		return nil, 0, failure.NoEndpoint
	}
	if c.half.Load() > 0 {
		if ep = v.probe(ch); ep != nil {
			return ep, v.usable, failure.None
		}
	}
	p := v.plan.Load()
	first := p.draw(ch.Random)
	if o := &c.model.Load().Balancing.Locality; o.SpillAt > 0 && o.Mode == model.LocalityPrefer && first.class == well {
		if to := v.spill(first.level, o.SpillAt, ch.Random); to != first.level {
			first.level, first.class = to, wellOrDegraded
		}
	}
	for k := range len(v.levels) {
		at := (first.level + k) % len(v.levels)
		want := first.class
		if k > 0 {
			want = wellOrDegraded
		}
		if p.panics(at) {
			want = whatever
		}
		for _, warm := range []bool{true, false} {
			if ep = c.within(v.levels[at], p.sums(at), ch, want, warm); ep != nil {
				return ep, v.usable, failure.None
			}
		}
	}
	return nil, v.usable, failure.NoEndpoint
}

// class is which endpoints of a level may be picked.
type class uint8

const (
	well class = iota
	degraded
	wellOrDegraded
	whatever
)

// level is the endpoints of one priority that are equally near, and how one of them is found.
type level struct {
	priority  uint32
	endpoints []*Endpoint
	groups    []*group
}

func newLevel(priority uint32, endpoints []*Endpoint, b *model.Balancing, weights []model.LocalityWeight) *level {
	return &level{priority: priority, endpoints: endpoints, groups: split(priority, endpoints, b, weights)}
}

// within answers an endpoint of a level, nil if none may be picked. Ones that cool down may only if not warm.
func (c *Cluster) within(l *level, sums []uint64, ch *Choice, want class, warm bool) *Endpoint {
	first := 0
	if n := len(sums); n > 0 {
		rnd := ch.Random*0x9e3779b97f4a7c15 ^ 0x94d049bb133111eb // the level was drawn with ch.Random itself
		hi, _ := bits.Mul64(rnd, sums[n-1])
		first = sort.Search(n, func(i int) bool { return sums[i] > hi })
	}
	for k := range len(l.groups) {
		if ep := c.among(l.groups[(first+k)%len(l.groups)], ch, want, warm); ep != nil {
			return ep
		}
	}
	return nil
}

// among is within for one group.
func (c *Cluster) among(g *group, ch *Choice, want class, warm bool) *Endpoint {
	may := func(i int) bool {
		e := g.endpoints[i]
		return e.is(want) && !(warm && e.cooling(ch.Now)) && !slices.Contains(ch.Excluded, e)
	}
	b, i := &c.model.Load().Balancing, -1
	switch {
	case b.Policy == model.RingHash && g.ring != nil && ch.Hashed:
		i = g.ring.Pick(ch.Hash, may)
	case b.Policy == model.Maglev && g.table != nil && ch.Hashed:
		i = g.table.Pick(ch.Hash, may)
	case b.Policy == model.LeastUtilized && g.reported != nil:
		if i = g.utilized(ch.Now, b.Utilization, may); i < 0 {
			i = g.wheel.Random(ch.Random, may)
		}
	case b.SlowStart.Window > 0:
		i = g.gently(ch, b, may)
	default:
		i = g.plainly(ch, b, may)
	}
	if i < 0 {
		return nil
	}
	return g.endpoints[i]
}

// plainly picks by the policies that do not hash.
func (g *group) plainly(ch *Choice, b *model.Balancing, may func(int) bool) int {
	switch {
	case b.Policy == model.RoundRobin && g.rotation != nil:
		return g.rotation.Pick(g.turns.Add(1), may)
	case b.Policy == model.LeastRequest:
		return g.wheel.Least(ch.Random, b.ChoiceCount, func(i int) (int64, bool) { return g.endpoints[i].inflight.Load(), may(i) })
	case b.Policy == model.PeakEWMA:
		start, decay := ewma(b)
		return g.wheel.Cheaper(ch.Random, func(i int) (float64, bool) {
			if !may(i) {
				return 0, false
			}
			return g.endpoints[i].cost(ch.Now, start, decay), true
		})
	}
	return g.wheel.Random(ch.Random, may)
}

// patience is how often a pick passes by endpoints because they are new.
const patience = 64

// gently is plainly with those that are new held back (model.SlowStart): one that has a part f of its weight is passed by in
// 1-f of the cases, so that others are drawn in its place in proportion to what they have.
func (g *group) gently(ch *Choice, b *model.Balancing, may func(int) bool) int {
	most, some := g.warming(ch.Now, &b.SlowStart)
	if !some {
		return g.plainly(ch, b, may)
	}
	rnd, left := ch.Random, patience
	lucky := func(i int) bool {
		if !may(i) {
			return false
		}
		if left--; left < 0 {
			return true
		}
		rnd = rnd*6364136223846793005 + 1442695040888963407 // Knuth's; its high bits are good enough to thin out
		return float64(rnd>>11)/(1<<53) < g.endpoints[i].warm(ch.Now, &b.SlowStart, most)
	}
	return g.plainly(ch, b, lucky)
}
