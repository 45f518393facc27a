package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// try is one attempt. The exchange's current one is embedded in it. Others run beside it only while a request is hedged
// (hedge.go); whichever something happens to becomes the current one first, so that the rest of the exchange knows one.
type try struct {
	x       *Exchange
	ep      *cluster.Endpoint
	stream  upstream.Stream
	wait    pool.Waiter
	target  pool.Target
	timer   loop.Timer    // Timeouts.Attempt
	since   time.Duration // loop time when it began
	nth     int           // which attempt it is, from 1; 0: none is under way
	sent    int           // bytes of the request's body that the stream has taken
	endSent bool          // the stream has all of the request
	probe   bool          // it decides about ep, which is ejected
	stale   bool          // the connection had served others, and nothing of a response has come: the server may have been closing it
	counted bool          // by the breakers: as a request,
	again   bool          // as a further attempt,
	pending bool          // by the route's as one that waits for a connection
	beside  *try          // the next of Exchange.rivals, or of those that are not used
}

// ready prepares a new try for its first use.
func (t *try) ready() {
	t.wait.Owner, t.timer.Expired = (*waiting)(t), t.timedOut
}

// clear forgets what the try was for. It is over.
func (t *try) clear() {
	t.nth, t.sent, t.endSent, t.stale, t.beside = 0, 0, false, false, nil
}

// attempt tries once: an endpoint is picked and a connection to it asked for. It goes on in open, at once or when
// the connection stands.
func (x *Exchange) attempt() {
	from, why := x.pick()
	if why != failure.None {
		x.unpicked(why)
		return
	}
	x.remember(from)
	l := x.w.cfg.Loop
	if x.route != nil {
		if x.route.Timeouts.Attempt > 0 {
			l.Arm(&x.timer, x.route.Timeouts.Attempt)
		}
		if x.route.Hedge != nil {
			x.armHedge()
		}
	}
	timeout := x.origin.ConnectTimeout
	if x.cluster != nil {
		timeout = x.cluster.ConnectTimeout()
	}
	t := x.try
	t.wait.Careful = !x.replayable()
	c, f := x.w.cfg.Pool.Get(&t.target, timeout, &t.wait)
	switch {
	case f != nil:
		x.attemptFailed(f.Reason)
	case c != nil:
		x.open(c, true)
	case x.bound != nil && t.wait.Waiting():
		if t.pending = x.bound.Take(cluster.Pending); !t.pending {
			x.attemptFailed(failure.Overflow)
		}
	}
}

// unpicked ends an attempt for which there is no endpoint.
func (x *Exchange) unpicked(why failure.Reason) {
	x.uncount(x.try)
	switch {
	case x.rivals != nil:
		x.drop(why, false)
	case x.fallBack(why):
	default:
		x.answer(why)
	}
}

// pick chooses where this attempt goes, and out of how many: the program beside us, or an endpoint that has not
// failed this exchange while there is another.
func (x *Exchange) pick() (from int, why failure.Reason) {
	if x.cluster == nil {
		x.target = pool.Target{Kind: pool.HTTP1, Address: x.origin.Program}
		if x.version == message.HTTP2 {
			x.target.Kind = pool.H2C
		}
		x.target.Source = x.origin.From
		return 1, failure.None
	}
	if why := x.outside(); why != failure.None {
		return 0, why
	}
	now := x.w.cfg.Loop.Now()
	choice := cluster.Choice{Now: now, Random: x.w.random.Uint64(), Hash: x.hash, Hashed: x.hashed, Subset: x.subset(), NoProbe: x.count > 0, Once: x.cluster.Probing() && !x.repeatable()}
	shed := x.reason == failure.Shed
	if x.elsewhere() || shed {
		choice.Excluded = x.tried[:x.ntried]
	}
	if m := x.cluster.Model(); m.Discovery == model.DiscoveryOriginal {
		choice.Wanted = x.original(m)
	}
	ep, from, why := x.choose(&choice)
	if ep == nil && from > 0 && (x.rested || !x.unreachable()) && !shed && x.rivals == nil && len(choice.Excluded) > 0 {
		x.tried, x.ntried = [maxAttempts]*cluster.Endpoint{}, 0 // all have failed once; they can be reached, or may be by now
		choice.Random, choice.Excluded = x.w.random.Uint64(), nil
		if x.picked != nil {
			ep, from, why = x.choosePicked(&choice)
		} else {
			ep, from, why = x.cluster.Choose(&choice)
		}
	}
	if ep == nil {
		if from > 0 && x.reason != failure.None {
			why = x.reason
		}
		return from, why
	}
	x.ep, x.probe = ep, choice.Probe
	ep.Begin()
	if x.ntried == len(x.tried) {
		x.ntried = copy(x.tried[:], x.tried[1:])
	}
	x.tried[x.ntried] = ep
	x.ntried++
	x.target = x.targetOf(ep)
	x.rec.DestinationID = x.target.Identity
	return from, failure.None
}

// unreachable reports whether the last attempt could not even connect.
func (x *Exchange) unreachable() bool {
	switch x.reason {
	case failure.ConnectFailed, failure.ConnectTimeout, failure.TLSFailed, failure.PeerIdentity:
		return true
	}
	return false
}

// remember notes the attempt in the record, and the request in what its cluster counts.
func (x *Exchange) remember(from int) {
	now := x.w.cfg.Loop.Now()
	if x.count < record.MaxAttempts {
		a := &x.rec.Attempts[x.count]
		*a = record.Attempt{Workload: x.target.Workload, Address: x.target.Address, From: from, Start: now}
	}
	if x.cluster != nil && x.count == x.spared {
		x.cluster.First(now, !x.chain.Again)
	}
	x.count++
	x.outOf = from
	x.since, x.nth, x.rec.NAttempts = now, x.count, x.count
}

