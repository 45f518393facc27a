package envoy

//lint:file-ignore SA1019 what Envoy has deprecated and files still use is read as well

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

const protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Cluster reads a cluster; e is its endpoints where they are addresses and part of it, else nil.
func Cluster(path string, m *clusterv3.Cluster) (c *model.Cluster, e *model.Endpoints, err error) {
	if err := known(path, m); err != nil {
		return nil, nil, err
	}
	if m.GetName() == "" {
		return nil, nil, refuse(join(path, "name"), "is missing")
	}
	c = &model.Cluster{Name: model.Free(m.GetName()), IdleTimeout: time.Hour, CloseOnHealthFailure: m.GetCloseConnectionsOnHostHealthFailure(),
		KeepAlive: m.GetUpstreamConnectionOptions().GetTcpKeepalive() != nil, MaxRequests: m.GetMaxRequestsPerConnection().GetValue()}
	if c.ConnectTimeout, err = duration(join(path, "connect_timeout"), m.GetConnectTimeout(), 5*time.Second); err == nil && c.ConnectTimeout == 0 {
		err = refuse(join(path, "connect_timeout"), "is not more than 0")
	}
	for _, step := range []func(string, *clusterv3.Cluster, *model.Cluster) error{clusterDNS, clusterBalancing, clusterSubsets, clusterTransport, clusterHTTP, clusterBreakers, clusterHealth, clusterOutlier, clusterFacts} {
		if err == nil {
			err = step(path, m, c)
		}
	}
	if err == nil {
		e, err = clusterDiscovery(path, m, c)
	}
	return c, e, err
}

func clusterDiscovery(path string, m *clusterv3.Cluster, c *model.Cluster) (*model.Endpoints, error) {
	if m.GetClusterType() != nil {
		return nil, refuse(join(path, "cluster_type"), notRun)
	}
	load := join(path, "load_assignment")
	if m.GetOriginalDstLbConfig() != nil && m.GetType() != clusterv3.Cluster_ORIGINAL_DST {
		return nil, refuse(join(path, "original_dst_lb_config"), "does not fit type %s", m.GetType())
	}
	switch m.GetType() {
	case clusterv3.Cluster_STATIC:
		c.Discovery = model.DiscoveryStatic
		e, _, err := endpoints(load, m.GetLoadAssignment(), m.GetName(), false)
		return e, err
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		c.Discovery = model.DiscoveryStrictDNS
		e, hosts, err := endpoints(load, m.GetLoadAssignment(), m.GetName(), true)
		if c.Hosts = hosts; e != nil {
			c.Localities = e.Localities
		}
		if m.GetType() == clusterv3.Cluster_LOGICAL_DNS {
			if c.Discovery = model.DiscoveryLogicalDNS; err == nil && len(hosts) != 1 {
				err = refuse(load, "%d endpoints; a LOGICAL_DNS cluster has one", len(hosts))
			}
		}
		return nil, err
	case clusterv3.Cluster_EDS:
		c.Discovery = model.DiscoveryEDS
		p := join(path, "eds_cluster_config")
		if s := m.GetEdsClusterConfig().GetServiceName(); s != "" && s != m.GetName() {
			return nil, refuse(join(p, "service_name"), "%q is not the cluster's own name; no other %s", clip(s), notRun)
		}
		if m.GetLoadAssignment() != nil {
			return nil, refuse(load, "does not fit type EDS")
		}
		return nil, byName(join(p, "eds_config"), m.GetEdsClusterConfig().GetEdsConfig())
	case clusterv3.Cluster_ORIGINAL_DST:
		if m.GetLoadAssignment() != nil {
			return nil, refuse(load, "does not fit type ORIGINAL_DST")
		}
		return nil, originalDestination(path, m, c)
	}
	return nil, refuse(join(path, "type"), "%s %s", m.GetType(), notRun)
}

