package cluster

import (
	"math/bits"
	"time"
)

// A Bench is where the requests of one loop wait before they are sent again. Once their cluster is seen to be well again
// nothing is gained by waiting on: they are let go, the one that came first first. Not all at once, because what has just
// recovered is at its weakest: each answer of the cluster to this loop lets one go (Well), whose answer lets the next one go, so
// they come as fast as it answers; and where only other loops have seen it well, Turn lets a first one go. A Bench
// belongs to its loop; its zero value is ready. It is as large as what waits, which budgets bound; nothing is allocated but
// a row for a cluster, which is used again.
type Bench struct {
	rows []*row
	of   map[*Cluster]*row
	free *row
	next int // row that Turn begins with
}

// row is who waits for one cluster.
type row struct {
	cluster     *Cluster
	first, last *Rest
	at          int    // in rows
	turned      uint64 // how many outages had ended when Turn has let one go
	next        *row
}

// Rest is one who waits. It is embedded in its owner; Owner has to be set.
type Rest struct {
	Owner      Rester
	row        *row
	prev, next *Rest
	ended      uint64 // how many outages of the cluster had ended when it came
}

// Rester is told that it need not wait longer than after, and is not on the bench any more.
type Rester interface{ Rested(after time.Duration) }

const (
	// BenchTurn is how often Turn is to be called while somebody waits; half as much later at times, so that proxies do not do it at once.
	BenchTurn = 10 * time.Millisecond
	// perTurn is how many Turn lets go.
	perTurn = 64
	// apart is how far those are spread that are let go at the same time.
	apart = 5 * time.Millisecond
)

// Sit adds one who waits for c, after an attempt whose failure c was told of.
func (b *Bench) Sit(r *Rest, c *Cluster) {
	w := b.of[c]
	if w == nil {
		if w = b.free; w == nil {
			w = &row{}
		}
		if b.of == nil {
			b.of = map[*Cluster]*row{}
		}
		b.free, w.next = w.next, nil
		w.cluster, w.at = c, len(b.rows)
		b.rows, b.of[c] = append(b.rows, w), w
	}
	r.row, r.prev, r.next, r.ended = w, w.last, nil, c.recovery.outage.ended.Load()
	if w.last != nil {
		w.last.next = r
	} else {
		w.first = r
	}
	w.last = r
}

// Leave takes one out, if it is on the bench.
func (b *Bench) Leave(r *Rest) {
	w := r.row
	if w == nil {
		return
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		w.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		w.last = r.prev
	}
	r.row, r.prev, r.next = nil, nil, nil
	if w.first == nil {
		last := b.rows[len(b.rows)-1]
		b.rows[w.at], last.at = last, w.at
		b.rows[len(b.rows)-1] = nil
		b.rows = b.rows[:len(b.rows)-1]
		delete(b.of, w.cluster)
		w.cluster, w.turned, w.next, b.free = nil, 0, b.free, w
	}
}

// Empty reports whether nobody waits.
func (b *Bench) Empty() bool { return len(b.rows) == 0 }

// Well says that c has answered this loop. random is uniform over uint64.
func (b *Bench) Well(c *Cluster, random uint64) {
	if len(b.rows) == 0 {
		return
	}
	if w := b.of[c]; w != nil {
		b.release(w, random)
	}
}

// Turn lets a first one go of each cluster that has got well, whoever has found that out.
func (b *Bench) Turn(random uint64) {
	gone := 0
	for n := len(b.rows); n > 0 && gone < perTurn && len(b.rows) > 0; n-- {
		b.next++
		w := b.rows[b.next%len(b.rows)]
		if ended := w.cluster.recovery.outage.ended.Load(); w.turned != ended && b.release(w, random) {
			w.turned = ended
			gone++
		}
		random = bits.RotateLeft64(random, 29)
	}
}

// release lets the first one of a row go, if its cluster has got well since it came.
func (b *Bench) release(w *row, random uint64) bool {
	r, o := w.first, &w.cluster.recovery.outage
	if r.ended == o.ended.Load() || o.since.Load() != 0 {
		return false
	}
	b.Leave(r)
	hi, _ := bits.Mul64(random, uint64(apart))
	r.Owner.Rested(time.Duration(hi))
	return true
}
