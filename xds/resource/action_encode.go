package resource

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	statefulv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// What a route does itself, in Envoy's fields as far as they say it; what they do not say exactly travels as facts. Envoy
// needs the filters of these names in its chain; whoever does not know one may pass it over.

// encodeRedirect answers nil for a status that Envoy does not redirect with.
func encodeRedirect(d *model.Redirect) *routev3.RedirectAction {
	code, ok := map[int]routev3.RedirectAction_RedirectResponseCode{301: routev3.RedirectAction_MOVED_PERMANENTLY, 302: routev3.RedirectAction_FOUND,
		303: routev3.RedirectAction_SEE_OTHER, 307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT}[d.Status]
	if !ok {
		return nil
	}
	a := &routev3.RedirectAction{HostRedirect: d.Host, PortRedirect: uint32(d.Port), ResponseCode: code, StripQuery: d.StripQuery}
	if d.Scheme != "" {
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: d.Scheme}
	}
	switch d.Change {
	case model.PathFull:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: d.Path}
	case model.PathPrefixed:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: prefix(d.Path, d.AsEnvoy)}
	case model.PathPattern:
		if s := substitution(d.Pattern, d.Path); s != nil {
			a.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: s}
		}
	}
	return a
}

// prefix answers what Envoy has to put before the rest of a path, of which it thinks as text.
func prefix(p string, text bool) string {
	if text || p == "/" {
		return p
	}
	return strings.TrimRight(p, "/")
}

