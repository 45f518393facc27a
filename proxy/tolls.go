package proxy

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// tolls is what the workload's own proxy holds the program to when it calls: limits on the side of the caller
// (model.RouteTable.Outbound), and of what goes outside the mesh (Outside, of the workload's own port; here is also where limits of
// one place outside would be found). Every loop asks the same gates.
type tolls struct {
	proxy   *Proxy
	outside *admission.Gate // nil: the workload has no port, so nobody can say anything about it
}

// toll answers the gate of a port that the program calls.
func (t *tolls) toll(to *live.Port) *admission.Gate {
	return to.Keep(func() any {
		return admission.New(admission.Config{Log: t.proxy.cfg.Log, Terms: func() (now admission.Terms) {
			if table := to.Routes(); table != nil {
				now.Inbound = table.Model.Outbound
			}
			return now
		}})
	}).(*admission.Gate)
}

// Leave implements listener.Tolls.
func (t *tolls) Leave(to listener.Port, now time.Duration) failure.Reason {
	g := t.outside
	if to != nil {
		g = t.toll(to.(*live.Port)) // the directory answers nothing else
	}
	if g == nil || g.Pass(now) {
		return failure.None
	}
	return failure.RateLimited
}

// Outgoing implements listener.Tolls.
func (t *tolls) Outgoing(l loop.Loop, to listener.Port) relay.Meter {
	g := t.outside
	if to != nil {
		g = t.toll(to.(*live.Port))
	}
	return meter(g, l, model.ServiceName{}, netip.Addr{})
}

// Incoming implements listener.Tolls.
func (t *tolls) Incoming(l loop.Loop, port uint16, caller model.ServiceName, from netip.Addr) relay.Meter {
	return meter(t.proxy.gates[port], l, caller, from)
}

func meter(g *admission.Gate, l loop.Loop, caller model.ServiceName, from netip.Addr) relay.Meter {
	if g == nil {
		return nil
	}
	if m := g.Meter(l, caller, from); m != nil {
		return m
	}
	return nil
}
