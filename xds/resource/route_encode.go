package resource

import (
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// EncodeRouteTable makes a route configuration with one virtual host for every authority: the address that a
// program asked for has selected the service already.
func EncodeRouteTable(t *model.RouteTable) (*routev3.RouteConfiguration, error) {
	vh := &routev3.VirtualHost{Name: t.Name.String(), Domains: []string{"*"}}
	for i := range t.Routes {
		r, err := encodeRoute(&t.Routes[i])
		if err != nil {
			return nil, fmt.Errorf("route table %s: routes[%d] %s: %w", t.Name, i, t.Routes[i].Name, err)
		}
		vh.Routes = append(vh.Routes, r)
	}
	return &routev3.RouteConfiguration{Name: t.Name.String(), VirtualHosts: []*routev3.VirtualHost{vh}}, nil
}

func encodeRoute(r *model.Route) (*routev3.Route, error) {
	facts := &tullepb.RouteFacts{Rule: uint32(r.Rule), AttemptTimeout: int64(r.Timeouts.Attempt)}
	out := &routev3.Route{Name: r.Name, Match: encodeMatch(&r.Match, facts)}
	h, exact, err := encodeFilters(r.Filters)
	if err != nil {
		return nil, err
	}
	out.RequestHeadersToAdd, out.RequestHeadersToRemove = h.requestAdd, h.requestRemove
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = h.responseAdd, h.responseRemove
	if !exact {
		facts.Filters = encodeFilterFacts(r.Filters)
	}
	if err := encodeAction(out, r, facts); err != nil {
		return nil, err
	}
	out.Metadata, err = packFacts(facts)
	return out, err
}

// encodeMatch writes the path into facts too when Envoy's matchers cannot say it exactly.
func encodeMatch(m *model.Match, facts *tullepb.RouteFacts) *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	switch {
	case m.PathKind == model.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path}
	case m.PathKind == model.PathRegex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Path}}
	case m.Path == "/":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	default:
		trimmed := strings.TrimRight(m.Path, "/")
		if trimmed != m.Path {
			facts.Path = &m.Path
		}
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: trimmed}
	}
	if m.Method != "" {
		out.Headers = append(out.Headers, encodeHeaderMatch(model.FieldMatch{Name: ":method", Value: m.Method}))
	}
	for _, f := range m.Headers {
		out.Headers = append(out.Headers, encodeHeaderMatch(f))
	}
	for _, f := range m.Query {
		out.QueryParameters = append(out.QueryParameters, &routev3.QueryParameterMatcher{
			Name:                         f.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: encodeString(f)},
		})
	}
	return out
}

func encodeHeaderMatch(f model.FieldMatch) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 f.Name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: encodeString(f)},
	}
}

func encodeString(f model.FieldMatch) *matcherv3.StringMatcher {
	if f.Regex {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: f.Value}}}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: f.Value}}
}

func encodeAction(out *routev3.Route, r *model.Route, facts *tullepb.RouteFacts) error {
	if len(r.Backends) == 0 {
		facts.RequestTimeout = int64(r.Timeouts.Request)
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: noBackend}}
		return nil
	}
	a := &routev3.RouteAction{Timeout: durationpb.New(r.Timeouts.Request)}
	out.Action = &routev3.Route_Route{Route: a}
	if b := &r.Backends[0]; len(r.Backends) == 1 && b.Weight == 1 && len(b.Filters) == 0 && !b.Invalid {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: b.Cluster.String()}
		return nil
	}
	wc := &routev3.WeightedCluster{}
	some := false
	for i := range r.Backends {
		cw, bf, plain, err := encodeBackend(&r.Backends[i])
		if err != nil {
			return fmt.Errorf("backends[%d]: %w", i, err)
		}
		wc.Clusters = append(wc.Clusters, cw)
		facts.Backends = append(facts.Backends, bf)
		some = some || !plain
	}
	if !some {
		facts.Backends = nil
	}
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: wc}
	return nil
}

// noBackend is the status of a route without a backend (Gateway API).
const noBackend = 500

// encodeBackend answers whether Envoy's fields say it all (plain).
func encodeBackend(b *model.Backend) (*routev3.WeightedCluster_ClusterWeight, *tullepb.BackendFacts, bool, error) {
	h, exact, err := encodeFilters(b.Filters)
	if err != nil {
		return nil, nil, false, err
	}
	cw := &routev3.WeightedCluster_ClusterWeight{
		Name: b.Cluster.String(), Weight: wrapperspb.UInt32(b.Weight),
		RequestHeadersToAdd: h.requestAdd, RequestHeadersToRemove: h.requestRemove,
		ResponseHeadersToAdd: h.responseAdd, ResponseHeadersToRemove: h.responseRemove,
	}
	facts := &tullepb.BackendFacts{Invalid: b.Invalid}
	if b.Invalid { // its name need not be one
		facts.Namespace, facts.Name, facts.Port = b.Cluster.Service.Namespace, b.Cluster.Service.Name, uint32(b.Cluster.Port)
	}
	if !exact {
		facts.Filters = encodeFilterFacts(b.Filters)
	}
	return cw, facts, exact && !b.Invalid, nil
}

// headerFields is how Envoy writes header changes, the same in routes and weighted clusters.
type headerFields struct {
	requestAdd, responseAdd       []*headerOption
	requestRemove, responseRemove []string
}

// encodeFilters writes filters as header fields; exact is false when reading those back would not give the
// same filters (repeated or reversed ones): then they travel in the facts as well.
func encodeFilters(fs []model.Filter) (h headerFields, exact bool, err error) {
	for i := range fs {
		c := &fs[i].Headers
		if err := validChange(c); err != nil {
			return h, false, err
		}
		switch fs[i].Kind {
		case model.FilterRequestHeaders:
			h.requestAdd, h.requestRemove = appendOptions(h.requestAdd, c), append(h.requestRemove, c.Remove...)
		case model.FilterResponseHeaders:
			h.responseAdd, h.responseRemove = appendOptions(h.responseAdd, c), append(h.responseRemove, c.Remove...)
		default:
			return h, false, fmt.Errorf("filters[%d]: kind %d is not known", i, fs[i].Kind)
		}
	}
	back, err := decodeFilters("", h)
	return h, err == nil && reflect.DeepEqual(back, fs), nil
}

// validChange refuses what no protobuf string holds.
func validChange(c *model.HeaderChange) error {
	for _, hs := range [][]model.Header{c.Set, c.Add} {
		for _, h := range hs {
			if !utf8.ValidString(h.Name) || !utf8.ValidString(h.Value) {
				return fmt.Errorf("header %q: name or value is not UTF-8", clip(h.Name))
			}
		}
	}
	return nil
}

func encodeFilterFacts(fs []model.Filter) *tullepb.Filters {
	out := &tullepb.Filters{}
	for _, f := range fs {
		m := &tullepb.Filter{Kind: uint32(f.Kind), Remove: f.Headers.Remove}
		for _, h := range f.Headers.Set {
			m.Set = append(m.Set, &tullepb.Header{Name: h.Name, Value: h.Value})
		}
		for _, h := range f.Headers.Add {
			m.Add = append(m.Add, &tullepb.Header{Name: h.Name, Value: h.Value})
		}
		out.Filters = append(out.Filters, m)
	}
	return out
}
