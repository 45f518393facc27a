package compile

import (
	"fmt"
	"slices"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// Parents answers the services that a route names as parents, each once, whether they exist or not.
func Parents(r *v1alpha1.HTTPRoute) []model.ServiceName {
	var out []model.ServiceName
	for _, p := range r.Spec.ParentRefs {
		if name, ok := parentService(r, p); ok && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// Backends answers the ports that a route sends requests to, each once, whether they exist or not.
func Backends(r *v1alpha1.HTTPRoute) []model.PortName {
	var out []model.PortName
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			name := backendName(r, b)
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// parentService answers the service that a parentRef names; ok is false for another kind of parent.
func parentService(r *v1alpha1.HTTPRoute, p v1alpha1.ParentRef) (model.ServiceName, bool) {
	if p.Kind == nil || *p.Kind != "Service" || p.Group == nil || *p.Group != "" {
		return model.ServiceName{}, false
	}
	ns := r.Namespace
	if p.Namespace != nil {
		ns = string(*p.Namespace)
	}
	return model.ServiceName{Namespace: ns, Name: string(p.Name)}, true
}

// verdict is what came of one parentRef or backendRef: reason "" is success.
type verdict struct{ reason, message string }

// accept decides whether a route attaches through p, as Gateway API's reasons say.
func (c Compiler) accept(r *v1alpha1.HTTPRoute, p v1alpha1.ParentRef) verdict {
	name, ok := parentService(r, p)
	if !ok {
		return verdict{"NoMatchingParent", "only a Service (group \"\", kind Service) can be a parent"}
	}
	if name.Namespace != r.Namespace {
		return verdict{"NotAllowedByListeners", fmt.Sprintf("the route is in namespace %s and the Service in %s: put the route beside its Service", r.Namespace, name.Namespace)}
	}
	s, ok := c.Services.Service(name)
	if !ok {
		return verdict{"NoMatchingParent", "there is no Service " + name.String()}
	}
	if p.Port != nil {
		if _, ok := s.FindPort(uint16(*p.Port)); !ok {
			return verdict{"NoMatchingParent", fmt.Sprintf("Service %s has no port %d", name, *p.Port)}
		}
	}
	return verdict{}
}

// attached answers the routes that decide about the requests for a port, oldest first.
func (c Compiler) attached(name model.PortName) []Route {
	var out []Route
	for _, r := range c.Index.routes[name.Service] {
		takes := func(p v1alpha1.ParentRef) bool {
			svc, ok := parentService(r.Object, p)
			return ok && svc == name.Service && (p.Port == nil || uint16(*p.Port) == name.Port) && c.accept(r.Object, p).reason == ""
		}
		if slices.ContainsFunc(r.Object.Spec.ParentRefs, takes) {
			out = append(out, r)
		}
	}
	return out
}

// backendName answers the port that a backendRef names; its port is 0 when it has none.
func backendName(r *v1alpha1.HTTPRoute, b v1alpha1.HTTPBackendRef) model.PortName {
	name := model.PortName{Service: model.ServiceName{Namespace: r.Namespace, Name: string(b.Name)}}
	if b.Namespace != nil {
		name.Service.Namespace = string(*b.Namespace)
	}
	if b.Port != nil {
		name.Port = uint16(*b.Port)
	}
	return name
}

// resolve decides whether a backendRef can be used.
func (c Compiler) resolve(r *v1alpha1.HTTPRoute, b v1alpha1.HTTPBackendRef) verdict {
	name := backendName(r, b)
	switch {
	case b.Kind != nil && *b.Kind != "Service", b.Group != nil && *b.Group != "":
		return verdict{"InvalidKind", "only a Service can be a backend"}
	case name.Service.Namespace != r.Namespace:
		return verdict{"RefNotPermitted", "backend " + name.Service.String() + " is in another namespace"}
	case name.Port == 0:
		return verdict{"BackendNotFound", "backend " + name.Service.String() + " needs a port"}
	}
	s, ok := c.Services.Service(name.Service)
	if !ok {
		return verdict{"BackendNotFound", "there is no Service " + name.Service.String()}
	}
	if _, ok := s.FindPort(name.Port); !ok {
		return verdict{"BackendNotFound", fmt.Sprintf("Service %s has no port %d", name.Service, name.Port)}
	}
	return verdict{}
}
