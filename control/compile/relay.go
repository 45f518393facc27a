package compile

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// relayFault answers what is injected into the connections of a rule, nil for nothing.
func (c Compiler) relayFault(r Route, rule string) *model.Fault {
	if f := c.firstFault(r, rule); f != nil {
		return fault(&f.Spec)
	}
	return nil
}

// firstFault answers the fault that counts of those that name a rule, nil if none does.
func (c Compiler) firstFault(r Route, rule string) (first *v1alpha1.FaultInjection) {
	for _, f := range c.Index.beside.Faults {
		if concerns(f, r, &rule) && (first == nil || f.GetName() < first.GetName()) {
			first = f
		}
	}
	return first
}

// concerns reports whether a fault names a route, and, if rule is not nil, that rule of it.
func concerns(f *v1alpha1.FaultInjection, r Route, rule *string) bool {
	kind := v1alpha1.KindOf(r.Object).Name
	return f.GetNamespace() == r.Object.GetNamespace() && slices.ContainsFunc(f.Spec.TargetRefs, func(t v1alpha1.PolicyTarget) bool {
		return t.Kind == kind && t.Name == r.Object.GetName() && (rule == nil || t.SectionName == "" || t.SectionName == *rule)
	})
}

// relayRoutes answers where the connections of a port go: of TLSRoutes one entry for each server name, exact names first,
// then the longest wildcard; of TCPRoutes the oldest.
func (c Compiler) relayRoutes(routes []Route) []model.RelayRoute {
	var out []model.RelayRoute
	for _, r := range routes {
		for i, rule := range v1alpha1.Rules(r.Object) {
			one := model.RelayRoute{Name: r.Name(), Rule: i, Backends: c.backends(r, rule.Backends), Fault: c.relayFault(r, rule.Name)}
			o, ok := r.Object.(*v1alpha1.TLSRoute)
			if !ok {
				out = append(out, one)
				continue
			}
			for _, h := range o.Spec.Hostnames {
				one.SNI = []string{strings.ToLower(string(h))}
				out = append(out, one)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b model.RelayRoute) int {
		if a.SNI == nil || b.SNI == nil {
			return 0
		}
		wild := func(r model.RelayRoute) int { return strings.Count(r.SNI[0], "*") }
		return cmp.Or(cmp.Compare(wild(a), wild(b)), cmp.Compare(len(b.SNI[0]), len(a.SNI[0])))
	})
	return out
}

// treatRelay puts what policies say about connections into a route of them.
func (c Compiler) treatRelay(table model.PortName, r *model.RelayRoute) {
	named := model.Route{Name: r.Name, Rule: r.Rule}
	t := c.routeOnly(&named)
	bare := c // what the mesh has as its defaults is about requests: it ends no connections
	bare.Index = c.Index.withoutMesh()
	t.service(bare, table)
	if p := t.Timeouts; p != nil {
		r.Idle, r.MaxDuration = p.Idle.Value(), p.Stream.Value()
	}
	if p := t.Fallback; p != nil {
		r.Fallback = c.fallback(table, p)
	}
}

// ownRelay answers the route of a port's connections where no route is attached and policies say something about them; none
// where they say nothing, or the port may carry requests.
func (c Compiler) ownRelay(name model.PortName) []model.RelayRoute {
	s, ok := c.Services.Service(name.Service)
	if !ok {
		return nil
	}
	if p, ok := s.FindPort(name.Port); !ok || p.Protocol != model.ProtocolTCP && p.Protocol != model.ProtocolTLS {
		return nil
	}
	r := model.RelayRoute{Name: fullName(name.Service), Backends: []model.Backend{{Cluster: name, Weight: 1}}}
	if c.treatRelay(name, &r); r.Idle == 0 && r.MaxDuration == 0 && r.Fallback == nil {
		return nil
	}
	return []model.RelayRoute{r}
}

func (c Compiler) fallback(table model.PortName, p *v1alpha1.FallbackRef) *model.Backend {
	name := model.PortName{Service: model.ServiceName{Namespace: table.Service.Namespace, Name: p.Name}, Port: uint16(p.Port)}
	return &model.Backend{Cluster: name, Weight: 1, Invalid: !c.exists(name)}
}
