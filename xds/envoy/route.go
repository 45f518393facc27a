package envoy

import (
	"math"
	"regexp"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tulle-mesh/tulle/model"
)

// defaultTimeout of a route is Envoy's.
const defaultTimeout = 15 * time.Second

// forever is how the model says that a route has no limit where its listener has one.
const forever = 10 * 365 * 24 * time.Hour

// RouteTable reads a route configuration.
func RouteTable(path string, m *routev3.RouteConfiguration) (*model.RouteTable, error) {
	if err := known(path, m); err != nil {
		return nil, err
	}
	t := &model.RouteTable{Name: model.Free(m.GetName()), IgnorePort: m.GetIgnorePortInHostMatching(), AnyCluster: !boolOr(m.GetValidateClusters(), true)}
	common, err := headerFilters(path, m)
	if err != nil {
		return nil, err
	}
	level, err := perRoute{}.with(path, m.GetTypedPerFilterConfig())
	if err != nil {
		return nil, err
	}
	if level.mirrors, err = mirrors(join(path, "request_mirror_policies"), m.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	taken := map[string]string{}
	for i, vh := range m.GetVirtualHosts() {
		p := at(join(path, "virtual_hosts"), i)
		h := model.VirtualHost{Name: vh.GetName(), Domains: lowerAll(vh.GetDomains())}
		if h.Name == "" {
			return nil, refuse(join(p, "name"), "is missing")
		}
		for k, d := range h.Domains {
			if other, ok := taken[d]; ok {
				return nil, refuse(at(join(p, "domains"), k), "%q is a domain of %s already", clip(d), other)
			}
			taken[d] = "virtual host " + clip(h.Name)
		}
		if len(h.Domains) == 0 {
			return nil, refuse(join(p, "domains"), "is missing")
		}
		if h.Filters, err = headerFilters(p, vh); err != nil {
			return nil, err
		}
		h.Filters = append(h.Filters, common...)
		if h.Routes, err = routesOf(p, vh, level); err != nil {
			return nil, err
		}
		t.Hosts = append(t.Hosts, h)
	}
	return t, nil
}

// routesOf reads the routes of a virtual host; above is what the levels above it say of filters.
func routesOf(path string, vh *routev3.VirtualHost, above perRoute) (out []model.Route, err error) {
	host, err := above.with(path, vh.GetTypedPerFilterConfig())
	if err != nil {
		return nil, err
	}
	if l := vh.GetRequestMirrorPolicies(); len(l) > 0 {
		if host.mirrors, err = mirrors(join(path, "request_mirror_policies"), l); err != nil {
			return nil, err
		}
	}
	for k, m := range vh.GetRoutes() {
		p := at(join(path, "routes"), k)
		r, err := decodeRoute(p, m, vh.GetName(), k)
		if err == nil && m.GetRoute() != nil {
			err = attempts(join(p, "route"), m.GetRoute(), vh, path, &r)
		}
		if err == nil && m.GetRoute() != nil {
			r.Limits, err = asked(join(p, "route"), m.GetRoute(), path, vh)
		}
		if err != nil {
			return nil, err
		}
		own, err := host.with(p, m.GetTypedPerFilterConfig())
		if err != nil {
			return nil, err
		}
		own.apply(&r)
		out = append(out, r)
	}
	return out, nil
}

func decodeRoute(path string, m *routev3.Route, host string, index int) (r model.Route, err error) {
	if r.Name, r.Rule = m.GetName(), index; r.Name == "" {
		r.Name = host
	}
	if r.Match, err = routeMatch(join(path, "match"), m.GetMatch()); err != nil {
		return r, err
	}
	if r.Filters, err = headerFilters(path, m); err != nil {
		return r, err
	}
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		return r, routeAction(join(path, "route"), a.Route, &r)
	case *routev3.Route_Redirect:
		r.Redirect, err = redirect(join(path, "redirect"), a.Redirect)
		return r, err
	case *routev3.Route_DirectResponse:
		p := join(path, "direct_response")
		body, err := material(join(p, "body"), a.DirectResponse.GetBody())
		if err == nil && body.File != "" {
			err = refuse(join(p, "body.filename"), notRun)
		}
		r.Direct = &model.Direct{Status: int(a.DirectResponse.GetStatus()), Body: body.Bytes}
		if s := r.Direct.Status; err == nil && (s < 200 || s > 599) {
			err = refuse(join(p, "status"), "%d is not from 200 to 599", s)
		}
		return r, err
	}
	return r, refuse(path, "has no action that Tulle runs: route, redirect or direct_response")
}

