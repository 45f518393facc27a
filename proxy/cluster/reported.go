package cluster

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
)

// usage is what an endpoint has reported about itself (model.LeastUtilized).
type usage struct {
	weight atomic.Uint64 // of the last report, a float64
	first  atomic.Int64  // loop time of the first report after a silence, plus 1; 0: none
	last   atomic.Int64  // loop time of the last report
}

// Reports reports whether the endpoint's reports are looked at.
func (c *Cluster) Reports() bool { return c.model.Load().Balancing.Policy == model.LeastUtilized }

// Reported takes what the endpoint has said about itself at loop time now.
func (e *Endpoint) Reported(r *balancer.Report, now time.Duration) {
	w := r.Weight(balancer.Usage(e.cluster.model.Load().Balancing.Utilization).ErrorPenalty)
	if w <= 0 {
		return
	}
	e.usage.weight.Store(math.Float64bits(w))
	e.usage.last.Store(int64(now))
	e.usage.first.CompareAndSwap(0, int64(now)+1)
}

// current answers the weight that counts now, 0: none.
func (u *usage) current(now time.Duration, s *model.Utilization) float64 {
	first := u.first.Load()
	if first == 0 {
		return 0
	}
	if now-time.Duration(u.last.Load()) >= s.Expiry {
		u.first.CompareAndSwap(first, 0) // silent for so long: the next report begins a new blackout
		return 0
	}
	if now-time.Duration(first-1) < s.Blackout {
		return 0
	}
	return math.Float64frombits(u.weight.Load())
}

// reported is the turns of a group's endpoints, by what they report.
type reported struct {
	turns []atomic.Uint32
	made  atomic.Int64 // loop time
}

func newReported(n int) *reported {
	r := &reported{turns: make([]atomic.Uint32, n)}
	for i := range r.turns {
		r.turns[i].Store(balancer.FullTurn)
	}
	r.made.Store(math.MinInt64 / 2)
	return r
}

// utilized picks by the weights, after making them anew if that is due. One loop does it while the others go on.
func (g *group) utilized(now time.Duration, u model.Utilization, may func(int) bool) int {
	r := g.reported
	u = balancer.Usage(u)
	if made := r.made.Load(); int64(now)-made >= int64(u.Update) && r.made.CompareAndSwap(made, int64(now)) {
		balancer.Turns(len(g.endpoints), func(i int) float64 { return g.endpoints[i].usage.current(now, &u) },
			func(i int, turn uint32) { r.turns[i].Store(turn) })
	}
	return balancer.Stride(len(g.endpoints), func() uint64 { return g.turns.Add(1) }, func(i int) uint32 { return r.turns[i].Load() }, may)
}
