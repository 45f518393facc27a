package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/tulle-mesh/tulle/bench/load"
)

// bootstrap writes an Envoy bootstrap; the same file runs on Envoy and, for one proxy, on Tulle.
func (w *world) bootstrap(name string, k load.Kind, listen, target string, server, client bool) string {
	h2 := k == load.HTTP2 || k == load.GRPCUnary || k == load.GRPCStream
	alpn := "http/1.1"
	if h2 {
		alpn = "h2"
	}
	host, port, _ := net.SplitHostPort(listen)
	var b strings.Builder
	fmt.Fprintf(&b, "static_resources:\n  listeners:\n  - name: front\n    address: {socket_address: {address: %s, port_value: %s}}\n    filter_chains:\n    -", host, port)
	if k == load.TCP {
		b.WriteString(envoyTCP)
	} else {
		codec := "HTTP1"
		if h2 {
			codec = "HTTP2"
		}
		fmt.Fprintf(&b, envoyHTTP, codec)
	}
	if server {
		fmt.Fprintf(&b, envoyServerTLS, w.options.dir, envoyALPN(k, alpn, "            "))
	}
	host, port, _ = net.SplitHostPort(target)
	fmt.Fprintf(&b, envoyCluster, host, port)
	if h2 {
		b.WriteString(envoyUpstreamH2)
	}
	if client {
		fmt.Fprintf(&b, envoyClientTLS, w.options.dir, envoyALPN(k, alpn, "          "))
	}
	return w.file(name+".yaml", b.String())
}

func envoyALPN(k load.Kind, alpn, indent string) string {
	if k == load.TCP {
		return ""
	}
	return "\n" + indent + "alpn_protocols: [" + alpn + "]"
}

const (
	envoyTCP = ` filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: back
`
	envoyHTTP = ` filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: %s
          route_config:
            name: bench
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: back, timeout: 0s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
`
	envoyServerTLS = `      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
            tls_certificates:
            - certificate_chain: {filename: %[1]s/leaf.pem}
              private_key: {filename: %[1]s/leaf.key}
            validation_context:
              trusted_ca: {filename: %[1]s/ca.pem}%[2]s
`
	envoyCluster = `  clusters:
  - name: back
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}
    load_assignment:
      cluster_name: back
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: %s, port_value: %s}}}
`
	envoyUpstreamH2 = `    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`
	envoyClientTLS = `    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: bench
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates:
          - certificate_chain: {filename: %[1]s/leaf.pem}
            private_key: {filename: %[1]s/leaf.key}
          validation_context:
            trusted_ca: {filename: %[1]s/ca.pem}
            match_typed_subject_alt_names:
            - san_type: DNS
              matcher: {exact: bench}%[2]s
`
)

// startEnvoy serves everything.
func startEnvoy(w *world, k load.Kind, t topology, backend string) (*running, error) {
	one := func(name, listen, target string, server, client bool) (int, error) {
		file := w.bootstrap(name, k, listen, target, server, client)
		return w.start(w.options.envoy, "-c", file, "--concurrency", "2", "--log-level", "error", "--use-dynamic-base-id")
	}
	front := freePort()
	switch t {
	case plain:
		pid, err := one("plain", front, backend, false, false)
		return &running{address: front, pids: []int{pid}}, err
	case oneHop:
		pid, err := one("one", front, backend, true, false)
		return &running{address: front, serverName: "bench", pids: []int{pid}}, err
	}
	back := freePort()
	b, err := one("back", back, backend, true, false)
	if err != nil {
		return nil, err
	}
	if err := waitFor(back); err != nil {
		return nil, err
	}
	f, err := one("front", front, back, false, true)
	return &running{address: front, pids: []int{f, b}}, err
}
