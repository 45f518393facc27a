package gateway

import (
	"maps"
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// guard makes what says how much a chain takes, if anything does. It reads the chain's route table anew whenever that
// changes, and keeps what it has counted.
func (g *Gateway) guard(c *filterChain) {
	m := c.model
	if m.MaxConnections == 0 && m.ConnectionRate == nil && (m.HTTP == nil || m.HTTP.Inbound == nil && m.HTTP.Global == nil) {
		return
	}
	in := &model.Inbound{}
	var global *model.GlobalLimit
	if m.HTTP != nil {
		if m.HTTP.Inbound != nil {
			*in = *m.HTTP.Inbound
		}
		global = m.HTTP.Global
	}
	in.MaxConnections, in.ConnectionRate = m.MaxConnections, m.ConnectionRate
	c.gate = admission.New(admission.Config{Log: g.cfg.Log, Ask: g.ask, Terms: func() admission.Terms {
		t := admission.Terms{Inbound: in, Routed: true, Global: global}
		if c.to.table != nil {
			t.Table = c.to.table.now.Load()
		}
		return t
	}})
}

// enter asks the chain's gate for the connection; false: it was refused.
func (s *session) enter() bool {
	g := s.chain.gate
	if g == nil {
		return true
	}
	if why := g.Connect(s.w.loop.Now()); why != failure.None {
		s.refuse(why)
		return false
	}
	s.entered = true
	return true
}

// limits tells the observer what the chains take: observe.Config.Limits.
func (g *Gateway) limits(metric string, tell func(n float64, values ...string)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(g.listeners)) {
		v := g.listeners[name].now.Load()
		if v == nil {
			continue
		}
		for i, c := range v.all {
			if c.gate != nil {
				c.gate.Tell(metric, name+"/"+strconv.Itoa(i), tell)
			}
		}
	}
}
