package proxy

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// guard makes what says how much each port of the workload takes: what the port's own route table says, which every caller
// gets as well (docs/design/traffic.md).
func (p *Proxy) guard() {
	p.gates = map[uint16]*admission.Gate{}
	for _, own := range p.ports {
		port := p.live.Own(own.Service)
		p.gates[own.Port] = admission.New(admission.Config{Log: p.cfg.Log, Terms: func() admission.Terms {
			return admission.Terms{Table: port.Table()}
		}})
	}
}

// take admits a connection to a port of the workload.
func (p *Proxy) take(port uint16, now time.Duration) failure.Reason {
	g := p.gates[port]
	if g == nil {
		return failure.None
	}
	return g.Connect(now)
}

// giveBack ends one that was admitted.
func (p *Proxy) giveBack(port uint16) {
	if g := p.gates[port]; g != nil {
		g.Disconnect()
	}
}
