package envoy

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tulle-mesh/tulle/model"
)

// read decodes text as kind says.
func read(t *testing.T, kind, text string) (any, error) {
	t.Helper()
	parse := func(m proto.Message) {
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	switch kind {
	case "bootstrap":
		var m bootstrapv3.Bootstrap
		parse(&m)
		return Bootstrap(&m)
	case "listener":
		var m listenerv3.Listener
		parse(&m)
		return Listener("", &m)
	case "cluster":
		var m clusterv3.Cluster
		parse(&m)
		c, _, err := Cluster("", &m)
		return c, err
	case "routes":
		var m routev3.RouteConfiguration
		parse(&m)
		return RouteTable("", &m)
	case "route":
		var m routev3.RouteConfiguration
		text = `{"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [` + text + `]}]}`
		parse(&m)
		return RouteTable("", &m)
	case "endpoints":
		var m endpointv3.ClusterLoadAssignment
		parse(&m)
		return Endpoints("", &m)
	}
	var m tlsv3.Secret
	parse(&m)
	return Secret("", &m)
}

const (
	anyRoute = `"match": {"prefix": "/"}`
	toC      = `"route": {"cluster": "c"`
)

// eager lets the decoder take what is refused until it is run.
func eager(t *testing.T) {
	kept := maps.Clone(fields)
	t.Cleanup(func() { maps.Copy(fields, kept) })
	for name, table := range kept {
		table.run, table.later = table.run+" "+table.later, ""
		fields[name] = table
	}
}

// TestRefused: what cannot be run is refused, with the path of the field.
func TestRefused(t *testing.T) {
	eager(t)
	for _, c := range []struct{ kind, text, want string }{
		{"cluster", `{"type": "STATIC"}`, "name: is missing"},
		{"cluster", `{"name": "x", "connect_timeout": "0s"}`, "connect_timeout: is not more than 0"},
		{"cluster", `{"name": "x", "connect_timeout": "-1s"}`, "connect_timeout: is negative"},
		{"cluster", `{"name": "x", "type": "EDS"}`, "eds_cluster_config.eds_config: is not ads"},
		{"cluster", `{"name": "x", "type": "EDS", "eds_cluster_config": {"service_name": "y", "eds_config": {"ads": {}}}}`, "eds_cluster_config.service_name: "},
		{"cluster", `{"name": "x", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "initial_fetch_timeout": "1s"}}}`, "eds_cluster_config.eds_config.initial_fetch_timeout: "},
		{"cluster", `{"name": "x", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V2"}}}`, "eds_cluster_config.eds_config.resource_api_version: V2"},
		{"cluster", `{"name": "x", "type": "ORIGINAL_DST"}`, "lb_policy: ROUND_ROBIN does not fit"},
		{"cluster", `{"name": "x", "lb_policy": "CLUSTER_PROVIDED"}`, "lb_policy: CLUSTER_PROVIDED does not fit"},
		{"cluster", `{"name": "x", "cluster_type": {"name": "y"}}`, "cluster_type: is not run by Tulle"},
		{"cluster", `{"name": "x", "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 3}}}`, "upstream_connection_options.tcp_keepalive.keepalive_time: is not run"},
		{"cluster", `{"name": "x", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "auto_config": {}}}}`,
			`typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.auto_config: needs a TLS transport_socket`},
		{"cluster", `{"name": "x", "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_interval": "1s"}}]}}`, "circuit_breakers.thresholds[0].retry_budget.budget_interval: is not run"},
		{"cluster", `{"name": "x", "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 12.5}}}]}}`, "circuit_breakers.thresholds[0].retry_budget.budget_percent: is not a whole number"},
		{"cluster", `{"name": "x", "circuit_breakers": {"thresholds": [{"retry_budget": {}}, {"priority": "HIGH", "retry_budget": {"min_retry_concurrency": 9}}]}}`, "circuit_breakers.thresholds[1].retry_budget: differs"},
		{"cluster", `{"name": "x", "circuit_breakers": {"per_host_thresholds": [{}]}}`, "circuit_breakers.per_host_thresholds: is not run"},
		{"cluster", `{"name": "x", "circuit_breakers": {"thresholds": [{}, {"max_requests": 0}]}}`, "circuit_breakers.thresholds[1].max_requests: of 0"},
		{"cluster", `{"name": "x", "outlier_detection": {"enforcing_success_rate": 101}}`, "outlier_detection.enforcing_success_rate: 101"},
		{"cluster", `{"name": "x", "health_checks": [{"timeout": "1s", "interval": "1s", "alt_port": 65536, "tcp_health_check": {}}]}`, "health_checks[0].alt_port: 65536 is not a port"},
		{"cluster", `{"name": "x", "health_checks": [{"timeout": "1s", "interval": "1s", "http_health_check": {"path": "/a b"}}]}`, "health_checks[0].http_health_check.path: "},
		{"cluster", `{"name": "x", "health_checks": [{"timeout": "1s", "interval": "1s", "custom_health_check": {"name": "y"}}]}`, "health_checks[0].custom_health_check: is not run"},
		{"cluster", `{"name": "x", "health_checks": [{"timeout": "1s", "interval": "0.0001s", "tcp_health_check": {}}]}`, "health_checks[0]: timeout and interval have to be 1ms or more"},
		{"cluster", `{"name": "x", "health_checks": [{"timeout": "1s", "interval": "1s", "tcp_health_check": {}}, {"timeout": "1s", "interval": "1s", "tcp_health_check": {}}]}`, "health_checks[1]: a second health check"},
		{"cluster", `{"name": "x", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "outlier_detection": {}}`, "type: ORIGINAL_DST with health_checks"},
		{"cluster", `{"name": "x", "outlier_detection": {"interval": "0s"}}`, "outlier_detection.interval: is less than 1ms"},
		{"cluster", `{"name": "x", "outlier_detection": {"max_ejection_time": "1s"}}`, "outlier_detection.max_ejection_time: is less than base_ejection_time"},
		{"cluster", `{"name": "x", "outlier_detection": {"detect_degraded_hosts": true}}`, "outlier_detection.detect_degraded_hosts: is not run"},
		{"cluster", `{"name": "x", "http2_protocol_options": {"hpack_table_size": 0}}`, "http2_protocol_options.hpack_table_size: "},
		{"cluster", `{"name": "x", "http2_protocol_options": {"initial_stream_window_size": 10}}`, "http2_protocol_options.initial_stream_window_size: is not from"},
		{"cluster", `{"name": "x", "transport_socket": {"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": {"validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]}}}}}`, "transport_socket.typed_config.common_tls_context.validation_context: compares names without trusted_ca"},
		{"cluster", `{"name": "x", "typed_extension_protocol_options": {"other": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}}}`, "typed_extension_protocol_options.other: is not run"},
		{"cluster", `{"name": "x", "original_dst_lb_config": {"use_http_header": true}}`, "original_dst_lb_config: does not fit type STATIC"},
		{"cluster", `{"name": "x", "type": "ORIGINAL_DST"}`, "lb_policy: ROUND_ROBIN does not fit"},
		{"cluster", `{"name": "x", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "load_assignment": {"cluster_name": "x"}}`, "load_assignment: does not fit type ORIGINAL_DST"},
		{"cluster", `{"name": "x", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "cleanup_interval": "0s"}`, "cleanup_interval: is not more than 0"},
		{"cluster", `{"name": "x", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "original_dst_lb_config": {"use_http_header": true, "http_header_name": "a b"}}`, `original_dst_lb_config.http_header_name: "a b"`},
		{"cluster", `{"name": "x", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 100}}`, "maglev_lb_config.table_size: 100 is not a prime"},
		{"cluster", `{"name": "x", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 1}}`, "maglev_lb_config.table_size: 1 is not a prime"},
		{"cluster", `{"name": "x", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 5000077}}`, "maglev_lb_config.table_size: 5000077 is not"},
		{"cluster", `{"name": "x", "lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 100, "maximum_ring_size": 10}}`, "ring_hash_lb_config: a ring has from 100 to 10"},
		{"cluster", `{"name": "x", "dns_refresh_rate": "0s"}`, "dns_refresh_rate: is not more than 1ms"},
		{"cluster", `{"name": "x", "lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 1}}`, "least_request_lb_config.choice_count: 1 is less"},
		{"cluster", `{"name": "x", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}}}`,
			"typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions: says no protocol"},
		{"cluster", `{"name": "x", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {}}}}`,
			"typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.explicit_http_config: says no protocol"},
		{"endpoints", `{}`, "cluster_name: is missing"},
		{"endpoints", `{"cluster_name": "x", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "/x"}}}}]}]}`, "endpoints[0].lb_endpoints[0].endpoint.address.pipe: is not run"},
		{"endpoints", `{"cluster_name": "x", "endpoints": [{"lb_endpoints": [{"endpoint_name": "x"}]}]}`, "endpoints[0].lb_endpoints[0].endpoint_name: is not run"},
		{"endpoints", `{"cluster_name": "x", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "x", "port_value": 1}}}}]}]}`, "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "},
		{"route", `{` + anyRoute + `}`, "virtual_hosts[0].routes[0]: has no action"},
		{"route", `{` + anyRoute + `, "non_forwarding_action": {}}`, "virtual_hosts[0].routes[0].non_forwarding_action: is not run"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"retry_on": "5xx,retriable-headers"}}}`, `virtual_hosts[0].routes[0].route.retry_policy.retry_on: "retriable-headers" is not run`},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"num_retries": 101}}}`, "virtual_hosts[0].routes[0].route.retry_policy.num_retries: 101 is more than 100"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"retriable_status_codes": [99]}}}`, "virtual_hosts[0].routes[0].route.retry_policy.retriable_status_codes[0]: 99 is not"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"per_try_idle_timeout": "1s"}}}`, "virtual_hosts[0].routes[0].route.retry_policy.per_try_idle_timeout: is not run"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"retry_priority": {"name": "x"}}}}`, "virtual_hosts[0].routes[0].route.retry_policy.retry_priority: is not run"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"retry_host_predicate": [{"name": "x"}]}}}`, "virtual_hosts[0].routes[0].route.retry_policy.retry_host_predicate[0].typed_config: is missing"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"retry_back_off": {"base_interval": "2s", "max_interval": "1s"}}}}`, "virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.max_interval: 1s is less"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"retry_back_off": {"base_interval": "0s"}}}}`, "virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.base_interval: is less"},
		{"route", `{` + anyRoute + `, ` + toC + `, "retry_policy": {"rate_limited_retry_back_off": {}}}}`, "virtual_hosts[0].routes[0].route.retry_policy.rate_limited_retry_back_off.reset_headers: is missing"},
		{"route", `{` + anyRoute + `, ` + toC + `, "hedge_policy": {"hedge_on_per_try_timeout": true}}}`, "virtual_hosts[0].routes[0].route.hedge_policy.hedge_on_per_try_timeout: has no effect"},
		{"route", `{` + anyRoute + `, ` + toC + `, "hedge_policy": {"initial_requests": 2}}}`, "virtual_hosts[0].routes[0].route.hedge_policy.initial_requests: is not run"},
		{"route", `{` + anyRoute + `, ` + toC + `, "upgrade_configs": [{"upgrade_type": "websocket", "enabled": false}]}}`, "virtual_hosts[0].routes[0].route.upgrade_configs[0].enabled: of false"},
		{"route", `{` + anyRoute + `, ` + toC + `}, "request_headers_to_add": [{"header": {"key": "a", "value": "%START_TIME%"}}]}`, "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value: command operators"},
		{"route", `{` + anyRoute + `, ` + toC + `}, "request_headers_to_add": [{"header": {"key": "a", "value": "b\r\nc: d"}}]}`, "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value: holds a line end"},
		{"route", `{` + anyRoute + `, ` + toC + `}, "request_headers_to_add": [{"header": {"key": "a b", "value": "c"}}]}`, `virtual_hosts[0].routes[0].request_headers_to_add[0].header.key: "a b"`},
		{"route", `{` + anyRoute + `, ` + toC + `}, "request_headers_to_add": [{"header": {"key": "a", "raw_value": "Yg=="}}]}`, "virtual_hosts[0].routes[0].request_headers_to_add[0].header.raw_value: is not run"},
		{"route", `{` + anyRoute + `, ` + toC + `}, "response_headers_to_remove": [":status"]}`, `virtual_hosts[0].routes[0].response_headers_to_remove[0]: ":status"`},
		{"route", `{` + anyRoute + `, "route": {"weighted_clusters": {"clusters": [{"name": "a"}]}}}`, "virtual_hosts[0].routes[0].route.weighted_clusters: the weights add up to 0"},
		{"route", `{"match": {"safe_regex": {"regex": "("}}, ` + toC + `}}`, "virtual_hosts[0].routes[0].match.safe_regex.regex: is not RE2"},
		{"route", `{"match": {"prefix": "/", "headers": [{"name": "a", "exact_match": "b"}]}, ` + toC + `}}`, "virtual_hosts[0].routes[0].match.headers[0].exact_match: is not run"},
		{"route", `{"match": {"prefix": "/", "runtime_fraction": {"default_value": {}, "runtime_key": "x"}}, ` + toC + `}}`, "virtual_hosts[0].routes[0].match.runtime_fraction: of 0 never matches"},
		{"route", `{` + anyRoute + `, "route": {"cluster": ""}}`, "virtual_hosts[0].routes[0].route.cluster: is empty"},
		{"route", `{` + anyRoute + `, "route": {"cluster_header": "a b"}}`, `virtual_hosts[0].routes[0].route.cluster_header: "a b"`},
		{"route", `{"match": {"safe_regex": {}}, ` + toC + `}}`, "virtual_hosts[0].routes[0].match.safe_regex.regex: is missing"},
		{"route", `{"match": {"path_separated_prefix": "/a/"}, ` + toC + `}}`, `virtual_hosts[0].routes[0].match.path_separated_prefix: "/a/"`},
		{"route", `{` + anyRoute + `, ` + toC + `}, "request_headers_to_add": [{"header": {"key": "Content-Length", "value": "7"}}]}`, `virtual_hosts[0].routes[0].request_headers_to_add[0].header.key: "Content-Length"`},
		{"route", `{` + anyRoute + `, ` + toC + `}, "response_headers_to_remove": ["transfer-encoding"]}`, `virtual_hosts[0].routes[0].response_headers_to_remove[0]: "transfer-encoding"`},
		{"routes", `{"virtual_hosts": [{"domains": ["*"]}]}`, "virtual_hosts[0].name: is missing"},
		{"routes", `{"virtual_hosts": [{"name": "a", "domains": ["A.b"]}, {"name": "b", "domains": ["a.B"]}]}`, "virtual_hosts[1].domains[0]: "},
		{"listener", `{"name": "l"}`, "address: has to be a socket_address"},
		{"listener", `{"address": {"socket_address": {"address": "::", "port_value": 1, "ipv4_compat": true}}}`, "address.socket_address.ipv4_compat: is not run"},
		{"listener", `{"address": {"socket_address": {"address": "::", "port_value": 1, "protocol": "UDP"}}}`, "address.socket_address.protocol: UDP"},
		{"listener", `{"address": {"socket_address": {"address": "::", "port_value": 1}}}`, "filter_chains: there is none"},
		{"listener", `{"use_original_dst": true, "address": {"socket_address": {"address": "::", "port_value": 1}}}`, "use_original_dst: is not run"},
		{"listener", `{"address": {"socket_address": {"address": "::", "port_value": 1}}, "filter_chains": [{}]}`, "filter_chains[0].filters: 0 of them"},
		{"secret", `{"name": "s", "validation_context": {"trusted_ca": {"inline_string": "x"}, "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]}}`, "validation_context: a secret has trusted_ca and crl only"},
		{"listener", `{"address": {"socket_address": {"address": "::", "port_value": 1}}, "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy"}]}]}`, `filter_chains[0].filters[0].typed_config: is missing, or has no "@type"`},
		{"secret", `{"name": "s", "tls_certificate": {"certificate_chain": {"inline_string": "x"}}}`, "tls_certificate: needs"},
		{"bootstrap", `{"admin": {"access_log": [{"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"}}]}}`, "admin.access_log: needs admin.address"},
		{"bootstrap", `{"layered_runtime": {}}`, "layered_runtime: is not run"},
		{"bootstrap", `{"dynamic_resources": {"cds_config": {"ads": {}}}}`, "dynamic_resources.ads_config: is missing"},
		{"bootstrap", `{"dynamic_resources": {"ads_config": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "x"}}]}}}`, `dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: "x" is not one of`},
		{"bootstrap", `{"static_resources": {"clusters": [{"name": "x", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}]}}`, "static_resources.clusters[0].eds_cluster_config: needs dynamic_resources.ads_config"},
		{"bootstrap", `{"static_resources": {"clusters": [{"name": "x"}, {"name": "x"}]}}`, "static_resources.clusters[1].name: "},
	} {
		_, err := read(t, c.kind, c.text)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, expected %s…", c.text, err, c.want)
		}
	}
}

