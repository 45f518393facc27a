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
