package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// What policies about security name in vain: Services, ports and authorizers that are not there. Nothing that is missing lets anybody
// in; that it is missing is said.

// reach is a Service that a policy is about.
type reach struct {
	name  model.ServiceName
	have  []model.ServicePort
	meant []model.ServicePort // of these, those that sectionName means
}

// reached answers the Services that there are of those that a policy is about; whole: none that it names is missing.
func (c Compiler) reached(p SecurityPolicy) (out []reach, whole bool) {
	t := p.targets()
	if len(t.TargetRefs) == 0 {
		for _, s := range c.Services.Services() {
			if _, about := p.About(s.Name); about {
				out = append(out, reach{s.Name, s.Ports, s.Ports})
			}
		}
		return out, true
	}
	whole = true
	for _, ref := range t.TargetRefs {
		name := refersTo(ref.Kind, p.Object.GetNamespace(), ref.Name)
		s, ok := c.Services.Service(name)
		if whole = whole && ok; !ok || slices.ContainsFunc(out, func(r reach) bool { return r.name == name }) {
			continue
		}
		one, sections := reach{name, s.Ports, s.Ports}, []string(nil)
		if sections, _ = p.About(name); len(sections) > 0 {
			one.meant = slices.DeleteFunc(slices.Clone(s.Ports), func(p model.ServicePort) bool {
				return !slices.ContainsFunc(sections, func(s string) bool { return called(p, s) })
			})
		}
		out = append(out, one)
	}
	return out, whole
}

// called reports whether a port is named s, or has that number.
func called(p model.ServicePort, s string) bool { return p.Name == s || strconv.Itoa(int(p.Port)) == s }

// has reports whether one of the Services has a port; meant: one that the policy is about.
func has(list []reach, port string, meant bool) bool {
	return slices.ContainsFunc(list, func(r reach) bool {
		ports := r.have
		if meant {
			ports = r.meant
		}
		return slices.ContainsFunc(ports, func(p model.ServicePort) bool { return called(p, port) })
	})
}

// closed has what a rule that allows excludes in vain hold for nothing: a port that none of the Services has which the policy names, most
// often another one misspelled, which would be open otherwise. Where one of them is not there it cannot be told, and where it names
// none it is only said: Services come and go, and one that goes must not close others. In a rule that denies such an exclusion takes nothing
// out, so more is denied.
func (c Compiler) closed(rules []model.PolicyRule, o *v1alpha1.AuthorizationPolicy, own []model.ServicePort) {
	list, whole := c.reached(SecurityPolicy{Object: o})
	if !whole || len(o.Spec.TargetRefs) == 0 {
		return
	}
	for i := range rules {
		for j := range rules[i].To {
			for _, port := range o.Spec.Rules[i].To[j].NotPorts {
				if slices.ContainsFunc(own, func(p model.ServicePort) bool { return called(p, port) }) {
					continue
				}
				if !has(list, port, false) {
					rules[i].To[j].Ports = []uint16{0} // which no port is
				}
			}
		}
	}
}

// looksAround reports whether what a policy means for one Service depends on the ports of others.
func (p SecurityPolicy) looksAround() bool {
	o, ok := p.Object.(*v1alpha1.AuthorizationPolicy)
	return ok && (o.Spec.Action == "" || o.Spec.Action == v1alpha1.ActionAllow) && len(o.Spec.TargetRefs) > 1 &&
		slices.ContainsFunc(o.Spec.Rules, func(r v1alpha1.AuthorizationRule) bool {
			return slices.ContainsFunc(r.To, func(t v1alpha1.AuthorizationTarget) bool { return len(t.NotPorts) > 0 })
		})
}

// Beside reports which policies a service has whose meaning depends on the ports of others too, as a test of these others.
func (ix *Index) Beside(name model.ServiceName) func(other model.ServiceName) bool {
	var list []SecurityPolicy
	for _, p := range ix.security.all {
		if _, about := p.About(name); about && p.looksAround() {
			list = append(list, p)
		}
	}
	if list == nil {
		return nil
	}
	return func(other model.ServiceName) bool {
		return slices.ContainsFunc(list, func(p SecurityPolicy) bool { _, about := p.About(other); return about })
	}
}

