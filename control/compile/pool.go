package compile

import (
	"fmt"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// resolvePool decides whether a backendRef to an InferencePool can be used. A picker that is not there does not make it unusable: the
// pool's failure mode says what happens then.
func (c Compiler) resolvePool(r Route, b *v1alpha1.BackendObjectRef, name model.PortName) verdict {
	if name.Service.Namespace != r.Object.GetNamespace() {
		return verdict{"RefNotPermitted", "an InferencePool is a backend of routes of its own namespace"}
	}
	if name.Port == 0 {
		return verdict{"BackendNotFound", fmt.Sprintf("there is no InferencePool %s in namespace %s", b.Name, name.Service.Namespace)}
	}
	return verdict{}
}

// PoolParent is what came of an InferencePool for one Service whose routes have it as a backend.
type PoolParent struct {
	Ref        v1alpha1.ParentRef
	Conditions []Condition
}

// PoolStatus answers what the author of a pool is told, a part per parent of the routes that have it as a backend, oldest first.
func (c Compiler) PoolStatus(p *v1alpha1.InferencePool) (out []PoolParent) {
	pool := registry.PoolName(model.ServiceName{Namespace: p.Namespace, Name: p.Name})
	seen := map[model.ServiceName]int{}
	for _, r := range c.Index.all {
		if !names(r, pool) {
			continue
		}
		for _, ref := range v1alpha1.Parents(r.Object) {
			accepted := Condition{Type: "Accepted", True: true, Reason: "Accepted", Message: r.Name() + " sends requests to it"}
			if v := c.accept(r, ref); v.reason != "" {
				accepted = Condition{Type: "Accepted", Reason: "HTTPRouteNotAccepted", Message: r.Name() + " is not accepted: " + v.message}
			}
			name, _ := parentService(r.Object, ref)
			if i, ok := seen[name]; !ok {
				seen[name] = len(out)
				ref.SectionName, ref.Port = nil, nil
				out = append(out, PoolParent{Ref: ref, Conditions: []Condition{accepted, c.poolResolved(p)}})
			} else if accepted.True {
				out[i].Conditions[0] = accepted
			}
		}
	}
	return out
}

func names(r Route, pool model.ServiceName) bool {
	for _, b := range Backends(r.Object) {
		if b.Service == pool {
			return true
		}
	}
	return false
}

// poolResolved looks at the picker.
func (c Compiler) poolResolved(p *v1alpha1.InferencePool) Condition {
	if why := c.poolMissing(p); why != "" {
		return Condition{Type: "ResolvedRefs", Reason: "InvalidExtensionRef", Message: why}
	}
	return Condition{Type: "ResolvedRefs", True: true, Reason: "ResolvedRefs", Message: "the endpoint picker exists"}
}

// poolMissing answers what there is not of the picker that a pool names; "": nothing.
func (c Compiler) poolMissing(p *v1alpha1.InferencePool) string {
	ref := &p.Spec.EndpointPickerRef
	name := model.ServiceName{Namespace: p.Namespace, Name: ref.Name}
	s, ok := c.Services.Service(name)
	switch {
	case !ok:
		return "there is no Service " + name.String()
	case ref.Port == nil:
		return "the port of Service " + name.String() + " is missing"
	}
	if _, ok := s.FindPort(uint16(ref.Port.Number)); !ok {
		return fmt.Sprintf("Service %s has no port %d", name, ref.Port.Number)
	}
	return ""
}

// poolNotes answers what a pool refers to in vain, and that nothing refers to it.
func (c Compiler) poolNotes(p *v1alpha1.InferencePool) (out []Note) {
	if why := c.poolMissing(p); why != "" {
		effect := "what goes to the pool is answered 503"
		if p.Spec.EndpointPickerRef.FailureMode == v1alpha1.PickerFailOpen {
			effect = "requests go to any endpoint of the pool"
		}
		out = append(out, Note{Path: "spec.endpointPickerRef", Message: why + ": " + effect + "; correct it, apply the Service or start a workload of it", Missing: true})
	}
	if len(c.PoolStatus(p)) == 0 {
		out = append(out, Note{Message: fmt.Sprintf("no route uses it, so it does nothing: name it in a rule of an HTTPRoute, backendRefs: [{group: %s, kind: %s, name: %s}]",
			v1alpha1.InferenceGroup, v1alpha1.InferencePoolKind, p.Name)})
	}
	return out
}