// waiting is a try as the pool sees it.
type waiting try

// Connected implements the owner of a pool.Waiter.
func (w *waiting) Connected(c upstream.Conn) {
	t := (*try)(w)
	x := t.x
	x.busy++
	x.prefer(t)
	if x.ep != nil {
		x.ep.Connected()
	}
	x.open(c, false)
	x.leave()
}

// Unconnected implements the owner of a pool.Waiter.
func (w *waiting) Unconnected(f *failure.Failure) {
	t := (*try)(w)
	x := t.x
	x.busy++
	x.prefer(t)
	if x.ep != nil {
		x.ep.ConnectFailed(x.w.cfg.Loop.Now())
	}
	x.attemptFailed(f.Reason)
	x.leave()
}

// open sends the request's head on c and as much of its body as is here. stood says that c was waiting for a request, even
// if it has had none yet: its server may be closing it.
func (x *Exchange) open(c upstream.Conn, stood bool) {
	if !x.countRequest() {
		x.unopened(c, stood, failure.Overflow)
		return
	}
	x.adapt(c)
	end := x.ended && len(x.body) == 0 && !x.hasTrailers && !x.upgrade
	s, err := c.Open(&x.head, end, (*receiver)(x.try))
	if err != nil {
		reason := failure.RefusedStream
		if f, ok := err.(*failure.Failure); ok {
			reason = f.Reason
		}
		x.unopened(c, stood, reason)
		return
	}
	if x.ep != nil {
		x.ep.Reached()
	}
	x.stream, x.endSent, x.stale = s, end, stood || c.Served() > 1
	x.rec.MTLS = x.rec.MTLS || !x.foreign() // there is no other way to a workload
	x.pump()
}

// unopened ends an attempt that has not taken its connection, which others may use now: a rival, perhaps.
func (x *Exchange) unopened(c upstream.Conn, stood bool, reason failure.Reason) {
	t := x.try
	if stood {
		x.w.cfg.Pool.Unused(&t.target, c)
	}
	x.prefer(t)
	x.attemptFailed(reason)
}

// countRequest counts the attempt among the requests that the breakers bound; false: there is no room.
func (x *Exchange) countRequest() bool {
	if x.pending {
		x.pending = false
		x.bound.Give(cluster.Pending)
	}
	if x.breaker != nil && !x.breaker.Take(cluster.Requests) {
		return false
	}
	if x.bound != nil && !x.bound.Take(cluster.Requests) {
		if x.breaker != nil {
			x.breaker.Give(cluster.Requests)
		}
		return false
	}
	x.counted = x.breaker != nil || x.bound != nil
	return true
}

// uncount gives back what a try has counted of the bounds.
func (x *Exchange) uncount(t *try) {
	if t.pending {
		x.bound.Give(cluster.Pending)
	}
	if t.counted {
		if x.breaker != nil {
			x.breaker.Give(cluster.Requests)
		}
		if x.bound != nil {
			x.bound.Give(cluster.Requests)
		}
	}
	if t.again && x.breaker != nil {
		x.breaker.Give(cluster.Retries)
	}
	t.pending, t.counted, t.again = false, false, false
}

// endTry lets go of what a try holds. waste says that its response is not wanted though it was complete enough.
func (x *Exchange) endTry(t *try, reason failure.Reason, waste bool) {
	x.w.cfg.Pool.Leave(&t.wait)
	x.w.cfg.Loop.Disarm(&t.timer)
	x.uncount(t) // before the connection is free: who waits for it begins inside Done
	if s := t.stream; s != nil {
		t.stream = nil
		if waste {
			s.Discard()
		} else {
			s.Done()
		}
	}
	if t.ep != nil {
		if !waste {
			x.missed(t, reason)
		}
		t.unprobed()
		t.ep.End()
		t.ep = nil
	}
	if n := t.nth - 1; n >= 0 && n < record.MaxAttempts && x.rec.Attempts[n].End == 0 {
		x.rec.Attempts[n].Reason, x.rec.Attempts[n].End = reason.Label(), x.w.cfg.Loop.Now()
	}
}

// endAttempt lets go of what all attempts hold, and of the one that was to follow.
func (x *Exchange) endAttempt(reason failure.Reason) {
	if x.resting || x.pause.Armed() {
		x.stand()
		x.w.cfg.Loop.Disarm(&x.pause)
	}
	if x.rivals != nil {
		x.w.cfg.Pool.Leave(&x.wait)
		x.endRivals(reason)
	}
	x.endTry(x.try, reason, false)
}

// attemptFailed ends the current attempt and makes another if that is safe and there is one left.
func (x *Exchange) attemptFailed(reason failure.Reason) {
	if x.rivals != nil && !x.expired() {
		x.drop(reason, false)
		return
	}
	x.endTry(x.try, reason, false)
	x.reason = reason
	if x.expired() {
		x.fail(failure.Deadline)
		return
	}
	if x.dropped == 0 {
		x.sent, x.endSent = 0, false // the next stream begins at the beginning
	}
	if x.mayRetry(reason) {
		if wait, ok := x.waitFor(nil, reason); ok && x.takeRetry(reason) {
			x.later(wait)
			return
		}
	}
	if !x.fallBack(reason) {
		x.fail(reason)
	}
}

// timedOut is called when the attempt's own time is over.
func (t *try) timedOut() {
	x := t.x
	x.busy++
	x.prefer(t)
	x.attemptFailed(failure.AttemptTimeout)
	x.leave()
}
