package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// attempt tries once: an endpoint is picked and a connection to it asked for. It goes on in open, at once or when
// the connection stands.
func (x *Exchange) attempt() {
	from, why := x.pick()
	if why != failure.None {
		x.answer(why)
		return
	}
	x.remember(from)
	if x.route != nil && x.route.Timeouts.Attempt > 0 {
		x.w.cfg.Loop.Arm(&x.attemptTimer, x.route.Timeouts.Attempt)
	}
	timeout := x.origin.ConnectTimeout
	if x.cluster != nil {
		timeout = x.cluster.ConnectTimeout()
	}
	x.wait.Careful = !x.replayable()
	c, f := x.w.cfg.Pool.Get(&x.target, timeout, &x.wait)
	switch {
	case f != nil:
		x.attemptFailed(f.Reason)
	case c != nil:
		x.open(c, true)
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
	now := x.w.cfg.Loop.Now()
	choice := cluster.Choice{Now: now, Random: x.w.random.Uint64(), Hash: x.hash, Hashed: x.hashed, Excluded: x.tried[:x.ntried], Subset: x.subset()}
	if m := x.cluster.Model(); m.Discovery == model.DiscoveryOriginal {
		choice.Wanted = x.original(m)
	}
	ep, from, why := x.choose(&choice)
	if ep == nil && from > 0 && !x.unreachable() {
		x.tried, x.ntried = [maxAttempts]*cluster.Endpoint{}, 0 // all have failed once; they can be reached
		choice.Random, choice.Excluded = x.w.random.Uint64(), nil
		ep, from, why = x.cluster.Choose(&choice)
	}
	if ep == nil {
		if from > 0 && x.reason != failure.None {
			why = x.reason
		}
		return from, why
	}
	x.ep, x.picked, x.probe = ep, now, choice.Probe
	ep.Begin()
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

// remember notes the attempt in the record.
func (x *Exchange) remember(from int) {
	if x.count < record.MaxAttempts {
		a := &x.rec.Attempts[x.count]
		*a = record.Attempt{Workload: x.target.Workload, Address: x.target.Address, From: from, Start: x.w.cfg.Loop.Now()}
	}
	x.count++
	x.rec.NAttempts = x.count
}

// waiting is Exchange as the pool sees it.
type waiting Exchange

// Connected implements the owner of a pool.Waiter.
func (t *waiting) Connected(c upstream.Conn) {
	x := (*Exchange)(t)
	x.busy++
	if x.ep != nil {
		x.ep.Connected()
	}
	x.open(c, false)
	x.leave()
}

// Unconnected implements the owner of a pool.Waiter.
func (t *waiting) Unconnected(f *failure.Failure) {
	x := (*Exchange)(t)
	x.busy++
	if x.ep != nil {
		x.ep.ConnectFailed(x.w.cfg.Loop.Now())
	}
	x.attemptFailed(f.Reason)
	x.leave()
}

// open sends the request's head on c and as much of its body as is here. stood says that c was waiting for a request, even
// if it has had none yet: its server may be closing it.
func (x *Exchange) open(c upstream.Conn, stood bool) {
	if b := x.breaker; b != nil {
		if !b.Take(cluster.Requests) {
			if stood {
				x.w.cfg.Pool.Unused(&x.target, c)
			}
			x.attemptFailed(failure.Overflow)
			return
		}
		x.counted = true
	}
	x.adapt(c)
	end := x.ended && len(x.body) == 0 && !x.hasTrailers && !x.upgrade
	s, err := c.Open(&x.head, end, (*receiver)(x))
	if err != nil {
		reason := failure.RefusedStream
		if f, ok := err.(*failure.Failure); ok {
			reason = f.Reason
		}
		if stood {
			x.w.cfg.Pool.Unused(&x.target, c)
		}
		x.attemptFailed(reason)
		return
	}
	if x.ep != nil {
		x.ep.Reached()
	}
	x.stream, x.endSent, x.stale = s, end, stood || c.Served() > 1
	x.rec.MTLS = x.rec.MTLS || !x.foreign() // there is no other way to a workload
	x.pump()
}

// attemptFailed ends the attempt and makes another if that is safe and there is one left.
func (x *Exchange) attemptFailed(reason failure.Reason) {
	x.endAttempt(reason)
	x.reason = reason
	if x.expired() {
		x.fail(failure.Deadline)
		return
	}
	if x.dropped == 0 {
		x.sent, x.endSent = 0, false // the next stream begins at the beginning
	}
	if x.mayRetry(reason) && x.takeRetry() {
		x.attempt()
		return
	}
	x.fail(reason)
}

// mayRetry reports whether the request may be sent again: nothing of the response has gone out, all of the
// request is still here, and the upstream has not acted on it or acting twice does no harm (RFC 9110 section
// 9.2.2).
func (x *Exchange) mayRetry(reason failure.Reason) bool {
	switch {
	case x.begun || x.shadow.on || x.dropped > 0 || x.count >= x.w.cfg.Attempts:
		return false
	case x.cluster == nil && (x.unreachable() || x.count >= programAttempts):
		return false // there is one program; the caller's proxy knows other ones
	case reason.Untouched():
		return true
	case x.origin.HTTP != nil && !x.stale:
		return false // a foreign route says so itself when it wants more
	}
	return reason.Retryable() && idempotent(x.rec.Method)
}

// replayable reports whether the request can be sent again although the upstream may have acted on it, as far as that is
// known before it is sent.
func (x *Exchange) replayable() bool {
	if !idempotent(x.rec.Method) {
		return false
	}
	return x.ended || x.head.ContentLength >= 0 && x.head.ContentLength <= int64(x.w.cfg.Replay)
}

// programAttempts is how many attempts the program beside us gets: a second one because it may have closed an idle
// connection just when the request was sent on it. More would multiply with those of the caller's proxy.
const programAttempts = 2

// takeRetry counts another attempt, if the cluster may have one.
func (x *Exchange) takeRetry() bool {
	if x.breaker == nil {
		return true
	}
	x.again = x.breaker.Take(cluster.Retries)
	return x.again
}

// uncount gives back what the attempt has counted of the cluster's bounds.
func (x *Exchange) uncount() {
	if x.counted {
		x.breaker.Give(cluster.Requests)
		x.counted = false
	}
	if x.again {
		x.breaker.Give(cluster.Retries)
		x.again = false
	}
}

// endAttempt lets go of what the attempt holds.
func (x *Exchange) endAttempt(reason failure.Reason) {
	x.w.cfg.Pool.Leave(&x.wait)
	x.w.cfg.Loop.Disarm(&x.attemptTimer)
	x.uncount() // before the connection is free: who waits for it begins inside Done
	if s := x.stream; s != nil {
		x.stream = nil
		s.Done()
	}
	if x.ep != nil {
		x.missed(reason)
		x.unprobed()
		x.ep.End()
		x.ep = nil
	}
	if n := x.count - 1; n >= 0 && n < record.MaxAttempts && x.rec.Attempts[n].End == 0 {
		x.rec.Attempts[n].Reason, x.rec.Attempts[n].End = reason.Label(), x.w.cfg.Loop.Now()
	}
}

func (x *Exchange) attemptTimeout() {
	x.busy++
	x.attemptFailed(failure.AttemptTimeout)
	x.leave()
}
