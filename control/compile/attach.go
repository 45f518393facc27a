package compile

import (
	"fmt"
	"slices"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// specificity orders the kinds of routes: where several attach to one port, the first of these decides and the others are
// not accepted (GAMMA).
var specificity = [...]string{"GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"}

// Parents answers the services that a route names as parents, each once, whether they exist or not.
func Parents(r v1alpha1.Object) []model.ServiceName {
	var out []model.ServiceName
	for _, p := range v1alpha1.Parents(r) {
		if name, ok := parentService(r, p); ok && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// Backends answers the ports that a route sends requests to, mirrors too, each once, whether they exist or not.
func Backends(r v1alpha1.Object) []model.PortName {
	var out []model.PortName
	add := func(b *v1alpha1.BackendObjectRef) {
		if name := backendName(r, b); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, rule := range v1alpha1.Rules(r) {
		for i := range rule.Backends {
			add(&rule.Backends[i].BackendObjectReference)
		}
		for _, f := range rule.Filters {
			if f.RequestMirror != nil {
				add(&f.RequestMirror.BackendRef)
			}
		}
	}
	return out
}

// parentService answers the service that a parentRef names; ok is false for another kind of parent.
func parentService(r v1alpha1.Object, p v1alpha1.ParentRef) (model.ServiceName, bool) {
	external := v1alpha1.IsExternal(p.Group, p.Kind)
	if !external && (p.Kind == nil || *p.Kind != "Service" || p.Group == nil || *p.Group != "") {
		return model.ServiceName{}, false
	}
	ns := r.GetNamespace()
	if p.Namespace != nil {
		ns = string(*p.Namespace)
	}
	return refersTo(string(*p.Kind), ns, string(p.Name)), true
}

// verdict is what came of one parentRef or backendRef: reason "" is success.
type verdict struct{ reason, message string }

// accept decides whether a route attaches through p, as Gateway API's reasons say.
func (c Compiler) accept(r Route, p v1alpha1.ParentRef) verdict {
	ports, v := c.attachable(r, p)
	if v.reason != "" {
		return v
	}
	name, _ := parentService(r.Object, p)
	for _, port := range ports {
		table := model.PortName{Service: name, Port: port.Port}
		all := append(c.candidates(table, r.caller(name)), r) // it may be newer than the index
		kind := decides(all)
		if kind == r.Kind {
			return verdict{}
		}
		i := slices.IndexFunc(all, func(o Route) bool { return o.Kind == kind })
		v = verdict{"NotAllowedByListeners", fmt.Sprintf("%s, of a more specific kind, decides about port %d of Service %s: routes of one kind only are run on a port", all[i].Name(), port.Port, name)}
	}
	return v
}

// attachable answers the ports that p attaches a route to, whatever other routes there are.
func (c Compiler) attachable(r Route, p v1alpha1.ParentRef) ([]model.ServicePort, verdict) {
	name, ok := parentService(r.Object, p)
	if !ok {
		return nil, verdict{"NoMatchingParent", "only a Service (group \"\", kind Service) or an ExternalService (group tulle.dev) can be a parent"}
	}
	s, ok := c.Services.Service(name)
	if !ok {
		return nil, verdict{"NoMatchingParent", "there is no Service " + name.String()}
	}
	ports := selected(s, p)
	if len(ports) == 0 {
		what := "ports"
		if p.Port != nil {
			what = fmt.Sprintf("port %d", *p.Port)
		}
		if p.SectionName != nil {
			what += fmt.Sprintf(" named %q", *p.SectionName)
		}
		return nil, verdict{"NoMatchingParent", fmt.Sprintf("Service %s has no %s", name, what)}
	}
	fit := slices.DeleteFunc(slices.Clone(ports), func(port model.ServicePort) bool { return !carries(port.Protocol, r.Kind) })
	if len(fit) == 0 {
		return nil, verdict{"NotAllowedByListeners", fmt.Sprintf("port %d of Service %s is declared %s, which a %s cannot decide about", ports[0].Port, name, ports[0].Protocol, r.Kind)}
	}
	return fit, verdict{}
}

// selected answers the ports that a parentRef means: by number, by name, or all.
func selected(s *registry.Service, p v1alpha1.ParentRef) (out []model.ServicePort) {
	for _, port := range s.Ports {
		if (p.Port == nil || uint16(*p.Port) == port.Port) && (p.SectionName == nil || string(*p.SectionName) == port.Name) {
			out = append(out, port)
		}
	}
	return out
}

// carries reports whether routes of a kind can decide about what is declared for a port.
func carries(declared model.Protocol, kind string) bool {
	switch declared {
	case model.ProtocolHTTP, model.ProtocolGRPC:
		return kind == "HTTPRoute" || kind == "GRPCRoute"
	case model.ProtocolTCP:
		return kind == "TCPRoute"
	case model.ProtocolTLS:
		return kind == "TLSRoute" || kind == "TCPRoute"
	}
	return true
}

// candidates answers the routes that attach to a port for the callers of a namespace ("": of every other), oldest first. Where
// there are consumer routes of that namespace they alone count (GAMMA).
func (c Compiler) candidates(name model.PortName, caller string) (out []Route) {
	for _, r := range c.Index.routes[name.Service] {
		takes := func(p v1alpha1.ParentRef) bool {
			if svc, ok := parentService(r.Object, p); !ok || svc != name.Service {
				return false
			}
			ports, _ := c.attachable(r, p)
			return slices.ContainsFunc(ports, func(s model.ServicePort) bool { return s.Port == name.Port })
		}
		if r.caller(name.Service) == caller && slices.ContainsFunc(v1alpha1.Parents(r.Object), takes) {
			out = append(out, r)
		}
	}
	if len(out) == 0 && caller != "" {
		return c.candidates(name, "")
	}
	return out
}

// decides answers the kind that decides among routes of one port.
func decides(all []Route) string {
	for _, kind := range specificity {
		if slices.ContainsFunc(all, func(r Route) bool { return r.Kind == kind }) {
			return kind
		}
	}
	return ""
}

// attached answers the routes that decide about a port, all of one kind, oldest first.
func (c Compiler) attached(name model.PortName, caller string) []Route {
	all := c.candidates(name, caller)
	kind := decides(all)
	return slices.DeleteFunc(all, func(r Route) bool { return r.Kind != kind })
}

// consumers answers the namespaces that have consumer routes for a service, sorted.
func (ix *Index) consumers(name model.ServiceName) (out []string) {
	for _, r := range ix.routes[name] {
		if ns := r.caller(name); ns != "" && !slices.Contains(out, ns) {
			out = append(out, ns)
		}
	}
	slices.Sort(out)
	return out
}

// backendName answers the port that a backendRef names; its port is 0 when it has none.
func backendName(r v1alpha1.Object, b *v1alpha1.BackendObjectRef) model.PortName {
	ns, kind := r.GetNamespace(), ""
	if b.Namespace != nil {
		ns = string(*b.Namespace)
	}
	if v1alpha1.IsExternal(b.Group, b.Kind) {
		kind = v1alpha1.ExternalKind
	}
	name := model.PortName{Service: refersTo(kind, ns, string(b.Name))}
	if b.Port != nil {
		name.Port = uint16(*b.Port)
	}
	if v1alpha1.IsPool(b) {
		name.Service = registry.PoolName(name.Service)
	}
	return name
}

// backend is backendName with the port of an InferencePool, which the reference does not say; 0 where there is no such pool.
func (c Compiler) backend(r v1alpha1.Object, b *v1alpha1.BackendObjectRef) model.PortName {
	name := backendName(r, b)
	if v1alpha1.IsPool(b) {
		if s, ok := c.Services.Service(name.Service); ok && len(s.Ports) > 0 {
			name.Port = s.Ports[0].Port
		}
	}
	return name
}

// resolve decides whether a backendRef can be used.
func (c Compiler) resolve(r Route, b *v1alpha1.BackendObjectRef) verdict {
	name := c.backend(r.Object, b)
	switch {
	case v1alpha1.IsPool(b) && r.Kind == "HTTPRoute":
		return c.resolvePool(r, b, name)
	case !v1alpha1.IsExternal(b.Group, b.Kind) && (b.Kind != nil && *b.Kind != "Service" || b.Group != nil && *b.Group != ""):
		return verdict{"InvalidKind", "only a Service, an ExternalService or, in an HTTPRoute, an InferencePool can be a backend"}
	case !c.permitted(r, name.Service):
		return verdict{"RefNotPermitted", fmt.Sprintf("backend %s is in another namespace, and no ReferenceGrant in %s lets a %s of %s name it", name.Service, name.Service.Namespace, r.Kind, r.Object.GetNamespace())}
	case name.Port == 0:
		return verdict{"BackendNotFound", "backend " + name.Service.String() + " needs a port"}
	}
	s, ok := c.Services.Service(name.Service)
	if !ok {
		return verdict{"BackendNotFound", "there is no Service " + name.Service.String()}
	}
	p, ok := s.FindPort(name.Port)
	if !ok {
		return verdict{"BackendNotFound", fmt.Sprintf("Service %s has no port %d", name.Service, name.Port)}
	}
	if http := r.Kind == "HTTPRoute" || r.Kind == "GRPCRoute"; http && (p.Protocol == model.ProtocolTCP || p.Protocol == model.ProtocolTLS) {
		return verdict{"UnsupportedProtocol", fmt.Sprintf("port %d of Service %s is declared %s, and a %s sends HTTP", name.Port, name.Service, p.Protocol, r.Kind)}
	}
	return verdict{}
}

func permits(g *v1alpha1.ReferenceGrant, r Route, name model.ServiceName) bool {
	own, external := name.External()
	if !external {
		own = name.Name
	}
	return v1alpha1.Permits(g, r.Kind, r.Object.GetNamespace(), own, external)
}

// permitted reports whether a route may have a service as a backend: one of its own namespace, its parent, which is where the
// requests go anyway, or one that a ReferenceGrant gives away.
func (c Compiler) permitted(r Route, name model.ServiceName) bool {
	if name.Namespace == r.Object.GetNamespace() || slices.Contains(Parents(r.Object), name) {
		return true
	}
	return slices.ContainsFunc(c.Index.beside.Grants, func(g *v1alpha1.ReferenceGrant) bool {
		return g.Namespace == name.Namespace && permits(g, r, name)
	})
}
