package envoy

import (
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	origdstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/tulle-mesh/tulle/model"
)

// Listener reads a listener.
func Listener(path string, m *listenerv3.Listener) (model.Listener, error) {
	l := model.Listener{Name: m.GetName(), Backlog: m.GetTcpBacklogSize().GetValue(),
		ContinueOnTimeout: m.GetContinueOnListenerFiltersTimeout()}
	if err := known(path, m); err != nil {
		return l, err
	}
	if err := listenerAddresses(path, m, &l); err != nil {
		return l, err
	}
	if l.Name == "" {
		l.Name = l.Addresses[0].String()
	}
	var err error
	if l.InspectTimeout, err = duration(join(path, "listener_filters_timeout"), m.GetListenerFiltersTimeout(), 15*time.Second); err != nil {
		return l, err
	}
	for i, f := range m.GetListenerFilters() {
		if err := listenerFilter(at(join(path, "listener_filters"), i), f, &l); err != nil {
			return l, err
		}
	}
	if l.AccessLogs, err = accessLogs(join(path, "access_log"), m.GetAccessLog()); err != nil {
		return l, err
	}
	for i, c := range m.GetFilterChains() {
		chain, err := decodeChain(at(join(path, "filter_chains"), i), c)
		if err != nil {
			return l, err
		}
		l.Chains = append(l.Chains, chain)
	}
	if d := m.GetDefaultFilterChain(); d != nil {
		chain, err := decodeChain(join(path, "default_filter_chain"), d)
		if err != nil {
			return l, err
		}
		l.Default = &chain
	}
	if len(l.Chains) == 0 && l.Default == nil {
		return l, refuse(join(path, "filter_chains"), "there is none; a listener needs at least one")
	}
	return l, nil
}

func listenerAddresses(path string, m *listenerv3.Listener, l *model.Listener) error {
	a, err := address(join(path, "address"), m.GetAddress())
	if err != nil {
		return err
	}
	l.Addresses = append(l.Addresses, a)
	for i, more := range m.GetAdditionalAddresses() {
		p := at(join(path, "additional_addresses"), i)
		if a, err = address(join(p, "address"), more.GetAddress()); err != nil {
			return err
		}
		l.Addresses = append(l.Addresses, a)
	}
	return nil
}

func listenerFilter(path string, f *listenerv3.ListenerFilter, l *model.Listener) error {
	path = join(path, "typed_config")
	a := f.GetTypedConfig()
	switch {
	case is(a, &inspectorv3.TlsInspector{}):
		var m inspectorv3.TlsInspector
		if err := unpack(path, a, &m); err != nil {
			return err
		}
		l.Inspect = true
		return nil
	case is(a, &origdstv3.OriginalDst{}):
		l.OriginalDestination = true
		return unpack(path, a, &origdstv3.OriginalDst{})
	case is(a, &proxyv3.ProxyProtocol{}):
		var m proxyv3.ProxyProtocol
		if err := unpack(path, a, &m); err != nil {
			return err
		}
		p := &model.AcceptProxyProtocol{AllowWithout: m.GetAllowRequestsWithoutProxyProtocol(), V1: true, V2: true}
		for _, v := range m.GetDisallowedVersions() {
			switch v.String() {
			case "V1":
				p.V1 = false
			case "V2":
				p.V2 = false
			}
		}
		l.ProxyProtocol = p
		return nil
	}
	return foreign(path, a)
}

func decodeChain(path string, m *listenerv3.FilterChain) (model.Chain, error) {
	c := model.Chain{Name: m.GetName()}
	var err error
	if c.Match, err = chainMatch(join(path, "filter_chain_match"), m.GetFilterChainMatch()); err != nil {
		return c, err
	}
	if c.HandshakeTimeout, err = duration(join(path, "transport_socket_connect_timeout"), m.GetTransportSocketConnectTimeout(), 0); err != nil {
		return c, err
	}
	if t := m.GetTransportSocket(); t != nil {
		p := join(path, "transport_socket")
		p = join(p, "typed_config")
		if !is(t.GetTypedConfig(), &rawv3.RawBuffer{}) {
			var d tlsv3.DownstreamTlsContext
			if err := unpack(p, t.GetTypedConfig(), &d); err != nil {
				return c, err
			}
			if c.TLS, err = serverTLS(p, &d); err != nil {
				return c, err
			}
		}
	}
	all := m.GetFilters()
	for len(all) > 1 {
		p := join(at(join(path, "filters"), len(m.GetFilters())-len(all)), "typed_config")
		ours, err := connectionFilter(p, all[0].GetTypedConfig(), &c)
		if err != nil {
			return c, err
		}
		if !ours {
			break
		}
		all = all[1:]
	}
	if len(all) != 1 {
		return c, refuse(join(path, "filters"), "%d of them; Tulle runs exactly one, http_connection_manager or tcp_proxy, after local_ratelimit and connection_limit", len(m.GetFilters()))
	}
	f := all[0]
	p := at(join(path, "filters"), len(m.GetFilters())-1)
	p = join(p, "typed_config")
	switch a := f.GetTypedConfig(); {
	case is(a, &hcmv3.HttpConnectionManager{}):
		var h hcmv3.HttpConnectionManager
		if err := unpack(p, a, &h); err != nil {
			return c, err
		}
		c.HTTP, err = decodeHTTP(p, &h)
	case is(a, &tcpv3.TcpProxy{}):
		var t tcpv3.TcpProxy
		if err := unpack(p, a, &t); err != nil {
			return c, err
		}
		c.TCP, err = decodeTCP(p, &t)
	default:
		err = foreign(p, a)
	}
	return c, err
}

