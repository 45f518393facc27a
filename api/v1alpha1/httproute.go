package v1alpha1

import (
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// HTTPRoute and its parts are those of Gateway API.
type (
	HTTPRoute             = gateway.HTTPRoute
	HTTPRouteSpec         = gateway.HTTPRouteSpec
	HTTPRouteRule         = gateway.HTTPRouteRule
	HTTPRouteMatch        = gateway.HTTPRouteMatch
	HTTPPathMatch         = gateway.HTTPPathMatch
	HTTPHeaderMatch       = gateway.HTTPHeaderMatch
	HTTPQueryParamMatch   = gateway.HTTPQueryParamMatch
	HTTPRouteFilter       = gateway.HTTPRouteFilter
	HTTPHeaderFilter      = gateway.HTTPHeaderFilter
	HTTPHeader            = gateway.HTTPHeader
	HTTPBackendRef        = gateway.HTTPBackendRef
	HTTPRouteTimeouts     = gateway.HTTPRouteTimeouts
	HTTPRouteStatus       = gateway.HTTPRouteStatus
	BackendRef            = gateway.BackendRef
	BackendObjectRef      = gateway.BackendObjectReference
	ParentRef             = gateway.ParentReference
	Group                 = gateway.Group
	GatewayKind           = gateway.Kind
	RouteStatus           = gateway.RouteStatus
	RouteParentStatus     = gateway.RouteParentStatus
	GatewayDuration       = gateway.Duration
	SectionName           = gateway.SectionName
	PathMatchType         = gateway.PathMatchType
	HeaderMatchType       = gateway.HeaderMatchType
	QueryParamMatchType   = gateway.QueryParamMatchType
	HTTPMethod            = gateway.HTTPMethod
	HTTPRouteFilterType   = gateway.HTTPRouteFilterType
	RouteConditionType    = gateway.RouteConditionType
	RouteConditionReason  = gateway.RouteConditionReason
	GatewayControllerName = gateway.GatewayController
)

// Values that users write in an HTTPRoute, as far as Tulle runs them.
const (
	PathMatchExact             = gateway.PathMatchExact
	PathMatchPathPrefix        = gateway.PathMatchPathPrefix
	PathMatchRegularExpression = gateway.PathMatchRegularExpression

	HeaderMatchExact             = gateway.HeaderMatchExact
	HeaderMatchRegularExpression = gateway.HeaderMatchRegularExpression

	QueryParamMatchExact             = gateway.QueryParamMatchExact
	QueryParamMatchRegularExpression = gateway.QueryParamMatchRegularExpression

	FilterRequestHeaderModifier  = gateway.HTTPRouteFilterRequestHeaderModifier
	FilterResponseHeaderModifier = gateway.HTTPRouteFilterResponseHeaderModifier
)

// ParentService answers the parentRef that attaches a route to every port of a service in its own namespace.
func ParentService(name string) ParentRef {
	kind, group := gateway.Kind("Service"), gateway.Group("")
	return ParentRef{Group: &group, Kind: &kind, Name: gateway.ObjectName(name)}
}
