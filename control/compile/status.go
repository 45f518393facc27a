package compile

import (
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// Condition is what the author of a route is told about one parentRef. Reason and Message are never empty.
type Condition struct {
	Type    string // Accepted or ResolvedRefs
	True    bool
	Reason  string // of Gateway API's list
	Message string
}

// ParentStatus is what came of one parentRef.
type ParentStatus struct {
	Ref        v1alpha1.ParentRef
	Service    model.ServiceName // zero when the parent is of another kind
	Conditions []Condition
}

// Status answers what came of a route, per parentRef in the order written.
func (c Compiler) Status(r *v1alpha1.HTTPRoute) []ParentStatus {
	resolved := c.resolved(r)
	out := make([]ParentStatus, 0, len(r.Spec.ParentRefs))
	for _, p := range r.Spec.ParentRefs {
		accepted := Condition{Type: "Accepted", True: true, Reason: "Accepted", Message: "the route decides about this Service's requests"}
		if v := c.accept(r, p); v.reason != "" {
			accepted = Condition{Type: "Accepted", Reason: v.reason, Message: v.message}
		}
		name, _ := parentService(r, p)
		out = append(out, ParentStatus{Ref: p, Service: name, Conditions: []Condition{accepted, resolved}})
	}
	return out
}

func (c Compiler) resolved(r *v1alpha1.HTTPRoute) Condition {
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if v := c.resolve(r, b); v.reason != "" {
				return Condition{Type: "ResolvedRefs", Reason: v.reason, Message: v.message}
			}
		}
	}
	return Condition{Type: "ResolvedRefs", True: true, Reason: "ResolvedRefs", Message: "every backend exists"}
}
