package proxy

import (
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/xds/ratelimit"
)

// guard makes what says how much each port of the workload takes: what the port's own route table says, which every caller
// gets as well (docs/design/traffic.md).
func (p *Proxy) guard() {
	p.gates = map[uint16]*admission.Gate{}
	p.asking.control = ratelimit.NewClient(p.client.Conn, 0)
	for _, own := range p.ports {
		port := p.live.Own(own.Service)
		p.gates[own.Port] = admission.New(admission.Config{Log: p.cfg.Log, Ask: p.ask, Terms: func() admission.Terms {
			return admission.Terms{Table: port.Table()}
		}})
	}
	p.guardOutside()
}

// guardOutside makes what says how much goes outside the mesh: what the workload's first own port says.
func (p *Proxy) guardOutside() {
	p.tolls.proxy = p
	if len(p.ports) == 0 {
		return
	}
	port := p.live.Own(p.ports[0].Service)
	p.tolls.outside = admission.New(admission.Config{Log: p.cfg.Log, Terms: func() (t admission.Terms) {
		if table := port.Table(); table != nil {
			t.Inbound = table.Model.Outside
		}
		return t
	}})
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

// limits tells the observer what the ports take: observe.Config.Limits.
func (p *Proxy) limits(metric string, tell func(n float64, values ...string)) {
	for _, own := range p.ports {
		p.gates[own.Port].Tell(metric, strconv.Itoa(int(own.Service.Port)), tell)
	}
}