func routeMatch(path string, m *routev3.RouteMatch) (out model.Match, err error) {
	out.IgnoreCase, out.GRPC = !boolOr(m.GetCaseSensitive(), true), m.GetGrpc() != nil
	switch s := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		out.PathKind, out.Path, out.PathPrefixText = model.PathPrefix, s.Prefix, true
		if s.Prefix == "" || s.Prefix == "/" {
			out.Path, out.PathPrefixText = "/", false
		}
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.PathKind, out.Path = model.PathPrefix, s.PathSeparatedPrefix
		if p := out.Path; len(p) < 2 || p[0] != '/' || p[len(p)-1] == '/' || strings.ContainsAny(p, "?#") {
			return out, refuse(join(path, "path_separated_prefix"), "%q does not begin with a slash and end without one", clip(p))
		}
	case *routev3.RouteMatch_Path:
		out.PathKind, out.Path = model.PathExact, s.Path
	case *routev3.RouteMatch_SafeRegex:
		out.PathKind, out.Path = model.PathRegex, s.SafeRegex.GetRegex()
		if err := regex(join(path, "safe_regex"), s.SafeRegex); err != nil {
			return out, err
		}
	case *routev3.RouteMatch_ConnectMatcher_:
		out.Connect, out.Path = true, "/"
	default:
		return out, refuse(path, "has no path that Tulle compares: prefix, path, safe_regex, path_separated_prefix or connect_matcher")
	}
	if f := m.GetRuntimeFraction(); f != nil {
		p := join(path, "runtime_fraction")
		n := share(f.GetDefaultValue(), 0)
		if n == 0 {
			return out, refuse(p, "of 0 never matches; leave the route out")
		}
		if n < million {
			out.Fraction = n
		}
	}
	for i, h := range m.GetHeaders() {
		f, err := headerMatch(at(join(path, "headers"), i), h)
		if err != nil {
			return out, err
		}
		if f.Name == ":method" && f.Kind == model.FieldValue && !f.Regex && !f.Invert && !f.IgnoreCase && out.Method == "" {
			out.Method = f.Value
			continue
		}
		out.Headers = append(out.Headers, f)
	}
	for i, q := range m.GetQueryParameters() {
		p := at(join(path, "query_parameters"), i)
		f := model.FieldMatch{Name: q.GetName(), Kind: model.FieldPresent}
		if a, ok := q.GetQueryParameterMatchSpecifier().(*routev3.QueryParameterMatcher_PresentMatch); ok && !a.PresentMatch {
			return out, refuse(join(p, "present_match"), "of false %s", notRun)
		}
		if s := q.GetStringMatch(); s != nil {
			if err := fieldMatch(join(p, "string_match"), s, &f); err != nil {
				return out, err
			}
		}
		out.Query = append(out.Query, f)
	}
	return out, nil
}

func headerMatch(path string, h *routev3.HeaderMatcher) (model.FieldMatch, error) {
	f := model.FieldMatch{Name: strings.ToLower(h.GetName()), Invert: h.GetInvertMatch(), Kind: model.FieldPresent}
	if f.Name == "" {
		return f, refuse(join(path, "name"), "is missing")
	}
	switch s := h.GetHeaderMatchSpecifier().(type) {
	case nil:
	case *routev3.HeaderMatcher_PresentMatch:
		f.Invert = f.Invert != !s.PresentMatch
	case *routev3.HeaderMatcher_RangeMatch:
		f.Kind, f.From, f.To = model.FieldRange, s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_StringMatch:
		return f, fieldMatch(join(path, "string_match"), s.StringMatch, &f)
	default:
		return f, refuse(path, "the deprecated match specifiers %s; use string_match", notRun)
	}
	return f, nil
}

func fieldMatch(path string, s *matcherv3.StringMatcher, f *model.FieldMatch) error {
	m, err := stringMatch(path, s)
	if err != nil {
		return err
	}
	f.IgnoreCase, f.Value = m.IgnoreCase, m.Value
	switch m.Kind {
	case model.StringExact:
		f.Kind = model.FieldValue
	case model.StringRegex:
		f.Kind, f.Regex = model.FieldValue, true
		if m.IgnoreCase {
			return refuse(join(path, "ignore_case"), "has no effect on safe_regex; write (?i)")
		}
	case model.StringPrefix:
		f.Kind = model.FieldPrefix
	case model.StringSuffix:
		f.Kind = model.FieldSuffix
	case model.StringContains:
		f.Kind = model.FieldContains
	}
	return nil
}

