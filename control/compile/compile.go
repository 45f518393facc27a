// Package compile turns what users wrote into what runs: resources of package api and the services of the
// registry in, nouns of package model out. It is pure and answers the same for the same input, whatever the
// order the input is in. It never fails: what cannot be compiled becomes a condition for its author (Status) and
// an answer with a reason for the requests it concerns. Start reading at Compiler; one file per kind.
package compile

import (
	"cmp"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/model"
)

// ConnectTimeout of a cluster, unless a policy says otherwise: TCP and TLS together, to one endpoint.
const ConnectTimeout = 2 * time.Second

// Services is what compilation has to know of the registry.
type Services interface {
	Service(model.ServiceName) (*registry.Service, bool)
	Services() []*registry.Service // all of them
}

// Route is a stored HTTPRoute, GRPCRoute, TLSRoute or TCPRoute and when it was made.
type Route struct {
	Kind    string // of Object; NewIndex fills it in
	Object  v1alpha1.Object
	Created int64 // store revision of its creation: the older one wins a tie
}

// Name answers "HTTPRoute/default/cart".
func (r Route) Name() string {
	return r.Kind + "/" + r.Object.GetNamespace() + "/" + r.Object.GetName()
}

// caller answers the namespace whose callers alone a route is for, where it is not beside the service; else "".
func (r Route) caller(service model.ServiceName) string {
	if ns := r.Object.GetNamespace(); ns != service.Namespace {
		return ns
	}
	return ""
}

// Beside is what routes refer to besides Services. Order does not matter.
type Beside struct {
	Grants    []*v1alpha1.ReferenceGrant
	Faults    []*v1alpha1.FaultInjection
	Responses []*v1alpha1.DirectResponse
	Externals []*v1alpha1.ExternalService
}

// Index is the routes by the service they name as a parent. It is immutable.
type Index struct {
	routes   map[model.ServiceName][]Route
	all      []Route
	beside   Beside   // see Referred
	policies policies // see With
	security security // see Secured
	rolling  map[PolicyKey]rollout.State
}

// NewIndex sorts routes, oldest first. What they refer to comes with Referred, policies with With.
func NewIndex(routes []Route) *Index {
	all := slices.Clone(routes)
	for i := range all {
		all[i].Kind = v1alpha1.KindOf(all[i].Object).Name
	}
	slices.SortFunc(all, older)
	ix := &Index{routes: map[model.ServiceName][]Route{}, all: all}
	for _, r := range ix.all {
		for _, svc := range Parents(r.Object) {
			ix.routes[svc] = append(ix.routes[svc], r)
		}
	}
	return ix
}

// Referred answers an index of the same routes that refer to these.
func (ix *Index) Referred(beside Beside) *Index {
	out := *ix
	out.beside = beside
	return &out
}

// Routes answers all routes, oldest first.
func (ix *Index) Routes() []Route { return ix.all }

// Filters answers the faults and the answers that routes may refer to, in order of their names.
func (ix *Index) Filters() (out []v1alpha1.Object) {
	for _, f := range ix.beside.Faults {
		out = append(out, f)
	}
	for _, d := range ix.beside.Responses {
		out = append(out, d)
	}
	name := func(o v1alpha1.Object) string {
		return v1alpha1.KindOf(o).Name + "/" + o.GetNamespace() + "/" + o.GetName()
	}
	slices.SortFunc(out, func(a, b v1alpha1.Object) int { return cmp.Compare(name(a), name(b)) })
	return out
}

// older orders routes by Gateway API's tie-break: creation, then "namespace/name"; the kind comes last.
func older(a, b Route) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Object.GetNamespace(), b.Object.GetNamespace()),
		cmp.Compare(a.Object.GetName(), b.Object.GetName()), cmp.Compare(a.Kind, b.Kind))
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
	out.Ports, out.Consumers = slices.Clone(out.Ports), c.Index.consumers(name)
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
	c.callExternal(m)
	c.treatCluster(m)
	m.Picker = s.Picker
	return m, true
}

// protocol of a port: what was declared; else that of the routes beside the service, so that sniffing cannot pass by them.
func (c Compiler) protocol(name model.PortName, declared model.Protocol) model.Protocol {
	if declared.Declared() {
		return declared
	}
	switch decides(c.candidates(name, "")) {
	case "GRPCRoute", "HTTPRoute":
		return model.ProtocolHTTP
	case "TLSRoute":
		return model.ProtocolTLS
	case "TCPRoute":
		return model.ProtocolTCP
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

// Referring answers the parents of the routes that look at an object of Beside: those with it as a filter, those that a
// fault names, and those with backends in a grant's namespace.
func (ix *Index) Referring(o v1alpha1.Object) (out []model.ServiceName) {
	kind, ns := v1alpha1.KindOf(o).Name, o.GetNamespace()
	refers := func(r Route) bool {
		if kind == "ReferenceGrant" {
			return r.Object.GetNamespace() != ns && slices.ContainsFunc(Backends(r.Object), func(b model.PortName) bool { return b.Service.Namespace == ns })
		}
		if f, ok := o.(*v1alpha1.FaultInjection); ok && concerns(f, r, nil) {
			return true
		}
		return r.Object.GetNamespace() == ns && slices.ContainsFunc(v1alpha1.Rules(r.Object), func(rule v1alpha1.RouteRule) bool {
			return slices.ContainsFunc(rule.Filters, func(f v1alpha1.HTTPRouteFilter) bool {
				return f.ExtensionRef != nil && string(f.ExtensionRef.Kind) == kind && string(f.ExtensionRef.Name) == o.GetName()
			})
		})
	}
	for _, r := range ix.all {
		if !refers(r) {
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