func originalDestination(path string, m *clusterv3.Cluster, c *model.Cluster) (err error) {
	c.Discovery = model.DiscoveryOriginal
	o := m.GetOriginalDstLbConfig()
	if o.GetUseHttpHeader() {
		c.Original.Header = strings.ToLower(orText(o.GetHttpHeaderName(), "x-envoy-original-dst-host"))
		if !token(c.Original.Header) {
			return refuse(join(path, "original_dst_lb_config.http_header_name"), "%q is not the name of a header", clip(c.Original.Header))
		}
	}
	if c.Original.Port, err = portNumber(join(path, "original_dst_lb_config.upstream_port_override"), o.GetUpstreamPortOverride().GetValue()); err != nil {
		return err
	}
	c.Original.Clean, err = duration(join(path, "cleanup_interval"), m.GetCleanupInterval(), 5*time.Second)
	if err == nil && c.Original.Clean == 0 {
		err = refuse(join(path, "cleanup_interval"), "is not more than 0")
	}
	return err
}

func clusterDNS(path string, m *clusterv3.Cluster, c *model.Cluster) (err error) {
	c.DNS.RespectTTL = m.GetRespectDnsTtl()
	c.DNS.Family = map[clusterv3.Cluster_DnsLookupFamily]model.DNSFamily{clusterv3.Cluster_V4_ONLY: model.DNSV4Only, clusterv3.Cluster_V6_ONLY: model.DNSV6Only,
		clusterv3.Cluster_V4_PREFERRED: model.DNSV4Preferred, clusterv3.Cluster_ALL: model.DNSAll}[m.GetDnsLookupFamily()]
	c.DNS.Refresh, err = duration(join(path, "dns_refresh_rate"), m.GetDnsRefreshRate(), 5*time.Second)
	if err == nil && c.DNS.Refresh <= time.Millisecond {
		err = refuse(join(path, "dns_refresh_rate"), "is not more than 1ms")
	}
	return err
}

func clusterTransport(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	return transport(join(path, "transport_socket"), m.GetTransportSocket(), c)
}

func transport(path string, t *corev3.TransportSocket, c *model.Cluster) (err error) {
	if t == nil {
		return nil
	}
	path = join(path, "typed_config")
	switch a := t.GetTypedConfig(); {
	case is(a, &rawv3.RawBuffer{}):
		return nil
	case is(a, &tlsv3.UpstreamTlsContext{}):
		var u tlsv3.UpstreamTlsContext
		if err := unpack(path, a, &u); err != nil {
			return err
		}
		c.TLS, err = clientTLS(path, &u)
		return err
	case is(a, &upstreamproxyv3.ProxyProtocolUpstreamTransport{}):
		var u upstreamproxyv3.ProxyProtocolUpstreamTransport
		if err := unpack(path, a, &u); err != nil {
			return err
		}
		if u.GetTransportSocket() == nil {
			return refuse(join(path, "transport_socket"), "is missing")
		}
		c.SendProxy = 1
		if u.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2 {
			c.SendProxy = 2
		}
		return transport(join(path, "transport_socket"), u.GetTransportSocket(), c)
	}
	return foreign(path, t.GetTypedConfig())
}

func clusterHTTP(path string, m *clusterv3.Cluster, c *model.Cluster) (err error) {
	c.Upstream.HTTP1.AbsoluteURL = true
	if m.GetHttp2ProtocolOptions() != nil { // deprecated, and what many files have
		c.Upstream.Version = model.UpstreamHTTP2
		if c.Upstream.HTTP2, err = http2Options(join(path, "http2_protocol_options"), m.GetHttp2ProtocolOptions()); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetTypedExtensionProtocolOptions())) {
		a := m.GetTypedExtensionProtocolOptions()[name]
		p := join(path, "typed_extension_protocol_options."+name)
		if name != protocolOptions {
			return refuse(p, notRun)
		}
		var o httpv3.HttpProtocolOptions
		if err := unpack(p, a, &o); err != nil {
			return err
		}
		if err := upstreamHTTP(p, &o, c); err != nil {
			return err
		}
	}
	return nil
}

// ofServers refuses what has no meaning towards servers. Trailers and the case of names are always passed on.
func ofServers(path string, m *corev3.Http1ProtocolOptions) error {
	switch {
	case m.GetAllowAbsoluteUrl() != nil:
		return refuse(join(path, "allow_absolute_url"), "is for listeners")
	case m.GetAcceptHttp_10():
		return refuse(join(path, "accept_http_10"), "is for listeners")
	case m.GetDefaultHostForHttp_10() != "":
		return refuse(join(path, "default_host_for_http_10"), "is for listeners")
	}
	return nil
}