func regex(path string, m *matcherv3.RegexMatcher) error {
	if m.GetRegex() == "" {
		return refuse(join(path, "regex"), "is missing")
	}
	if _, err := regexp.Compile(m.GetRegex()); err != nil {
		return refuse(join(path, "regex"), "is not RE2: %s", clip(err.Error()))
	}
	return nil
}

func routeAction(path string, m *routev3.RouteAction, r *model.Route) error {
	r.Rewrite = model.Rewrite{Prefix: m.GetPrefixRewrite(), HasPrefix: m.GetPrefixRewrite() != "", PrefixText: m.GetPrefixRewrite() != "", Host: m.GetHostRewriteLiteral(),
		AutoHost: m.GetAutoHostRewrite().GetValue(), AppendXFHost: m.GetAppendXForwardedHost()}
	var err error
	if s := m.GetRegexRewrite(); s != nil {
		if r.Rewrite.HasPrefix {
			return refuse(join(path, "regex_rewrite"), "and prefix_rewrite exclude each other")
		}
		if r.Rewrite.Pattern, r.Rewrite.Replacement, err = replacing(join(path, "regex_rewrite"), s); err != nil {
			return err
		}
	}
	if l := m.GetRequestMirrorPolicies(); len(l) > 0 {
		if r.Mirrors, err = mirrors(join(path, "request_mirror_policies"), l); err != nil {
			return err
		}
		if r.Mirrors == nil {
			r.Mirrors = []model.Mirror{} // it says that there are none
		}
	}
	if m.GetPriority() == corev3.RoutingPriority_HIGH {
		r.Priority = model.PriorityHigh
	}
	if err := routeTimeouts(path, m, &r.Timeouts); err != nil {
		return err
	}
	for i, u := range m.GetUpgradeConfigs() {
		if !boolOr(u.GetEnabled(), true) {
			return refuse(join(at(join(path, "upgrade_configs"), i), "enabled"), "of false %s; leave the type out of the listener's", notRun)
		}
		r.Upgrades = append(r.Upgrades, strings.ToLower(u.GetUpgradeType()))
	}
	for i, h := range m.GetHashPolicy() {
		k, err := hashKey(at(join(path, "hash_policy"), i), h)
		if err != nil {
			return err
		}
		r.Hash = append(r.Hash, k)
	}
	subset, err := routeSubset(join(path, "metadata_match"), m.GetMetadataMatch())
	if err != nil {
		return err
	}
	switch c := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		if c.Cluster == "" {
			return refuse(join(path, "cluster"), "is empty")
		}
		r.Backends = []model.Backend{{Cluster: model.Free(c.Cluster), Weight: 1, Subset: subset}}
	case *routev3.RouteAction_ClusterHeader:
		if r.FromField = strings.ToLower(c.ClusterHeader); !token(r.FromField) {
			return refuse(join(path, "cluster_header"), "%q is not the name of a header", clip(c.ClusterHeader))
		}
		if m.GetMetadataMatch() != nil {
			return refuse(join(path, "metadata_match"), "with cluster_header %s", notRun)
		}
	case *routev3.RouteAction_WeightedClusters:
		return weightedClusters(join(path, "weighted_clusters"), c.WeightedClusters, subset, r)
	default:
		return refuse(path, "names no cluster that Tulle can find: cluster, weighted_clusters or cluster_header")
	}
	return nil
}

func weightedClusters(path string, m *routev3.WeightedCluster, subset []model.Label, r *model.Route) error {
	var sum uint64
	for i, c := range m.GetClusters() {
		p := at(join(path, "clusters"), i)
		f, err := headerFilters(p, c)
		if err != nil {
			return err
		}
		if c.GetName() == "" {
			return refuse(join(p, "name"), "is missing")
		}
		own, err := routeSubset(join(p, "metadata_match"), c.GetMetadataMatch())
		if err != nil {
			return err
		}
		sum += uint64(c.GetWeight().GetValue())
		r.Backends = append(r.Backends, model.Backend{Cluster: model.Free(c.GetName()), Weight: c.GetWeight().GetValue(), Filters: f, Subset: narrower(subset, own)})
	}
	if sum == 0 || sum > math.MaxUint32 {
		return refuse(path, "the weights add up to %d; they have to be more than 0 and at most %d", sum, uint32(math.MaxUint32))
	}
	return nil
}

