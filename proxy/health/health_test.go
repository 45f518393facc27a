package health_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
)

const (
	p = health.Passed
	f = health.Failed
	u = health.Unreachable
)

// TestThresholds: how many results in a row it takes, from each beginning.
func TestThresholds(t *testing.T) {
	m := &model.HealthCheck{Interval: time.Second, UnhealthyThreshold: 3, HealthyThreshold: 2}
	for _, c := range []struct {
		name      string
		unhealthy bool // at the beginning
		results   []health.Result
		want      string // after each: h or u
	}{
		{"new: one success is enough the first time", true, []health.Result{p, p}, "hh"},
		{"new: a failure makes it as any other", true, []health.Result{u, p, p}, "uuh"},
		{"a success in between counts anew", true, []health.Result{f, p, u, p, p}, "uuuuh"},
		{"no answer is believed the third time", false, []health.Result{u, u, u, u}, "hhuu"},
		{"an answer in between counts anew", false, []health.Result{u, u, p, u, u, u}, "hhhhhu"},
		{"a wrong answer is believed at once", false, []health.Result{p, f, p, p}, "huuh"},
		{"there and back again", false, []health.Result{u, u, u, p, p, u, u, u}, "hhuuhhhu"},
	} {
		s := health.Begin(c.unhealthy, 0)
		was := s.Unhealthy()
		for i, r := range c.results {
			changed := s.Note(m, r, time.Duration(i)*time.Second, 0)
			if got := s.Unhealthy(); got != (c.want[i] == 'u') || changed != (got != was) {
				t.Errorf("%s: after %d results %v: unhealthy %v, changed %v; want %c", c.name, i+1, c.results[:i+1], got, changed, c.want[i])
			}
			was = s.Unhealthy()
		}
	}
}

// TestIntervals: when the next check is due.
func TestIntervals(t *testing.T) {
	m := &model.HealthCheck{Interval: 10 * time.Second, UnhealthyInterval: 2 * time.Second, NoTrafficInterval: 30 * time.Second,
		Jitter: 5 * time.Second, UnhealthyThreshold: 2, HealthyThreshold: 2}
	s := health.Begin(true, 7*time.Second)
	due := func(what string, used bool, want time.Duration) {
		t.Helper()
		if got := s.Due(m, used); got != want {
			t.Errorf("%s: due at %v, want %v", what, got, want)
		}
	}
	if !s.Fresh() {
		t.Error("not fresh")
	}
	due("the first check", false, 7*time.Second)
	s.Note(m, p, 8*time.Second, 0)
	due("healthy, nothing was sent", false, 38*time.Second)
	due("healthy", true, 18*time.Second)
	s.Note(m, u, 20*time.Second, uint64(13*time.Second))
	due("one failure, with jitter", true, 25*time.Second)
	s.Note(m, u, 30*time.Second, 0)
	due("unhealthy", true, 32*time.Second)
	due("unhealthy, nothing was sent", false, time.Minute)
	s.Note(m, p, 40*time.Second, 0)
	due("one success of two", true, 50*time.Second)
	m.UnhealthyInterval, m.NoTrafficInterval, m.Jitter = 0, 0, 0
	s.Note(m, u, 60*time.Second, 12345)
	due("unhealthy, no interval of its own", true, 70*time.Second)
	due("nothing was sent, the usual interval", false, 2*time.Minute)
}
