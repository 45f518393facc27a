package cluster

import (
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
)

// warmth is who of a group is new (model.SlowStart). An endpoint is new from the first pick after it has come, or has become
// well again; the first pick after any of that looks at all of them, further ones at two numbers.
type warmth struct {
	changed atomic.Bool
	until   atomic.Int64 // loop time at which nobody is new any more
	oldest  atomic.Int64 // loop time since which the oldest is there
}

// warming reports whether somebody is new, and answers the most warmth that anybody has: if all are alike nobody is held back.
func (g *group) warming(now time.Duration, s *model.SlowStart) (most float64, some bool) {
	w := &g.warmth
	if w.changed.Load() && w.changed.CompareAndSwap(true, false) {
		g.note(now, s)
	}
	if now >= time.Duration(w.until.Load()) {
		return 1, false
	}
	return balancer.Warmth(now-time.Duration(w.oldest.Load()), s), true
}

// note gives the time to those who have none.
func (g *group) note(now time.Duration, s *model.SlowStart) {
	var oldest, newest time.Duration
	some := false
	for _, e := range g.endpoints {
		if !e.is(wellOrDegraded) {
			continue
		}
		e.since.CompareAndSwap(0, int64(now)+1)
		at := time.Duration(e.since.Load()) - 1
		if !some || at < oldest {
			oldest = at
		}
		if !some || at > newest {
			newest = at
		}
		some = true
	}
	if oldest == newest { // nobody is newer than anybody
		newest = now - s.Window
	}
	g.warmth.oldest.Store(int64(oldest))
	g.warmth.until.Store(int64(newest + s.Window))
}

// warm answers the part of its weight that an endpoint has.
func (e *Endpoint) warm(now time.Duration, s *model.SlowStart, most float64) float64 {
	since := e.since.Load()
	if since == 0 {
		return 1 // it has just come back; the next pick notes it
	}
	return balancer.Warmth(now-time.Duration(since-1), s) / most
}

// cool makes an endpoint new again.
func (e *Endpoint) cool() { e.since.Store(0) }