// TestThresholds: by priority, the first of each counts; of retries there is a bound only where it is given.
// TestCiphers: suites are known by both of their names, and equals in brackets are several.
func TestCiphers(t *testing.T) {
	for from, want := range map[string]string{"ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256": "AES128-GCM-SHA256", "ECDHE-PSK-AES128-SHA": "ECDHE-PSK-AES128-SHA"} {
		if got := cipher(from); got != want {
			t.Errorf("%s: %s, expected %s", from, got, want)
		}
	}
	p, err := tlsParameters("", &tlsv3.TlsParameters{CipherSuites: []string{"[ECDHE-RSA-AES256-SHA|ECDHE-RSA-AES128-SHA]"}})
	if want := []string{"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"}; err != nil || !slices.Equal(p.Ciphers, want) {
		t.Errorf("%v %v", p.Ciphers, err)
	}
}

func TestThresholds(t *testing.T) {
	v, err := read(t, "cluster", `{"name": "x", "circuit_breakers": {"thresholds": [{"max_requests": 1, "max_retries": 2}, {"max_requests": 9},
		{"priority": "HIGH", "max_connections": 3, "max_pending_requests": 4}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := [2]model.Breakers{{Connections: 1024, Pending: 1024, Requests: 1, Retries: 2}, {Connections: 3, Pending: 4, Requests: 1024}}
	if got := v.(*model.Cluster).Breakers; got != want {
		t.Errorf("%+v", got)
	}
}

// TestDefaults: what is not said is as Envoy has it.
func TestDefaults(t *testing.T) {
	eager(t)
	v, err := read(t, "cluster", `{"name": "x", "outlier_detection": {}}`)
	if err != nil {
		t.Fatal(err)
	}
	c := v.(*model.Cluster)
	if c.ConnectTimeout != 5*time.Second || c.Balancing.Policy != model.RoundRobin || c.Breakers[1] != (model.Breakers{Connections: 1024, Pending: 1024, Requests: 1024}) ||
		c.Discovery != model.DiscoveryStatic || c.IdleTimeout != time.Hour || c.Upstream.Version != model.UpstreamDefault {
		t.Errorf("%+v", c)
	}
	if o := c.Outlier; o.Consecutive5xx != 5 || o.Interval != 10*time.Second || o.BaseEjection != 30*time.Second || o.MaxPercent != 10 || o.Enforce5xx != 100 || o.EnforceGateway != 0 || o.SuccessStdevFactor != 1900 ||
		o.MaxEjection != 300*time.Second || o.EnforceLocalSuccessRate != 100 || o.EnforceLocalFailurePercent != 0 || o.AlwaysOne || o.StayEjected {
		t.Errorf("%+v", o)
	}
	v, err = read(t, "route", `{`+anyRoute+`, `+toC+`}}`)
	if err != nil {
		t.Fatal(err)
	}
	if r := v.(*model.RouteTable).Hosts[0].Routes[0]; r.Timeouts != (model.Timeouts{Request: 15 * time.Second}) || r.Match.Path != "/" || r.Match.PathPrefixText {
		t.Errorf("%+v", r)
	}
	v, err = read(t, "route", `{`+anyRoute+`, `+toC+`, "timeout": "0s", "idle_timeout": "0s", "max_stream_duration": {"max_stream_duration": "0s"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if r := v.(*model.RouteTable).Hosts[0].Routes[0]; r.Timeouts != (model.Timeouts{Idle: forever, MaxStream: forever}) {
		t.Errorf("%+v", r)
	}
}

// TestNothingIsIgnored: every field of every message that is decoded is in a table or refused by its name.
func TestNothingIsIgnored(t *testing.T) {
	refused := 0
	for name, table := range fields {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
		if err != nil {
			t.Fatal(err)
		}
		all := mt.Descriptor().Fields()
		for i := range all.Len() {
			fd := all.Get(i)
			if _, ok := table.find(string(fd.Name())); ok {
				continue
			}
			m := mt.New()
			set(m, fd)
			want := "x." + string(fd.Name()) + ": " + notRun
			if slices.Contains(strings.Fields(table.later), string(fd.Name())) {
				want = "x." + string(fd.Name()) + ": " + notYet
			}
			if err := known("x", m.Interface()); err == nil || err.Error() != want {
				t.Errorf("%s: %v, expected %s", name, err, want)
			}
			refused++
		}
	}
	if refused < 200 {
		t.Errorf("only %d fields were tried", refused)
	}
}

// set gives a field a value that is not its default.
func set(m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	one := func(v protoreflect.Value) protoreflect.Value {
		switch fd.Kind() {
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("x")
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte("x"))
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(1)
		case protoreflect.Uint32Kind:
			return protoreflect.ValueOfUint32(1)
		case protoreflect.Uint64Kind:
			return protoreflect.ValueOfUint64(1)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(1)
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(1)
		}
		return v
	}
	switch {
	case fd.IsMap():
		v := m.NewField(fd)
		v.Map().Set(protoreflect.ValueOfString("x").MapKey(), v.Map().NewValue())
		m.Set(fd, v)
	case fd.IsList():
		v := m.NewField(fd)
		v.List().Append(one(v.List().NewElement()))
		m.Set(fd, v)
	default:
		m.Set(fd, one(m.NewField(fd)))
	}
}
