package subject

import (
	"fmt"
	"strings"
)

// Bootstrap is what a proxy is to do, and becomes an Envoy v3 bootstrap. Every value of it is within the subset of
// docs/reference/xds.md.
type Bootstrap struct {
	Listeners []Listener
	Clusters  []Cluster
	// Node and Dynamic are YAML that is put at the top level as it is: node, dynamic_resources.
	Node, Dynamic string
}

// Listener is one on the loopback that serves HTTP.
type Listener struct {
	Port    int
	Cluster string // where every request goes
	Codec   string // HTTP1, HTTP2; "": AUTO
	HTTP10  bool   // accept_http_10
	WebText bool   // the gRPC-Web filter
	Connect bool   // CONNECT and upgrade to websocket are passed on
	RDS     string // name of a route table instead of Cluster
	// ClusterHeader is the field that names the cluster, instead of Cluster.
	ClusterHeader string
	MaxHead       int // KiB; 0: the default
	Fields        int // most fields of a head; 0: the default
	TLS           *ServerTLS
}

// ServerTLS names the files of a listener's TLS.
type ServerTLS struct {
	Cert, Key string
	ClientCA  string // "": clients are not asked
}

// Cluster is one with a single endpoint on the loopback.
type Cluster struct {
	Name  string
	Port  int
	HTTP2 bool
	TLS   *ClientTLS
	EDS   bool // endpoints come over ADS
}

// ClientTLS names the files of a cluster's TLS.
type ClientTLS struct {
	CA, Name  string
	Cert, Key string // "": none is shown
}

// YAML answers the file; the admin listens on the given port. It is written as text: a struct for each message of Envoy
// would be longer and no easier to compare with a file that somebody wrote.
func (b Bootstrap) YAML(admin int) string {
	var w strings.Builder
	w.WriteString(b.Node)
	w.WriteString(b.Dynamic)
	fmt.Fprintf(&w, "admin:\n  address: %s\n", address(admin))
	w.WriteString("static_resources:\n  listeners:\n")
	for _, l := range b.Listeners {
		w.WriteString(l.yaml())
	}
	w.WriteString("  clusters:\n")
	for _, c := range b.Clusters {
		w.WriteString(c.yaml())
	}
	return w.String()
}

func address(port int) string {
	return fmt.Sprintf("{ socket_address: { address: 127.0.0.1, port_value: %d } }", port)
}

const hcmType = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

func (l Listener) yaml() string {
	var w strings.Builder
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(&w, strings.Repeat(" ", indent)+format+"\n", args...)
	}
	line(2, "- name: l%d", l.Port)
	line(4, "address: %s", address(l.Port))
	line(4, "filter_chains:")
	line(4, "- filters:")
	line(6, "- name: envoy.filters.network.http_connection_manager")
	line(8, "typed_config:")
	line(10, "\"@type\": %s", hcmType)
	line(10, "stat_prefix: l%d", l.Port)
	if l.Codec != "" {
		line(10, "codec_type: %s", l.Codec)
	}
	if l.MaxHead > 0 {
		line(10, "max_request_headers_kb: %d", l.MaxHead)
	}
	if l.Fields > 0 {
		line(10, "common_http_protocol_options: { max_headers_count: %d }", l.Fields)
	}
	line(10, "http_protocol_options: { accept_http_10: %t, enable_trailers: true, header_key_format: { stateful_formatter: { name: preserve_case, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig } } } }", l.HTTP10)
	line(10, "http2_protocol_options: { allow_connect: true }")
	if l.Connect {
		line(10, "upgrade_configs: [ { upgrade_type: websocket }, { upgrade_type: CONNECT } ]")
	}
	w.WriteString(l.routes())
	line(10, "http_filters:")
	if l.WebText {
		line(10, "- name: envoy.filters.http.grpc_web")
		line(12, "typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb }")
	}
	line(10, "- name: envoy.filters.http.router")
	line(12, "typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }")
	if l.TLS != nil {
		w.WriteString(l.TLS.yaml())
	}
	return w.String()
}

