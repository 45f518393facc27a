package resource

import (
	"fmt"
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// EncodeCluster makes an EDS cluster whose endpoints come over the same stream.
func EncodeCluster(c *model.Cluster) (*clusterv3.Cluster, error) {
	if c.ConnectTimeout <= 0 {
		return nil, fmt.Errorf("cluster %s: connect timeout %v is not more than 0", c.Name, c.ConnectTimeout)
	}
	m := &clusterv3.Cluster{
		Name:                 c.Name.String(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
		}},
		ConnectTimeout:                      durationpb.New(c.ConnectTimeout),
		CloseConnectionsOnHostHealthFailure: c.CloseOnHealthFailure,
	}
	if c.KeepAlive {
		m.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{}}
	}
	if err := encodeBalancing(m, &c.Balancing); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	encodeBreakers(m, c.Breakers)
	encodeChecks(m, c.HealthChecks)
	encodeOutlier(m, c.Outlier)
	if err := encodeUpstream(m, c); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	got, err := readCluster(m)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: what was written is refused: %w", c.Name, err)
	}
	if m.Metadata, err = withFacts(c, got); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return m, nil
}

// encodeBalancing writes the policy, or the nearest one that Envoy has: where load_balancing_policy says more, also there; who
// knows it does not look at lb_policy.
func encodeBalancing(m *clusterv3.Cluster, b *model.Balancing) error {
	p, err := envoy.Policy(b)
	if err != nil {
		return err
	}
	m.LoadBalancingPolicy = p
	number := func(n uint64) *wrapperspb.UInt64Value {
		if n == 0 {
			return nil
		}
		return wrapperspb.UInt64(n)
	}
	switch b.Policy {
	case model.RoundRobin, model.LeastUtilized:
		m.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case model.Random:
		m.LbPolicy = clusterv3.Cluster_RANDOM
	case model.RingHash:
		m.LbPolicy = clusterv3.Cluster_RING_HASH
		m.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: number(b.MinRing), MaximumRingSize: number(b.MaxRing)}}
	case model.Maglev:
		m.LbPolicy = clusterv3.Cluster_MAGLEV
		m.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: number(b.TableSize)}}
	default:
		m.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		if b.ChoiceCount >= 2 {
			m.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{ChoiceCount: wrapperspb.UInt32(b.ChoiceCount)}}
		}
	}
	if p != nil {
		m.LbConfig = nil
	}
	if b.Panic != nil {
		m.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: *b.Panic}}
	}
	return nil
}

// encodeBreakers says "no bound" as a bound that is never reached: Envoy's own default is 1024.
func encodeBreakers(m *clusterv3.Cluster, of [2]model.Breakers) {
	bound := func(n uint32) *wrapperspb.UInt32Value {
		if n == 0 {
			n = math.MaxUint32
		}
		return wrapperspb.UInt32(n)
	}
	m.CircuitBreakers = &clusterv3.CircuitBreakers{}
	for p, b := range of {
		t := &clusterv3.CircuitBreakers_Thresholds{MaxConnections: bound(b.Connections), MaxPendingRequests: bound(b.Pending), MaxRequests: bound(b.Requests)}
		if model.Priority(p) == model.PriorityHigh {
			t.Priority = corev3.RoutingPriority_HIGH
		}
		if b.Retries > 0 {
			t.MaxRetries = wrapperspb.UInt32(b.Retries)
		}
		m.CircuitBreakers.Thresholds = append(m.CircuitBreakers.Thresholds, t)
	}
}

// encodeUpstream tells Envoy which version of HTTP to speak where that is certain, and how long to keep connections.
func encodeUpstream(m *clusterv3.Cluster, c *model.Cluster) error {
	if c.MaxRequests == 0 && c.IdleTimeout == 0 && c.MaxDuration == 0 && c.Protocol != model.ProtocolGRPC && c.Upstream.Version == model.UpstreamDefault {
		return nil
	}
	o := &httpv3.HttpProtocolOptions{CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{}}
	if c.MaxRequests > 0 {
		o.CommonHttpProtocolOptions.MaxRequestsPerConnection = wrapperspb.UInt32(c.MaxRequests)
	}
	if c.IdleTimeout > 0 {
		o.CommonHttpProtocolOptions.IdleTimeout = durationpb.New(c.IdleTimeout)
	}
	if c.MaxDuration > 0 {
		o.CommonHttpProtocolOptions.MaxConnectionDuration = durationpb.New(c.MaxDuration)
	}
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}}
	if c.Protocol == model.ProtocolGRPC || c.Upstream.Version == model.UpstreamHTTP2 {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}}
	}
	o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	if c.Upstream.Version == model.UpstreamDownstream || c.Upstream.Version == model.UpstreamDefault && c.Protocol != model.ProtocolGRPC {
		o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}}}
	}
	a, err := Pack(o)
	if err == nil {
		m.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": a}
	}
	return err
}

