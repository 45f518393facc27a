package loop

import (
	"math/bits"
	"time"
)

// Tick is the resolution of timers.
const Tick = time.Millisecond

// The wheel has six levels of 64 slots: level n holds timers that are at most 64^(n+1) ticks away. A timer sinks
// a level whenever its slot's time comes, and expires at level 0. All operations are O(1) and allocate nothing.
const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 6
	wheelMax    = 1<<(wheelBits*wheelLevels-1) - 1 // ticks: a year; a longer timer expires then. Half the wheel, so that no slot has two meanings
)

type timerState struct {
	armed      bool
	level      uint8
	slot       uint8
	when       uint64 // tick
	next, prev *Timer
}

// Wheel holds armed timers. Epoll has one, and so has the simulator's loop. Its zero value is at time 0 and
// ready. Not safe for concurrent use.
type Wheel struct {
	elapsed uint64 // tick up to which everything has expired
	count   int
	bits    [wheelLevels]uint64 // occupied slots
	slots   [wheelLevels][wheelSlots]*Timer
}

// Len answers how many timers are armed.
func (w *Wheel) Len() int { return w.count }

// Arm makes t expire at the first Advance to at or later, but not inside the Advance that is running. Arming an
// armed timer moves it.
func (w *Wheel) Arm(t *Timer, at time.Duration) {
	if t.state.armed {
		w.unlink(t)
	}
	when := uint64(max(0, at+Tick-1) / Tick)
	t.state.when = min(max(when, w.elapsed+1), w.elapsed+wheelMax)
	w.link(t)
}

// Disarm stops t. Disarming an idle timer does nothing.
func (w *Wheel) Disarm(t *Timer) {
	if t.state.armed {
		w.unlink(t)
	}
}

// Advance calls Expired of every timer whose time has come, in order of time. now must not go back.
func (w *Wheel) Advance(now time.Duration) {
	to := uint64(now / Tick)
	for w.count > 0 {
		level, slot, at := w.first()
		if at > to {
			break
		}
		w.elapsed = max(w.elapsed, at)
		for t := w.slots[level][slot]; t != nil; t = w.slots[level][slot] {
			w.unlink(t)
			if t.state.when > w.elapsed {
				w.link(t) // a level lower
				continue
			}
			t.Expired()
		}
	}
	w.elapsed = max(w.elapsed, to)
}

// Next answers when Advance should be called next; it may be early for a timer that is far away. ok is false
// when no timer is armed.
func (w *Wheel) Next() (at time.Duration, ok bool) {
	if w.count == 0 {
		return 0, false
	}
	_, _, tick := w.first()
	return time.Duration(tick) * Tick, true
}

// first answers the slot whose time comes first. A lower level always comes before a higher one.
func (w *Wheel) first() (level, slot int, at uint64) {
	for level = range wheelLevels {
		if w.bits[level] == 0 {
			continue
		}
		shift := uint(level * wheelBits)
		current := int(w.elapsed>>shift) & (wheelSlots - 1)
		rotated := bits.RotateLeft64(w.bits[level], -current)
		slot = (current + bits.TrailingZeros64(rotated)) & (wheelSlots - 1)
		span := uint64(1) << (shift + wheelBits)
		at = w.elapsed&^(span-1) + uint64(slot)<<shift
		if slot < current {
			at += span
		}
		return level, slot, at
	}
	panic("loop: timer wheel lost a timer")
}

func (w *Wheel) link(t *Timer) {
	// The highest bit in which the two times differ names the level.
	differ := (w.elapsed ^ t.state.when) | (wheelSlots - 1)
	level := min((bits.Len64(differ)-1)/wheelBits, wheelLevels-1)
	slot := int(t.state.when>>(level*wheelBits)) & (wheelSlots - 1)
	t.state.level, t.state.slot = uint8(level), uint8(slot)
	head := w.slots[level][slot]
	t.state.prev, t.state.next = nil, nil
	if head == nil {
		w.slots[level][slot] = t
		t.state.prev = t // of the head: the last
	} else {
		last := head.state.prev
		last.state.next, t.state.prev, head.state.prev = t, last, t
	}
	w.bits[level] |= 1 << slot
	t.state.armed = true
	w.count++
}

func (w *Wheel) unlink(t *Timer) {
	level, slot := t.state.level, t.state.slot
	head := w.slots[level][slot]
	next, prev := t.state.next, t.state.prev
	switch {
	case t == head && next == nil:
		w.slots[level][slot] = nil
		w.bits[level] &^= 1 << slot
	case t == head:
		w.slots[level][slot] = next
		next.state.prev = prev
	case next == nil:
		prev.state.next = nil
		head.state.prev = prev
	default:
		prev.state.next, next.state.prev = next, prev
	}
	t.state.next, t.state.prev, t.state.armed = nil, nil, false
	w.count--
}
