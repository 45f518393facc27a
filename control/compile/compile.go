// Package compile turns what users wrote into what runs: resources of package api and the services of the
// registry in, nouns of package model out. It is pure and answers the same for the same input, whatever the
// order the input is in. It never fails: what cannot be compiled becomes a condition for its author (Status) and
// an answer with a reason for the requests it concerns. Start reading at Compiler; one file per kind.
package compile

import (
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// ConnectTimeout of a cluster, unless a policy says otherwise: TCP and TLS together, to one endpoint.
const ConnectTimeout = 2 * time.Second

// Services is what compilation has to know of the registry.
type Services interface {
	Service(model.ServiceName) (*registry.Service, bool)
}

// Route is a stored HTTPRoute and when it was made.
type Route struct {
	Object  *v1alpha1.HTTPRoute
	Created int64 // store revision of its creation: the older one wins a tie
}

// Index is the HTTPRoutes by the service they name as a parent. It is immutable.
type Index struct {
	routes   map[model.ServiceName][]Route
	all      []Route
	policies policies // see With
}

// NewIndex sorts routes, oldest first.
func NewIndex(routes []Route) *Index {
	ix := &Index{routes: map[model.ServiceName][]Route{}, all: slices.SortedFunc(slices.Values(routes), older)}
	for _, r := range ix.all {
		for _, svc := range Parents(r.Object) {
			ix.routes[svc] = append(ix.routes[svc], r)
		}
	}
	return ix
}

// Routes answers all routes, oldest first.
func (ix *Index) Routes() []Route { return ix.all }

// older orders routes by Gateway API's tie-break: creation, then "namespace/name".
func older(a, b Route) int {
	switch {
	case a.Created != b.Created:
		return int(max(-1, min(1, a.Created-b.Created)))
	case a.Object.Namespace != b.Object.Namespace:
		if a.Object.Namespace < b.Object.Namespace {
			return -1
		}
		return 1
	case a.Object.Name < b.Object.Name:
		return -1
	case a.Object.Name > b.Object.Name:
		return 1
	}
	return 0
}

// Compiler compiles single resources on demand.
type Compiler struct {
	Index    *Index
	Services Services
}

// Service answers what a proxy must know of a service to recognise its traffic.
func (c Compiler) Service(name model.ServiceName) (*model.Service, bool) {
	s, ok := c.Services.Service(name)
	if !ok {
		return nil, false
	}
	out := s.Service
	out.Ports = slices.Clone(out.Ports)
	for i := range out.Ports {
		out.Ports[i].Protocol = c.protocol(model.PortName{Service: name, Port: out.Ports[i].Port}, out.Ports[i].Protocol)
	}
	return &out, true
}

// Cluster answers a port of a service as a place to send requests to.
func (c Compiler) Cluster(name model.PortName) (*model.Cluster, bool) {
	s, ok := c.Services.Service(name.Service)
	if !ok {
		return nil, false
	}
	p, ok := s.FindPort(name.Port)
	if !ok {
		return nil, false
	}
	m := &model.Cluster{Name: name, Protocol: c.protocol(name, p.Protocol), ConnectTimeout: ConnectTimeout}
	c.treatCluster(m)
	return m, true
}

// protocol of a port: what was declared; else HTTP where an HTTP route is attached, so that sniffing cannot pass
// by the route.
func (c Compiler) protocol(name model.PortName, declared model.Protocol) model.Protocol {
	if !declared.Declared() && len(c.attached(name)) > 0 {
		return model.ProtocolHTTP
	}
	return declared
}

// Dependents answers the services whose route tables look at name: itself, and the parents of routes that have it
// as a backend.
func (ix *Index) Dependents(name model.ServiceName) []model.ServiceName {
	out := []model.ServiceName{name}
	for _, r := range ix.all {
		if !slices.ContainsFunc(Backends(r.Object), func(b model.PortName) bool { return b.Service == name }) {
			continue
		}
		for _, p := range Parents(r.Object) {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}
