package balancer_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/balancer"
)

const (
	ms    = time.Millisecond
	decay = 10 * time.Second
	start = 30 * ms
)

// fits answers whether counts are those of a draw with probabilities p: Pearson's chi-square, whose mean is the number of
// degrees of freedom and whose variance twice that; six deviations are allowed.
func fits(t *testing.T, what string, counts []int, p []float64) {
	t.Helper()
	n, x := 0, 0.0
	for _, c := range counts {
		n += c
	}
	free := -1.0
	for i, c := range counts {
		want := p[i] * float64(n)
		if want == 0 {
			if c > 0 {
				t.Errorf("%s: candidate %d was drawn %d times and must not be", what, i, c)
			}
			continue
		}
		x += (float64(c) - want) * (float64(c) - want) / want
		free++
	}
	if x > free+6*math.Sqrt(2*max(free, 1)) {
		t.Errorf("%s: chi-square %.1f with %.0f degrees of freedom: %v, expected shares %.4f", what, x, free, counts, p)
	}
}

// TestLatencyFollowsDefinition: up at once, down by exp(-t/decay), as computed with all digits.
func TestLatencyFollowsDefinition(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var l balancer.Latency
	want, at := 0.0, time.Hour
	for i := range 100_000 {
		now := at + time.Duration(rnd.Int64N(int64(200*ms)))
		took := time.Duration(rnd.ExpFloat64() * float64(20*ms))
		w := math.Exp(-float64(now-at) / float64(decay))
		if i == 0 || float64(took) >= want {
			want = float64(took)
		} else {
			want = want*w + float64(took)*(1-w)
		}
		l, at = l.Observe(now, took, decay), now
		if got := l.Cost(now, start, decay); math.Abs(got-want) > want*0.01+2000 {
			t.Fatalf("observation %d: %.0f ns, want %.0f", i, got, want)
		}
	}
}

func TestLatencyForgives(t *testing.T) {
	var l balancer.Latency
	if got := l.Cost(0, start, decay); got != float64(start) {
		t.Errorf("nothing is known: %.0f, want %d", got, start)
	}
	if l = l.Observe(time.Hour, 400*ms, decay); l.Cost(time.Hour, start, decay) != float64(400*ms) {
		t.Errorf("the first answer counts as it is: %.0f", l.Cost(time.Hour, start, decay))
	}
	if got := l.Cost(time.Hour+decay, start, decay); math.Abs(got/float64(400*ms)-1/math.E) > 0.01 {
		t.Errorf("after one decay %.3f is left, want 1/e", got/float64(400*ms))
	}
	if got := l.Cost(time.Hour-ms, start, decay); got != float64(400*ms) {
		t.Errorf("a loop that is a turn behind sees %.0f", got)
	}
	if got := l.Cost(9*time.Hour, start, decay); got != balancer.LeastCost {
		t.Errorf("after eight hours %.0f", got)
	}
}

// TestFailuresAreSlow: who fails within a microsecond looks slower and slower, up to a bound, and never fast.
func TestFailuresAreSlow(t *testing.T) {
	now := time.Hour
	l := balancer.Latency(0).Fail(now, time.Microsecond, start, decay)
	if got := l.Cost(now, start, decay); got != float64(2*start) {
		t.Errorf("a first failure: %.0f, want %d", got, 2*start)
	}
	for range 30 {
		now += ms
		l = l.Fail(now, time.Microsecond, start, decay)
	}
	if got := l.Cost(now, start, decay); got != balancer.SlowCost {
		t.Errorf("after many failures: %.0f, want %.0f", got, balancer.SlowCost)
	}
	if l = balancer.Latency(0).Fail(now, 3*time.Second, start, decay); l.Cost(now, start, decay) != float64(3*time.Second) {
		t.Errorf("a timeout counts as long as it took: %.0f", l.Cost(now, start, decay))
	}
}

