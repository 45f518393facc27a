package balancer

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func free(int) (int64, bool) { return 0, true }

// spread picks n times with the loads as they are, and answers the share of each candidate.
func spread(w *Wheel, n int, load func(int) (int64, bool)) []float64 {
	rng := rand.New(rand.NewPCG(1, 2))
	got := make([]float64, w.Len())
	for range n {
		got[w.Pick(rng.Uint64(), load)]++
	}
	for i := range got {
		got[i] /= float64(n)
	}
	return got
}

func near(t *testing.T, what string, got, want, off float64) {
	t.Helper()
	if math.Abs(got-want) > off {
		t.Errorf("%s: got %.4f, want %.4f", what, got, want)
	}
}

func TestEqualLoadsSpreadByWeight(t *testing.T) {
	for _, weights := range [][]uint32{{1}, {1, 1}, {1, 1, 1, 1, 1}, {9, 1}, {1, 2, 3, 4}, {0, 0}, {1000000, 1}} {
		var sum float64
		for _, w := range weights {
			sum += float64(max(w, 1))
		}
		for i, got := range spread(NewWheel(weights), 200_000, free) {
			near(t, "share", got, float64(max(weights[i], 1))/sum, 0.006)
		}
	}
}

func TestLighterOfTwo(t *testing.T) {
	loads := []int64{5, 0}
	got := spread(NewWheel([]uint32{1, 1}), 1000, func(i int) (int64, bool) { return loads[i], true })
	if got[1] != 1 {
		t.Errorf("with two candidates the idle one takes all, not %v", got)
	}
	loads = []int64{9, 2} // per weight: 0.9 and 2
	got = spread(NewWheel([]uint32{10, 1}), 1000, func(i int) (int64, bool) { return loads[i], true })
	if got[0] != 1 {
		t.Errorf("load counts per weight: got %v", got)
	}
	loads = []int64{7, 0, 0, 0}
	got = spread(NewWheel(make([]uint32, 4)), 100_000, func(i int) (int64, bool) { return loads[i], true })
	near(t, "the busy one of four", got[0], 0, 0)
}

// TestClosedLoop: requests that last, on candidates of unequal speed; the loads end up close together.
func TestClosedLoop(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	w := NewWheel(make([]uint32, 10))
	inflight := make([]int64, 10)
	for step := range 100_000 {
		inflight[w.Pick(rng.Uint64(), func(i int) (int64, bool) { return inflight[i], true })]++
		if step >= 200 {
			for { // one of the requests ends, anywhere
				if i := rng.IntN(10); inflight[i] > 0 {
					inflight[i]--
					break
				}
			}
		}
	}
	for i, n := range inflight {
		if n < 14 || n > 26 {
			t.Errorf("candidate %d has %d in flight, the mean is 20: %v", i, n, inflight)
		}
	}
}

// TestPickIsAllowed: never one that may not, and always one if any may.
func TestPickIsAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32(), 0, 40).Draw(t, "weights")
		may := rapid.SliceOfN(rapid.Bool(), len(weights), len(weights)).Draw(t, "may")
		loads := rapid.SliceOfN(rapid.Int64Range(0, 1000), len(weights), len(weights)).Draw(t, "loads")
		any := false
		for _, m := range may {
			any = any || m
		}
		i := NewWheel(weights).Pick(rapid.Uint64().Draw(t, "rnd"), func(i int) (int64, bool) { return loads[i], may[i] })
		if i < 0 && any || i >= 0 && !may[i] {
			t.Fatalf("picked %d of %v", i, may)
		}
	})
}

func TestExcludedShareGoesToAllOthers(t *testing.T) {
	got := spread(NewWheel(make([]uint32, 5)), 100_000, func(i int) (int64, bool) { return 0, i != 2 })
	for i, g := range got {
		want := 0.25
		if i == 2 {
			want = 0
		}
		near(t, "share", g, want, 0.01)
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	w := NewWheel([]uint32{1, 2, 3})
	rng := rand.New(rand.NewPCG(1, 2))
	loads := []int64{1, 2, 3}
	if n := testing.AllocsPerRun(1000, func() {
		w.Pick(rng.Uint64(), func(i int) (int64, bool) { return loads[i], true })
	}); n != 0 {
		t.Errorf("%v allocations per pick", n)
	}
}

func BenchmarkPick(b *testing.B) {
	w := NewWheel(make([]uint32, 20))
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		w.Pick(rng.Uint64(), free)
	}
}
