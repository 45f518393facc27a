package resource

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

// encodeMatch writes as much of a match as Envoy's matchers can say.
func encodeMatch(m *model.Match) *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	encodePath(out, m)
	if m.IgnoreCase {
		out.CaseSensitive = wrapperspb.Bool(false)
	}
	if m.GRPC {
		out.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
	}
	if m.Fraction > 0 {
		out.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: percentOf(m.Fraction)}
	}
	if m.Method != "" {
		out.Headers = append(out.Headers, encodeHeaderMatch(model.FieldMatch{Name: ":method", Value: m.Method}))
	}
	for _, f := range m.Headers {
		out.Headers = append(out.Headers, encodeHeaderMatch(f))
	}
	for _, f := range m.Query {
		q := &routev3.QueryParameterMatcher{Name: f.Name}
		if f.Kind == model.FieldPresent || f.Kind == model.FieldRange {
			q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		} else {
			q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: encodeString(f)}
		}
		out.QueryParameters = append(out.QueryParameters, q)
	}
	return out
}

func encodePath(out *routev3.RouteMatch, m *model.Match) {
	trimmed := strings.TrimRight(m.Path, "/")
	switch {
	case m.Connect:
		out.PathSpecifier = &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}
	case m.PathKind == model.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path}
	case m.PathKind == model.PathRegex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Path}}
	case m.PathPrefixText || trimmed == "" || strings.ContainsAny(trimmed, "?#"):
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Path}
	default:
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: trimmed}
	}
}

func encodeHeaderMatch(f model.FieldMatch) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: f.Name, InvertMatch: f.Invert}
	switch f.Kind {
	case model.FieldPresent:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	case model.FieldRange:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_RangeMatch{RangeMatch: &typev3.Int64Range{Start: f.From, End: f.To}}
	default:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: encodeString(f)}
	}
	return h
}

// encodeString writes a comparison by value. An expression says itself that case does not matter.
func encodeString(f model.FieldMatch) *matcherv3.StringMatcher {
	m := &matcherv3.StringMatcher{IgnoreCase: f.IgnoreCase && !f.Regex}
	switch {
	case f.Regex:
		m.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: f.Value}}
	case f.Kind == model.FieldPrefix:
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: f.Value}
	case f.Kind == model.FieldSuffix:
		m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: f.Value}
	case f.Kind == model.FieldContains:
		m.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: f.Value}
	default:
		m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: f.Value}
	}
	return m
}
