package live

import (
	"strings"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Port is one port of a service as loops see it. A pointer to it stays good for the life of the process: a
// connection that was idle for an hour reads the routes in force from the same Port. All methods but those
// in lower case are lock-free and for any goroutine.
type Port struct {
	live    *Live
	name    model.PortName
	service atomic.Pointer[model.Service] // nil: the service or the port is no more
	view    atomic.Pointer[view]
	used    atomic.Bool // since the last sweep
	retired atomic.Bool // nothing of it is subscribed
	kept    atomic.Pointer[any]

	// Under live.mu.
	caller   string        // whose table is subscribed: model.RouteTable.Caller
	idle     int           // sweeps without use
	next     *router.Table // waits for its clusters; nil: view is the newest
	needs    []*entry      // of view, of next, and of former tables until the second sweep after them
	spare    []*entry      // those of needs that the last sweep found in no table
	asked    bool          // the route table is subscribed
	complete bool          // a view was published since it was last subscribed
}

// view is a route table with the clusters that its routes name.
type view struct {
	table    *router.Table
	clusters map[model.PortName]*cluster.Cluster // those that exist
}

// Keep answers what is kept with the port for as long as it is there: what build has made when it was first asked for.
func (p *Port) Keep(build func() any) any {
	if v := p.kept.Load(); v != nil {
		return *v
	}
	v := build()
	p.kept.CompareAndSwap(nil, &v)
	return *p.kept.Load()
}

// Name answers the port's name.
func (p *Port) Name() model.PortName { return p.name }

// Service answers the service as it is now, nil if the service or this port of it does not exist any more.
func (p *Port) Service() *model.Service { return p.service.Load() }

// Routes answers the route table in force, never nil for a port that ByAddress or Port has answered.
func (p *Port) Routes() *router.Table {
	p.touch()
	return p.view.Load().table
}

// Cluster answers the cluster of that name if it exists and a table in force names it, or did until a few
// minutes ago: whoever matched in a table that was replaced since finds its cluster. Else nil. The port's own
// cluster, Cluster(Name()), is always among them.
func (p *Port) Cluster(name model.PortName) *cluster.Cluster {
	p.touch()
	if c := p.view.Load().clusters[name]; c != nil {
		return c
	}
	return (*p.live.held.Load())[name]
}

// Relays answers where connections that are not HTTP go, by the table in force; none: to the port's own cluster.
func (p *Port) Relays() []model.RelayRoute {
	if t := p.view.Load().table; t != nil {
		return t.Model.Relay
	}
	return nil
}

// Protocol answers what is known to be spoken on the port: what a consumer route of the workload's own namespace decides about,
// declared on the service's port, else declared or learned on the port's own cluster, else ProtocolUnknown.
func (p *Port) Protocol() model.Protocol {
	if t := p.view.Load().table; t != nil && t.Model.Caller != "" {
		if k := consumed(t.Model); k != model.ProtocolUnknown {
			return k
		}
	}
	if s := p.service.Load(); s != nil {
		if sp, ok := s.FindPort(p.name.Port); ok && sp.Protocol != model.ProtocolUnknown {
			return sp.Protocol
		}
	}
	if c := p.view.Load().clusters[p.name]; c != nil {
		return c.Protocol()
	}
	return model.ProtocolUnknown
}

// consumed answers what the routes of a consumer's table are about: they must not be passed by. (What is decided for everyone
// is in the service.)
func consumed(t *model.RouteTable) model.Protocol {
	switch {
	case len(t.Relay) > 0 && len(t.Relay[0].SNI) > 0:
		return model.ProtocolTLS
	case len(t.Relay) > 0:
		return model.ProtocolTCP
	case len(t.Routes) > 0 && !strings.HasPrefix(t.Routes[0].Name, "Service/") && !strings.HasPrefix(t.Routes[0].Name, "ExternalService/"):
		return model.ProtocolHTTP
	}
	return model.ProtocolUnknown
}

// touch says that the port is in use; a retired one is subscribed again and serves what it knew meanwhile.
func (p *Port) touch() {
	if !p.used.Load() {
		p.used.Store(true)
	}
	if p.retired.Load() {
		p.live.revive(p)
	}
}
