package envoy

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	statefulv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
)

// What routes do themselves: redirects, and what typed_per_filter_config and request_mirror_policies say.

// redirect reads a redirect.
func redirect(path string, m *routev3.RedirectAction) (*model.Redirect, error) {
	d := &model.Redirect{AsEnvoy: true, Host: m.GetHostRedirect(), StripQuery: m.GetStripQuery(), Scheme: strings.ToLower(m.GetSchemeRedirect())}
	if m.GetHttpsRedirect() {
		d.Scheme = "https"
	}
	var err error
	if d.Port, err = portNumber(join(path, "port_redirect"), m.GetPortRedirect()); err != nil {
		return nil, err
	}
	switch c := m.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		if c.PathRedirect != "" {
			d.Change, d.Path = model.PathFull, c.PathRedirect
		}
	case *routev3.RedirectAction_PrefixRewrite:
		if c.PrefixRewrite != "" {
			d.Change, d.Path = model.PathPrefixed, c.PrefixRewrite
		}
	case *routev3.RedirectAction_RegexRewrite:
		d.Change = model.PathPattern
		if d.Pattern, d.Path, err = replacing(join(path, "regex_rewrite"), c.RegexRewrite); err != nil {
			return nil, err
		}
	}
	d.Status = map[routev3.RedirectAction_RedirectResponseCode]int{routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
		routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308}[m.GetResponseCode()]
	if d.Status == 0 {
		d.Status = 301
	}
	return d, nil
}

// replacing reads what matches and what replaces it.
func replacing(path string, m *matcherv3.RegexMatchAndSubstitute) (pattern, with string, err error) {
	if err := regex(join(path, "pattern"), m.GetPattern()); err != nil {
		return "", "", err
	}
	pattern, with = m.GetPattern().GetRegex(), m.GetSubstitution()
	groups := regexp.MustCompile(pattern).NumSubexp()
	for i := 0; i < len(with); i++ {
		if with[i] != '\\' {
			continue
		}
		if i++; i == len(with) || with[i] != '\\' && (with[i] < '0' || with[i] > '9') || with[i] != '\\' && int(with[i]-'0') > groups {
			return "", "", refuse(join(path, "substitution"), `%q: \0 to \%d and \\ are what may follow a backslash`, clip(with), groups)
		}
	}
	return pattern, with, nil
}

// share reads a part of a million; nil is def.
func share(f *typev3.FractionalPercent, def uint32) uint32 {
	if f == nil {
		return def
	}
	of := map[typev3.FractionalPercent_DenominatorType]uint64{typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 1}[f.GetDenominator()]
	if of == 0 {
		of = 10_000
	}
	return uint32(min(uint64(f.GetNumerator())*of, million))
}

const million = 1_000_000

// mirrors reads mirror policies.
func mirrors(path string, list []*routev3.RouteAction_RequestMirrorPolicy) (out []model.Mirror, err error) {
	for i, m := range list {
		p := at(path, i)
		if m.GetCluster() == "" {
			return nil, refuse(join(p, "cluster"), "is missing")
		}
		n := uint32(million)
		if f := m.GetRuntimeFraction(); f != nil {
			n = share(f.GetDefaultValue(), 0)
		}
		if n == 0 {
			continue
		}
		if n == million {
			n = 0
		}
		out = append(out, model.Mirror{Cluster: model.Free(m.GetCluster()), Fraction: n, Suffix: !m.GetDisableShadowHostSuffixAppend()})
	}
	return out, nil
}

// perRoute is what a level of a route configuration says of filters; the nearest level that speaks of one counts.
type perRoute struct {
	cors    *model.CORS
	fault   *model.Fault
	session *model.Session
	mirrors []model.Mirror
	limits  []model.RateLimit
}

// apply gives a route what holds for it.
func (l *perRoute) apply(r *model.Route) {
	r.CORS, r.Fault, r.Session = l.cors, l.fault, l.session
	r.Limits = append(r.Limits, l.limits...)
	if r.Mirrors == nil && r.Direct == nil && r.Redirect == nil {
		r.Mirrors = l.mirrors
	}
}

// with answers the level below l that says these.
func (l perRoute) with(path string, all map[string]*anypb.Any) (perRoute, error) {
	p := join(path, "typed_per_filter_config")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := l.filter(join(p, clip(name)), name, all[name]); err != nil {
			return l, err
		}
	}
	return l, nil
}

