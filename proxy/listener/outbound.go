package listener

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Outbound serves a connection of the program that capture turned to us. The wanted address alone selects the
// service.
func (w *Worker) Outbound(in loop.Incoming) {
	wanted := netip.AddrPortFrom(in.Wanted().Addr().Unmap(), in.Wanted().Port())
	if !w.cfg.Passthrough.mesh(wanted.Addr()) {
		w.passthrough(in, wanted)
		return
	}
	if !w.room(in) {
		return
	}
	p, known := w.cfg.Directory.Port(wanted)
	in.Adopt(w.cfg.Loop, func(c loop.Conn) loop.Handler {
		s := w.session(c, record.Outbound, wanted)
		s.far = farMesh
		if known && p != nil {
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
		if !w.room(in) {
			return
		}
		in.Adopt(w.cfg.Loop, func(c loop.Conn) loop.Handler {
			s := w.session(c, record.Outbound, to)
			s.direct(loop.Dial{Address: to})
			return s
		})
	}
}

// Publish answers the accept function for a port that the outside reaches one port of the workload through.
func (w *Worker) Publish(port uint16) func(loop.Incoming) {
	return func(in loop.Incoming) {
		own, ok := w.cfg.Ports(port)
		if !ok {
			w.cfg.Observer.Refused(failure.UnknownPort)
			in.Refuse()
			return
		}
		d, ok := w.cfg.Program(port, in.Remote().Addr().Unmap())
		if !ok {
			w.cfg.Observer.Refused(failure.UnknownPort)
			in.Refuse()
			return
		}
		if !w.room(in) {
			return
		}
		in.Adopt(w.cfg.Loop, func(c loop.Conn) loop.Handler {
			s := w.session(c, record.Inbound, in.Local())
			s.far, s.dial, s.own = farProgram, d, own
			s.rec.Destination, s.rec.Port = own.Service.Service, own.Service.Port
			s.begin(own.Protocol, own.Protocol == model.LearnedHTTP && w.probe(own.Service))
			return s
		})
	}
}

// room refuses a connection when too many are undecided.
func (w *Worker) room(in loop.Incoming) bool {
	if len(w.pending) < w.cfg.MaxPending && !w.cfg.Relays.Full() {
		return true
	}
	w.cfg.Observer.Refused(failure.Overload)
	in.Refuse()
	return false
}
