package envoy

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	adaptivev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/adaptive_concurrency/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	globalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
)

// How much a chain takes: the filters local_ratelimit (of connections and of requests), connection_limit, ratelimit and
// adaptive_concurrency.

// Names of limits in metrics. A route's own local limit counts instead of the chain's, since they are called the same.
const (
	localName  = "local_ratelimit"
	globalName = "ratelimit"
)

// limitFilter reads an HTTP filter that limits, and reports whether a is one.
func limitFilter(path string, a *anypb.Any, h *model.HTTP) (ours bool, err error) {
	switch {
	case is(a, &localv3.LocalRateLimit{}):
		l, err := localLimit(path, a, "")
		if in := limitsOf(h); l != nil {
			in.Limits = append(in.Limits, *l)
		}
		return true, err
	case is(a, &globalv3.RateLimit{}):
		if h.Global != nil {
			return true, refuse(path, "there is a ratelimit filter already; Tulle runs one a chain")
		}
		limitsOf(h)
		h.Global, err = globalLimit(path, a)
		return true, err
	case is(a, &adaptivev3.AdaptiveConcurrency{}):
		limitsOf(h).Adaptive, err = adaptive(path, a)
		return true, err
	}
	return false, nil
}

func limitsOf(h *model.HTTP) *model.Inbound {
	if h.Inbound == nil {
		h.Inbound = &model.Inbound{}
	}
	return h.Inbound
}

// localLimit reads a limit of requests; nil: it is off.
func localLimit(path string, a *anypb.Any, scope string) (*model.RateLimit, error) {
	var m localv3.LocalRateLimit
	if err := unpack(path, a, &m); err != nil {
		return nil, err
	}
	l := &model.RateLimit{Name: localName, Scope: scope}
	if err := bucket(join(path, "token_bucket"), m.GetTokenBucket(), 50*time.Millisecond, l); err != nil {
		return nil, err
	}
	if c := m.GetStatus().GetCode(); c >= 400 { // of others Envoy makes 429
		l.Status = int(c)
	}
	switch enforced := share(m.GetFilterEnforced().GetDefaultValue(), 0); enforced {
	case 0:
		l.Shadow = true
	case million:
	default:
		return nil, refuse(join(path, "filter_enforced"), "of a part of the requests %s", notRun)
	}
	enabled := share(m.GetFilterEnabled().GetDefaultValue(), 0)
	if enabled == 0 || m.GetTokenBucket() == nil {
		return nil, nil
	}
	if enabled < million {
		l.Match = &model.Match{Path: "/", Fraction: enabled}
	}
	return l, nil
}

// bucket reads a token bucket.
func bucket(path string, m *typev3.TokenBucket, least time.Duration, l *model.RateLimit) (err error) {
	if m == nil {
		return nil
	}
	l.Burst, l.Requests = m.GetMaxTokens(), numberOr(m.GetTokensPerFill(), 1)
	if l.Window, err = duration(join(path, "fill_interval"), m.GetFillInterval(), 0); err != nil {
		return err
	}
	switch {
	case l.Burst == 0:
		return refuse(join(path, "max_tokens"), "is missing")
	case l.Requests == 0:
		return refuse(join(path, "tokens_per_fill"), "is 0")
	case l.Window < least || l.Window == 0:
		return refuse(join(path, "fill_interval"), "is less than %v", max(least, 1))
	}
	return nil
}