func chainMatch(path string, m *listenerv3.FilterChainMatch) (model.ChainMatch, error) {
	out := model.ChainMatch{ServerNames: lowerAll(m.GetServerNames()), Transport: m.GetTransportProtocol(), ALPN: m.GetApplicationProtocols()}
	if t := out.Transport; t != "" && t != "tls" && t != "raw_buffer" {
		return out, refuse(join(path, "transport_protocol"), "%q %s", clip(t), notRun)
	}
	var err error
	if out.DestinationPort, err = portNumber(join(path, "destination_port"), m.GetDestinationPort().GetValue()); err != nil {
		return out, err
	}
	if out.Destinations, err = prefixes(join(path, "prefix_ranges"), m.GetPrefixRanges()); err != nil {
		return out, err
	}
	if out.DirectSources, err = prefixes(join(path, "direct_source_prefix_ranges"), m.GetDirectSourcePrefixRanges()); err != nil {
		return out, err
	}
	if out.Sources, err = prefixes(join(path, "source_prefix_ranges"), m.GetSourcePrefixRanges()); err != nil {
		return out, err
	}
	for i, p := range m.GetSourcePorts() {
		n, err := portNumber(at(join(path, "source_ports"), i), p)
		if err != nil {
			return out, err
		}
		out.SourcePorts = append(out.SourcePorts, n)
	}
	switch m.GetSourceType() {
	case listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		out.SourceType = model.SourceLocal
	case listenerv3.FilterChainMatch_EXTERNAL:
		out.SourceType = model.SourceExternal
	}
	return out, nil
}

func decodeTCP(path string, m *tcpv3.TcpProxy) (*model.TCP, error) {
	t := &model.TCP{StatPrefix: m.GetStatPrefix(), MaxConnectAttempts: m.GetMaxConnectAttempts().GetValue()}
	err := durations(path, []durationField{
		{&t.IdleTimeout, "idle_timeout", m.GetIdleTimeout(), time.Hour},
		{&t.MaxDuration, "max_downstream_connection_duration", m.GetMaxDownstreamConnectionDuration(), 0},
	})
	if err != nil {
		return nil, err
	}
	for i, h := range m.GetHashPolicy() {
		if h.GetSourceIp() == nil {
			return nil, refuse(at(join(path, "hash_policy"), i), "does not say source_ip; nothing else %s", notRun)
		}
		t.HashSource = true
	}
	subset, err := routeSubset(join(path, "metadata_match"), m.GetMetadataMatch())
	if err != nil {
		return nil, err
	}
	switch {
	case m.GetCluster() != "":
		t.Clusters = []model.WeightedCluster{{Cluster: model.Free(m.GetCluster()), Weight: 1, Subset: subset}}
	case m.GetWeightedClusters() != nil:
		for i, c := range m.GetWeightedClusters().GetClusters() {
			if c.GetWeight() == 0 {
				return nil, refuse(join(at(join(path, "weighted_clusters.clusters"), i), "weight"), "is missing")
			}
			own, err := routeSubset(join(at(join(path, "weighted_clusters.clusters"), i), "metadata_match"), c.GetMetadataMatch())
			if err != nil {
				return nil, err
			}
			t.Clusters = append(t.Clusters, model.WeightedCluster{Cluster: model.Free(c.GetName()), Weight: c.GetWeight(), Subset: narrower(subset, own)})
		}
	}
	if len(t.Clusters) == 0 {
		return nil, refuse(join(path, "cluster"), "is missing")
	}
	t.AccessLogs, err = accessLogs(join(path, "access_log"), m.GetAccessLog())
	return t, err
}
