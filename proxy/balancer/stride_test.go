package balancer_test

import (
	"math"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
)

// TestWarmth: the curve of Envoy's slow start.
func TestWarmth(t *testing.T) {
	sec := time.Second
	for _, c := range []struct {
		s    model.SlowStart
		age  time.Duration
		want float64
	}{
		{model.SlowStart{Window: 60 * sec}, 0, 0.1}, // 1/60 is less than the least
		{model.SlowStart{Window: 60 * sec}, 3 * sec, 0.1},
		{model.SlowStart{Window: 60 * sec}, 30 * sec, 0.5},
		{model.SlowStart{Window: 60 * sec}, 59 * sec, 59.0 / 60},
		{model.SlowStart{Window: 60 * sec}, 60 * sec, 1},
		{model.SlowStart{Window: 60 * sec}, time.Hour, 1},
		{model.SlowStart{Window: 100 * sec, Aggression: 2, Least: 1}, 25 * sec, 0.5},
		{model.SlowStart{Window: 100 * sec, Aggression: 0.5, Least: 1}, 50 * sec, 0.25},
		{model.SlowStart{Window: 100 * sec, Aggression: 0.5, Least: 1}, 0, 0.01},
		{model.SlowStart{Window: 100 * sec, Aggression: 2, Least: 1}, 0, 0.1}, // an age counts as one second at least
		{model.SlowStart{Window: sec / 2}, 0, 1},
	} {
		if got := balancer.Warmth(c.age, &c.s); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v at %s: %.4f, want %.4f", c.s, c.age, got, c.want)
		}
	}
}

// strides picks n times and answers the counts.
func strides(n int, turns []uint32, may func(int) bool) []int {
	count, turn := make([]int, len(turns)), uint64(0)
	for range n {
		i := balancer.Stride(len(turns), func() uint64 { turn++; return turn }, func(i int) uint32 { return turns[i] }, may)
		if i >= 0 {
			count[i]++
		}
	}
	return count
}

// TestStrideShares: every candidate has the turns of its weight, to within a few; those who may not leave theirs to all others
// alike.
func TestStrideShares(t *testing.T) {
	weights := []float64{1, 2, 3, 4, 10}
	turns := make([]uint32, len(weights))
	balancer.Turns(len(weights), func(i int) float64 { return weights[i] }, func(i int, turn uint32) { turns[i] = turn })
	for _, out := range []int{-1, 4, 0} {
		sum := 0.0
		for i, w := range weights {
			if i != out {
				sum += w
			}
		}
		const n = 100_000
		for i, c := range strides(n, turns, func(i int) bool { return i != out }) {
			want := n * weights[i] / sum
			if i == out {
				want = 0
			}
			if math.Abs(float64(c)-want) > want*0.01+2 {
				t.Errorf("without %d: candidate %d of weight %.0f has %d turns, want %.0f", out, i, weights[i], c, want)
			}
		}
	}
	if got := strides(1, turns, func(int) bool { return false }); got[0]+got[1]+got[2]+got[3]+got[4] != 0 {
		t.Errorf("%v of nobody", got)
	}
}

// TestTurns: fewer than two weights are none; who has none gets the mean; nobody is out of proportion.
func TestTurns(t *testing.T) {
	for _, c := range []struct {
		weights []float64
		want    []float64 // of FullTurn
	}{
		{[]float64{0, 0, 0}, []float64{1, 1, 1}},
		{[]float64{0, 7, 0}, []float64{1, 1, 1}},
		{[]float64{10, 20, 0}, []float64{0.5, 1, 0.75}},
		{[]float64{100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 0.001},
			[]float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.095}},
	} {
		balancer.Turns(len(c.weights), func(i int) float64 { return c.weights[i] }, func(i int, turn uint32) {
			if got := float64(turn) / balancer.FullTurn; math.Abs(got-c.want[i]) > 0.001 {
				t.Errorf("%v: candidate %d has %.4f of a turn, want %.4f", c.weights, i, got, c.want[i])
			}
		})
	}
}

func TestStrideAllocatesNothing(t *testing.T) {
	turns, turn := []uint32{balancer.FullTurn, 1000, 30000}, uint64(0)
	if a := testing.AllocsPerRun(1000, func() {
		balancer.Stride(3, func() uint64 { turn++; return turn }, func(i int) uint32 { return turns[i] }, func(int) bool { return true })
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

// TestHashedStability: when one candidate comes, what moves goes to it, and little else moves: of a ring, whose size stays,
// a little more than its share.
func TestHashedStability(t *testing.T) {
	for kind, make := range hashers {
		names, weights := named(20)
		for i := range weights {
			weights[i] = 1
		}
		before, after := make(names[:19], weights[:19]), make(names, weights)
		const n = 100_000
		gained, moved := 0, 0
		for k := range uint64(n) {
			h := k * 0x9e3779b97f4a7c15
			was, is := before.Pick(h, all), after.Pick(h, all)
			switch {
			case is == 19:
				gained++
			case is != was:
				moved++
			}
		}
		if gained < n/20*8/10 || gained > n/20*12/10 {
			t.Errorf("%s: the new one has %d of %d, want about a twentieth", kind, gained, n)
		}
		if moved > n/20 {
			t.Errorf("%s: %d of %d moved between others", kind, moved, n)
		}
	}
}

// TestRandomFollowsWeights and the others of the older policies, by chi-square.
func TestRandomFollowsWeights(t *testing.T) {
	weights := []uint32{1, 2, 3, 10, 4}
	p := make([]float64, len(weights))
	for i, w := range weights {
		p[i] = float64(w) / 20
	}
	w, count := balancer.NewWheel(weights), make([]int, len(weights))
	rnd := uint64(1)
	for range 200_000 {
		rnd += 0x9e3779b97f4a7c15
		count[w.Random(rnd, all)]++
	}
	fits(t, "random", count, p)
	count = make([]int, len(weights))
	for range 200_000 {
		rnd += 0x9e3779b97f4a7c15
		count[w.Least(rnd, 2, func(int) (int64, bool) { return 0, true })]++
	}
	fits(t, "least request, nobody has anything to do", count, p)
	// Without weights: of two different ones that are drawn, the one with fewer requests.
	const n = 6
	loads, q := []int64{3, 0, 5, 1, 4, 2}, make([]float64, n)
	for i, l := range loads {
		q[i] = 2 * float64(n-1-l) / (n * (n - 1))
	}
	w, count = balancer.NewWheel(make([]uint32, n)), make([]int, n)
	for range 200_000 {
		rnd += 0x9e3779b97f4a7c15
		count[w.Least(rnd, 2, func(i int) (int64, bool) { return loads[i], true })]++
	}
	fits(t, "least request", count, q)
}
