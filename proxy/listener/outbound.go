package listener

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Outbound serves a connection of the program that capture turned to us. The wanted address alone selects the
// service.
func (w *Worker) Outbound(in loop.Incoming) {
	wanted := in.Wanted()
	wanted = netip.AddrPortFrom(wanted.Addr().Unmap(), wanted.Port())
	if w.cfg.Probe != nil && w.cfg.Probe(in, wanted, w.cfg.Loop) {
		return
	}
	if !w.cfg.Passthrough.mesh(wanted.Addr()) {
		w.passthrough(in, wanted)
		return
	}
	to := w.calmest()
	in.Adopt(to.cfg.Loop, func(c loop.Conn) loop.Handler {
		if !to.room() {
			return refused(c)
		}
		s := to.session(c, record.Outbound, wanted)
		s.far = farMesh
		if p, known := to.cfg.Directory.Port(wanted); known && p != nil {
			s.found(p)
		} else {
			s.find()
		}
		return s
	})
}

// Forward answers the accept function for a port on the program's loopback that leads to one address of the
// machine (--forward).
func (w *Worker) Forward(to netip.AddrPort) func(loop.Incoming) {
	return func(in loop.Incoming) {
		w := w.calmest()
		in.Adopt(w.cfg.Loop, func(c loop.Conn) loop.Handler {
			if !w.room() {
				return refused(c)
			}
			s := w.session(c, record.Outbound, to)
			s.direct(loop.Dial{Address: to})
			return s
		})
	}
}

// calmest answers which worker serves a connection that w has accepted (package loop, place.go).
func (w *Worker) calmest() *Worker { return loop.Calmest(w, w.peers) }

// Gauge answers how the worker's loop compares with others.
func (w *Worker) Gauge() loop.Gauge { return w.cfg.Loop.(loop.Gauge) }

// room reports whether another connection may be undecided; if not it counts the refusal.
func (w *Worker) room() bool {
	if len(w.pending) < w.cfg.MaxPending && !w.cfg.Relays.Full() {
		return true
	}
	w.cfg.Observer.Refused(failure.Overload)
	return false
}

// refused resets c.
func refused(c loop.Conn) loop.Handler {
	c.Reset()
	return nobody{c}
}
