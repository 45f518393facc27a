package v1alpha1

import (
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// TCPRoute and its rule are those of Gateway API.
type (
	TCPRoute     = gateway.TCPRoute
	TCPRouteRule = gateway.TCPRouteRule
)

// defaultTCPRoute writes out the schema's defaults.
func defaultTCPRoute(r *TCPRoute) {
	for i := range r.Spec.Rules {
		for j := range r.Spec.Rules[i].BackendRefs {
			defaultBackend(&r.Spec.Rules[i].BackendRefs[j])
		}
	}
}

func (c *check) tcpRoute(r *TCPRoute) { c.relayed(r, &r.Spec.CommonRouteSpec) }

// relayed checks what TCPRoute and TLSRoute have in common: one rule with backends, without filters.
func (c *check) relayed(o Object, spec *CommonRouteSpec) {
	c.parents(spec, o.GetNamespace())
	rules := Rules(o)
	c.ruleCount(len(rules), 1)
	c.ruleNames(o)
	if len(rules) == 0 {
		return
	}
	if len(rules[0].Backends) == 0 {
		c.fail("spec.rules[0].backendRefs", "is missing: write where the connections go")
	}
	c.backends("spec.rules[0].backendRefs", rules[0].Backends, headerFilters)
}
