package resource

import (
	"fmt"
	"math"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// DecodeRouteTable reads a packed route configuration. Regular expressions have been tried: they compile.
func DecodeRouteTable(a *anypb.Any) (*model.RouteTable, error) {
	var m routev3.RouteConfiguration
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	t, err := readTable(&m)
	if err != nil {
		return nil, err
	}
	routes := func(path string, of []model.Route, messages []*routev3.Route) error {
		for i := range of {
			p := fmt.Sprintf("%s.routes[%d]", path, i)
			if err := overlay(p, messages[i].GetMetadata(), &of[i]); err != nil {
				return err
			}
			if err := validRoute(p, &of[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(t.Hosts) == 0 && len(m.GetVirtualHosts()) == 1 {
		if err := routes("virtual_hosts[0]", t.Routes, m.GetVirtualHosts()[0].GetRoutes()); err != nil {
			return nil, err
		}
	}
	for i := range t.Hosts {
		if err := routes(fmt.Sprintf("virtual_hosts[%d]", i), t.Hosts[i].Routes, m.GetVirtualHosts()[i].GetRoutes()); err != nil {
			return nil, err
		}
	}
	if err := overlay("", m.GetMetadata(), t); err != nil {
		return nil, err
	}
	for i := range t.Relay {
		if err := validWeights(fmt.Sprintf("metadata.relay[%d]", i), t.Relay[i].Backends); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// readTable reads what Envoy's fields say. The one virtual host for every authority that a mesh table has is its routes.
func readTable(m *routev3.RouteConfiguration) (*model.RouteTable, error) {
	t, err := envoy.RouteTable("", m)
	if err != nil {
		return nil, err
	}
	if t.Name, t.Caller, err = model.ParsePortNameFor(m.GetName()); err != nil {
		return nil, refuse("name", "%s", clip(err.Error()))
	}
	for _, h := range t.Hosts {
		for i := range h.Routes {
			for k := range h.Routes[i].Backends {
				named(&h.Routes[i].Backends[k].Cluster)
			}
			for k := range h.Routes[i].Mirrors {
				named(&h.Routes[i].Mirrors[k].Cluster)
			}
		}
	}
	if h := t.Hosts; len(h) == 1 && len(h[0].Domains) == 1 && h[0].Domains[0] == "*" && len(h[0].Filters) == 0 {
		t.Routes, t.Hosts = h[0].Routes, nil
	}
	return t, nil
}

// named makes a name as Envoy's message has it one of the mesh, if it is.
func named(n *model.PortName) {
	if parsed, err := model.ParsePortName(n.String()); err == nil && parsed.String() == n.String() {
		*n = parsed
	}
}

// validRoute checks what only the route as a whole shows.
func validRoute(path string, r *model.Route) error {
	if r.Rule < 0 || r.Rule > math.MaxInt32 {
		return refuse(path+".metadata.rule", "is too large")
	}
	return validWeights(path, r.Backends)
}

func validWeights(path string, backends []model.Backend) error {
	var sum uint64
	for _, b := range backends {
		sum += uint64(b.Weight)
	}
	if len(backends) > 0 && (sum == 0 || sum > math.MaxUint32) {
		return refuse(path+".route.weighted_clusters", "the weights add up to %d", sum)
	}
	return nil
}
