package listener

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Passthrough says which addresses are not passed through to.
type Passthrough struct {
	// VIPs are the ranges of virtual addresses; what is inside is the mesh's or nobody's.
	VIPs []netip.Prefix
	// Own reports whether an address is one of this machine, on a port that Tulle listens on. May be nil.
	Own func(netip.AddrPort) bool
	// Capture are the ports that capture turns connections to (15001, 15006, 15053, ...): refused on any address
	// of this machine, which Machine reports. May be empty.
	Capture []uint16
	Machine func(netip.Addr) bool // may be nil
	// AllowLinkLocal permits link-local addresses, cloud metadata among them.
	AllowLinkLocal bool
	// Dial completes how addresses outside are connected to; Address is filled in. May be nil.
	Dial func(d *loop.Dial)
}

// mesh reports whether a is a virtual address.
func (p *Passthrough) mesh(a netip.Addr) bool {
	for _, v := range p.VIPs {
		if v.Contains(a) {
			return true
		}
	}
	return false
}

// Refuse answers why there is no passing through to an address, or None. A loopback or unspecified address seen
// from here is not the program's own but this machine's, so it is refused too.
func (p *Passthrough) Refuse(to netip.AddrPort) failure.Reason {
	a := to.Addr().Unmap().WithZone("")
	switch {
	case !a.IsValid() || to.Port() == 0 || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast():
		return failure.OwnPort
	case p.mesh(a):
		return failure.UnknownService
	case a.IsLinkLocalUnicast() && !p.AllowLinkLocal:
		return failure.LinkLocal
	case p.Own != nil && p.Own(netip.AddrPortFrom(a, to.Port())):
		return failure.OwnPort
	}
	for _, port := range p.Capture {
		if port == to.Port() && (p.Machine == nil || p.Machine(a)) {
			return failure.OwnPort
		}
	}
	return failure.None
}

// passthrough relays a connection to where it wanted to go, outside the mesh: dialed at once, bytes as they come.
func (w *Worker) passthrough(in loop.Incoming, wanted netip.AddrPort) {
	why := w.cfg.Passthrough.Refuse(wanted)
	if why == failure.None && wanted == in.Local() {
		why = failure.OwnPort // not turned: somebody called our port itself
	}
	if why == failure.None && w.cfg.Tolls != nil {
		why = w.cfg.Tolls.Leave(nil, w.cfg.Loop.Now())
	}
	if why != failure.None {
		w.cfg.Observer.Refused(why)
		in.Refuse()
		return
	}
	w = w.calmest()
	in.Adopt(w.cfg.Loop, func(c loop.Conn) loop.Handler {
		if !w.room() {
			return refused(c)
		}
		s := w.session(c, record.Outbound, wanted)
		s.rec.Passthrough = true
		e := Exit{}
		if w.cfg.Egress != nil {
			e = w.cfg.Egress.Address(wanted)
		}
		s.depart(e)
		return s
	})
}
