package v1alpha1

import (
	"fmt"
	"slices"

	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// ReferenceGrant and its parts are those of Gateway API: it lets routes of other namespaces name the Services of its own as
// backends.
type (
	ReferenceGrant     = gateway.ReferenceGrant
	ReferenceGrantFrom = gateway.ReferenceGrantFrom
	ReferenceGrantTo   = gateway.ReferenceGrantTo
)

func (c *check) referenceGrant(g *ReferenceGrant) {
	if n := len(g.Spec.From); n < 1 || n > maxFields {
		c.fail("spec.from", "has %d entries: write 1 to %d", n, maxFields)
	}
	kinds := []string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"}
	for i, f := range g.Spec.From {
		at := fmt.Sprintf("spec.from[%d]", i)
		if f.Group != GatewayGroup {
			c.fail(at+".group", "%q is not the group of routes: write %s", f.Group, GatewayGroup)
		} else if !slices.Contains(kinds, string(f.Kind)) {
			c.fail(at+".kind", "%s/%s refers to no Service: write {group: %s, kind: HTTPRoute}, or GRPCRoute, TLSRoute or TCPRoute", f.Group, f.Kind, GatewayGroup)
		}
		if !label(string(f.Namespace)) {
			c.fail(at+".namespace", "%q is not a namespace", f.Namespace)
		}
	}
	if n := len(g.Spec.To); n < 1 || n > maxFields {
		c.fail("spec.to", "has %d entries: write 1 to %d", n, maxFields)
	}
	for i, t := range g.Spec.To {
		at := fmt.Sprintf("spec.to[%d]", i)
		if t.Group == TulleGroup && t.Kind == ExternalKind {
			// as it should be
		} else if t.Group != "" {
			c.fail(at+".group", `%q is not supported: write {group: "", kind: Service}`, t.Group)
		} else if t.Kind != "Service" {
			c.fail(at+".kind", `%s/%s is not supported: write {group: "", kind: Service}`, t.Group, t.Kind)
		}
		if t.Name != nil && !label(string(*t.Name)) {
			c.fail(at+".name", "%q is not the name of a Service", *t.Name)
		}
	}
}

// Permits reports whether g lets a route of kind in namespace from name the Service, or ExternalService, name of g's own namespace.
func Permits(g *ReferenceGrant, kind, from, name string, external bool) bool {
	return slices.ContainsFunc(g.Spec.From, func(f ReferenceGrantFrom) bool {
		return f.Group == GatewayGroup && string(f.Kind) == kind && string(f.Namespace) == from
	}) && slices.ContainsFunc(g.Spec.To, func(t ReferenceGrantTo) bool {
		own := t.Group == "" && t.Kind == "Service"
		if external {
			own = t.Group == TulleGroup && t.Kind == ExternalKind
		}
		return own && (t.Name == nil || string(*t.Name) == name)
	})
}
