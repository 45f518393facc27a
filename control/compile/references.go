package compile

import (
	"fmt"
	"slices"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// Note is what a field of an object says that will not come about as things are. The object may be stored all the same: what
// is missing may come later.
type Note struct {
	Path    string `json:"path"`
	Message string `json:"message"` // with the next step
	// Missing: what the field names is not there at all.
	Missing bool `json:"missing,omitempty"`
	// Reason of the condition of the object that is False because of it; "": none is.
	Reason string `json:"reason,omitempty"`
}

// Notes answers what an object refers to in vain: parents, backends and filters of routes, targets of policies and of faults;
// and that nothing refers to a fault or an answer, which then does nothing.
func (c Compiler) Notes(o v1alpha1.Object) (out []Note) {
	say := func(path, format string, args ...any) {
		out = append(out, Note{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	switch o := o.(type) {
	case *v1alpha1.TrafficPolicy:
		out = c.policyNotes(o)
	case *v1alpha1.FaultInjection:
		for i, t := range o.Spec.TargetRefs {
			if v := c.target(o.Namespace, t, &TargetStatus{}); v.reason != "" {
				say(fmt.Sprintf("spec.targetRefs[%d]", i), "%s: apply it, or correct the name", v.message)
				if len(c.Users(o)) == 0 {
					out[len(out)-1].Reason = "NotAttached"
				}
			}
		}
		if len(o.Spec.TargetRefs) > 0 && len(out) == 0 && len(c.Users(o)) == 0 {
			say("spec.targetRefs", "other faults name the same rules, and of several the first by its name counts: remove one of them")
		}
		if len(o.Spec.TargetRefs) == 0 && len(c.Users(o)) == 0 {
			say("", "no route uses it, so it does nothing: name it in a filter of a rule, {type: ExtensionRef, extensionRef: {group: tulle.dev, kind: FaultInjection, name: %s}}, or a TCPRoute or TLSRoute in targetRefs", o.Name)
		}
	case *v1alpha1.DirectResponse:
		if len(c.Users(o)) == 0 {
			say("", "no route uses it, so it answers nothing: name it in a filter of a rule, {type: ExtensionRef, extensionRef: {group: tulle.dev, kind: DirectResponse, name: %s}}", o.Name)
		}
	case *v1alpha1.InferencePool:
		out = c.poolNotes(o)
	case *v1alpha1.AuthorizationPolicy, *v1alpha1.AuthenticationPolicy:
		out = c.securityNotes(o)
	default:
		if v1alpha1.IsRoute(o) {
			out = c.routeNotes(Route{Kind: v1alpha1.KindOf(o).Name, Object: o})
		}
	}
	return out
}

func (c Compiler) routeNotes(r Route) (out []Note) {
	say := func(path string, v verdict, effect, next string) {
		if v.reason == "" {
			return
		}
		gone := v.reason == "BackendNotFound" || v.reason == "NoMatchingParent" || v.reason == "FilterNotFound"
		out = append(out, Note{Path: path, Message: v.message + ": " + effect + "; " + next, Missing: gone, Reason: v.reason})
	}
	for i, p := range v1alpha1.Parents(r.Object) {
		_, v := c.attachable(r, p) // whether another kind decides there is a conflict: see Conflicts
		say(fmt.Sprintf("spec.parentRefs[%d]", i), v, "the route takes nothing there", nextStep(v, r, model.ServiceName{}))
	}
	answer := "what goes there is answered 500"
	if r.Kind == "TCPRoute" || r.Kind == "TLSRoute" {
		answer = "connections that go there are reset"
	}
	for i, rule := range v1alpha1.Rules(r.Object) {
		for j := range rule.Backends {
			b := &rule.Backends[j].BackendObjectReference
			v := c.resolve(r, b)
			say(fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j), v, answer, nextStep(v, r, backendName(r.Object, b).Service))
		}
		for j, f := range rule.Filters {
			at := fmt.Sprintf("spec.rules[%d].filters[%d]", i, j)
			if m := f.RequestMirror; m != nil {
				v := c.resolve(r, &m.BackendRef)
				say(at+".requestMirror.backendRef", v, "no copies are sent", nextStep(v, r, backendName(r.Object, &m.BackendRef).Service))
			}
			if e := f.ExtensionRef; e != nil && c.extension(r, e) == nil {
				v := verdict{"FilterNotFound", fmt.Sprintf("there is no %s %s in namespace %s", e.Kind, e.Name, r.Object.GetNamespace())}
				say(at+".extensionRef", v, "the rule answers 500", "apply it, or correct the name")
			}
		}
	}
	return out
}

// nextStep says what the author of a route does about a reference.
func nextStep(v verdict, r Route, to model.ServiceName) string {
	switch v.reason {
	case "RefNotPermitted":
		return fmt.Sprintf("apply a ReferenceGrant in namespace %s with from: [{group: %s, kind: %s, namespace: %s}] and to: [{group: \"\", kind: Service, name: %s}]",
			to.Namespace, v1alpha1.GatewayGroup, r.Kind, r.Object.GetNamespace(), to.Name)
	case "NotAllowedByListeners":
		return "name another port in the parentRef"
	case "UnsupportedProtocol":
		return "name another port, or declare it http or grpc"
	case "InvalidKind":
		return "name a Service"
	}
	if registry.IsPool(to) {
		return "apply the InferencePool, or correct the name"
	}
	return "correct it, apply the Service or start a workload of it"
}

func (c Compiler) policyNotes(p *v1alpha1.TrafficPolicy) (out []Note) {
	for i, ref := range p.Spec.TargetRefs {
		at, s := fmt.Sprintf("spec.targetRefs[%d]", i), TargetStatus{Ref: ref}
		if v := c.target(p.Namespace, ref, &s); v.reason != "" {
			out = append(out, Note{Path: at, Message: v.message + ": the policy bears on nothing there; apply it, or correct the name", Missing: true})
			continue
		}
		if v, _ := c.idle(&p.Spec.TrafficParts, ref, &s); v.reason != "" {
			out = append(out, Note{Path: at, Message: v.message})
		}
	}
	missing := func(path, name string, port int32) {
		if at := (model.PortName{Service: model.ServiceName{Namespace: p.Namespace, Name: name}, Port: uint16(port)}); !c.exists(at) {
			out = append(out, Note{Path: path, Message: fmt.Sprintf("there is no %s: correct it, apply the Service or start a workload of it", at), Missing: true})
		}
	}
	if f := p.Spec.Fallback; f != nil {
		missing("spec.fallback", f.Name, f.Port)
	}
	for i := range p.Spec.RateLimits {
		if g := p.Spec.RateLimits[i].Global; g != nil && g.Service != "" {
			missing(fmt.Sprintf("spec.rateLimits[%d].global", i), g.Service, g.Port)
		}
	}
	return out
}

// User is a rule that a FaultInjection or a DirectResponse bears on.
type User struct {
	Route Route
	Rule  int
}

// Users answers the rules that a fault or an answer bears on, those of the oldest route first. A fault that another one goes
// before, of a TCPRoute or TLSRoute, bears on nothing.
func (c Compiler) Users(o v1alpha1.Object) (out []User) {
	kind := v1alpha1.KindOf(o).Name
	own, _ := o.(*v1alpha1.FaultInjection)
	for _, r := range c.Index.all {
		if r.Object.GetNamespace() != o.GetNamespace() {
			continue
		}
		for i, rule := range v1alpha1.Rules(r.Object) {
			named := slices.ContainsFunc(rule.Filters, func(f v1alpha1.HTTPRouteFilter) bool {
				e := f.ExtensionRef
				return e != nil && e.Group == v1alpha1.TulleGroup && string(e.Kind) == kind && string(e.Name) == o.GetName()
			})
			if own != nil && concerns(own, r, &rule.Name) {
				first := c.firstFault(r, rule.Name)
				named = named || first == nil || first.GetName() == own.GetName()
			}
			if named {
				out = append(out, User{r, i})
			}
		}
	}
	return out
}

// UserTables answers the tables that have the rules, by port and by the callers' namespace.
func (c Compiler) UserTables(users []User) (out []TableFor) {
	for _, u := range users {
		for _, p := range c.Status(u.Route.Object) {
			for _, port := range p.Ports {
				t := TableFor{Name: model.PortName{Service: p.Service, Port: port}, Caller: p.Caller}
				if p.accepted() && !slices.Contains(out, t) {
					out = append(out, t)
				}
			}
		}
	}
	return out
}

// TableFor is a port's table for the callers of a namespace; "": of every other.
type TableFor struct {
	Name   model.PortName
	Caller string
}

func (p *ParentStatus) accepted() bool {
	return slices.ContainsFunc(p.Conditions, func(c Condition) bool { return c.Type == "Accepted" && c.True })
}