// encodeChecks writes the first health check: Envoy runs no second one.
func encodeChecks(m *clusterv3.Cluster, checks []model.HealthCheck) {
	if len(checks) == 0 || checks[0].Timeout < time.Millisecond || checks[0].Interval < time.Millisecond {
		return
	}
	h := &checks[0]
	out := &corev3.HealthCheck{Timeout: durationpb.New(h.Timeout), Interval: durationpb.New(h.Interval), NoTrafficInterval: optional(h.NoTrafficInterval),
		UnhealthyInterval: optional(h.UnhealthyInterval), IntervalJitter: optional(h.Jitter), UnhealthyThreshold: wrapperspb.UInt32(h.UnhealthyThreshold),
		HealthyThreshold: wrapperspb.UInt32(h.HealthyThreshold), ReuseConnection: wrapperspb.Bool(h.ReuseConnection)}
	if h.Port > 0 {
		out.AltPort = wrapperspb.UInt32(uint32(h.Port))
	}
	switch h.Kind {
	case model.CheckGRPC:
		out.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: h.Service, Authority: h.Host}}
	case model.CheckTCP:
		payload := func(b []byte) *corev3.HealthCheck_Payload {
			return &corev3.HealthCheck_Payload{Payload: &corev3.HealthCheck_Payload_Binary{Binary: b}}
		}
		t := &corev3.HealthCheck_TcpHealthCheck{}
		if len(h.Send) > 0 {
			t.Send = payload(h.Send)
		}
		for _, b := range h.Receive {
			t.Receive = append(t.Receive, payload(b))
		}
		out.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: t}
	default:
		out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: encodeHTTPCheck(h)}
	}
	m.HealthChecks = []*corev3.HealthCheck{out}
}

func encodeHTTPCheck(h *model.HealthCheck) *corev3.HealthCheck_HttpHealthCheck {
	out := &corev3.HealthCheck_HttpHealthCheck{Path: h.Path, Host: h.Host, Method: corev3.RequestMethod(corev3.RequestMethod_value[h.Method])}
	if h.HTTP2 {
		out.CodecClientType = typev3.CodecClientType_HTTP2
	}
	for _, s := range h.Statuses {
		out.ExpectedStatuses = append(out.ExpectedStatuses, &typev3.Int64Range{Start: int64(s.From), End: int64(s.To)})
	}
	for _, f := range h.Headers {
		out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, option(f, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return out
}

// optional answers nil for 0.
func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func encodeOutlier(m *clusterv3.Cluster, o *model.Outlier) {
	if o == nil || o.Interval < time.Millisecond || o.BaseEjection < time.Millisecond || o.MaxEjection < o.BaseEjection {
		return
	}
	n := wrapperspb.UInt32
	m.OutlierDetection = &clusterv3.OutlierDetection{
		Consecutive_5Xx: n(o.Consecutive5xx), ConsecutiveGatewayFailure: n(o.ConsecutiveGateway), ConsecutiveLocalOriginFailure: n(o.ConsecutiveLocal),
		SplitExternalLocalOriginErrors: o.SplitLocal, Interval: durationpb.New(o.Interval), BaseEjectionTime: durationpb.New(o.BaseEjection),
		MaxEjectionTime: durationpb.New(o.MaxEjection), MaxEjectionTimeJitter: optional(o.EjectionJitter), MaxEjectionPercent: n(o.MaxPercent),
		AlwaysEjectOneHost: wrapperspb.Bool(o.AlwaysOne), SuccessfulActiveHealthCheckUnejectHost: wrapperspb.Bool(!o.StayEjected),
		EnforcingConsecutive_5Xx: n(o.Enforce5xx), EnforcingConsecutiveGatewayFailure: n(o.EnforceGateway), EnforcingConsecutiveLocalOriginFailure: n(o.EnforceLocal),
		EnforcingSuccessRate: n(o.EnforceSuccessRate), SuccessRateMinimumHosts: n(o.SuccessMinimumHosts), SuccessRateRequestVolume: n(o.SuccessRequestVolume),
		SuccessRateStdevFactor: n(o.SuccessStdevFactor), EnforcingFailurePercentage: n(o.EnforceFailurePercent),
		EnforcingLocalOriginSuccessRate: n(o.EnforceLocalSuccessRate), EnforcingFailurePercentageLocalOrigin: n(o.EnforceLocalFailurePercent),
		FailurePercentageThreshold: n(o.FailureThreshold), FailurePercentageMinimumHosts: n(o.FailureMinimumHosts), FailurePercentageRequestVolume: n(o.FailureRequestVolume),
	}
}
