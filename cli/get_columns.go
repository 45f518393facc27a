package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// columns answers the columns of a kind and how to fill them.
func columns(kind string) (head []any, cells func(v1alpha1.Object) []any) {
	switch kind {
	case "Service":
		return []any{"NAME", "SELECTOR", "PORTS"}, serviceCells
	case "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute":
		return []any{"NAME", "SERVICE", "RULES", "ACCEPTED", "RESOLVED", "PROGRAMMED"}, routeCells
	case v1alpha1.ExternalKind:
		return []any{"NAME", "HOSTS", "PORTS", "RESOLUTION", "ADDRESSES", "ACCEPTED", "PROGRAMMED"}, externalCells
	case "ReferenceGrant":
		return []any{"NAME", "FROM", "TO"}, grantCells
	case "FaultInjection":
		return []any{"NAME", "DELAY", "ABORT", "BANDWIDTH", "USED BY", "ACCEPTED", "PROGRAMMED"}, faultCells
	case "DirectResponse":
		return []any{"NAME", "STATUS", "BODY", "USED BY", "ACCEPTED", "PROGRAMMED"}, responseCells
	case "AuthorizationPolicy":
		return []any{"NAME", "ACTION", "ON", "RULES", "ACCEPTED", "RESOLVED", "PROGRAMMED"}, authorizationCells
	case "AuthenticationPolicy":
		return []any{"NAME", "MTLS", "ISSUERS", "ON", "ACCEPTED", "RESOLVED", "PROGRAMMED"}, authenticationCells
	case v1alpha1.InferencePoolKind:
		return []any{"NAME", "SELECTOR", "PORTS", "PICKER", "FAILURE MODE", "ACCEPTED", "RESOLVED"}, poolCells
	case "TrafficPolicy":
		return []any{"NAME", "ON", "PARTS", "ACCEPTED", "CONFLICTED", "PROGRAMMED"}, policyCells
	}
	return []any{"NAME"}, func(o v1alpha1.Object) []any { return []any{o.GetName()} }
}

func serviceCells(o v1alpha1.Object) []any {
	s := o.(*v1alpha1.Service)
	var selector, ports []string
	for k, v := range s.Spec.Selector {
		selector = append(selector, k+"="+v)
	}
	for _, p := range s.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d→%s", p.Port, p.TargetPort.String()))
	}
	return []any{s.Name, sorted(selector), strings.Join(ports, ",")}
}

func routeCells(o v1alpha1.Object) []any {
	var parents []string
	for _, p := range v1alpha1.Parents(o) {
		name := string(p.Name)
		if p.Namespace != nil && string(*p.Namespace) != o.GetNamespace() {
			name += "." + string(*p.Namespace)
		}
		parents = append(parents, name)
	}
	return []any{o.GetName(), strings.Join(parents, ","), len(v1alpha1.Rules(o)), condition(o, "Accepted"), condition(o, "ResolvedRefs"), condition(o, "Programmed")}
}

func externalCells(o v1alpha1.Object) []any {
	s := o.(*v1alpha1.ExternalService)
	var ports []string
	for _, p := range s.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	return []any{s.Name, strings.Join(s.Spec.Hosts, ","), strings.Join(ports, ","), s.Spec.Resolution, strings.Join(s.Status.Addresses, ","),
		stateOf(s.Status.Conditions, "Accepted"), stateOf(s.Status.Conditions, "Programmed")}
}

func grantCells(o v1alpha1.Object) []any {
	g := o.(*v1alpha1.ReferenceGrant)
	var from, to []string
	for _, f := range g.Spec.From {
		from = append(from, string(f.Kind)+"."+string(f.Namespace))
	}
	for _, t := range g.Spec.To {
		name := "every Service"
		if t.Name != nil {
			name = string(*t.Name)
		}
		to = append(to, name)
	}
	return []any{g.Name, strings.Join(from, ","), strings.Join(to, ",")}
}

func faultCells(o v1alpha1.Object) []any {
	s := o.(*v1alpha1.FaultInjection).Spec
	share := func(f v1alpha1.FaultShare) string {
		return fmt.Sprintf("%g%%", float64(v1alpha1.Share(f.Percent, f.Fraction))/10000)
	}
	delay, abort, rate := "", "", ""
	if d := s.Delay; d != nil {
		delay = string(d.Duration) + " of " + share(d.FaultShare)
	}
	if a := s.Abort; a != nil {
		abort = "reset of " + share(a.FaultShare)
		if a.HTTPStatus != nil {
			abort = fmt.Sprintf("%d of %s", *a.HTTPStatus, share(a.FaultShare))
		}
	}
	if b := s.Bandwidth; b != nil {
		rate = fmt.Sprintf("%d B/s of %s", b.BytesPerSecond, share(b.FaultShare))
	}
	return append([]any{o.GetName(), delay, abort, rate}, usedCells(&o.(*v1alpha1.FaultInjection).Status)...)
}