// filter reads what is said of one filter, which is known by the type.
func (l *perRoute) filter(path, name string, a *anypb.Any) (err error) {
	switch {
	case is(a, &routev3.FilterConfig{}):
		var m routev3.FilterConfig
		if err := unpack(path, a, &m); err != nil {
			return err
		}
		if m.GetConfig() != nil && !m.GetDisabled() {
			return l.filter(join(path, "config"), name, m.GetConfig())
		}
		return l.disable(path, name, &m)
	case is(a, &corsv3.CorsPolicy{}):
		l.cors, err = cors(path, a)
	case is(a, &faultv3.HTTPFault{}):
		l.fault, err = fault(path, a)
	case is(a, &statefulv3.StatefulSessionPerRoute{}):
		var m statefulv3.StatefulSessionPerRoute
		if err := unpack(path, a, &m); err != nil {
			return err
		}
		l.session = &model.Session{}
		if m.GetStatefulSession() != nil && !m.GetDisabled() {
			l.session, err = session(join(path, "stateful_session"), m.GetStatefulSession())
		}
	case is(a, &localv3.LocalRateLimit{}):
		one, err := localLimit(path, a, path)
		if err != nil {
			return err
		}
		if l.limits = []model.RateLimit{unlimited()}; one != nil {
			l.limits[0] = *one
		}
	default:
		return foreign(path, a)
	}
	return err
}

// unlimited stands for a local limit that a route has switched off.
func unlimited() model.RateLimit {
	return model.RateLimit{Name: localName, Shadow: true, Requests: math.MaxUint32, Window: time.Second}
}

// disable reads a filter that is switched off, which is then known by the usual name.
func (l *perRoute) disable(path, name string, m *routev3.FilterConfig) error {
	switch {
	case !m.GetDisabled():
		return refuse(path, "has neither config nor disabled")
	case name == "envoy.filters.http.local_ratelimit":
		l.limits = []model.RateLimit{unlimited()}
	case name == "envoy.filters.http.cors":
		l.cors = nil
	case name == "envoy.filters.http.fault":
		l.fault = &model.Fault{}
	case name == "envoy.filters.http.stateful_session":
		l.session = &model.Session{}
	default:
		return refuse(path, "disables a filter that Tulle does not know by this name")
	}
	return nil
}

// cors reads a policy; nil: it is off.
func cors(path string, a *anypb.Any) (*model.CORS, error) {
	var m corsv3.CorsPolicy
	if err := unpack(path, a, &m); err != nil {
		return nil, err
	}
	switch on := share(m.GetFilterEnabled().GetDefaultValue(), million); {
	case on == 0:
		return nil, nil
	case on < million:
		return nil, refuse(join(path, "filter_enabled"), "of a part of the requests %s", notRun)
	}
	c := &model.CORS{Methods: list(m.GetAllowMethods()), Headers: list(m.GetAllowHeaders()), Expose: list(m.GetExposeHeaders()),
		Credentials: m.GetAllowCredentials().GetValue(), Forward: boolOr(m.GetForwardNotMatchingPreflights(), true)}
	if s := m.GetMaxAge(); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, refuse(join(path, "max_age"), "%q is not a number of seconds", clip(s))
		}
		if c.MaxAge = time.Duration(n) * time.Second; n == 0 {
			c.MaxAge = -1
		}
	}
	for i, s := range m.GetAllowOriginStringMatch() {
		o, err := origin(at(join(path, "allow_origin_string_match"), i), s)
		if err != nil {
			return nil, err
		}
		c.Origins = append(c.Origins, o)
	}
	return c, nil
}

// origin reads which origins are allowed.
func origin(path string, s *matcherv3.StringMatcher) (o model.OriginMatch, err error) {
	m, err := stringMatch(path, s)
	if err != nil {
		return o, err
	}
	text := regexp.QuoteMeta(m.Value)
	switch {
	case m.Kind == model.StringExact && m.Value == "*":
		return model.OriginMatch{Any: true}, nil
	case m.Kind == model.StringExact && !m.IgnoreCase:
		return model.OriginMatch{Exact: m.Value}, nil
	case m.Kind == model.StringRegex:
		if m.IgnoreCase {
			return o, refuse(join(path, "ignore_case"), "has no effect on safe_regex; write (?i)")
		}
		return model.OriginMatch{Regex: m.Value}, nil
	case m.Kind == model.StringPrefix:
		text += ".*"
	case m.Kind == model.StringSuffix:
		text = ".*" + text
	case m.Kind == model.StringContains:
		text = ".*" + text + ".*"
	}
	if m.IgnoreCase {
		text = "(?i)" + text
	}
	return model.OriginMatch{Regex: text}, nil
}

// list reads a list as header fields have them.
func list(s string) (out []string) {
	for _, one := range strings.Split(s, ",") {
		if one = strings.TrimSpace(one); one != "" {
			out = append(out, one)
		}
	}
	return out
}

