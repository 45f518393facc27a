package balancer

import (
	"math"
	"time"
)

// Bounds of what is taken for a response time.
const (
	LeastCost = float64(time.Microsecond) // so that requests under way count where everybody is fast
	SlowCost  = float64(10 * time.Second) // of a failure, at most
	tick      = 14                        // bits of a loop time that a Latency does not keep: it counts in 16 µs
)

// Latency is what is known of an endpoint's response times: an average that goes up at once (peak-sensitive) and comes down
// by and by, as Finagle's Peak EWMA has it. It is one word, so that loops can share it in an atomic; 0: nothing is known. It
// holds the average as a float32 of nanoseconds and the loop time of its last observation, whose age is known for 9 hours.
type Latency uint64

func pack(cost float64, now time.Duration) Latency {
	return Latency(math.Float32bits(float32(max(cost, LeastCost))))<<32 | Latency(uint32(now>>tick))
}

// cost is the average at the last observation, in nanoseconds; age is how long ago that was.
func (l Latency) cost(now time.Duration) (cost float64, age time.Duration) {
	d := uint32(now>>tick) - uint32(l)
	if d > 1<<31 { // loops are apart by a turn: it was just now
		d = 0
	}
	return float64(math.Float32frombits(uint32(l >> 32))), time.Duration(d) << tick
}

// Observe answers l with one more response time. decay is after how long 1/e of an observation is left.
func (l Latency) Observe(now, took, decay time.Duration) Latency {
	cost, age := l.cost(now)
	if l == 0 || float64(took) >= cost {
		return pack(float64(took), now)
	}
	w := math.Exp(-float64(age) / float64(decay))
	return pack(cost*w+float64(took)*(1-w), now)
}

// Fail answers l with one more failure, which counts as twice the average (start where there is none), however soon it came, so that
// who fails fast does not look fast.
func (l Latency) Fail(now, took, start, decay time.Duration) Latency {
	cost := max(2*l.Cost(now, start, decay), float64(took))
	return l.Observe(now, time.Duration(min(cost, SlowCost)), decay)
}

// Cost answers the average in nanoseconds; start is that of who has not answered yet. Who is not asked is forgiven with time.
func (l Latency) Cost(now, start, decay time.Duration) float64 {
	if l == 0 {
		return max(float64(start), LeastCost)
	}
	cost, age := l.cost(now)
	return max(cost*math.Exp(-float64(age)/float64(decay)), LeastCost)
}

// Cheaper answers, of two candidates drawn at random, the one with the lower cost for its weight, -1 if none may. cost answers a
// candidate's cost, and whether it may take a request at all. rnd is uniform over uint64.
func (w *Wheel) Cheaper(rnd uint64, cost func(i int) (float64, bool)) int {
	var last float64 // of the one that draw has answered; cost is asked once for each
	may := func(i int) (_ int64, ok bool) { last, ok = cost(i); return 0, ok }
	a, _ := w.draw(&rnd, -1, may)
	if a < 0 {
		return -1
	}
	first := last
	b, _ := w.draw(&rnd, a, may)
	if b >= 0 && last*w.weight(a) < first*w.weight(b) {
		return b
	}
	return a
}

func (w *Wheel) weight(i int) float64 {
	if w.w == nil {
		return 1
	}
	return float64(w.w[i])
}
