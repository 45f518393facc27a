package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Mirrors (model.Mirror). A copy of a request is an exchange of its own without a client: it has its own record and counts for
// its cluster's breakers, is tried once, and what it is answered is read and dropped. The request whose copy it is never
// waits for it: when more of the body comes while its server has not taken maxBehind bytes of what came before, the copy is
// given up. So it holds no more than those and one piece.

const (
	maxBehind  = 64 << 10
	mirrorIdle = time.Minute // nothing moves on a copy
)

// shadow is what copies have that other exchanges do not.
type shadow struct {
	on     bool
	of     *Exchange // the request, while its body comes
	behind int       // bytes of the body that were copied and not sent
}

// mirror begins the copies of the request. Its head is as the backend gets it. What wants to switch protocols is not copied.
func (x *Exchange) mirror() {
	if x.route == nil || len(x.route.Mirrors) == 0 || x.upgrade {
		return
	}
	for i := range x.route.Mirrors {
		m := &x.route.Mirrors[i]
		if m.Invalid || m.Fraction > 0 && !x.among(m.Fraction) {
			continue
		}
		if c := x.origin.Destination.Cluster(m.Cluster); c != nil {
			x.copyTo(m, c)
		}
	}
}

// copyTo sends a copy to c.
func (x *Exchange) copyTo(m *model.Mirror, c *cluster.Cluster) {
	y := x.w.get()
	y.busy++
	y.shadow.on = true
	y.belong(x.origin, (*nobody)(y))
	y.arena = x.head.CloneInto(&y.head, y.arena)
	if m.Suffix {
		y.nameShadow()
	}
	y.extra, y.version = x.extra, x.version
	y.ended = x.ended && len(x.body) == 0 && !x.hasTrailers
	y.cluster, y.breaker = c, c.Breaker(x.route.Priority)
	y.hash, y.hashed = x.hash, x.hashed
	y.noteCopy(&x.rec, m)
	y.idle = mirrorIdle
	y.watch()
	if d := x.route.Timeouts.Request; d > 0 {
		x.w.cfg.Loop.Arm(&y.requestTimer, d)
		y.late = failure.RequestTimeout
	}
	if !y.ended {
		y.shadow.of = x
		x.copies = append(x.copies, y)
	}
	y.attempt()
	if !y.finished && !y.ended { // what came during an injected delay
		if len(x.body) > 0 {
			y.copied(x.body, x.ended && !x.hasTrailers)
		}
		if x.hasTrailers && !y.finished {
			y.Trailers(&x.trailers)
		}
		if x.ended {
			y.leaveRequest()
		}
	}
	y.leave()
}

// noteCopy begins the record of a copy of what r tells of.
func (y *Exchange) noteCopy(r *record.Record, m *model.Mirror) {
	l := y.w.cfg.Loop
	y.rec.Reset()
	y.rec.Mirror = true
	y.rec.Direction, y.rec.Source, y.rec.SourceID, y.rec.MTLS, y.rec.Wanted = r.Direction, r.Source, r.SourceID, r.MTLS, r.Wanted
	y.rec.Method, y.rec.Protocol, y.rec.Route, y.rec.Rule = r.Method, r.Protocol, r.Route, r.Rule
	y.rec.Start, y.rec.Wall = l.Now(), l.Wall()
	y.stirred = y.rec.Start
	if y.ended {
		y.whole = y.rec.Start
	}
	y.rec.Path, y.rec.Authority, y.rec.RequestID = y.head.Target, y.head.Authority, y.head.Get(fieldRequest)
	y.rec.Backend, y.rec.Destination, y.rec.Port = m.Cluster, m.Cluster.Service, m.Cluster.Port
}

// nameShadow puts "-shadow" behind the host.
func (y *Exchange) nameShadow() {
	host := withoutPort(y.head.Authority)
	n := len(y.notes)
	y.notes = append(append(append(y.notes, host...), "-shadow"...), y.head.Authority[len(host):]...)
	y.head.Authority = y.notes[n:len(y.notes):len(y.notes)]
}

// copyBody gives the copies a piece of the request's body.
func (x *Exchange) copyBody(p []byte, end bool) {
	for i := range x.copies { // unlinked ones are nil; none is added meanwhile
		if y := x.copies[i]; y != nil {
			y.copied(p, end)
		}
	}
	if end {
		x.release(failure.None)
	}
}

// copyTrailers ends the copies with the request's trailers.
func (x *Exchange) copyTrailers() {
	for i := range x.copies {
		if y := x.copies[i]; y != nil {
			y.Trailers(&x.trailers)
		}
	}
	x.release(failure.None)
}

// copied takes a piece of the body. The exchange may be over, and somebody else's, when it returns.
func (y *Exchange) copied(p []byte, end bool) {
	if y.shadow.behind > maxBehind {
		y.Break(failure.MirrorBehind)
		return
	}
	y.shadow.behind += len(p)
	y.Data(p, end)
}

// release parts the request from its copies: they have all of it (None), or there will be no more, which ends those that have
// not.
func (x *Exchange) release(why failure.Reason) {
	for i := range x.copies {
		y := x.copies[i]
		if y == nil {
			continue
		}
		x.copies[i], y.shadow.of = nil, nil
		if why != failure.None && !y.ended {
			y.Gone()
		}
	}
	x.copies = x.copies[:0]
}

// leaveRequest takes a copy out of its request's list.
func (y *Exchange) leaveRequest() {
	of := y.shadow.of
	if of == nil {
		return
	}
	y.shadow.of = nil
	for i := range of.copies {
		if of.copies[i] == y {
			of.copies[i] = nil
		}
	}
}

// nobody is the client of a copy: it takes everything and tells nobody.
type nobody Exchange

// Head implements Client.
func (*nobody) Head(*message.Head, bool) {}

// Data implements Client.
func (*nobody) Data(p []byte, _ bool) int { return len(p) }

// Trailers implements Client.
func (*nobody) Trailers(*message.Head) {}

// Consumed implements Client.
func (t *nobody) Consumed(n int) { t.shadow.behind -= n }

// Abort implements Client.
func (*nobody) Abort(failure.Reason) {}

// Finished implements Client.
func (t *nobody) Finished() { (*Exchange)(t).leaveRequest() }
