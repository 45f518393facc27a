// Package limit is the arithmetic of how much a workload works on at once: how much that may be, by what the latency of
// requests says (Adaptive), who waits for a turn, and who is sent away first (Line, Share). Nothing here allocates; it
// keeps no clock, locks nothing and knows no request: package admission does. Pure.
//
// An Adaptive and a Line belong to one goroutine at a time. Start reading at Adaptive.Update.
package limit

import (
	"math"
	"time"
)

// Settings of an Adaptive.
type Settings struct {
	Least, Most int // of the limit; 0: 4 and 10000
	// Interval is how often the limit is looked at; 0: 100 ms. It is as long as ten requests and two of their times take.
	Interval time.Duration
	// Tolerance is how many times as long as unhurried ones requests may take; 0: 1.5.
	Tolerance float64
	// ProbeEvery is how often it is measured anew how long an unhurried request takes; 0: 30 s.
	ProbeEvery time.Duration
}

// Defaults of Settings. A server that works on c requests at once takes 1.5 times as long for each where 1.5 c are under
// way: it is never idle then, and half of what it has waits.
const (
	defaultLeast     = 4
	defaultMost      = 10000
	defaultInterval  = 100 * time.Millisecond
	defaultTolerance = 1.5
	defaultProbe     = 30 * time.Second
	firstLimit       = 20
	firstProbe       = time.Second
	enough           = 10              // requests that a window has at least
	longestWindow    = 5 * time.Second // however few requests there are
	patience         = 3               // windows at the least limit after which slow is what the server is
	steepest         = 0.6             // of the limit is left at least when it goes down
	queued           = 0.8             // of the latency, or less, was left when the limit was halved: there was a queue
	smoothing        = 0.5             // weight of the newest window
	soonest          = 0.5             // of ProbeEvery passes at least: probes are spread by chance
)

// Window is what was seen of requests between two looks. Only those count that began after Adaptive.Since.
type Window struct {
	Count   int
	Mean    time.Duration // of their latency
	Busiest int           // most that were under way at once
}

// Adaptive finds how many requests a server can work on at once without a queue. Latency stays the same while there is
// room and grows in proportion once there is none, so the limit goes up while requests take less than Tolerance times
// what unhurried ones take, and down in proportion when they take longer. What unhurried ones take is measured, a second
// after the beginning and then now and then, by halving the limit for as long as that makes requests faster: at half of a
// limit that was right there is no queue, and where it was wrong the halving finds that out.
//
// It keeps to its story in Update. The limit changes only there.
type Adaptive struct {
	set     Settings
	limit   float64
	base    float64 // what an unhurried request takes, ns; 0: not known
	mean    float64 // smoothed
	since   time.Duration
	next    time.Duration // when Update is due
	probe   time.Duration // when the next probe is due
	probing bool
	before  float64 // the limit before the probe
	slowest float64 // the mean before the last halving
	stuck   int     // windows at the least limit that were too slow
	random  uint64
}

// NewAdaptive makes one whose first window begins at now. seed spreads the probes of many.
func NewAdaptive(s Settings, now time.Duration, seed uint64) Adaptive {
	if s.Least <= 0 {
		s.Least = defaultLeast
	}
	if s.Most <= 0 {
		s.Most = defaultMost
	}
	s.Most = max(s.Most, s.Least)
	if s.Interval <= 0 {
		s.Interval = defaultInterval
	}
	if s.Tolerance <= 1 {
		s.Tolerance = defaultTolerance
	}
	if s.ProbeEvery <= 0 {
		s.ProbeEvery = defaultProbe
	}
	a := Adaptive{set: s, random: seed, since: now, next: now + s.Interval}
	a.limit = a.clamp(firstLimit)
	a.probe = now + min(firstProbe, s.ProbeEvery)
	return a
}

// Limit answers how many requests may be under way.
func (a *Adaptive) Limit() int { return int(a.limit) }