func upstreamHTTP(path string, o *httpv3.HttpProtocolOptions, c *model.Cluster) (err error) {
	if err := upstreamCommon(join(path, "common_http_protocol_options"), o.GetCommonHttpProtocolOptions(), c); err != nil {
		return err
	}
	if u := o.GetUpstreamHttpProtocolOptions(); u != nil {
		if c.TLS != nil {
			c.TLS.AutoSNI, c.TLS.AutoSANs = c.TLS.AutoSNI || u.GetAutoSni(), c.TLS.AutoSANs || u.GetAutoSanValidation()
		}
	}
	up := &c.Upstream
	options := func(p string, one *corev3.Http1ProtocolOptions, two *corev3.Http2ProtocolOptions) error {
		if up.HTTP1, err = http1Options(join(p, "http_protocol_options"), one); err != nil {
			return err
		}
		if up.HTTP2, err = http2Options(join(p, "http2_protocol_options"), two); err != nil {
			return err
		}
		return ofServers(join(p, "http_protocol_options"), one)
	}
	switch v := o.GetUpstreamProtocolOptions().(type) {
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		p := join(path, "explicit_http_config")
		if v.ExplicitHttpConfig.GetProtocolConfig() == nil {
			return refuse(p, "says no protocol: http_protocol_options or http2_protocol_options")
		}
		up.Version = model.UpstreamHTTP1
		if v.ExplicitHttpConfig.GetHttp2ProtocolOptions() != nil {
			up.Version = model.UpstreamHTTP2
		}
		return options(p, v.ExplicitHttpConfig.GetHttpProtocolOptions(), v.ExplicitHttpConfig.GetHttp2ProtocolOptions())
	case *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		p := join(path, "use_downstream_protocol_config")
		up.Version = model.UpstreamDownstream
		return options(p, v.UseDownstreamProtocolConfig.GetHttpProtocolOptions(), v.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions())
	case *httpv3.HttpProtocolOptions_AutoConfig:
		p := join(path, "auto_config")
		if up.Version = model.UpstreamAuto; c.TLS == nil {
			return refuse(p, "needs a TLS transport_socket: ALPN decides")
		}
		return options(p, v.AutoConfig.GetHttpProtocolOptions(), v.AutoConfig.GetHttp2ProtocolOptions())
	}
	return refuse(path, "says no protocol: explicit_http_config, use_downstream_protocol_config or auto_config")
}

func upstreamCommon(path string, m *corev3.HttpProtocolOptions, c *model.Cluster) error {
	if m.GetMaxStreamDuration() != nil || m.GetMaxHeadersCount() != nil {
		return refuse(path, "max_stream_duration and max_headers_count of a cluster are not run by Tulle; set them on the route and the listener")
	}
	if m.GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW {
		return refuse(join(path, "headers_with_underscores_action"), "is for listeners")
	}
	if n := m.GetMaxRequestsPerConnection(); n != nil {
		c.MaxRequests = n.GetValue()
	}
	return durations(path, []durationField{
		{&c.IdleTimeout, "idle_timeout", m.GetIdleTimeout(), time.Hour},
		{&c.MaxDuration, "max_connection_duration", m.GetMaxConnectionDuration(), 0},
	})
}

// clusterBreakers reads the bounds by priority; the first threshold of a priority counts, as in Envoy. Envoy's default of
// max_retries holds for what a retry_policy asks for only: an attempt that the upstream certainly has not seen is made again
// by itself.
func clusterBreakers(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	usual := model.Breakers{Connections: 1024, Pending: 1024, Requests: 1024}
	c.Breakers = [2]model.Breakers{usual, usual}
	c.Budget.Off = true
	path = join(path, "circuit_breakers")
	var seen [2]bool
	for i, t := range m.GetCircuitBreakers().GetThresholds() {
		for _, f := range []struct {
			name string
			n    *wrapperspb.UInt32Value
		}{{"max_connections", t.GetMaxConnections()}, {"max_pending_requests", t.GetMaxPendingRequests()}, {"max_requests", t.GetMaxRequests()}, {"max_retries", t.GetMaxRetries()}} {
			if f.n != nil && f.n.GetValue() == 0 {
				return refuse(join(at(join(path, "thresholds"), i), f.name), "of 0 %s", notRun)
			}
		}
		p := model.PriorityDefault
		if t.GetPriority() == corev3.RoutingPriority_HIGH {
			p = model.PriorityHigh
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		if err := retryBudget(join(at(join(path, "thresholds"), i), "retry_budget"), t.GetRetryBudget(), c); err != nil {
			return err
		}
		c.Breakers[p] = model.Breakers{Connections: numberOr(t.GetMaxConnections(), 1024), Pending: numberOr(t.GetMaxPendingRequests(), 1024),
			Requests: numberOr(t.GetMaxRequests(), 1024), Retries: t.GetMaxRetries().GetValue()}
	}
	return nil
}

func clusterHealth(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	if len(m.GetHealthChecks()) > 1 {
		return refuse(at(join(path, "health_checks"), 1), "a second health check %s, nor by Envoy", notRun)
	}
	if (len(m.GetHealthChecks()) > 0 || m.GetOutlierDetection() != nil) && m.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return refuse(join(path, "type"), "ORIGINAL_DST with health_checks or outlier_detection %s", notRun)
	}
	for i, h := range m.GetHealthChecks() {
		check, err := healthCheck(at(join(path, "health_checks"), i), h)
		if err != nil {
			return err
		}
		c.HealthChecks = append(c.HealthChecks, check)
	}
	return nil
}