// securityNotes answers what a policy about security names in vain.
func (c Compiler) securityNotes(o v1alpha1.Object) (out []Note) {
	p := SecurityPolicy{Object: o}
	for i, ref := range p.targets().TargetRefs {
		if v := c.target(o.GetNamespace(), ref, &TargetStatus{}); v.reason != "" {
			out = append(out, Note{Path: fmt.Sprintf("spec.targetRefs[%d]", i), Reason: v.reason, Missing: true,
				Message: v.message + ": the policy does nothing there; apply the Service, start a workload of it, or correct the name"})
		}
	}
	list, whole := c.reached(p)
	if whole && len(list) > 0 { // else what it names may be of a Service that is to come
		out = append(out, c.portNotes(o, list)...)
	}
	if a, ok := o.(*v1alpha1.AuthorizationPolicy); ok && a.Spec.External != nil && a.Spec.Action == v1alpha1.ActionExternal {
		e := a.Spec.External
		at := model.PortName{Service: model.ServiceName{Namespace: a.Namespace, Name: e.Service.Name}, Port: uint16(e.Service.Port)}
		effect := "what the policy is about is refused"
		if e.FailOpen {
			effect = "what the policy is about is let in unasked, since failOpen is set"
		}
		if !c.exists(at) {
			out = append(out, Note{Path: "spec.external.service", Reason: "BackendNotFound", Missing: true,
				Message: fmt.Sprintf("there is no %s to ask: %s; correct it, apply the Service or start a workload of it", at, effect)})
		}
	}
	return out
}

// portNotes answers the ports that none of the Services has.
func (c Compiler) portNotes(o v1alpha1.Object, list []reach) (out []Note) {
	say := func(path, port string, meant bool, effect string) {
		if has(list, port, meant) {
			return
		}
		text, next := fmt.Sprintf("no Service that the policy is about has a port %q", port), "correct it"+choices(list)+", or declare the port"
		if len(list) == 1 {
			text = fmt.Sprintf("%s has no port %q", fullName(list[0].name), port)
		}
		if has(list, port, false) {
			text, next = fmt.Sprintf("port %q is not among those that targetRefs mean", port), "correct it, or sectionName"
		}
		out = append(out, Note{Path: path, Reason: "PortNotFound", Missing: true, Message: text + ": " + effect + "; " + next})
	}
	switch o := o.(type) {
	case *v1alpha1.AuthenticationPolicy:
		if m := o.Spec.MTLS; m != nil {
			for i, p := range m.Ports {
				say(fmt.Sprintf("spec.mtls.ports[%d].port", i), p.Port, true, "the mode is in force nowhere")
			}
		}
	case *v1alpha1.AuthorizationPolicy:
		in, not := "this allows nothing", "this would allow every port, so it allows nothing"
		if len(o.Spec.TargetRefs) == 0 {
			not = "this leaves nothing out, every port is allowed"
		}
		if a := o.Spec.Action; a != "" && a != v1alpha1.ActionAllow {
			in, not = "this does nothing", "this leaves nothing out"
		}
		for i, r := range o.Spec.Rules {
			for j, t := range r.To {
				for k, p := range t.Ports {
					say(fmt.Sprintf("spec.rules[%d].to[%d].ports[%d]", i, j, k), p, true, in)
				}
				for k, p := range t.NotPorts {
					say(fmt.Sprintf("spec.rules[%d].to[%d].notPorts[%d]", i, j, k), p, false, not)
				}
			}
		}
	}
	return out
}

// choices answers the ports that the Services have, to be said in a note.
func choices(list []reach) string {
	var all []string
	for _, r := range list {
		for _, p := range r.have {
			name := p.Name
			if name == "" {
				name = strconv.Itoa(int(p.Port))
			}
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	switch {
	case len(all) == 0:
		return ""
	case len(all) > mostNamed:
		return fmt.Sprintf(" (%s, %d more)", strings.Join(all[:mostNamed], ", "), len(all)-mostNamed)
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// named answers the condition about what a policy names besides its targets.
func (c Compiler) named(o v1alpha1.Object) Condition {
	out := Condition{Type: "ResolvedRefs", True: true, Reason: "ResolvedRefs", Message: "what it names is there"}
	for _, n := range c.securityNotes(o) {
		if n.Reason != "TargetNotFound" {
			return Condition{Type: "ResolvedRefs", Reason: n.Reason, Message: n.Path + ": " + n.Message}
		}
	}
	return out
}
