package limit

import (
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
	Owner any // of the caller
	class model.Class
	since time.Duration
	line  *Line
	next  *Waiter // older
	prev  *Waiter // newer
}

// Waiting reports whether w is in a line.
func (w *Waiter) Waiting() bool { return w.line != nil }

// Class answers the class that w waits with.
func (w *Waiter) Class() model.Class { return w.class }

// Line is who waits for a turn. The more important class goes first, and in a class who came last: under overload those
// who came first have waited longest, and are the next to give up; served in their order everybody would be late. How
// many may wait is bounded: for one too many, the least important who has waited longest goes.
type Line struct {
	newest, oldest [ranks]*Waiter
	n              int
}

// Len answers how many wait.
func (l *Line) Len() int { return l.n }

// Best answers the class of who is next; ok is false when nobody waits.
func (l *Line) Best() (c model.Class, ok bool) {
	for _, w := range l.newest {
		if w != nil {
			return w.class, true
		}
	}
	return model.ClassDefault, false
}

// Push puts w, which waits nowhere, into the line. If more than most would wait, the least important one is taken out and
// answered; it may be w.
func (l *Line) Push(w *Waiter, c model.Class, now time.Duration, most int) (out *Waiter) {
	r := rank(c)
	w.class, w.since, w.line, w.next, w.prev = c, now, l, l.newest[r], nil
	if w.next != nil {
		w.next.prev = w
	} else {
		l.oldest[r] = w
	}
	l.newest[r] = w
	if l.n++; l.n <= most {
		return nil
	}
	for r := ranks - 1; r >= 0; r-- {
		if out = l.oldest[r]; out != nil {
			break
		}
	}
	l.Remove(out)
	return out
}

// Pop takes out who is next, nil if nobody waits.
func (l *Line) Pop() *Waiter {
	for _, w := range l.newest {
		if w != nil {
			l.Remove(w)
			return w
		}
	}
	return nil
}

// Expired takes out one who has waited since before, nil if there is none.
func (l *Line) Expired(before time.Duration) *Waiter {
	for _, w := range l.oldest {
		if w != nil && w.since <= before {
			l.Remove(w)
			return w
		}
	}
	return nil
}

// Oldest answers since when the one who has waited longest waits; ok is false when nobody does.
func (l *Line) Oldest() (since time.Duration, ok bool) {
	for _, w := range l.oldest {
		if w != nil && (!ok || w.since < since) {
			since, ok = w.since, true
		}
	}
	return since, ok
}

// Remove takes w out, if it is in.
func (l *Line) Remove(w *Waiter) {
	if w.line != l {
		return
	}
	r := rank(w.class)
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.newest[r] = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.oldest[r] = w.prev
	}
	w.line, w.next, w.prev = nil, nil, nil
	l.n--
}