// globalLimit reads which service is asked.
func globalLimit(path string, a *anypb.Any) (*model.GlobalLimit, error) {
	var m globalv3.RateLimit
	if err := unpack(path, a, &m); err != nil {
		return nil, err
	}
	g := &model.GlobalLimit{Domain: m.GetDomain(), Closed: m.GetFailureModeDeny()}
	if g.Domain == "" {
		return nil, refuse(join(path, "domain"), "is missing")
	}
	p := join(path, "rate_limit_service")
	name := m.GetRateLimitService().GetGrpcService().GetEnvoyGrpc().GetClusterName()
	if name == "" {
		return nil, refuse(join(p, "grpc_service.envoy_grpc.cluster_name"), "is missing")
	}
	g.Cluster = model.Free(name)
	if err := version3(join(p, "transport_api_version"), m.GetRateLimitService().GetTransportApiVersion()); err != nil {
		return nil, err
	}
	var err error
	g.Timeout, err = duration(join(path, "timeout"), m.GetTimeout(), 20*time.Millisecond)
	if err == nil && g.Timeout == 0 {
		err = refuse(join(path, "timeout"), "of 0 %s", notRun)
	}
	return g, err
}

// adaptive reads the gradient controller; nil: it is off.
func adaptive(path string, a *anypb.Any) (*model.Adaptive, error) {
	var m adaptivev3.AdaptiveConcurrency
	if err := unpack(path, a, &m); err != nil {
		return nil, err
	}
	p := join(path, "gradient_controller_config")
	g := m.GetGradientControllerConfig()
	if g == nil {
		return nil, refuse(p, "is missing")
	}
	limits, rtt := g.GetConcurrencyLimitParams(), g.GetMinRttCalcParams()
	out := &model.Adaptive{Most: numberOr(limits.GetMaxConcurrencyLimit(), 1000), Least: numberOr(rtt.GetMinConcurrency(), 3)}
	if b := rtt.GetBuffer(); b != nil {
		out.Tolerance = max(1.5, 1+b.GetValue()/100)
	}
	err := durations(p, []durationField{
		{&out.Interval, "concurrency_limit_params.concurrency_update_interval", limits.GetConcurrencyUpdateInterval(), 0},
		{&out.Probe, "min_rtt_calc_params.interval", rtt.GetInterval(), 0},
	})
	switch {
	case err != nil:
		return nil, err
	case out.Interval == 0:
		return nil, refuse(join(p, "concurrency_limit_params.concurrency_update_interval"), "is missing")
	case out.Probe == 0:
		return nil, refuse(join(p, "min_rtt_calc_params.interval"), "is missing")
	case out.Least == 0 || out.Most < out.Least:
		return nil, refuse(p, "its limits, %d to %d, are none", out.Least, out.Most)
	case !enabled(m.GetEnabled()):
		return nil, nil
	}
	return out, nil
}

// enabled reads a flag, which is on unless it says otherwise.
func enabled(f *corev3.RuntimeFeatureFlag) bool { return f == nil || boolOr(f.GetDefaultValue(), true) }

// connectionFilter reads a network filter that limits connections, and reports whether a is one.
func connectionFilter(path string, a *anypb.Any, c *model.Chain) (ours bool, err error) {
	switch {
	case is(a, &networkv3.LocalRateLimit{}):
		var m networkv3.LocalRateLimit
		if err := unpack(path, a, &m); err != nil {
			return true, err
		}
		l := &model.RateLimit{Name: "connections"}
		if m.GetTokenBucket() == nil {
			return true, refuse(join(path, "token_bucket"), "is missing")
		}
		if err := bucket(join(path, "token_bucket"), m.GetTokenBucket(), 50*time.Millisecond, l); err != nil {
			return true, err
		}
		if c.ConnectionRate != nil {
			return true, refuse(path, "there is a local_ratelimit already; Tulle runs one a chain")
		}
		if enabled(m.GetRuntimeEnabled()) {
			c.ConnectionRate = l
		}
		return true, nil
	case is(a, &connectionsv3.ConnectionLimit{}):
		var m connectionsv3.ConnectionLimit
		if err := unpack(path, a, &m); err != nil {
			return true, err
		}
		n := m.GetMaxConnections().GetValue()
		if n == 0 || n > math.MaxUint32 {
			return true, refuse(join(path, "max_connections"), "%d is not from 1 to %d", n, uint32(math.MaxUint32))
		}
		if enabled(m.GetRuntimeEnabled()) {
			c.MaxConnections = uint32(n)
		}
		return true, nil
	}
	return false, nil
}

