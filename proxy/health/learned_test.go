package health_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
)

// TestLearnedEjection: while nothing is known an ejection lasts as long as the endpoint has been out, at first half a second;
// then as what was learned says, within the longest that is allowed.
func TestLearnedEjection(t *testing.T) {
	s := &model.Outlier{Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: time.Minute, MaxPercent: 100, Enforce5xx: 100, Probe: true, Learned: true}
	known := time.Duration(0)
	m := &health.Member{}
	o := &health.Outliers{Settings: s, Members: []*health.Member{m}, Reopen: func(down time.Duration, _ uint64) (time.Duration, bool) {
		return known, known > 0
	}}
	now := 5 * time.Second
	if _, ok := o.Due(); ok || len(o.HalfOpen(now)) != 0 {
		t.Error("something is due although nobody is ejected")
	}
	if !o.Trip(m, health.Consecutive5xx, now, 0) {
		t.Fatal("not ejected")
	}
	lasts := func(want time.Duration) {
		t.Helper()
		at, ok := o.Due()
		if !ok || at != now+want {
			t.Fatalf("due at %v %v, want in %v", at, ok, want)
		}
		if now = at - 1; len(o.HalfOpen(now)) != 0 {
			t.Error("half open too early")
		}
		if now = at; len(o.HalfOpen(now)) != 1 || !m.HalfOpen() || len(o.HalfOpen(now)) != 0 {
			t.Error("not half open, or twice")
		}
	}
	lasts(500 * time.Millisecond)
	for _, want := range []time.Duration{500, 1000, 2000, 4000} {
		o.Probed(m, false, now, 0)
		lasts(want * time.Millisecond)
	}
	known = 20 * time.Second
	o.Probed(m, false, now, 0)
	lasts(20 * time.Second)
	known = time.Hour
	o.Probed(m, false, now, 0)
	lasts(time.Minute)
	if !o.Probed(m, true, now, 0) || m.Ejected() {
		t.Error("not restored")
	}
	known = 0
	now += time.Hour
	o.Trip(m, health.Consecutive5xx, now, 0)
	lasts(500 * time.Millisecond)

	s.Learned = false
	o.Probed(m, false, now, 0)
	if _, ok := o.Due(); ok {
		t.Error("due although ejections have fixed lengths")
	}
}
