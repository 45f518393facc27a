package resource

import (
	"fmt"
	"math"
	"regexp"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// defaultRequestTimeout is Envoy's, for a route action that names none.
const defaultRequestTimeout = 15 * time.Second

// DecodeRouteTable reads a packed route configuration. Regular expressions have been tried: they compile.
func DecodeRouteTable(a *anypb.Any) (*model.RouteTable, error) {
	var m routev3.RouteConfiguration
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	if err := only("", &m, "name", "virtual_hosts"); err != nil {
		return nil, err
	}
	name, err := model.ParsePortName(m.GetName())
	if err != nil {
		return nil, refuse("name", "%s", clip(err.Error()))
	}
	if n := len(m.GetVirtualHosts()); n != 1 {
		return nil, refuse("virtual_hosts", "%d of them, Tulle runs one", n)
	}
	vh := m.GetVirtualHosts()[0]
	if err := only("virtual_hosts[0]", vh, "name", "domains", "routes"); err != nil {
		return nil, err
	}
	if d := vh.GetDomains(); len(d) != 1 || d[0] != "*" {
		return nil, refuse("virtual_hosts[0].domains", "is not exactly [\"*\"]")
	}
	t := &model.RouteTable{Name: name}
	for i, r := range vh.GetRoutes() {
		route, err := decodeRoute(fmt.Sprintf("routes[%d]", i), r)
		if err != nil {
			return nil, err
		}
		t.Routes = append(t.Routes, route)
	}
	return t, nil
}

func decodeRoute(path string, m *routev3.Route) (r model.Route, err error) {
	if err := only(path, m, "name", "match", "route", "direct_response", "metadata", "request_headers_to_add",
		"request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove"); err != nil {
		return r, err
	}
	var facts tullepb.RouteFacts
	if _, err := unpackFacts(path, m.GetMetadata(), &facts); err != nil {
		return r, err
	}
	r.Name = m.GetName()
	if r.Rule = int(facts.GetRule()); facts.GetRule() > math.MaxInt32 {
		return r, refuse(path+".metadata.rule", "is too large")
	}
	if facts.GetAttemptTimeout() < 0 || facts.GetRequestTimeout() < 0 {
		return r, refuse(path+".metadata", "a timeout is negative")
	}
	r.Timeouts.Attempt = time.Duration(facts.GetAttemptTimeout())
	if r.Match, err = decodeMatch(path+".match", m.GetMatch(), &facts); err != nil {
		return r, err
	}
	r.Filters, err = filtersOr(path, facts.GetFilters(), headerFields{m.GetRequestHeadersToAdd(), m.GetResponseHeadersToAdd(),
		m.GetRequestHeadersToRemove(), m.GetResponseHeadersToRemove()})
	if err != nil {
		return r, err
	}
	return r, decodeAction(path, &r, m, &facts)
}

// filtersOr prefers the facts, which say exactly what the header fields say roughly.
func filtersOr(path string, facts *tullepb.Filters, h headerFields) ([]model.Filter, error) {
	if facts == nil {
		return decodeFilters(path, h)
	}
	var out []model.Filter
	for _, f := range facts.GetFilters() {
		if f.GetKind() > uint32(model.FilterResponseHeaders) {
			return nil, refuse(path+".metadata.filters", "kind %d is not known to this version", f.GetKind())
		}
		o := model.Filter{Kind: model.FilterKind(f.GetKind()), Headers: model.HeaderChange{Remove: f.GetRemove()}}
		for _, h := range f.GetSet() {
			o.Headers.Set = append(o.Headers.Set, model.Header{Name: h.GetName(), Value: h.GetValue()})
		}
		for _, h := range f.GetAdd() {
			o.Headers.Add = append(o.Headers.Add, model.Header{Name: h.GetName(), Value: h.GetValue()})
		}
		out = append(out, o)
	}
	return out, nil
}

func decodeMatch(path string, m *routev3.RouteMatch, facts *tullepb.RouteFacts) (out model.Match, err error) {
	if err := only(path, m, "prefix", "path", "safe_regex", "path_separated_prefix", "headers", "query_parameters"); err != nil {
		return out, err
	}
	if err := decodePath(path, m, facts, &out); err != nil {
		return out, err
	}
	for i, h := range m.GetHeaders() {
		p := fmt.Sprintf("%s.headers[%d]", path, i)
		if err := only(p, h, "name", "string_match"); err != nil {
			return out, err
		}
		f, err := decodeField(p, h.GetName(), h.GetStringMatch())
		switch {
		case err != nil:
			return out, err
		case f.Name == ":method" && !f.Regex && out.Method == "" && f.Value != "":
			out.Method = f.Value
		case f.Name[0] == ':':
			return out, refuse(p+".name", "%q with this match is not run by Tulle", clip(f.Name))
		default:
			out.Headers = append(out.Headers, f)
		}
	}
	for i, q := range m.GetQueryParameters() {
		p := fmt.Sprintf("%s.query_parameters[%d]", path, i)
		if err := only(p, q, "name", "string_match"); err != nil {
			return out, err
		}
		f, err := decodeField(p, q.GetName(), q.GetStringMatch())
		if err != nil {
			return out, err
		}
		out.Query = append(out.Query, f)
	}
	return out, nil
}

func decodePath(path string, m *routev3.RouteMatch, facts *tullepb.RouteFacts, out *model.Match) error {
	switch s := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if s.Prefix != "/" {
			return refuse(path+".prefix", "%q compares characters; Tulle runs path_separated_prefix", clip(s.Prefix))
		}
		out.PathKind, out.Path = model.PathPrefix, "/"
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.PathKind, out.Path = model.PathPrefix, s.PathSeparatedPrefix
		if facts.Path != nil {
			out.Path = facts.GetPath()
		}
	case *routev3.RouteMatch_Path:
		out.PathKind, out.Path = model.PathExact, s.Path
	case *routev3.RouteMatch_SafeRegex:
		out.PathKind, out.Path = model.PathRegex, s.SafeRegex.GetRegex()
		return validRegex(path+".safe_regex", s.SafeRegex)
	default:
		return refuse(path, "has no path")
	}
	if out.Path == "" || out.Path[0] != '/' {
		return refuse(path, "path %q does not begin with /", clip(out.Path))
	}
	return nil
}