func healthCheck(path string, m *corev3.HealthCheck) (h model.HealthCheck, err error) {
	h = model.HealthCheck{UnhealthyThreshold: numberOr(m.GetUnhealthyThreshold(), 2), HealthyThreshold: numberOr(m.GetHealthyThreshold(), 1),
		ReuseConnection: boolOr(m.GetReuseConnection(), true)}
	if h.Port, err = portNumber(join(path, "alt_port"), m.GetAltPort().GetValue()); err != nil {
		return h, err
	}
	err = durations(path, []durationField{{&h.Timeout, "timeout", m.GetTimeout(), 0}, {&h.Interval, "interval", m.GetInterval(), 0},
		{&h.NoTrafficInterval, "no_traffic_interval", m.GetNoTrafficInterval(), time.Minute},
		{&h.UnhealthyInterval, "unhealthy_interval", m.GetUnhealthyInterval(), 0}, {&h.Jitter, "interval_jitter", m.GetIntervalJitter(), 0}})
	if err != nil {
		return h, err
	}
	if h.Timeout < time.Millisecond || h.Interval < time.Millisecond {
		return h, refuse(path, "timeout and interval have to be 1ms or more")
	}
	switch k := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		return h, httpCheck(join(path, "http_health_check"), k.HttpHealthCheck, &h)
	case *corev3.HealthCheck_GrpcHealthCheck_:
		h.Kind, h.Service, h.Host = model.CheckGRPC, k.GrpcHealthCheck.GetServiceName(), k.GrpcHealthCheck.GetAuthority()
		return h, nil
	case *corev3.HealthCheck_TcpHealthCheck_:
		h.Kind = model.CheckTCP
		p := join(path, "tcp_health_check")
		if h.Send, err = payload(join(p, "send"), k.TcpHealthCheck.GetSend()); err != nil {
			return h, err
		}
		for i, r := range k.TcpHealthCheck.GetReceive() {
			b, err := payload(at(join(p, "receive"), i), r)
			if err != nil {
				return h, err
			}
			h.Receive = append(h.Receive, b)
		}
		return h, nil
	}
	return h, refuse(path, "asks in no way that Tulle runs: http_health_check, tcp_health_check or grpc_health_check")
}

func payload(path string, p *corev3.HealthCheck_Payload) ([]byte, error) {
	if s := p.GetText(); s != "" {
		b, err := hex.DecodeString(s)
		if err != nil {
			return nil, refuse(join(path, "text"), "is not hexadecimal")
		}
		return b, nil
	}
	return p.GetBinary(), nil
}

func httpCheck(path string, m *corev3.HealthCheck_HttpHealthCheck, h *model.HealthCheck) error {
	h.Kind, h.Path, h.Host, h.HTTP2 = model.CheckHTTP, m.GetPath(), m.GetHost(), m.GetCodecClientType() == typev3.CodecClientType_HTTP2
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = m.GetMethod().String()
	}
	for i, s := range m.GetExpectedStatuses() {
		if s.GetStart() < 100 || s.GetEnd() > 600 || s.GetStart() >= s.GetEnd() {
			return refuse(at(join(path, "expected_statuses"), i), "is no range within 100 to 600")
		}
		h.Statuses = append(h.Statuses, model.StatusRange{From: int(s.GetStart()), To: int(s.GetEnd())})
	}
	for i, a := range m.GetRequestHeadersToAdd() {
		v, err := addedHeader(at(join(path, "request_headers_to_add"), i), a)
		if err != nil {
			return err
		}
		h.Headers = append(h.Headers, v)
	}
	if m.GetPath() == "" || m.GetPath()[0] != '/' || strings.ContainsAny(m.GetPath(), " \t") {
		return refuse(join(path, "path"), "%q is not the path of a request", clip(m.GetPath()))
	}
	return nil
}