func (l Listener) routes() string {
	if l.RDS != "" {
		return "          rds: { route_config_name: " + l.RDS + ", config_source: { resource_api_version: V3, ads: {} } }\n"
	}
	var w strings.Builder
	w.WriteString("          route_config:\n            name: r\n            virtual_hosts:\n            - name: all\n              domains: [\"*\"]\n              routes:\n")
	if l.ClusterHeader != "" {
		fmt.Fprintf(&w, "              - { match: { prefix: \"/\" }, route: { cluster_header: %s, timeout: 0s } }\n", l.ClusterHeader)
		return w.String()
	}
	if l.Connect {
		fmt.Fprintf(&w, "              - { match: { connect_matcher: {} }, route: { cluster: %s, timeout: 0s } }\n", l.Cluster)
	}
	for _, match := range []string{`prefix: "/"`, `safe_regex: { regex: "[*]" }`} { // the latter for "OPTIONS *"
		fmt.Fprintf(&w, "              - { match: { %s }, route: { cluster: %s, timeout: 0s } }\n", match, l.Cluster)
	}
	return w.String()
}

func (s *ServerTLS) yaml() string {
	var w strings.Builder
	w.WriteString("      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n")
	w.WriteString("          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n")
	if s.ClientCA != "" {
		w.WriteString("          require_client_certificate: true\n")
	}
	w.WriteString("          common_tls_context:\n            alpn_protocols: [ h2, http/1.1 ]\n            tls_certificates:\n")
	fmt.Fprintf(&w, "            - { certificate_chain: { filename: %s }, private_key: { filename: %s } }\n", s.Cert, s.Key)
	if s.ClientCA != "" {
		fmt.Fprintf(&w, "            validation_context: { trusted_ca: { filename: %s } }\n", s.ClientCA)
	}
	return w.String()
}

func (c Cluster) yaml() string {
	var w strings.Builder
	kind := "STATIC"
	if c.EDS {
		kind = "EDS"
	}
	fmt.Fprintf(&w, "  - name: %s\n    type: %s\n    connect_timeout: 5s\n", c.Name, kind)
	w.WriteString("    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n")
	w.WriteString("        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n")
	if c.HTTP2 {
		w.WriteString("        explicit_http_config: { http2_protocol_options: { allow_connect: true } }\n")
	} else {
		w.WriteString("        explicit_http_config: { http_protocol_options: { enable_trailers: true, header_key_format: { stateful_formatter: { name: preserve_case, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig } } } } }\n")
	}
	if c.EDS {
		w.WriteString("    eds_cluster_config: { eds_config: { resource_api_version: V3, ads: {} } }\n")
	} else {
		fmt.Fprintf(&w, "    load_assignment: { cluster_name: %s, endpoints: [ { lb_endpoints: [ { endpoint: { address: %s } } ] } ] }\n", c.Name, address(c.Port))
	}
	if c.TLS != nil {
		w.WriteString(c.TLS.yaml(c.HTTP2))
	}
	return w.String()
}

func (s *ClientTLS) yaml(http2 bool) string {
	var w strings.Builder
	alpn := "http/1.1"
	if http2 {
		alpn = "h2"
	}
	w.WriteString("    transport_socket:\n      name: envoy.transport_sockets.tls\n      typed_config:\n")
	fmt.Fprintf(&w, "        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        sni: %s\n", s.Name)
	fmt.Fprintf(&w, "        common_tls_context:\n          alpn_protocols: [ %s ]\n", alpn)
	if s.Cert != "" {
		fmt.Fprintf(&w, "          tls_certificates:\n          - { certificate_chain: { filename: %s }, private_key: { filename: %s } }\n", s.Cert, s.Key)
	}
	fmt.Fprintf(&w, "          validation_context: { trusted_ca: { filename: %s } }\n", s.CA)
	return w.String()
}
