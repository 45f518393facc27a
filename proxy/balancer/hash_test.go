package balancer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/balancer"
)

func all(int) bool { return true }

func named(n int) (names []string, weights []uint32) {
	for i := range n {
		names = append(names, fmt.Sprintf("10.0.0.%d:80", i))
		weights = append(weights, uint32(1+i%3))
	}
	return names, weights
}

// hashers are what the same is asked of.
var hashers = map[string]func(names []string, weights []uint32) interface {
	Pick(hash uint64, may func(int) bool) int
}{
	"ring": func(n []string, w []uint32) interface {
		Pick(uint64, func(int) bool) int
	} {
		return balancer.NewRing(n, w, 100_000, 0)
	},
	"maglev": func(n []string, w []uint32) interface {
		Pick(uint64, func(int) bool) int
	} {
		return balancer.NewTable(n, w, 0)
	},
}

// TestHashedShare: each candidate has its share; the same hash goes to the same place; when one leaves few others move.
func TestHashedShare(t *testing.T) {
	for kind, make := range hashers {
		names, weights := named(9)
		all9, less := make(names, weights), make(names[:8], weights[:8])
		var sum uint32
		for _, w := range weights {
			sum += w
		}
		const n = 200_000
		count, moved, stay := [9]int{}, 0, 0
		rnd := rand.New(rand.NewPCG(1, 2))
		for range n {
			h := rnd.Uint64()
			i := all9.Pick(h, all)
			if i != all9.Pick(h, all) {
				t.Fatal("not the same again")
			}
			count[i]++
			if i < 8 {
				stay++
				if less.Pick(h, all) != i {
					moved++
				}
			}
		}
		for i, c := range count {
			want := float64(n) * float64(weights[i]) / float64(sum)
			if math.Abs(float64(c)-want) > want*0.1 {
				t.Errorf("%s: candidate %d of weight %d: %d of %d, expected about %.0f", kind, i, weights[i], c, n, want)
			}
		}
		// A ring keeps its size, as Envoy's does: those that stay get the leaver's part in new points, everywhere.
		if moved > stay/20 && kind == "maglev" || moved > stay/7 {
			t.Errorf("%s: %d of %d moved when another candidate left", kind, moved, stay)
		}
	}
}

// TestHashedMay: one that may not is passed by, only its share moves, and none of none is -1.
func TestHashedMay(t *testing.T) {
	for kind, make := range hashers {
		names, weights := named(5)
		h := make(names, weights)
		for hash := range uint64(5000) {
			key := hash * 0x9e3779b97f4a7c15
			with := h.Pick(key, all)
			without := h.Pick(key, func(i int) bool { return i != 2 })
			if without == 2 || with != 2 && with != without {
				t.Fatalf("%s: %d without candidate 2, %d with it", kind, without, with)
			}
		}
		if i := h.Pick(1, func(int) bool { return false }); i != -1 {
			t.Errorf("%s: %d of none", kind, i)
		}
		if i := make(nil, nil).Pick(1, all); i != -1 {
			t.Errorf("%s: %d of no candidates", kind, i)
		}
	}
}

// TestRotation: within one round every candidate has exactly its share, spread evenly.
func TestRotation(t *testing.T) {
	weights := []uint32{5, 1, 2}
	r := balancer.NewRotation(weights)
	count, last, run := [3]uint32{}, -1, 0
	for turn := range uint64(8) {
		i := r.Pick(turn, all)
		count[i]++
		if i == last {
			if run++; run > 2 {
				t.Errorf("candidate %d has %d turns in a row", i, run)
			}
		} else {
			last, run = i, 1
		}
	}
	for i, c := range count {
		if c != weights[i] {
			t.Errorf("candidate %d: %d of 8 turns, weight %d", i, c, weights[i])
		}
	}
	if i := r.Pick(0, func(i int) bool { return i == 1 }); i != 1 {
		t.Errorf("%d, the only one that may is 1", i)
	}
	if balancer.NewRotation(nil).Pick(3, all) != -1 || balancer.NewRotation([]uint32{1 << 31, 1}).Pick(0, func(i int) bool { return i == 1 }) != 1 {
		t.Error("no candidates, or one of very little weight")
	}
}

func TestRandomAndLeast(t *testing.T) {
	w := balancer.NewWheel([]uint32{1, 3})
	rnd := rand.New(rand.NewPCG(3, 4))
	n := 0
	for range 40_000 {
		n += w.Random(rnd.Uint64(), all)
	}
	if n < 29_000 || n > 31_000 {
		t.Errorf("weight 3 of 4 was drawn %d times of 40000", n)
	}
	loads := []int64{9, 9, 9, 9, 0, 9, 9, 9}
	wide, hit := balancer.NewWheel(make([]uint32, 8)), 0
	for range 1000 {
		if wide.Least(rnd.Uint64(), 8, func(i int) (int64, bool) { return loads[i], true }) == 4 {
			hit++
		}
	}
	if hit < 550 { // 1 - (7/8)^8, about, is 0.66
		t.Errorf("the idle one was found %d times of 1000", hit)
	}
}

func TestPicksAllocateNothing(t *testing.T) {
	names, weights := named(20)
	ring, table, turns := balancer.NewRing(names, weights, 0, 0), balancer.NewTable(names, weights, 0), balancer.NewRotation(weights)
	n := uint64(0)
	if a := testing.AllocsPerRun(1000, func() {
		n += 0x9e3779b97f4a7c15
		_ = ring.Pick(n, all) + table.Pick(n, all) + turns.Pick(n, all)
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

// TestRotationShares: the turns of who may not be picked are shared by all others.
func TestRotationShares(t *testing.T) {
	weights := []uint32{1, 1, 1, 2, 1, 1}
	r := balancer.NewRotation(weights)
	for _, out := range [][]int{{1}, {1, 2}, {0, 1, 2}, {3, 4}} {
		count, sum := make([]int, len(weights)), 0
		for i, w := range weights {
			if !slices.Contains(out, i) {
				sum += int(w)
			}
		}
		const turns = 70_000
		for turn := range uint64(turns) {
			count[r.Pick(turn, func(i int) bool { return !slices.Contains(out, i) })]++
		}
		for i, w := range weights {
			want := turns * int(w) / sum
			if slices.Contains(out, i) {
				want = 0
			}
			if count[i] < want*95/100 || count[i] > want*105/100 {
				t.Errorf("without %v: candidate %d has %d turns, want %d", out, i, count[i], want)
			}
		}
	}
}
