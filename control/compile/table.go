package compile

import (
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// RouteTable answers what happens to the requests for a port, of callers without consumer routes.
func (c Compiler) RouteTable(name model.PortName) (*model.RouteTable, bool) {
	return c.RouteTableFor(name, "")
}

// RouteTables answers every table of a port: that of everyone, then those of the namespaces with consumer routes for it.
func (c Compiler) RouteTables(name model.PortName) (out []*model.RouteTable) {
	if t, ok := c.RouteTable(name); ok {
		out = append(out, t)
	}
	for _, caller := range c.Index.consumers(name.Service) {
		own := slices.ContainsFunc(c.candidates(name, caller), func(r Route) bool { return r.caller(name.Service) == caller })
		if t, ok := c.RouteTableFor(name, caller); ok && own {
			out = append(out, t)
		}
	}
	return out
}

// RouteTableFor answers what happens to the requests for a port of the callers in a namespace; "" are those of every
// namespace without consumer routes. Without an attached route they go to the service's own endpoints; with one, what no
// route matches is answered no_route (GAMMA).
func (c Compiler) RouteTableFor(name model.PortName, caller string) (*model.RouteTable, bool) {
	s, ok := c.Services.Service(name.Service)
	if !ok {
		return nil, false
	}
	if _, ok := s.FindPort(name.Port); !ok {
		return nil, false
	}
	t := &model.RouteTable{Name: name, Caller: caller}
	switch routes := c.attached(name, caller); {
	case len(routes) == 0:
		t.Routes = []model.Route{{
			Name:     fullName(name.Service),
			Match:    model.Match{PathKind: model.PathPrefix, Path: "/"},
			Backends: []model.Backend{{Cluster: name, Weight: 1}},
		}}
	case routes[0].Kind == "GRPCRoute":
		t.Routes = c.grpcRoutes(routes)
	case routes[0].Kind == "HTTPRoute":
		for _, r := range routes {
			t.Routes = append(t.Routes, c.httpRoute(r)...)
		}
		// Stable: what is equal stays in order of age, name, rule and match, in which it was appended.
		slices.SortStableFunc(t.Routes, func(a, b model.Route) int { return precedence(&a.Match, &b.Match) })
	default:
		t.Relay = c.relayRoutes(routes)
		for i := range t.Relay {
			c.treatRelay(name, &t.Relay[i])
		}
	}
	if len(t.Relay) == 0 {
		t.Relay = c.ownRelay(name)
	}
	c.treatTable(t)
	return t, true
}
