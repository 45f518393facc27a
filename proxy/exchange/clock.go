package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/grpc"
)

// Time limits of an exchange. One timer (requestTimer) is for whatever ends it first: the route's timeout, the longest a
// stream may last, the client's own deadline. Another (quietTimer) looks, now and then, whether anything has moved; it
// is not moved with every byte.

// clocks are the limits of one exchange.
type clocks struct {
	late     failure.Reason // what requestTimer means
	until    time.Duration  // loop time at which a tunnel ends; 0: never
	ends     time.Duration  // loop time at which requestTimer ends what is no tunnel; 0: never
	idle     time.Duration  // nothing may be still for longer; 0: no bound
	complete time.Duration  // loop time by which all of the request must be here; 0: no bound
	stirred  time.Duration  // loop time when something moved last
	deadline time.Duration  // loop time that grpc-timeout, or the chain of callers, asks for, and that is kept here; 0: none
	expires  time.Duration  // loop time when the client's own deadline ends, also where only client and server keep it; 0: none
}

// limitTime arms the timers.
func (x *Exchange) limitTime() {
	l, c := x.w.cfg.Loop, x.origin.HTTP
	var t *model.Timeouts
	if x.route != nil {
		t = &x.route.Timeouts
		if t.Request > 0 {
			x.limit(t.Request, failure.RequestTimeout)
		}
	}
	if x.rec.Protocol == model.ProtocolGRPC {
		x.limitCall(t)
	}
	x.limitFamily()
	if c != nil || t != nil && t.Idle+t.MaxStream > 0 {
		x.limitStream(c, t)
	}
	if x.late != failure.None {
		x.ends = x.until
		l.Arm(&x.requestTimer, max(x.until-x.rec.Start, 0))
	}
	x.until = 0
	if d := longest(c, t); d > 0 {
		x.until = x.rec.Start + d
	}
}

// limit notes a limit of d after the beginning, if it is the first so far.
func (x *Exchange) limit(d time.Duration, reason failure.Reason) {
	if at := x.rec.Start + d; x.late == failure.None || at < x.until {
		x.late, x.until = reason, at
	}
}

// longest answers how long a stream may last; 0: for ever. In the mesh there is no c.
func longest(c *model.HTTP, t *model.Timeouts) time.Duration {
	if t != nil && t.MaxStream > 0 {
		return t.MaxStream
	}
	if c == nil {
		return 0
	}
	return c.MaxStreamDuration
}

// limitStream applies what the route says about streams, or else the chain, which there is none of in the mesh.
func (x *Exchange) limitStream(c *model.HTTP, t *model.Timeouts) {
	if d := longest(c, t); d > 0 {
		x.limit(d, failure.StreamDuration)
	}
	if c != nil {
		x.idle = c.StreamIdleTimeout
	}
	if t != nil && t.Idle > 0 {
		x.idle = t.Idle
	}
	if c != nil && c.RequestTimeout > 0 && !x.ended && !x.upgrade {
		x.complete = x.rec.Start + c.RequestTimeout
	}
	x.watch()
}

// limitCall applies grpc-timeout. In the mesh it always bounds a call; a foreign route says whether it does.
func (x *Exchange) limitCall(t *model.Timeouts) {
	foreign := x.origin.HTTP != nil
	v := x.head.Get(grpc.FieldTimeout)
	d, ok := grpc.ParseTimeout(v)
	if ok {
		x.expires = x.rec.Start + d
	}
	if foreign && (t == nil || !t.GRPCTimeout) {
		return
	}
	if foreign {
		switch {
		case ok && t.GRPCMax > 0 && d > t.GRPCMax:
			d = t.GRPCMax
		case !ok && t.GRPCMax > 0:
			d, ok = t.GRPCMax, true
		}
		if ok && t.GRPCOffset > 0 && d > t.GRPCOffset {
			d -= t.GRPCOffset
		}
	}
	if ok {
		x.deadline = x.rec.Start + d
		x.limit(d, failure.Deadline)
	}
}

// expired reports whether the client's deadline has passed. What the upstream does then, for example reset the call, it does
// because of that: the server has counted down as well, and may be heard before our own timer.
func (x *Exchange) expired() bool { return x.expires != 0 && x.w.cfg.Loop.Now() >= x.expires }

// remind tells the upstream how much of the client's deadline is left, where that is not what the client has said.
func (x *Exchange) remind() {
	if x.deadline == 0 || x.rec.Protocol != model.ProtocolGRPC {
		return
	}
	left := max(x.deadline-x.w.cfg.Loop.Now(), 0)
	for i := range x.head.Fields {
		f := &x.head.Fields[i]
		if len(f.Name) != len(grpc.FieldTimeout) || string(f.Name) != grpc.FieldTimeout {
			continue
		}
		if d, ok := grpc.ParseTimeout(f.Value); ok && d-left >= time.Millisecond {
			n := len(x.notes)
			x.notes = grpc.AppendTimeout(x.notes, left)
			f.Value = x.notes[n:len(x.notes):len(x.notes)]
		}
		return
	}
	n := len(x.notes)
	x.notes = grpc.AppendTimeout(x.notes, left)
	x.head.Add(nameTimeout, x.notes[n:len(x.notes):len(x.notes)])
}

var nameTimeout = []byte(grpc.FieldTimeout)

// requestTimeout is called when requestTimer expires.
func (x *Exchange) requestTimeout() {
	x.busy++
	switch {
	case x.tunnel && x.until != 0 && x.w.cfg.Loop.Now() >= x.until:
		x.fail(failure.StreamDuration)
	case x.tunnel:
		if left := x.stirred + tunnelLinger - x.w.cfg.Loop.Now(); left > 0 {
			x.w.cfg.Loop.Arm(&x.requestTimer, left)
		} else {
			x.fail(failure.IdleTimeout)
		}
	default:
		x.fail(x.late)
	}
	x.leave()
}

// stir notes that something has moved.
func (x *Exchange) stir() { x.stirred = x.w.cfg.Loop.Now() }

// watch arms quietTimer for what it has to look at next.
func (x *Exchange) watch() {
	var at time.Duration
	if x.idle > 0 {
		at = x.stirred + x.idle
	}
	if x.complete > 0 && !x.ended && (at == 0 || x.complete < at) {
		at = x.complete
	}
	if at > 0 {
		x.w.cfg.Loop.Arm(&x.quietTimer, max(at-x.w.cfg.Loop.Now(), time.Millisecond))
	}
}

// quiet ends what has lasted too long without anything moving, and a request that does not become complete.
func (x *Exchange) quiet() {
	x.busy++
	now := x.w.cfg.Loop.Now()
	switch {
	case x.finished:
	case x.complete > 0 && !x.ended && now >= x.complete:
		x.fail(failure.RequestIncomplete)
	case x.idle > 0 && now >= x.stirred+x.idle && !x.ended && !x.begun && !x.upgrade:
		x.fail(failure.RequestIncomplete)
	case x.idle > 0 && now >= x.stirred+x.idle:
		x.fail(failure.IdleTimeout)
	default:
		x.watch()
	}
	x.leave()
}

// Still ends the exchange if nothing has moved on it for d; tunnels are left alone. Connections of a sidecar, which have
// no timer per stream, ask now and then.
func (x *Exchange) Still(d time.Duration) {
	if x.finished || x.tunnel || x.w.cfg.Loop.Now()-x.stirred < d {
		return
	}
	x.busy++
	x.fail(failure.IdleTimeout)
	x.leave()
}
