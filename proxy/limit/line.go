package limit

import (
	"math/bits"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// ranks orders classes: who is more important has the lower rank.
const ranks = 3

func rank(c model.Class) int {
	switch c {
	case model.ClassCritical:
		return 0
	case model.ClassBatch:
		return 2
	}
	return 1
}

// Share answers how many may be under way for a request of a class to begin, of a limit that was learned. Batch leaves a
// quarter to the others, so it is shed first. Critical may go beyond by a quarter and at least four: the limit leaves half of
// the requests waiting, so that much more costs little, and a share that nobody else can take is what keeps it from being
// shed with the rest.
func Share(c model.Class, limit int) int {
	switch c {
	case model.ClassCritical:
		return limit + max(4, limit/4)
	case model.ClassBatch:
		return max(1, limit*3/4)
	}
	return limit
}

// ShareFixed is Share of a limit that a user has set: nobody goes beyond it.
func ShareFixed(c model.Class, limit int) int {
	if c == model.ClassBatch {
		return max(1, limit*3/4)
	}
	return limit
}

// Waiter is a place in a Line. It is embedded in its owner and reused.
type Waiter struct {
	Owner  any // of the caller
	Tenant int // whose request it is: 0 to Tenants-1. Set before Push
	class  model.Class
	since  time.Duration
	line   *Line
	next   *Waiter // older
	prev   *Waiter // newer
}

// Waiting reports whether w is in a line.
func (w *Waiter) Waiting() bool { return w.line != nil }

// Class answers the class that w waits with.
func (w *Waiter) Class() model.Class { return w.class }

// Tenants is how many a Line tells apart.
const Tenants = 64

// Shares says what tenants have had.
type Shares interface {
	// Start answers when, in virtual time, the tenant's next request may begin: who has had less for his share is before
	// others (start-time fair queueing: Goyal, Vin and Cheng 1996).
	Start(tenant int) int64
}

// Line is who waits for a turn. The more important class goes first, in a class the tenant who has had the least, and of one
// tenant who came last: under overload those who came first have waited longest, and are the next to give up; served in
// their order everybody would be late. How many may wait is bounded: for one too many, the least important goes, of whoever has
// most of those waiting, who has waited longest.
type Line struct {
	ranks [ranks]struct {
		active  uint64 // a bit for each tenant who waits
		tenants [Tenants]queue
	}
	n int
}

// queue are those of one tenant and class.
type queue struct {
	newest, oldest *Waiter
	n              int
}

// Len answers how many wait.
func (l *Line) Len() int { return l.n }

// Active answers which tenants wait in a class, a bit for each.
func (l *Line) Active(c model.Class) uint64 { return l.ranks[rank(c)].active }

// Best answers the class of who is next; ok is false when nobody waits.
func (l *Line) Best() (c model.Class, ok bool) {
	for _, c := range [ranks]model.Class{model.ClassCritical, model.ClassDefault, model.ClassBatch} {
		if l.ranks[rank(c)].active != 0 {
			return c, true
		}
	}
	return model.ClassDefault, false
}

// First answers which of the active tenants is next, and his start; nobody: Tenants.
func First(active uint64, by Shares) (tenant int, start int64) {
	tenant = Tenants
	for ; active != 0; active &= active - 1 {
		t := bits.TrailingZeros64(active)
		if s := by.Start(t); tenant == Tenants || s < start {
			tenant, start = t, s
		}
	}
	return tenant, start
}

// Push puts w, which waits nowhere, into the line. If more than most would wait, the least important one is taken out and
// answered; it may be w.
func (l *Line) Push(w *Waiter, c model.Class, now time.Duration, most int) (out *Waiter) {
	r := &l.ranks[rank(c)]
	q := &r.tenants[w.Tenant]
	w.class, w.since, w.line, w.next, w.prev = c, now, l, q.newest, nil
	if w.next != nil {
		w.next.prev = w
	} else {
		q.oldest = w
	}
	q.newest = w
	q.n++
	r.active |= 1 << w.Tenant
	if l.n++; l.n <= most {
		return nil
	}
	out = l.least()
	l.Remove(out)
	return out
}

// least answers who goes when there are too many.
func (l *Line) least() (out *Waiter) {
	for k := ranks - 1; k >= 0; k-- {
		r := &l.ranks[k]
		most := 0
		for a := r.active; a != 0; a &= a - 1 {
			if q := &r.tenants[bits.TrailingZeros64(a)]; q.n > most || q.n == most && q.oldest.since < out.since {
				out, most = q.oldest, q.n
			}
		}
		if out != nil {
			return out
		}
	}
	return nil
}

// Pop takes out who is next, nil if nobody waits.
func (l *Line) Pop(by Shares) *Waiter {
	for k := range l.ranks {
		if r := &l.ranks[k]; r.active != 0 {
			t, _ := First(r.active, by)
			w := r.tenants[t].newest
			l.Remove(w)
			return w
		}
	}
	return nil
}

// Expired takes out one who has waited since before, nil if there is none.
func (l *Line) Expired(before time.Duration) *Waiter {
	if w := l.first(); w != nil && w.since <= before {
		l.Remove(w)
		return w
	}
	return nil
}

// Oldest answers since when the one who has waited longest waits; ok is false when nobody does.
func (l *Line) Oldest() (since time.Duration, ok bool) {
	if w := l.first(); w != nil {
		return w.since, true
	}
	return 0, false
}

// first answers who has waited longest.
func (l *Line) first() (out *Waiter) {
	for k := range l.ranks {
		r := &l.ranks[k]
		for a := r.active; a != 0; a &= a - 1 {
			if w := r.tenants[bits.TrailingZeros64(a)].oldest; out == nil || w.since < out.since {
				out = w
			}
		}
	}
	return out
}

// Remove takes w out, if it is in.
func (l *Line) Remove(w *Waiter) {
	if w.line != l {
		return
	}
	r := &l.ranks[rank(w.class)]
	q := &r.tenants[w.Tenant]
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.newest = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.oldest = w.prev
	}
	if q.n--; q.n == 0 {
		r.active &^= 1 << w.Tenant
	}
	w.line, w.next, w.prev = nil, nil, nil
	l.n--
}