// substitution answers nil for what is not RE2's.
func substitution(pattern, with string) *matcherv3.RegexMatchAndSubstitute {
	re, err := regexp.Compile(pattern)
	if pattern == "" || err != nil {
		return nil
	}
	for rest := strings.ReplaceAll(with, `\\`, ""); ; {
		_, after, found := strings.Cut(rest, `\`)
		if !found {
			break
		}
		if after == "" || after[0] < '0' || after[0] > '9' || int(after[0]-'0') > re.NumSubexp() {
			return nil
		}
		rest = after
	}
	return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: with}
}

// encodePathChange writes how the backend's path is made.
func encodePathChange(a *routev3.RouteAction, w *model.Rewrite) {
	switch {
	case w.HasPrefix:
		a.PrefixRewrite = prefix(w.Prefix, w.PrefixText)
	case w.Path != "":
		// Envoy has no field for the whole path.
		a.RegexRewrite = substitution("^/.*$", strings.ReplaceAll(w.Path, `\`, `\\`))
	case w.Pattern != "":
		a.RegexRewrite = substitution(w.Pattern, w.Replacement)
	}
}

func encodeMirrors(list []model.Mirror) (out []*routev3.RouteAction_RequestMirrorPolicy) {
	for _, m := range list {
		if m.Invalid || m.Cluster.String() == "" {
			continue
		}
		p := &routev3.RouteAction_RequestMirrorPolicy{Cluster: m.Cluster.String(), DisableShadowHostSuffixAppend: !m.Suffix}
		if m.Fraction > 0 {
			p.RuntimeFraction = fraction(m.Fraction)
		}
		out = append(out, p)
	}
	return out
}

func fraction(share uint32) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: percentOf(min(share, 1_000_000))}
}

// encodePerRoute writes what filters do on a route.
func encodePerRoute(m *routev3.Route, r *model.Route) {
	put := func(name string, config proto.Message) {
		if m.TypedPerFilterConfig == nil {
			m.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		m.TypedPerFilterConfig[name] = packed(&routev3.FilterConfig{Config: packed(config), IsOptional: true})
	}
	if r.CORS != nil {
		put("envoy.filters.http.cors", encodeCORS(r.CORS))
	}
	if r.Fault != nil {
		put("envoy.filters.http.fault", encodeFault(r.Fault))
	}
	if r.Session != nil {
		put("envoy.filters.http.stateful_session", encodeSession(r.Session))
	}
	if len(m.TypedPerFilterConfig) > 0 && !readable(m) {
		m.TypedPerFilterConfig = nil // something in it is not for Envoy, such as the name of a cookie: all of it travels as facts
	}
}

// readable reports whether a route can be read back.
func readable(m *routev3.Route) bool {
	_, err := envoy.RouteTable("", &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []*routev3.Route{m}}}})
	return err == nil
}

// packed is Pack for what was made here. Text that is not UTF-8 cannot be written: what reads it back then says so.
func packed(m proto.Message) *anypb.Any {
	a, err := Pack(m)
	if err != nil {
		return &anypb.Any{}
	}
	return a
}

func encodeCORS(c *model.CORS) *corsv3.CorsPolicy {
	m := &corsv3.CorsPolicy{AllowMethods: strings.Join(c.Methods, ", "), AllowHeaders: strings.Join(c.Headers, ", "), ExposeHeaders: strings.Join(c.Expose, ", "),
		AllowCredentials: wrapperspb.Bool(c.Credentials), ForwardNotMatchingPreflights: wrapperspb.Bool(c.Forward)}
	switch {
	case c.MaxAge > 0:
		m.MaxAge = strconv.FormatInt(int64(min(c.MaxAge/time.Second, 1<<31-1)), 10)
	case c.MaxAge < 0:
		m.MaxAge = "0"
	}
	for _, o := range c.Origins {
		s := &matcherv3.StringMatcher{}
		switch {
		case o.Any:
			s.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: "*"}
		case o.Regex != "":
			s.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: o.Regex}}
		case o.Wildcard:
			s.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: regexp.QuoteMeta(o.Prefix) + ".+" + regexp.QuoteMeta(o.Suffix)}}
		default:
			s.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: o.Exact}
		}
		m.AllowOriginStringMatch = append(m.AllowOriginStringMatch, s)
	}
	return m
}

// encodeFault leaves out what Envoy cannot do: a reset is an answer of 503 there.
func encodeFault(f *model.Fault) *faultv3.HTTPFault {
	m := &faultv3.HTTPFault{}
	if f.Delay > 0 {
		m.Delay = &commonv3.FaultDelay{FaultDelaySecifier: &commonv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(f.Delay)}, Percentage: fraction(f.DelayShare).DefaultValue}
	}
	if f.AbortShare > 0 {
		m.Abort = &faultv3.FaultAbort{Percentage: fraction(f.AbortShare).DefaultValue}
		switch {
		case f.Status >= 200 && f.Status < 600:
			m.Abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(f.Status)}
		case f.GRPC > 0 && f.GRPC <= 16:
			m.Abort.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: uint32(f.GRPC)}
		default:
			m.Abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: 503}
		}
	}
	if f.Rate > 0 {
		m.ResponseRateLimit = &commonv3.FaultRateLimit{LimitType: &commonv3.FaultRateLimit_FixedLimit_{FixedLimit: &commonv3.FaultRateLimit_FixedLimit{
			LimitKbps: max(f.Rate>>10, 1)}}, Percentage: fraction(f.RateShare).DefaultValue}
	}
	for _, h := range f.Headers {
		m.Headers = append(m.Headers, encodeHeaderMatch(h))
	}
	return m
}

func encodeSession(s *model.Session) *statefulv3.StatefulSessionPerRoute {
	if s.Header == "" && s.Cookie == "" {
		return &statefulv3.StatefulSessionPerRoute{Override: &statefulv3.StatefulSessionPerRoute_Disabled{Disabled: true}}
	}
	var state proto.Message = &headerv3.HeaderBasedSessionState{Name: s.Header}
	name := "envoy.http.stateful_session.header"
	if s.Header == "" {
		c := &httpv3.Cookie{Name: s.Cookie, Path: s.Path}
		if s.Lifetime > 0 {
			c.Ttl = durationpb.New(s.Lifetime)
		}
		state, name = &cookiev3.CookieBasedSessionState{Cookie: c}, "envoy.http.stateful_session.cookie"
	}
	return &statefulv3.StatefulSessionPerRoute{Override: &statefulv3.StatefulSessionPerRoute_StatefulSession{StatefulSession: &statefulv3.StatefulSession{
		SessionState: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed(state)}}}}
}