// Base answers what an unhurried request takes, as far as is known.
func (a *Adaptive) Base() time.Duration { return time.Duration(a.base) }

// Due answers when Update is to be called next, and Since from when on requests count that begin.
func (a *Adaptive) Due() time.Duration { return a.next }

// Since answers from when on a request must have begun to count.
func (a *Adaptive) Since() time.Duration { return a.since }

// Probing reports whether the limit is low to measure.
func (a *Adaptive) Probing() bool { return a.probing }

// Update takes what was seen and answers the limit. It reports false, and the window goes on, if too little was seen to
// say anything.
func (a *Adaptive) Update(w Window, now time.Duration) (limit int, over bool) {
	if w.Count < enough && now-a.since < longestWindow {
		a.next = now + a.set.Interval
		return a.Limit(), false
	}
	if w.Count == 0 {
		a.quiet(now)
		return a.Limit(), true
	}
	m := float64(w.Mean)
	if a.probing {
		a.measure(m, now)
	} else {
		a.adjust(m, w.Busiest)
		if now >= a.probe {
			a.halve(m)
		}
	}
	a.begin(now)
	return a.Limit(), true
}

// begin starts the next window.
func (a *Adaptive) begin(now time.Duration) {
	a.since = now
	a.next = now + min(max(a.set.Interval, time.Duration(2*a.base)), longestWindow)
}

// quiet: nothing came. A probe that nobody came to ends.
func (a *Adaptive) quiet(now time.Duration) {
	if a.probing {
		a.limit, a.probing = a.before, false
		a.later(now)
	}
	a.begin(now)
}

// adjust moves the limit by one window's mean latency.
func (a *Adaptive) adjust(m float64, busiest int) {
	if a.mean == 0 {
		a.mean = m
	}
	a.mean += smoothing * (m - a.mean)
	if a.base == 0 {
		a.base = a.mean
	}
	if a.mean < a.base {
		a.base += smoothing * (a.mean - a.base)
	}
	ratio := a.mean / (a.set.Tolerance * a.base)
	switch {
	case ratio > 1 && a.Limit() <= a.set.Least:
		if a.stuck++; a.stuck >= patience { // fewer at once make it no faster: it is slow
			a.base, a.stuck = a.mean, 0
		}
		return
	case ratio > 1:
		a.limit = a.clamp(a.limit * max(steepest, 1/ratio))
		a.mean /= min(ratio, 1/steepest) // what the new limit would have made of it; the next window corrects
	case 2*busiest >= a.Limit(): // otherwise nothing is known about more
		a.limit = a.clamp(a.limit + max(1, math.Sqrt(a.limit)))
	}
	a.stuck = 0
}

// halve begins a probe, or its next step. m is the mean latency before it.
func (a *Adaptive) halve(m float64) {
	if !a.probing {
		a.probing, a.before = true, a.limit
	}
	a.slowest = m
	a.limit = a.clamp(a.limit / 2)
}

// measure is a step of a probe: m is the mean latency at half the limit.
func (a *Adaptive) measure(m float64, now time.Duration) {
	faster := m < queued*a.slowest
	if faster {
		a.before = min(a.before, 2*a.limit) // no more than what there was a queue at
	}
	if faster && a.Limit() > a.set.Least {
		a.halve(m)
		return
	}
	a.base, a.mean = m, m
	a.limit, a.probing = a.before, false
	a.later(now)
}

// later plans the next probe.
func (a *Adaptive) later(now time.Duration) {
	a.random = a.random*6364136223846793005 + 1442695040888963407
	share := soonest + (1-soonest)*float64(a.random>>40)/(1<<24)
	a.probe = now + time.Duration(float64(a.set.ProbeEvery)*share)
}

func (a *Adaptive) clamp(l float64) float64 {
	return min(max(l, float64(a.set.Least)), float64(a.set.Most))
}