// descriptors reads what a rate-limit service is asked about the requests of a route.
func descriptors(path string, list []*routev3.RateLimit) (out []model.RateLimit, err error) {
	for i, m := range list {
		p := at(path, i)
		l := model.RateLimit{Name: globalName, Global: &model.GlobalLimit{}}
		for k, a := range m.GetActions() {
			if err := descriptor(at(join(p, "actions"), k), a, &l); err != nil {
				return nil, err
			}
		}
		if len(l.By) == 0 {
			return nil, refuse(join(p, "actions"), "there is none")
		}
		out = append(out, l)
	}
	return out, nil
}

// descriptor reads one action.
func descriptor(path string, m *routev3.RateLimit_Action, l *model.RateLimit) error {
	k := model.RateKey{}
	switch a := m.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_RequestHeaders_:
		h := a.RequestHeaders
		k = model.RateKey{Kind: model.RateByHeader, Name: strings.ToLower(h.GetHeaderName()), Key: h.GetDescriptorKey(), Optional: h.GetSkipIfAbsent()}
		if k.Name == "" || k.Key == "" {
			return refuse(join(path, "request_headers"), "needs header_name and descriptor_key")
		}
	case *routev3.RateLimit_Action_RemoteAddress_:
		k.Kind = model.RateByAddress
	case *routev3.RateLimit_Action_DestinationCluster_:
		k.Kind = model.RateByCluster
	case *routev3.RateLimit_Action_GenericKey_:
		k = model.RateKey{Kind: model.RateByFixed, Key: orText(a.GenericKey.GetDescriptorKey(), "generic_key"), Value: a.GenericKey.GetDescriptorValue()}
		if k.Value == "" {
			return refuse(join(path, "generic_key.descriptor_value"), "is missing")
		}
	case *routev3.RateLimit_Action_HeaderValueMatch_:
		k = model.RateKey{Kind: model.RateByFixed, Key: orText(a.HeaderValueMatch.GetDescriptorKey(), "header_match"), Value: a.HeaderValueMatch.GetDescriptorValue()}
		if err := onlyWhere(join(path, "header_value_match"), a.HeaderValueMatch, l); err != nil {
			return err
		}
	default:
		return refuse(path, "is no action that Tulle runs: request_headers, remote_address, destination_cluster, generic_key and header_value_match")
	}
	l.By = append(l.By, k)
	return nil
}

// onlyWhere has the limit hold only where the header fields match, or where they do not.
func onlyWhere(path string, m *routev3.RateLimit_Action_HeaderValueMatch, l *model.RateLimit) error {
	expect := boolOr(m.GetExpectMatch(), true)
	if n := len(m.GetHeaders()); n == 0 || n > 1 && !expect {
		return refuse(join(path, "headers"), "%d of them; there has to be one, or several with expect_match", n)
	}
	if l.Match == nil {
		l.Match = &model.Match{Path: "/"}
	}
	for i, h := range m.GetHeaders() {
		f, err := headerMatch(at(join(path, "headers"), i), h)
		if err != nil {
			return err
		}
		if !expect {
			f.Invert = !f.Invert
		}
		l.Match.Headers = append(l.Match.Headers, f)
	}
	return nil
}

// asked reads what a route and its virtual host have a service asked about: the host's for a route that says nothing, or
// that wants both.
func asked(path string, m *routev3.RouteAction, hostPath string, vh *routev3.VirtualHost) ([]model.RateLimit, error) {
	out, err := descriptors(join(path, "rate_limits"), m.GetRateLimits())
	//lint:ignore SA1019 it is what files have in use
	both := m.GetIncludeVhRateLimits().GetValue()
	if err != nil || len(out) > 0 && !both {
		return out, err
	}
	of, err := descriptors(join(hostPath, "rate_limits"), vh.GetRateLimits())
	return append(out, of...), err
}
