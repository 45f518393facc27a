package loop

import "time"

// Which loop a new connection belongs to. All loops accept from one socket, so the kernel gives each as many as it is quick to
// ask for: of a few connections that come at once, often all. A connection cannot be moved once it has state, so whoever
// accepts it places it, by how many connections each loop has accepted and by how much each has to do.

// Gauge is implemented by loops that can be compared: Epoll and sim.Loop. From any goroutine.
type Gauge interface {
	// Accepted answers how many connections the loop has that others have made: those that it has made itself follow from them.
	Accepted() int64
	// Busy answers for which share of the last tenth of a second the loop was at work, in thousandths.
	Busy() int64
}

// Bounds of placing. A loop that works all the time counts as if it had some connections more than one that rests: so few
// that a moment's work does not put all that come in it on the other loops.
const (
	busyLeast = 2 // connections
	busyShare = 4 // and a quarter of what a loop has on average
	margin    = 500
)

// Calmest answers which of all takes a connection that own has accepted: own itself, because handing over costs a wake-up,
// unless another one has clearly less. As long as all are equally busy the numbers of connections that come one after another
// and stay differ by one at most; otherwise by no more than Slack.
func Calmest[T interface{ Gauge() Gauge }](own T, all []T) T {
	if len(all) < 2 {
		return own
	}
	sum := int64(0)
	for _, w := range all {
		sum += w.Gauge().Accepted()
	}
	slack := Slack(sum, len(all)) - 1
	score := func(w T) int64 {
		g := w.Gauge()
		return g.Accepted()*1000 + g.Busy()*slack
	}
	best, least := own, score(own)-margin
	for _, w := range all {
		if s := score(w); s < least {
			best, least = w, s
		}
	}
	return best
}

// Slack answers by how many connections the numbers of some loops, which have connections in all, may differ after one more.
func Slack(connections int64, loops int) int64 {
	return 1 + busyLeast + connections/int64(busyShare*max(loops, 1))
}

// How often an Epoll says how busy it is, and when what it has said is out of date.
const (
	gaugeEvery = 100 * time.Millisecond
	gaugeStale = 3 * gaugeEvery
)

// Gauge answers the loop as others compare it.
func (e *Epoll) Gauge() Gauge { return e }

// Accepted implements Gauge.
func (e *Epoll) Accepted() int64 { return e.accepted.Load() }

// Busy implements Gauge. A loop that has said nothing for long sleeps, or is in one long turn.
func (e *Epoll) Busy() int64 {
	if time.Since(e.start)-time.Duration(e.gaugeAt.Load()) <= gaugeStale {
		return e.busy.Load()
	}
	if e.asleep.Load() {
		return 0
	}
	return 1000
}

// gauge notes how long the loop has slept, at the beginning of a turn.
func (e *Epoll) gauge(slept time.Duration) {
	e.slept += slept
	since := e.now - time.Duration(e.gaugeAt.Load())
	if since < gaugeEvery {
		return
	}
	e.busy.Store(int64(1000 - min(1000*e.slept/since, 1000)))
	e.gaugeAt.Store(int64(e.now))
	e.slept = 0
}
