package loop_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// TestWheelModel compares the wheel with a list of deadlines, over random steps and all levels.
func TestWheelModel(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 7))
		var w loop.Wheel
		now := time.Duration(r.Int64N(int64(100 * time.Hour)))
		w.Advance(now)
		type entry struct {
			loop.Timer
			due   time.Duration
			armed bool
		}
		list := make([]entry, 100)
		for i := range list {
			e := &list[i]
			e.Expired = func() {
				if !e.armed {
					t.Fatalf("seed %d: an idle timer expired", seed)
				}
				if now < e.due {
					t.Fatalf("seed %d: expired %v early", seed, e.due-now)
				}
				e.armed = false
				if r.IntN(3) == 0 { // arms itself again from inside
					e.due, e.armed = now+time.Duration(r.Int64N(int64(time.Second))), true
					w.Arm(&e.Timer, e.due)
				}
			}
		}
		for step := range 2000 {
			e := &list[r.IntN(len(list))]
			switch r.IntN(4) {
			case 0, 1:
				span := time.Duration(1) << r.IntN(50)
				e.due, e.armed = now+time.Duration(r.Int64N(int64(span))), true
				w.Arm(&e.Timer, e.due)
			case 2:
				e.armed = false
				w.Disarm(&e.Timer)
			case 3:
				if at, ok := w.Next(); ok && r.IntN(2) == 0 {
					now = max(now, at)
				} else {
					now += time.Duration(r.Int64N(int64(time.Duration(1) << r.IntN(45))))
				}
				w.Advance(now)
			}
			armed := 0
			for i := range list {
				e := &list[i]
				if e.armed != e.Armed() {
					t.Fatalf("seed %d step %d: armed %v, want %v", seed, step, e.Armed(), e.armed)
				}
				if !e.armed {
					continue
				}
				armed++
				// A timer due at or before the tick of now has expired, unless it was armed since.
				if late := now - e.due; late > 2*loop.Tick && e.due+loop.Tick < now && !fresh(&w, now, e.due) {
					t.Fatalf("seed %d step %d: %v late", seed, step, late)
				}
				if at, ok := w.Next(); !ok || at > e.due+2*loop.Tick && at > now+2*loop.Tick {
					t.Fatalf("seed %d step %d: Next is %v, a timer is due at %v", seed, step, at, e.due)
				}
			}
			if w.Len() != armed {
				t.Fatalf("seed %d step %d: %d armed, want %d", seed, step, w.Len(), armed)
			}
		}
	}
}

// fresh reports whether a timer that was due before now may still wait: one armed inside Advance waits a tick.
func fresh(w *loop.Wheel, now, due time.Duration) bool {
	at, ok := w.Next()
	return ok && at <= now+loop.Tick
}

func TestWheelAllocatesNothing(t *testing.T) {
	var w loop.Wheel
	timer := loop.Timer{Expired: func() {}}
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		w.Arm(&timer, now+5*time.Second)
		w.Disarm(&timer)
		w.Arm(&timer, now+time.Millisecond)
		now += 3 * time.Millisecond
		w.Advance(now)
	}); n > 0 || timer.Armed() {
		t.Errorf("%v allocations, armed %v", n, timer.Armed())
	}
}

// TestWheelYears: times beyond the wheel are cut, and the wheel's own turn is passed.
func TestWheelYears(t *testing.T) {
	var w loop.Wheel
	now := time.Duration(1<<36-100) * loop.Tick
	w.Advance(now)
	fired := 0
	a := loop.Timer{Expired: func() { fired++ }}
	b := loop.Timer{Expired: func() { fired++ }}
	w.Arm(&a, now+time.Second)
	w.Arm(&b, now+20*365*24*time.Hour)
	w.Advance(now + time.Second)
	if fired != 1 {
		t.Errorf("%d fired across the wheel's turn", fired)
	}
	w.Advance(now + 2*365*24*time.Hour)
	if fired != 2 {
		t.Errorf("%d fired after two years", fired)
	}
}
