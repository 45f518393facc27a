package cluster

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
)

// Defaults of model.EWMA.
const (
	defaultDecay = 10 * time.Second
	defaultStart = 30 * time.Millisecond
)

func ewma(b *model.Balancing) (start, decay time.Duration) {
	start, decay = b.EWMA.Start, b.EWMA.Decay
	if start <= 0 {
		start = defaultStart
	}
	if decay <= 0 {
		decay = defaultDecay
	}
	return start, decay
}

// Took says how long the endpoint has taken to answer, or to fail, at loop time now. failed: it is to be taken for slow,
// however fast it was. Where nobody wants to know it is nothing.
func (e *Endpoint) Took(now, took time.Duration, failed bool) {
	if t := e.tally.Load(); t != nil && !failed {
		t.spent.Add(uint64(max(took, 0)))
		t.answers.Add(1)
	}
	if e.cluster == nil {
		return
	}
	b := &e.cluster.model.Load().Balancing
	if b.Policy != model.PeakEWMA {
		return
	}
	start, decay := ewma(b)
	for range 4 { // of loops that are here at the same time one may be lost: there are more to come
		was := e.latency.Load()
		l := balancer.Latency(was)
		if failed {
			l = l.Fail(now, took, start, decay)
		} else {
			l = l.Observe(now, took, decay)
		}
		if e.latency.CompareAndSwap(was, uint64(l)) {
			return
		}
	}
}

// cost is what one more request would cost here: the response time times all that are then under way.
func (e *Endpoint) cost(now, start, decay time.Duration) float64 {
	return balancer.Latency(e.latency.Load()).Cost(now, start, decay) * float64(e.inflight.Load()+1)
}

// Latency answers the average response time as PeakEWMA has it at loop time now; 0: another policy, or no answer yet.
func (e *Endpoint) Latency(now time.Duration) time.Duration {
	l := balancer.Latency(e.latency.Load())
	if l == 0 || e.cluster == nil {
		return 0
	}
	start, decay := ewma(&e.cluster.model.Load().Balancing)
	return time.Duration(l.Cost(now, start, decay))
}

// TakeLatency answers how long all answers since the last call took together, and how many there were. For who watches.
func (e *Endpoint) TakeLatency() (sum time.Duration, n uint64) {
	if t := e.tally.Load(); t != nil {
		n = t.answers.Swap(0)
		sum = time.Duration(t.spent.Swap(0))
	}
	return sum, n
}