func decodeField(path, name string, s *matcherv3.StringMatcher) (model.FieldMatch, error) {
	f := model.FieldMatch{Name: name}
	if name == "" {
		return f, refuse(path+".name", "is empty")
	}
	if err := only(path+".string_match", s, "exact", "safe_regex"); err != nil {
		return f, err
	}
	switch p := s.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		f.Value = p.Exact
	case *matcherv3.StringMatcher_SafeRegex:
		f.Value, f.Regex = p.SafeRegex.GetRegex(), true
		return f, validRegex(path+".string_match.safe_regex", p.SafeRegex)
	default:
		return f, refuse(path, "has no string_match that Tulle runs")
	}
	return f, nil
}

// maxRegex bounds a regular expression, in bytes.
const maxRegex = 4096

func validRegex(path string, m *matcherv3.RegexMatcher) error {
	if err := only(path, m, "regex"); err != nil {
		return err
	}
	if len(m.GetRegex()) > maxRegex {
		return refuse(path, "is longer than %d bytes", maxRegex)
	}
	if _, err := regexp.Compile(m.GetRegex()); err != nil {
		return refuse(path, "%s", clip(err.Error()))
	}
	return nil
}

func decodeAction(path string, r *model.Route, m *routev3.Route, facts *tullepb.RouteFacts) error {
	switch a := m.GetAction().(type) {
	case *routev3.Route_DirectResponse:
		if err := only(path+".direct_response", a.DirectResponse, "status"); err != nil {
			return err
		}
		if a.DirectResponse.GetStatus() != noBackend {
			return refuse(path+".direct_response", "only status %d is run by Tulle", noBackend)
		}
		r.Timeouts.Request = time.Duration(facts.GetRequestTimeout())
		return nil
	case *routev3.Route_Route:
		return decodeForward(path+".route", r, a.Route, facts)
	}
	return refuse(path, "has no action that Tulle runs")
}

func decodeForward(path string, r *model.Route, a *routev3.RouteAction, facts *tullepb.RouteFacts) (err error) {
	if err := only(path, a, "cluster", "weighted_clusters", "timeout"); err != nil {
		return err
	}
	r.Timeouts.Request = defaultRequestTimeout
	if a.GetTimeout() != nil {
		if r.Timeouts.Request, err = duration(path+".timeout", a.GetTimeout()); err != nil {
			return err
		}
	}
	if c, ok := a.GetClusterSpecifier().(*routev3.RouteAction_Cluster); ok {
		name, err := model.ParsePortName(c.Cluster)
		if err != nil {
			return refuse(path+".cluster", "%s", clip(err.Error()))
		}
		r.Backends = []model.Backend{{Cluster: name, Weight: 1}}
		return nil
	}
	wc := a.GetWeightedClusters()
	if err := only(path+".weighted_clusters", wc, "clusters"); err != nil {
		return err
	}
	var sum uint64
	for i, c := range wc.GetClusters() {
		var bf *tullepb.BackendFacts
		if i < len(facts.GetBackends()) {
			bf = facts.GetBackends()[i]
		}
		b, err := decodeBackend(fmt.Sprintf("%s.weighted_clusters.clusters[%d]", path, i), c, bf)
		if err != nil {
			return err
		}
		sum += uint64(b.Weight)
		r.Backends = append(r.Backends, b)
	}
	if sum == 0 || sum > math.MaxUint32 {
		return refuse(path+".weighted_clusters", "the weights add up to %d", sum)
	}
	return nil
}

func decodeBackend(path string, m *routev3.WeightedCluster_ClusterWeight, facts *tullepb.BackendFacts) (b model.Backend, err error) {
	if err := only(path, m, "name", "weight", "request_headers_to_add", "request_headers_to_remove",
		"response_headers_to_add", "response_headers_to_remove"); err != nil {
		return b, err
	}
	b.Weight, b.Invalid = m.GetWeight().GetValue(), facts.GetInvalid()
	if b.Invalid {
		if facts.GetPort() > math.MaxUint16 {
			return b, refuse(path+".metadata.port", "%d is not a port", facts.GetPort())
		}
		b.Cluster = model.PortName{Service: model.ServiceName{Namespace: facts.GetNamespace(), Name: facts.GetName()}, Port: uint16(facts.GetPort())}
	} else if b.Cluster, err = model.ParsePortName(m.GetName()); err != nil {
		return b, refuse(path+".name", "%s", clip(err.Error()))
	}
	b.Filters, err = filtersOr(path, facts.GetFilters(), headerFields{m.GetRequestHeadersToAdd(), m.GetResponseHeadersToAdd(),
		m.GetRequestHeadersToRemove(), m.GetResponseHeadersToRemove()})
	return b, err
}
