// Package balancer decides which of several candidates takes the next request. Its default is power of two choices, the
// less loaded of two drawn at random; others are by cost (latency.go: peak EWMA), random, round robin, ring hash and Maglev
// (hash.go), and turns by what candidates report about themselves (stride.go, report.go); slow.go is slow start. It knows
// candidates only by index, weight, load and, for the hashes, name. What it makes is immutable and safe for concurrent use;
// random numbers, time and what changes are arguments. Pure. Start reading at Wheel.Pick.
package balancer

import "sort"

// Wheel draws candidates in proportion to their weights.
type Wheel struct {
	n    int
	sums []uint64 // running sums of the weights; nil: all alike
	w    []uint32
}

// NewWheel makes a Wheel of len(weights) candidates. A weight of 0 counts as 1.
func NewWheel(weights []uint32) *Wheel {
	w := &Wheel{n: len(weights)}
	alike := true
	for _, x := range weights {
		alike = alike && max(x, 1) == max(weights[0], 1)
	}
	if alike {
		return w
	}
	w.w, w.sums = make([]uint32, w.n), make([]uint64, w.n)
	var sum uint64
	for i, x := range weights {
		w.w[i] = max(x, 1)
		sum += uint64(w.w[i])
		w.sums[i] = sum
	}
	return w
}

// Len answers the number of candidates.
func (w *Wheel) Len() int { return w.n }

// Pick answers the index of the candidate that takes the next request, or -1 if none may. load answers a
// candidate's requests in flight, and whether it may take one at all; it is called for a few candidates, for
// all of them only if most may not. rnd is uniform over uint64. Nothing is allocated.
func (w *Wheel) Pick(rnd uint64, load func(i int) (inflight int64, may bool)) int {
	a, la := w.draw(&rnd, -1, load)
	if a < 0 {
		return -1
	}
	b, lb := w.draw(&rnd, a, load)
	if b >= 0 && w.lighter(b, lb, a, la) {
		return b
	}
	return a
}

// draws is how often chance is given a chance before the candidates are looked at in order.
const draws = 8

// draw answers a random candidate that may take a request and is not not, and its load, or -1.
func (w *Wheel) draw(rnd *uint64, not int, load func(int) (int64, bool)) (int, int64) {
	if w.n == 0 || w.n == 1 && not == 0 {
		return -1, 0
	}
	if w.n > 2 || not < 0 {
		for range draws {
			i := w.at(mix(rnd))
			if i == not {
				continue
			}
			if l, ok := load(i); ok {
				return i, l
			}
		}
	}
	from := int(scale(uint32(mix(rnd)>>32), uint64(w.n)))
	for k := range w.n {
		i := (from + k) % w.n
		if i == not {
			continue
		}
		if l, ok := load(i); ok {
			return i, l
		}
	}
	return -1, 0
}

// at answers the candidate at a random place of the wheel.
func (w *Wheel) at(rnd uint64) int {
	if w.sums == nil {
		return int(scale(uint32(rnd>>32), uint64(w.n)))
	}
	x := scale(uint32(rnd>>32), w.sums[w.n-1])
	return sort.Search(w.n, func(i int) bool { return w.sums[i] > x })
}

// lighter reports whether b has less load per weight than a. A tie goes to a, which was drawn first: so the
// weights decide while nobody has anything to do.
func (w *Wheel) lighter(b int, lb int64, a int, la int64) bool {
	if w.w == nil {
		return lb < la
	}
	return lb*int64(w.w[a]) < la*int64(w.w[b])
}

// mix answers the next random number of a splitmix64 sequence.
func mix(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// scale maps a uniform uint32 to [0, n), n below 2^32 times the number of candidates.
func scale(rnd uint32, n uint64) uint64 {
	return n>>32*uint64(rnd) + (n&0xffffffff)*uint64(rnd)>>32
}
