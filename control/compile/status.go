package compile

import (
	"fmt"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// Condition is what the author of a route is told about one parentRef. Reason and Message are never empty.
type Condition struct {
	Type    string // Accepted, ResolvedRefs or PartiallyInvalid
	True    bool
	Reason  string // of Gateway API's list, and FilterNotFound
	Message string
}

// ParentStatus is what came of one parentRef.
type ParentStatus struct {
	Ref        v1alpha1.ParentRef
	Service    model.ServiceName // zero when the parent is of another kind
	Ports      []uint16          // that it attaches to
	Caller     string            // namespace whose callers it is for; "": everyone
	Conditions []Condition
}

// Status answers what came of a route, per parentRef in the order written.
func (c Compiler) Status(o v1alpha1.Object) []ParentStatus {
	r := Route{Kind: v1alpha1.KindOf(o).Name, Object: o}
	common := []Condition{c.resolved(r)}
	if bad, all := c.brokenRules(r); bad > 0 && bad < all {
		common = append(common, Condition{Type: "PartiallyInvalid", True: true, Reason: "UnsupportedValue", Message: fmt.Sprintf("%d of the %d rules answer 500, since a filter of theirs is not there", bad, all)})
	}
	parents := v1alpha1.Parents(o)
	out := make([]ParentStatus, 0, len(parents))
	for _, p := range parents {
		name, _ := parentService(o, p)
		one := ParentStatus{Ref: p, Service: name, Caller: r.caller(name)}
		whose := "this Service's requests"
		if one.Caller != "" {
			whose = "the requests of namespace " + one.Caller + " for this Service"
		}
		accepted := Condition{Type: "Accepted", True: true, Reason: "Accepted", Message: "the route decides about " + whose}
		if v := c.accept(r, p); v.reason != "" {
			accepted = Condition{Type: "Accepted", Reason: v.reason, Message: v.message}
		}
		ports, _ := c.attachable(r, p)
		for _, port := range ports {
			one.Ports = append(one.Ports, port.Port)
		}
		one.Conditions = append([]Condition{accepted}, common...)
		out = append(out, one)
	}
	return out
}

// resolved looks at everything that a route refers to; the first that is not there is told.
func (c Compiler) resolved(r Route) Condition {
	bad := func(v verdict) Condition {
		return Condition{Type: "ResolvedRefs", Reason: v.reason, Message: v.message}
	}
	for _, rule := range v1alpha1.Rules(r.Object) {
		for i := range rule.Backends {
			if v := c.resolve(r, &rule.Backends[i].BackendObjectReference); v.reason != "" {
				return bad(v)
			}
		}
		for _, f := range rule.Filters {
			if f.RequestMirror != nil {
				if v := c.resolve(r, &f.RequestMirror.BackendRef); v.reason != "" {
					return bad(v)
				}
			}
			if e := f.ExtensionRef; e != nil && c.extension(r, e) == nil {
				return bad(verdict{"FilterNotFound", fmt.Sprintf("there is no %s %s in namespace %s", e.Kind, e.Name, r.Object.GetNamespace())})
			}
		}
	}
	return Condition{Type: "ResolvedRefs", True: true, Reason: "ResolvedRefs", Message: "every backend exists"}
}

// brokenRules counts the rules that answer 500 because of a filter that is not there.
func (c Compiler) brokenRules(r Route) (bad, all int) {
	rules := v1alpha1.Rules(r.Object)
	for _, rule := range rules {
		if !c.extensions(r, rule.Filters, &model.Route{}) {
			bad++
		}
	}
	return bad, len(rules)
}
