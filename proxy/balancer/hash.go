package balancer

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Bounds of what hashes are looked up in.
const (
	DefaultMinRing = 1024
	DefaultMaxRing = 8 << 20
	DefaultTable   = 65537
	maxTable       = 5000011
)

// Ring is consistent hashing: each candidate owns points of a ring in proportion to its weight, and a hash goes to the
// next point. When candidates come or go only their own points move. Immutable, safe for concurrent use.
type Ring struct {
	points []point
}

type point struct {
	hash uint64
	at   int32
}

// NewRing makes a ring of candidates by their names; least and most bound its points (0: Envoy's defaults). The hash of a
// point is that of "<name>_<number>", as Envoy has it, so that both send a client to the same place.
func NewRing(names []string, weights []uint32, least, most uint64) *Ring {
	if least == 0 {
		least = DefaultMinRing
	}
	if most == 0 {
		most = DefaultMaxRing
	}
	r := &Ring{}
	var sum, lowest uint64 = 0, math.MaxUint64
	for _, w := range weights {
		w := uint64(max(w, 1))
		sum += w
		lowest = min(lowest, w)
	}
	if len(names) == 0 {
		return r
	}
	// The lightest candidate gets at least one point for every part of the smallest ring.
	scale := min(math.Ceil(float64(lowest)/float64(sum)*float64(least))/(float64(lowest)/float64(sum)), float64(min(most, DefaultMaxRing)))
	current, target := 0.0, 0.0
	var key []byte
	for i, name := range names {
		target += scale * float64(max(weights[i], 1)) / float64(sum)
		for n := uint64(0); current < target; n++ {
			key = strconv.AppendUint(append(append(key[:0], name...), '_'), n, 10)
			r.points = append(r.points, point{xxhash.Sum64(key), int32(i)})
			current++
		}
	}
	slices.SortFunc(r.points, func(a, b point) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return int(a.at - b.at)
	})
	return r
}

// Pick answers the candidate that a hash belongs to, or the next one on the ring that may take it; -1 if none may.
func (r *Ring) Pick(hash uint64, may func(i int) bool) int {
	n := len(r.points)
	from := sort.Search(n, func(i int) bool { return r.points[i].hash >= hash })
	for k := range n {
		if i := int(r.points[(from+k)%n].at); may(i) {
			return i
		}
	}
	return -1
}

// Table is Maglev hashing (Eisenbud and others, NSDI 2016, section 3.4): a table whose places are shared out in
// proportion to the weights. Looking up is one step; when candidates come or go few other places move. Immutable, safe for
// concurrent use.
type Table struct {
	places []int32
}

// NewTable makes a table of size places, a prime (0: 65537).
func NewTable(names []string, weights []uint32, size uint64) *Table {
	if size == 0 {
		size = DefaultTable
	}
	size = min(size, maxTable)
	t := &Table{}
	if len(names) == 0 {
		return t
	}
	type row struct {
		offset, skip, next uint64
		weight, turn       float64
	}
	rows := make([]row, len(names))
	most := 1.0
	for i := range names {
		most = max(most, float64(max(weights[i], 1)))
	}
	for i, name := range names {
		h := xxhash.Sum64String(name)
		skip := h ^ 0x9e3779b97f4a7c15
		skip = mix(&skip)
		rows[i] = row{offset: h % size, skip: skip%(size-1) + 1, weight: float64(max(weights[i], 1)) / most}
	}
	t.places = make([]int32, size)
	for i := range t.places {
		t.places[i] = -1
	}
	filled := uint64(0)
	for round := 1.0; filled < size; round++ {
		for i := range rows {
			r := &rows[i]
			if round*r.weight < r.turn { // heavier ones have more turns
				continue
			}
			r.turn++
			at := (r.offset + r.skip*r.next) % size
			for t.places[at] >= 0 {
				r.next++
				at = (r.offset + r.skip*r.next) % size
			}
			t.places[at] = int32(i)
			r.next++
			if filled++; filled == size {
				break
			}
		}
	}
	return t
}

// Pick answers the candidate that a hash belongs to; if that one may not, the next place that belongs to one that may.
func (t *Table) Pick(hash uint64, may func(i int) bool) int {
	n := uint64(len(t.places))
	for k := range n {
		if i := int(t.places[(hash+k)%n]); may(i) {
			return i
		}
	}
	return -1
}

// Rotation is weighted round robin: a fixed order in which every candidate has its share and its turns are spread evenly.
// Immutable, safe for concurrent use; the caller counts the turns.
type Rotation struct {
	order []int32
}

// maxOrder bounds a rotation: weights that need more turns are rounded.
const maxOrder = 1 << 14

// NewRotation makes a rotation.
func NewRotation(weights []uint32) *Rotation {
	w := make([]uint64, len(weights))
	var sum, div uint64
	for i, x := range weights {
		w[i] = uint64(max(x, 1))
		div = gcd(div, w[i])
	}
	for i := range w {
		w[i] /= div
		sum += w[i]
	}
	if limit := uint64(max(maxOrder, len(w))); sum > limit {
		was := sum
		sum = 0
		for i := range w {
			w[i] = max(w[i]*limit/was, 1)
			sum += w[i]
		}
	}
	// In the order of when each turn is due, as if all went at their own even pace.
	type turn struct {
		due float64
		at  int32
	}
	turns := make([]turn, 0, sum)
	for i, n := range w {
		for k := range n {
			turns = append(turns, turn{(float64(k) + 0.5) / float64(n), int32(i)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int {
		switch {
		case a.due < b.due:
			return -1
		case a.due > b.due:
			return 1
		}
		return 0
	})
	r := &Rotation{order: make([]int32, len(turns))}
	for i, t := range turns {
		r.order[i] = t.at
	}
	return r
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// substitutes is how many others Rotation.Pick draws for one who may not, before it takes the next who may.
const substitutes = 16

// Pick answers whose turn the given one is; if that one may not, another takes its place, each as often as its weight says;
// -1 if none may.
func (r *Rotation) Pick(turn uint64, may func(i int) bool) int {
	n := uint64(len(r.order))
	if n == 0 {
		return -1
	}
	at, chance := turn%n, turn
	for range substitutes {
		if i := int(r.order[at]); may(i) {
			return i
		}
		at = mix(&chance) % n
	}
	for k := range n {
		if i := int(r.order[(at+k)%n]); may(i) {
			return i
		}
	}
	return -1
}

// Random answers a candidate at random in proportion to its weight, -1 if none may.
func (w *Wheel) Random(rnd uint64, may func(i int) bool) int {
	i, _ := w.draw(&rnd, -1, func(i int) (int64, bool) { return 0, may(i) })
	return i
}

// Least answers the least loaded of choices candidates drawn at random, -1 if none may. Two is Pick.
func (w *Wheel) Least(rnd uint64, choices uint32, load func(i int) (inflight int64, may bool)) int {
	if choices <= 2 {
		return w.Pick(rnd, load)
	}
	best, lb := w.draw(&rnd, -1, load)
	for n := uint32(1); n < min(choices, 64) && best >= 0; n++ {
		if i, l := w.draw(&rnd, best, load); i >= 0 && w.lighter(i, l, best, lb) {
			best, lb = i, l
		}
	}
	return best
}
