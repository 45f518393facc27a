package sim

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/proxy/buffer"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Loop is a loop.Loop with virtual time. A turn takes no time; it happens a random while after what caused it.
type Loop struct {
	world    *World
	address  netip.Addr
	now      time.Duration
	wheel    loop.Wheel
	pool     buffer.Pool
	posts    []func()
	ready    []*conn // have something to look at
	dirty    []*conn // have something to flush
	gone     []*conn
	conns    []*conn
	enders   []loop.Flusher
	load     int64
	accepted int64         // of those
	planned  time.Duration // of the next turn
	plan     uint64        // which event that is: older ones are void
	pending  bool          // a turn is planned
	running  bool
	over     bool
	scratch  [loop.ScratchSize]byte
}

// Now answers the time of this turn.
func (l *Loop) Now() time.Duration { return l.now }

// Wall answers the same on a calendar.
func (l *Loop) Wall() time.Time { return epoch.Add(l.now + l.world.wall) }

// Post runs f in a later turn.
func (l *Loop) Post(f func()) bool {
	if l.over {
		return false
	}
	l.posts = append(l.posts, f)
	l.soon()
	return true
}

// Arm makes t expire after d.
func (l *Loop) Arm(t *loop.Timer, d time.Duration) {
	l.wheel.Arm(t, l.now+min(d, math.MaxInt64/4))
	l.planTimer()
}

// Disarm stops t.
func (l *Loop) Disarm(t *loop.Timer) { l.wheel.Disarm(t) }

// Load answers how many connections the loop has.
func (l *Loop) Load() int64 { return l.load }

// Accepted and Busy implement loop.Gauge. A turn takes no time here.
func (l *Loop) Accepted() int64 { return l.accepted }

// Busy answers 0.
func (l *Loop) Busy() int64 { return 0 }

// AtEnd calls f.Flush at the end of this turn.
func (l *Loop) AtEnd(f loop.Flusher) {
	l.enders = append(l.enders, f)
	l.soon()
}

// Buffers answers the loop's pool.
func (l *Loop) Buffers() *buffer.Pool { return &l.pool }

// Close ends the loop: every handler gets Closed with loop.ErrLoopEnded.
func (l *Loop) Close() {
	if l.over {
		return
	}
	l.over = true
	l.runPosts()
	l.finish()
	for _, c := range append([]*conn(nil), l.conns...) {
		c.kill(loop.ErrLoopEnded)
	}
	for range 1000 {
		if len(l.gone)+len(l.dirty)+len(l.enders) == 0 {
			break
		}
		l.finish()
	}
	l.plan++
}

// soon plans a turn, unless one is running and will plan it itself.
func (l *Loop) soon() {
	if !l.running {
		l.planTurn(l.world.now + l.world.delay()/4)
	}
}

func (l *Loop) planTimer() {
	if at, ok := l.wheel.Next(); ok && !l.running {
		l.planTurn(max(at, l.world.now) + l.world.delay()/4)
	}
}

// planTurn makes the next turn happen at the latest at the given time.
func (l *Loop) planTurn(at time.Duration) {
	if l.over || l.pending && l.planned <= at {
		return
	}
	l.pending, l.planned = true, at
	l.plan++
	mine := l.plan
	l.world.after(at-l.world.now, func() {
		if mine == l.plan && !l.over {
			l.turn()
		}
	})
}

// turn is what Epoll's turn is, with the connections in random order.
func (l *Loop) turn() {
	l.pending, l.running, l.world.ran = false, true, l
	l.now = l.world.now
	l.runPosts()
	l.wheel.Advance(l.now)
	list := ordered(l.ready)
	l.ready = nil
	l.world.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, c := range list {
		c.serve()
	}
	l.finish()
	l.running = false
	if len(l.posts)+len(l.ready)+len(l.dirty)+len(l.gone)+len(l.enders) > 0 {
		l.soon()
	}
	l.planTimer()
}

func (l *Loop) runPosts() {
	list := l.posts
	l.posts = nil
	for _, f := range list {
		f()
	}
}

// ordered sorts connections by age: what walks over a map has no order, and a run must be the same every time.
func ordered(list []*conn) []*conn {
	slices.SortFunc(list, func(a, b *conn) int { return a.id - b.id })
	return list
}

func (l *Loop) finish() {
	for range 2 {
		enders := l.enders
		l.enders = nil
		for _, f := range enders {
			f.Flush()
		}
		dirty := ordered(l.dirty)
		l.dirty = nil
		for _, c := range dirty {
			c.flush()
		}
		gone := ordered(l.gone)
		l.gone = nil
		for _, c := range gone {
			l.load--
			if c.accepted {
				l.accepted--
			}
			c.h.Closed(c.err)
		}
	}
}

var (
	_ loop.Loop  = (*Loop)(nil)
	_ loop.Ender = (*Loop)(nil)
)

// Conns answers how many connections the loop has.
func (l *Loop) Conns() int { return len(l.conns) }

// Held answers how many bytes the loop's connections hold: received and not consumed, written and not sent.
func (l *Loop) Held() int {
	n := 0
	for _, c := range l.conns {
		n += len(c.in) + len(c.out)
	}
	return n
}
