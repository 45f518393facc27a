package v1alpha1

import (
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// The parts that the routes of Gateway API share.
type (
	BackendRef            = gateway.BackendRef
	BackendObjectRef      = gateway.BackendObjectReference
	ParentRef             = gateway.ParentReference
	CommonRouteSpec       = gateway.CommonRouteSpec
	Group                 = gateway.Group
	GatewayKind           = gateway.Kind
	Namespace             = gateway.Namespace
	SectionName           = gateway.SectionName
	LocalObjectRef        = gateway.LocalObjectReference
	RouteStatus           = gateway.RouteStatus
	RouteParentStatus     = gateway.RouteParentStatus
	GatewayDuration       = gateway.Duration
	Fraction              = gateway.Fraction
	SessionPersistence    = gateway.SessionPersistence
	RouteConditionType    = gateway.RouteConditionType
	RouteConditionReason  = gateway.RouteConditionReason
	GatewayControllerName = gateway.GatewayController
)

// RouteRule is what the rules of every kind of route have in common.
type RouteRule struct {
	Name     string // "" if it has none
	Filters  []HTTPRouteFilter
	Backends []HTTPBackendRef
}

// Parents answers the parentRefs of a route, nil for another kind of object.
func Parents(o Object) []ParentRef {
	if c := commonSpec(o); c != nil {
		return c.ParentRefs
	}
	return nil
}

// IsRoute reports whether o is of one of the kinds of routes.
func IsRoute(o Object) bool { return commonSpec(o) != nil }

func commonSpec(o Object) *CommonRouteSpec {
	switch o := o.(type) {
	case *HTTPRoute:
		return &o.Spec.CommonRouteSpec
	case *GRPCRoute:
		return &o.Spec.CommonRouteSpec
	case *TLSRoute:
		return &o.Spec.CommonRouteSpec
	case *TCPRoute:
		return &o.Spec.CommonRouteSpec
	}
	return nil
}

// SetRouteStatus puts a status into a route; another kind of object is left alone.
func SetRouteStatus(o Object, parents []RouteParentStatus) {
	switch o := o.(type) {
	case *HTTPRoute:
		o.Status.Parents = parents
	case *GRPCRoute:
		o.Status.Parents = parents
	case *TLSRoute:
		o.Status.Parents = parents
	case *TCPRoute:
		o.Status.Parents = parents
	}
}

// GetRouteStatus answers the status of a route.
func GetRouteStatus(o Object) []RouteParentStatus {
	switch o := o.(type) {
	case *HTTPRoute:
		return o.Status.Parents
	case *GRPCRoute:
		return o.Status.Parents
	case *TLSRoute:
		return o.Status.Parents
	case *TCPRoute:
		return o.Status.Parents
	}
	return nil
}

// Rules answers the rules of a route in the form that all kinds share.
func Rules(o Object) []RouteRule {
	var out []RouteRule
	switch o := o.(type) {
	case *HTTPRoute:
		for _, r := range o.Spec.Rules {
			out = append(out, RouteRule{string(value(r.Name, "")), r.Filters, r.BackendRefs})
		}
	case *GRPCRoute:
		for _, r := range o.Spec.Rules {
			rule := RouteRule{Name: string(value(r.Name, "")), Filters: grpcFilters(r.Filters)}
			for _, b := range r.BackendRefs {
				rule.Backends = append(rule.Backends, HTTPBackendRef{BackendRef: b.BackendRef, Filters: grpcFilters(b.Filters)})
			}
			out = append(out, rule)
		}
	case *TLSRoute:
		for _, r := range o.Spec.Rules {
			out = append(out, RouteRule{Name: string(value(r.Name, "")), Backends: plainBackends(r.BackendRefs)})
		}
	case *TCPRoute:
		for _, r := range o.Spec.Rules {
			out = append(out, RouteRule{Name: string(value(r.Name, "")), Backends: plainBackends(r.BackendRefs)})
		}
	}
	return out
}

func plainBackends(refs []BackendRef) []HTTPBackendRef {
	var out []HTTPBackendRef
	for _, b := range refs {
		out = append(out, HTTPBackendRef{BackendRef: b})
	}
	return out
}

// grpcFilters says the filters of a GRPCRoute as those of an HTTPRoute, of which they are a part.
func grpcFilters(in []GRPCRouteFilter) []HTTPRouteFilter {
	var out []HTTPRouteFilter
	for _, f := range in {
		out = append(out, HTTPRouteFilter{Type: HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef})
	}
	return out
}

// ParentService answers the parentRef that attaches a route to every port of a service in its own namespace.
func ParentService(name string) ParentRef {
	kind, group := gateway.Kind("Service"), gateway.Group("")
	return ParentRef{Group: &group, Kind: &kind, Name: gateway.ObjectName(name)}
}

// defaultBackend writes out the schema's defaults.
func defaultBackend(b *BackendRef) {
	b.Group, b.Kind, b.Weight = or(b.Group, ""), or(b.Kind, "Service"), or(b.Weight, 1)
}