// TestCheaperFollowsDefinition: the cheaper of two that are drawn without repetition.
func TestCheaperFollowsDefinition(t *testing.T) {
	const n = 8
	costs := []float64{5, 1, 7, 3, 8, 2, 6, 4}
	p := make([]float64, n)
	for i, c := range costs {
		p[i] = 2 * (n - c) / (n * (n - 1)) // n-c others cost more
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	w := balancer.NewWheel(make([]uint32, n))
	count := make([]int, n)
	for range 200_000 {
		count[w.Cheaper(rnd.Uint64(), func(i int) (float64, bool) { return costs[i], true })]++
	}
	fits(t, "cheaper of two", count, p)

	alike := make([]int, 4)
	w = balancer.NewWheel([]uint32{1, 2, 3, 4})
	for range 100_000 {
		alike[w.Cheaper(rnd.Uint64(), func(i int) (float64, bool) { return 1, i != 3 })]++
	}
	if alike[3] > 0 || alike[0] > alike[1] || alike[1] > alike[2] {
		t.Errorf("equal costs, weights 1, 2, 3, and 4 that may not: %v", alike)
	}
	if i := w.Cheaper(1, func(i int) (float64, bool) { return 1, i == 2 }); i != 2 {
		t.Errorf("the only one that may is 2, not %d", i)
	}
	if i := w.Cheaper(1, func(int) (float64, bool) { return 1, false }); i != -1 {
		t.Errorf("%d of none", i)
	}
}

// TestPeakEWMABeatsRoundRobin: open load on servers of which one becomes ten times slower, in virtual time. By turns a fifth
// of the requests is slow; by cost few are.
func TestPeakEWMABeatsRoundRobin(t *testing.T) {
	const n, rps, seconds = 5, 200, 60
	run := func(pick func(rnd uint64, now time.Duration, l *[n]balancer.Latency, busy *[n]int) int) (slow int) {
		rnd := rand.New(rand.NewPCG(5, 6))
		var l [n]balancer.Latency
		var busy [n]int
		type end struct {
			at   time.Duration
			i    int
			took time.Duration
		}
		var ends []end
		for k := range rps * seconds {
			now := time.Hour + time.Duration(k)*time.Second/rps
			rest := ends[:0]
			for _, e := range ends {
				if e.at <= now {
					busy[e.i]--
					l[e.i] = l[e.i].Observe(e.at, e.took, decay)
				} else {
					rest = append(rest, e)
				}
			}
			ends = rest
			i := pick(rnd.Uint64(), now, &l, &busy)
			took := 10 * ms
			if i == 2 {
				took = 100 * ms
				slow++
			}
			busy[i]++
			ends = append(ends, end{now + took, i, took})
		}
		return slow
	}
	turn := 0
	byTurns := run(func(uint64, time.Duration, *[n]balancer.Latency, *[n]int) int { turn++; return turn % n })
	w := balancer.NewWheel(make([]uint32, n))
	byCost := run(func(rnd uint64, now time.Duration, l *[n]balancer.Latency, busy *[n]int) int {
		return w.Cheaper(rnd, func(i int) (float64, bool) { return l[i].Cost(now, start, decay) * float64(busy[i]+1), true })
	})
	if byCost*10 > byTurns {
		t.Errorf("of %d requests %d went to the slow server, by turns %d", rps*seconds, byCost, byTurns)
	}
	if byCost == 0 {
		t.Error("the slow server is never tried again")
	}
}

func TestLatencyAllocatesNothing(t *testing.T) {
	w := balancer.NewWheel([]uint32{1, 2, 3})
	var l [3]balancer.Latency
	now := time.Hour
	if a := testing.AllocsPerRun(1000, func() {
		now += ms
		i := w.Cheaper(uint64(now)*0x9e3779b97f4a7c15, func(i int) (float64, bool) { return l[i].Cost(now, start, decay), true })
		l[i] = l[i].Observe(now, ms, decay)
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}
