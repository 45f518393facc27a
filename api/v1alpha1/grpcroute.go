package v1alpha1

import (
	"fmt"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// GRPCRoute and its parts are those of Gateway API.
type (
	GRPCRoute           = gateway.GRPCRoute
	GRPCRouteRule       = gateway.GRPCRouteRule
	GRPCRouteMatch      = gateway.GRPCRouteMatch
	GRPCMethodMatch     = gateway.GRPCMethodMatch
	GRPCMethodMatchType = gateway.GRPCMethodMatchType
	GRPCHeaderMatch     = gateway.GRPCHeaderMatch
	GRPCHeaderMatchType = gateway.GRPCHeaderMatchType
	GRPCRouteFilter     = gateway.GRPCRouteFilter
	GRPCBackendRef      = gateway.GRPCBackendRef
)

// Values that users write in a GRPCRoute.
const (
	GRPCMethodExact             = gateway.GRPCMethodMatchExact
	GRPCMethodRegularExpression = gateway.GRPCMethodMatchRegularExpression
	GRPCHeaderExact             = gateway.GRPCHeaderMatchExact
	GRPCHeaderRegularExpression = gateway.GRPCHeaderMatchRegularExpression
)

// grpcRouteFilters are the filters of a GRPCRoute's rule.
const grpcRouteFilters = headerFilters + " RequestMirror ExtensionRef"

// defaultGRPCRoute writes out the schema's defaults.
func defaultGRPCRoute(r *GRPCRoute) {
	if r.Spec.Rules == nil {
		r.Spec.Rules = []GRPCRouteRule{{}}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		for j := range rule.Matches {
			m := &rule.Matches[j]
			if m.Method != nil {
				m.Method.Type = or(m.Method.Type, GRPCMethodExact)
			}
			for k := range m.Headers {
				m.Headers[k].Type = or(m.Headers[k].Type, GRPCHeaderExact)
			}
		}
		for j := range rule.Filters {
			defaultMirror(rule.Filters[j].RequestMirror)
		}
		for j := range rule.BackendRefs {
			defaultBackend(&rule.BackendRefs[j].BackendRef)
		}
		defaultPersistence(rule.SessionPersistence)
	}
}

func (c *check) grpcRoute(r *GRPCRoute) {
	c.parents(&r.Spec.CommonRouteSpec, r.Namespace)
	c.hostnames(len(r.Spec.Hostnames))
	c.ruleCount(len(r.Spec.Rules), maxRules)
	c.ruleNames(r)
	common, all := Rules(r), 0
	for i := range r.Spec.Rules {
		rule, at := &r.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)
		if all += len(rule.Matches); len(rule.Matches) > maxMatches {
			c.fail(at+".matches", "has %d matches: at most %d", len(rule.Matches), maxMatches)
		}
		for j := range rule.Matches {
			c.grpcMatch(fmt.Sprintf("%s.matches[%d]", at, j), &rule.Matches[j])
		}
		c.filters(at+".filters", common[i].Filters, grpcRouteFilters, " of a GRPCRoute")
		c.answers(at, common[i].Filters, len(rule.BackendRefs))
		c.backends(at+".backendRefs", common[i].Backends, headerFilters)
		c.persistence(at+".sessionPersistence", rule.SessionPersistence)
	}
	if all > maxAllMatches {
		c.fail("spec.rules", "have %d matches together: at most %d", all, maxAllMatches)
	}
}

func (c *check) grpcMatch(at string, m *GRPCRouteMatch) {
	if m.Method != nil {
		c.grpcMethod(at+".method", m.Method)
	}
	if len(m.Headers) > maxFields {
		c.fail(at+".headers", "has %d entries: at most %d", len(m.Headers), maxFields)
	}
	seen := map[string]bool{}
	for k, h := range m.Headers {
		at := fmt.Sprintf("%s.headers[%d]", at, k)
		c.field(at, string(h.Name), seen, strings.ToLower)
		c.fieldValue(at, string(*h.Type), h.Value, maxHeaderValue)
	}
}

func (c *check) grpcMethod(at string, m *GRPCMethodMatch) {
	service, method := value(m.Service, ""), value(m.Method, "")
	if service == "" && method == "" {
		c.fail(at, "names nothing: write service, method or both")
	}
	for _, part := range []struct{ name, value, set string }{{"service", service, lower + upper + digits + "_."}, {"method", method, lower + upper + digits + "_"}} {
		at := at + "." + part.name
		switch {
		case part.value == "":
		case len(part.value) > maxPath:
			c.fail(at, "has %d bytes: at most %d", len(part.value), maxPath)
		case *m.Type == GRPCMethodRegularExpression:
			c.regex(at, part.value)
		case strings.Trim(part.value, part.set) != "" || strings.HasSuffix(part.value, ".") || strings.Contains(part.value, ".."):
			c.fail(at, "%q is not the name of a gRPC %s: write for example shop.v1.Cart and AddItem", part.value, part.name)
		}
	}
	if *m.Type != GRPCMethodExact && *m.Type != GRPCMethodRegularExpression {
		c.fail(at+".type", "%q is not a kind of match: write Exact or RegularExpression", *m.Type)
	}
}