func clusterOutlier(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	d := m.GetOutlierDetection()
	if d == nil {
		return nil
	}
	path = join(path, "outlier_detection")
	o := &model.Outlier{Consecutive5xx: numberOr(d.GetConsecutive_5Xx(), 5), ConsecutiveGateway: numberOr(d.GetConsecutiveGatewayFailure(), 5),
		ConsecutiveLocal: numberOr(d.GetConsecutiveLocalOriginFailure(), 5), SplitLocal: d.GetSplitExternalLocalOriginErrors(),
		MaxPercent: numberOr(d.GetMaxEjectionPercent(), 10), Enforce5xx: numberOr(d.GetEnforcingConsecutive_5Xx(), 100),
		EnforceGateway: d.GetEnforcingConsecutiveGatewayFailure().GetValue(), EnforceLocal: numberOr(d.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		EnforceSuccessRate: numberOr(d.GetEnforcingSuccessRate(), 100), SuccessMinimumHosts: numberOr(d.GetSuccessRateMinimumHosts(), 5),
		SuccessRequestVolume: numberOr(d.GetSuccessRateRequestVolume(), 100), SuccessStdevFactor: numberOr(d.GetSuccessRateStdevFactor(), 1900),
		EnforceLocalSuccessRate: numberOr(d.GetEnforcingLocalOriginSuccessRate(), 100), EnforceLocalFailurePercent: d.GetEnforcingFailurePercentageLocalOrigin().GetValue(),
		AlwaysOne: d.GetAlwaysEjectOneHost().GetValue(), StayEjected: !boolOr(d.GetSuccessfulActiveHealthCheckUnejectHost(), true),
		EnforceFailurePercent: d.GetEnforcingFailurePercentage().GetValue(), FailureThreshold: numberOr(d.GetFailurePercentageThreshold(), 85),
		FailureMinimumHosts: numberOr(d.GetFailurePercentageMinimumHosts(), 5), FailureRequestVolume: numberOr(d.GetFailurePercentageRequestVolume(), 50)}
	c.Outlier = o
	for _, f := range []struct {
		name  string
		value uint32
	}{{"max_ejection_percent", o.MaxPercent}, {"enforcing_consecutive_5xx", o.Enforce5xx}, {"enforcing_consecutive_gateway_failure", o.EnforceGateway},
		{"enforcing_consecutive_local_origin_failure", o.EnforceLocal}, {"enforcing_success_rate", o.EnforceSuccessRate},
		{"enforcing_local_origin_success_rate", o.EnforceLocalSuccessRate}, {"enforcing_failure_percentage_local_origin", o.EnforceLocalFailurePercent},
		{"enforcing_failure_percentage", o.EnforceFailurePercent}, {"failure_percentage_threshold", o.FailureThreshold}} {
		if f.value > 100 {
			return refuse(join(path, f.name), "%d is more than 100", f.value)
		}
	}
	err := durations(path, []durationField{{&o.Interval, "interval", d.GetInterval(), 10 * time.Second},
		{&o.BaseEjection, "base_ejection_time", d.GetBaseEjectionTime(), 30 * time.Second},
		{&o.EjectionJitter, "max_ejection_time_jitter", d.GetMaxEjectionTimeJitter(), 0}})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"interval", o.Interval}, {"base_ejection_time", o.BaseEjection}} {
		if f.value < time.Millisecond {
			return refuse(join(path, f.name), "is less than 1ms")
		}
	}
	if o.MaxEjection, err = duration(join(path, "max_ejection_time"), d.GetMaxEjectionTime(), max(300*time.Second, o.BaseEjection)); err == nil && o.MaxEjection < o.BaseEjection {
		err = refuse(join(path, "max_ejection_time"), "is less than base_ejection_time")
	}
	return err
}
