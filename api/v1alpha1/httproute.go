package v1alpha1

import (
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// HTTPRoute and its parts are those of Gateway API.
type (
	HTTPRoute               = gateway.HTTPRoute
	HTTPRouteSpec           = gateway.HTTPRouteSpec
	HTTPRouteRule           = gateway.HTTPRouteRule
	HTTPRouteMatch          = gateway.HTTPRouteMatch
	HTTPPathMatch           = gateway.HTTPPathMatch
	HTTPHeaderMatch         = gateway.HTTPHeaderMatch
	HTTPQueryParamMatch     = gateway.HTTPQueryParamMatch
	HTTPRouteFilter         = gateway.HTTPRouteFilter
	HTTPHeaderFilter        = gateway.HTTPHeaderFilter
	HTTPHeader              = gateway.HTTPHeader
	HTTPRequestMirrorFilter = gateway.HTTPRequestMirrorFilter
	HTTPRequestRedirect     = gateway.HTTPRequestRedirectFilter
	HTTPURLRewriteFilter    = gateway.HTTPURLRewriteFilter
	HTTPPathModifier        = gateway.HTTPPathModifier
	HTTPCORSFilter          = gateway.HTTPCORSFilter
	HTTPBackendRef          = gateway.HTTPBackendRef
	HTTPRouteTimeouts       = gateway.HTTPRouteTimeouts
	HTTPRouteRetry          = gateway.HTTPRouteRetry
	HTTPRouteStatus         = gateway.HTTPRouteStatus
	PathMatchType           = gateway.PathMatchType
	HeaderMatchType         = gateway.HeaderMatchType
	QueryParamMatchType     = gateway.QueryParamMatchType
	HTTPMethod              = gateway.HTTPMethod
	HTTPRouteFilterType     = gateway.HTTPRouteFilterType
)

// Values that users write in an HTTPRoute.
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
	FilterRequestRedirect        = gateway.HTTPRouteFilterRequestRedirect
	FilterURLRewrite             = gateway.HTTPRouteFilterURLRewrite
	FilterRequestMirror          = gateway.HTTPRouteFilterRequestMirror
	FilterCORS                   = gateway.HTTPRouteFilterCORS
	FilterExtensionRef           = gateway.HTTPRouteFilterExtensionRef

	ReplaceFullPath    = gateway.FullPathHTTPPathModifier
	ReplacePrefixMatch = gateway.PrefixMatchHTTPPathModifier

	SessionCookie           = gateway.CookieBasedSessionPersistence
	SessionHeader           = gateway.HeaderBasedSessionPersistence
	SessionCookieLifetime   = gateway.SessionCookieLifetimeType
	PermanentCookieLifetime = gateway.PermanentCookieLifetimeType
)

// DefaultRedirectStatus of RequestRedirect, DefaultCORSMaxAge (in seconds) of CORS: the schema's.
const (
	DefaultRedirectStatus = 302
	DefaultCORSMaxAge     = 5
)

// defaultHTTPRoute writes out the schema's defaults.
func defaultHTTPRoute(r *HTTPRoute) {
	if r.Spec.Rules == nil {
		r.Spec.Rules = []HTTPRouteRule{{}}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		if rule.Matches == nil {
			rule.Matches = []HTTPRouteMatch{{}}
		}
		for j := range rule.Matches {
			defaultMatch(&rule.Matches[j])
		}
		for j := range rule.Filters {
			defaultFilter(&rule.Filters[j])
		}
		for j := range rule.BackendRefs {
			defaultBackend(&rule.BackendRefs[j].BackendRef)
		}
		defaultPersistence(rule.SessionPersistence)
	}
}

func defaultMatch(m *HTTPRouteMatch) {
	m.Path = or(m.Path, HTTPPathMatch{})
	m.Path.Type, m.Path.Value = or(m.Path.Type, PathMatchPathPrefix), or(m.Path.Value, "/")
	for k := range m.Headers {
		m.Headers[k].Type = or(m.Headers[k].Type, HeaderMatchExact)
	}
	for k := range m.QueryParams {
		m.QueryParams[k].Type = or(m.QueryParams[k].Type, QueryParamMatchExact)
	}
}

func defaultFilter(f *HTTPRouteFilter) {
	if r := f.RequestRedirect; r != nil {
		r.StatusCode = or(r.StatusCode, DefaultRedirectStatus)
	}
	if f.CORS != nil && f.CORS.MaxAge == 0 {
		f.CORS.MaxAge = DefaultCORSMaxAge
	}
	defaultMirror(f.RequestMirror)
}

func defaultMirror(m *HTTPRequestMirrorFilter) {
	if m == nil {
		return
	}
	m.BackendRef.Group, m.BackendRef.Kind = or(m.BackendRef.Group, ""), or(m.BackendRef.Kind, "Service")
	if m.Fraction != nil {
		m.Fraction.Denominator = or(m.Fraction.Denominator, 100)
	}
}

func defaultPersistence(s *SessionPersistence) {
	if s == nil {
		return
	}
	s.Type = or(s.Type, SessionCookie)
	if s.CookieConfig != nil {
		s.CookieConfig.LifetimeType = or(s.CookieConfig.LifetimeType, SessionCookieLifetime)
	}
}

// or answers p, or a pointer to v when p is nil.
func or[T any](p *T, v T) *T {
	if p == nil {
		return &v
	}
	return p
}