func responseCells(o v1alpha1.Object) []any {
	d := o.(*v1alpha1.DirectResponse)
	return append([]any{d.Name, d.Spec.Status, fmt.Sprintf("%d bytes", len(d.Spec.Body))}, usedCells(&d.Status)...)
}

// condition answers True when a condition holds for every parent, else the reason of one for which it does not.
func condition(r v1alpha1.Object, name string) string {
	text := ""
	for _, p := range v1alpha1.GetRouteStatus(r) {
		for _, c := range p.Conditions {
			switch {
			case c.Type != name:
			case c.Status != "True":
				return string(c.Status) + " (" + c.Reason + ")"
			default:
				text = "True"
			}
		}
	}
	return text
}

// usedCells says which rules use a fault or an answer.
func usedCells(s *v1alpha1.UsedStatus) []any {
	users := strings.Join(s.Routes[:min(1, len(s.Routes))], "")
	if n := len(s.Routes); n > 1 {
		users += fmt.Sprintf(" and %d more", n-1)
	}
	return []any{users, stateOf(s.Conditions, "Accepted"), stateOf(s.Conditions, "Programmed")}
}

// stateOf answers True where a condition holds, else its reason.
func stateOf(list []v1alpha1.Condition, name string) string {
	for _, c := range list {
		if c.Type == name && c.Status != "True" {
			return string(c.Status) + " (" + c.Reason + ")"
		} else if c.Type == name {
			return "True"
		}
	}
	return ""
}

func authorizationCells(o v1alpha1.Object) []any {
	p := o.(*v1alpha1.AuthorizationPolicy)
	action := p.Spec.Action
	if p.Spec.DryRun {
		action += " (dry run)"
	}
	return []any{p.Name, action, guarded(p.Namespace, &p.Spec.SecurityTargets), len(p.Spec.Rules), stateOf(p.Status.Conditions, "Accepted"), stateOf(p.Status.Conditions, "ResolvedRefs"), stateOf(p.Status.Conditions, "Programmed")}
}

func authenticationCells(o v1alpha1.Object) []any {
	p := o.(*v1alpha1.AuthenticationPolicy)
	var modes, issuers []string
	if m := p.Spec.MTLS; m != nil {
		if m.Mode != "" {
			modes = append(modes, m.Mode)
		}
		for _, port := range m.Ports {
			modes = append(modes, port.Port+"="+port.Mode)
		}
	}
	for _, j := range p.Spec.JWT {
		issuers = append(issuers, j.Issuer)
	}
	return []any{p.Name, strings.Join(modes, ","), strings.Join(issuers, ","), guarded(p.Namespace, &p.Spec.SecurityTargets),
		stateOf(p.Status.Conditions, "Accepted"), stateOf(p.Status.Conditions, "ResolvedRefs"), stateOf(p.Status.Conditions, "Programmed")}
}

func poolCells(o v1alpha1.Object) []any {
	p := o.(*v1alpha1.InferencePool)
	var selector, ports []string
	for k, v := range p.Spec.Selector.MatchLabels {
		selector = append(selector, k+"="+v)
	}
	for _, t := range p.Spec.TargetPorts {
		ports = append(ports, fmt.Sprint(t.Number))
	}
	accepted, resolved, ref := "", "", &p.Spec.EndpointPickerRef
	for _, s := range p.Status.Parents {
		accepted, resolved = stateOf(s.Conditions, "Accepted"), stateOf(s.Conditions, "ResolvedRefs")
		if accepted != "True" {
			break
		}
	}
	picker := ref.Name
	if ref.Port != nil {
		picker = fmt.Sprintf("%s:%d", ref.Name, ref.Port.Number)
	}
	return []any{p.Name, sorted(selector), strings.Join(ports, ","), picker, ref.FailureMode, accepted, resolved}
}

// guarded says what a policy about security is about.
func guarded(namespace string, t *v1alpha1.SecurityTargets) string {
	var on []string
	for _, ref := range t.TargetRefs {
		on = append(on, ref.String())
	}
	switch {
	case len(on) > 0:
	case namespace == v1alpha1.RootNamespace:
		on = []string{"the mesh"}
	default:
		on = []string{"namespace " + namespace}
	}
	for _, k := range slices.Sorted(maps.Keys(t.Selector)) {
		on = append(on, k+"="+t.Selector[k])
	}
	return strings.Join(on, ",")
}

func policyCells(o v1alpha1.Object) []any {
	p := o.(*v1alpha1.TrafficPolicy)
	var targets []string
	for _, t := range p.Spec.TargetRefs {
		targets = append(targets, t.String())
	}
	cell := func(name, good string) string {
		text := ""
		for _, a := range p.Status.Ancestors {
			for _, c := range a.Conditions {
				switch {
				case c.Type != name:
				case string(c.Status) != good:
					return string(c.Status) + " (" + c.Reason + ")"
				default:
					text = good
				}
			}
		}
		return text
	}
	return []any{p.Name, strings.Join(targets, ","), strings.Join(p.Spec.Names(), ","), cell("Accepted", "True"), cell("Conflicted", "False"), cell("Programmed", "True")}
}