// fault reads the configuration of the fault filter.
func fault(path string, a *anypb.Any) (*model.Fault, error) {
	var m faultv3.HTTPFault
	if err := unpack(path, a, &m); err != nil {
		return nil, err
	}
	f := &model.Fault{}
	if d := m.GetDelay(); d != nil {
		p := join(path, "delay")
		s, ok := d.GetFaultDelaySecifier().(*commonv3.FaultDelay_FixedDelay)
		if !ok {
			return nil, refuse(join(p, "fixed_delay"), "is missing")
		}
		var err error
		if f.Delay, err = duration(join(p, "fixed_delay"), s.FixedDelay, 0); err != nil {
			return nil, err
		}
		if f.DelayShare = share(d.GetPercentage(), 0); f.Delay == 0 {
			return nil, refuse(join(p, "fixed_delay"), "is not more than 0")
		}
	}
	if err := abort(join(path, "abort"), m.GetAbort(), f); err != nil {
		return nil, err
	}
	if l := m.GetResponseRateLimit(); l != nil {
		kib := l.GetFixedLimit().GetLimitKbps()
		if kib == 0 || kib > math.MaxInt64>>11 {
			return nil, refuse(join(path, "response_rate_limit.fixed_limit.limit_kbps"), "is missing or too large")
		}
		f.Rate, f.RateShare = kib<<10, share(l.GetPercentage(), 0)
	}
	for i, h := range m.GetHeaders() {
		match, err := headerMatch(at(join(path, "headers"), i), h)
		if err != nil {
			return nil, err
		}
		f.Headers = append(f.Headers, match)
	}
	return f, nil
}

func abort(path string, m *faultv3.FaultAbort, f *model.Fault) error {
	if m == nil {
		return nil
	}
	f.AbortShare = share(m.GetPercentage(), 0)
	switch s := m.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		if f.Status = int(s.HttpStatus); s.HttpStatus < 200 || s.HttpStatus >= 600 {
			return refuse(join(path, "http_status"), "%d is not from 200 to 599", s.HttpStatus)
		}
	case *faultv3.FaultAbort_GrpcStatus:
		if f.GRPC = int(s.GrpcStatus); s.GrpcStatus < 1 || s.GrpcStatus > 16 {
			return refuse(join(path, "grpc_status"), "%d is not from 1 to 16", s.GrpcStatus)
		}
		f.Status = statusOfGRPC[f.GRPC]
	default:
		return refuse(path, "has neither http_status nor grpc_status")
	}
	return nil
}

// statusOfGRPC is the HTTP status of clients that do not speak gRPC, as Envoy has it.
var statusOfGRPC = [...]int{0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401}

// session reads the configuration of the session filter; one without a state keeps none.
func session(path string, m *statefulv3.StatefulSession) (*model.Session, error) {
	if m.GetSessionState() == nil {
		return &model.Session{}, nil
	}
	p := join(path, "session_state.typed_config")
	a := m.GetSessionState().GetTypedConfig()
	switch {
	case is(a, &cookiev3.CookieBasedSessionState{}):
		var c cookiev3.CookieBasedSessionState
		if err := unpack(p, a, &c); err != nil {
			return nil, err
		}
		s := &model.Session{Cookie: c.GetCookie().GetName(), Path: c.GetCookie().GetPath()}
		if !token(s.Cookie) {
			return nil, refuse(join(p, "cookie.name"), "%q is not the name of a cookie", clip(s.Cookie))
		}
		if strings.ContainsAny(s.Path, ";\x7f") {
			return nil, refuse(join(p, "cookie.path"), "%q is not a path", clip(s.Path))
		}
		var err error
		s.Lifetime, err = duration(join(p, "cookie.ttl"), c.GetCookie().GetTtl(), 0)
		s.Absolute = s.Lifetime
		return s, err
	case is(a, &headerv3.HeaderBasedSessionState{}):
		var h headerv3.HeaderBasedSessionState
		if err := unpack(p, a, &h); err != nil {
			return nil, err
		}
		if !token(h.GetName()) || frames(h.GetName()) {
			return nil, refuse(join(p, "name"), "%q is not the name of a field", clip(h.GetName()))
		}
		return &model.Session{Header: h.GetName()}, nil
	}
	return nil, foreign(p, a)
}

// actionFilter reads an HTTP filter that routes refer to, and reports whether a holds one.
func actionFilter(path string, a *anypb.Any, h *model.HTTP) (ours bool, err error) {
	once := func(there bool) error {
		if there {
			return refuse(path, "a second filter of the kind %s", notRun)
		}
		return nil
	}
	switch {
	case is(a, &corsv3.Cors{}):
		if err := once(h.CORS); err != nil {
			return true, err
		}
		h.CORS = true
		return true, unpack(path, a, &corsv3.Cors{})
	case is(a, &faultv3.HTTPFault{}):
		if err := once(h.Fault != nil); err != nil {
			return true, err
		}
		h.Fault, err = fault(path, a)
		return true, err
	case is(a, &statefulv3.StatefulSession{}):
		if err := once(h.Session != nil); err != nil {
			return true, err
		}
		var m statefulv3.StatefulSession
		if err := unpack(path, a, &m); err != nil {
			return true, err
		}
		h.Session, err = session(path, &m)
		return true, err
	}
	return false, nil
}