func routeTimeouts(path string, m *routev3.RouteAction, t *model.Timeouts) error {
	err := durations(path, []durationField{
		{&t.Request, "timeout", m.GetTimeout(), defaultTimeout},
		{&t.Idle, "idle_timeout", m.GetIdleTimeout(), 0},
	})
	if m.GetIdleTimeout() != nil && t.Idle == 0 {
		t.Idle = forever // 0 would be the listener's
	}
	s := m.GetMaxStreamDuration()
	if err != nil || s == nil {
		return err
	}
	p := join(path, "max_stream_duration")
	t.GRPCTimeout = s.GetGrpcTimeoutHeaderMax() != nil
	err = durations(p, []durationField{
		{&t.MaxStream, "max_stream_duration", s.GetMaxStreamDuration(), 0},
		{&t.GRPCMax, "grpc_timeout_header_max", s.GetGrpcTimeoutHeaderMax(), 0},
		{&t.GRPCOffset, "grpc_timeout_header_offset", s.GetGrpcTimeoutHeaderOffset(), 0},
	})
	if s.GetMaxStreamDuration() != nil && t.MaxStream == 0 {
		t.MaxStream = forever
	}
	return err
}

func hashKey(path string, h *routev3.RouteAction_HashPolicy) (model.HashKey, error) {
	k := model.HashKey{Terminal: h.GetTerminal()}
	switch s := h.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		k.Kind, k.Name = model.HashHeader, strings.ToLower(s.Header.GetHeaderName())
		return k, nil
	case *routev3.RouteAction_HashPolicy_Cookie_:
		k.Kind, k.Name, k.Path, k.Generate = model.HashCookie, s.Cookie.GetName(), s.Cookie.GetPath(), s.Cookie.GetTtl() != nil
		var err error
		k.TTL, err = duration(join(path, "cookie.ttl"), s.Cookie.GetTtl(), 0)
		return k, err
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		k.Kind = model.HashSourceIP
		if !s.ConnectionProperties.GetSourceIp() {
			return k, refuse(join(path, "connection_properties"), "does not say source_ip")
		}
		return k, nil
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		k.Kind, k.Name = model.HashQuery, s.QueryParameter.GetName()
		return k, nil
	}
	return k, refuse(path, "hashes what Tulle does not look at; header, cookie, connection_properties and query_parameter are run")
}

// mutates is what every level of a route configuration has.
type mutates interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func headerFilters(path string, m mutates) ([]model.Filter, error) {
	var out []model.Filter
	for _, side := range []struct {
		kind   model.FilterKind
		name   string
		add    []*corev3.HeaderValueOption
		remove []string
	}{{model.FilterRequestHeaders, "request_headers_to_add", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove()},
		{model.FilterResponseHeaders, "response_headers_to_add", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove()}} {
		f := model.Filter{Kind: side.kind, Headers: model.HeaderChange{Remove: side.remove}}
		for i, n := range side.remove {
			if !token(n) || strings.EqualFold(n, "host") || frames(n) {
				return nil, refuse(at(join(path, strings.Replace(side.name, "_add", "_remove", 1)), i), "%q cannot be removed", clip(n))
			}
		}
		for i, a := range side.add {
			p := at(join(path, side.name), i)
			h, err := addedHeader(p, a)
			if err != nil {
				return nil, err
			}
			switch {
			case a.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
				f.Headers.Set = append(f.Headers.Set, h)
			case a.GetAppendAction() == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
				f.Headers.Add = append(f.Headers.Add, h)
			default:
				return nil, refuse(join(p, "append_action"), "%s %s", a.GetAppendAction(), notRun)
			}
		}
		if len(f.Headers.Remove)+len(f.Headers.Set)+len(f.Headers.Add) > 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

// addedHeader reads a field that is added; its value is text.
func addedHeader(path string, a *corev3.HeaderValueOption) (model.Header, error) {
	h := model.Header{Name: a.GetHeader().GetKey(), Value: a.GetHeader().GetValue()}
	if strings.Contains(strings.ReplaceAll(h.Value, "%%", ""), "%") {
		return h, refuse(join(path, "header.value"), "command operators in header values are not run by Tulle")
	}
	h.Value = strings.ReplaceAll(h.Value, "%%", "%")
	if !token(h.Name) || strings.EqualFold(h.Name, "host") || frames(h.Name) {
		return h, refuse(join(path, "header.key"), "%q cannot be changed by a header field", clip(h.Name))
	}
	if h.Value == "" && !a.GetKeepEmptyValue() {
		return h, refuse(join(path, "header.value"), "is empty: it would not be added without keep_empty_value")
	}
	return h, nil
}

// frames reports whether the field belongs to a connection or its framing, which is the proxy's to say.
func frames(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// token reports whether s is a field name of RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}
