//go:build conformance

// Package grpc runs gRPC's interoperability cases, client and server of grpc-go, through the proxy: plain, over TLS and
// mutual TLS, and while a control plane replaces routes and endpoints all the time.
package grpc

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// cases are all that the server of grpc-go can answer without Google's credentials. pick_first_unary is not among them: it
// wants a server that tells its name, and grpc-go's does not, with or without a proxy.
var cases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob",
}

// total is how many were promised.
const total = 16

// server starts the interop server and answers its port.
func server(t *testing.T, args ...string) int {
	t.Helper()
	port := subject.Port(t)
	p := subject.Run(t, "interop-server", nil, append([]string{subject.Binary(t, "interop-server"), "-port", strconv.Itoa(port)}, args...)...)
	p.Wait("listens", func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err
	})
	return port
}

// all runs every case against a port and asserts that all pass.
func all(t *testing.T, port int, args ...string) {
	t.Helper()
	passed := 0
	for _, name := range cases {
		if one(t, name, port, args...) {
			passed++
		}
	}
	if passed != total || len(cases) != total {
		t.Errorf("%d of %d cases passed, want %d of %d", passed, len(cases), total, total)
	}
}

// one runs a case and reports whether it passed.
func one(t *testing.T, name string, port int, args ...string) bool {
	t.Helper()
	line := []string{subject.Binary(t, "interop-client"), "-server_host", "127.0.0.1", "-server_port", strconv.Itoa(port), "-test_case", name}
	if name == "orca_per_rpc" || name == "orca_oob" { // they look at what the client's balancer was told
		line = append(line, "-service_config_json", `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`)
	}
	p := subject.Run(t, name, nil, append(line, args...)...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code, err := p.End(ctx)
	if err != nil || code != 0 {
		t.Errorf("%s: exit code %d, %v\n%s", name, code, err, p.Output())
		return false
	}
	return true
}

func TestPlain(t *testing.T) {
	listener := subject.Port(t)
	subject.Start(t, subject.Bootstrap{
		Clusters:  []subject.Cluster{{Name: "interop", Port: server(t), HTTP2: true}},
		Listeners: []subject.Listener{{Port: listener, Cluster: "interop"}},
	})
	all(t, listener)
}

// TestMutualTLS passes the proxy twice: the client's TLS ends at the first listener, which shows its own certificate to
// the second one; the second speaks TLS to the server.
func TestMutualTLS(t *testing.T) {
	ca := subject.NewCA(t)
	own := ca.Issue(t, "localhost")
	first, second := subject.Port(t), subject.Port(t)
	subject.Start(t, subject.Bootstrap{
		Clusters: []subject.Cluster{
			{Name: "second", Port: second, HTTP2: true, TLS: &subject.ClientTLS{CA: ca.File, Name: "localhost", Cert: own.Cert, Key: own.Key}},
			{Name: "interop", Port: server(t, "-use_tls", "-tls_cert_file", own.Cert, "-tls_key_file", own.Key), HTTP2: true, TLS: &subject.ClientTLS{CA: ca.File, Name: "localhost"}},
		},
		Listeners: []subject.Listener{
			{Port: first, Cluster: "second", TLS: &subject.ServerTLS{Cert: own.Cert, Key: own.Key}},
			{Port: second, Cluster: "interop", TLS: &subject.ServerTLS{Cert: own.Cert, Key: own.Key, ClientCA: ca.File}},
		},
	})
	all(t, first, "-use_tls", "-use_test_ca", "-ca_file", ca.File, "-server_host_override", "localhost")
}

// TestWhileConfigurationIsReplaced runs the cases while new routes and endpoints come twenty times a second.
func TestWhileConfigurationIsReplaced(t *testing.T) {
	plane := newPlane(t, server(t))
	listener := subject.Port(t)
	subject.Start(t, subject.Bootstrap{
		Node:      "node: { id: conformance, cluster: conformance }\n",
		Dynamic:   "dynamic_resources:\n  ads_config: { api_type: GRPC, transport_api_version: V3, grpc_services: [ { envoy_grpc: { cluster_name: plane } } ] }\n",
		Clusters:  []subject.Cluster{{Name: "interop", HTTP2: true, EDS: true}, {Name: "plane", Port: plane.port(), HTTP2: true}},
		Listeners: []subject.Listener{{Port: listener, RDS: "interop"}},
	})
	before := plane.accepted.Load()
	all(t, listener)
	for _, soak := range []string{"rpc_soak", "channel_soak"} {
		one(t, soak, listener, "-soak_iterations", "300", "-soak_num_threads", "4", "-soak_overall_timeout_seconds", "25")
	}
	changes := plane.accepted.Load() - before
	t.Logf("%d changes were accepted, %d refused", changes, plane.refused.Load())
	if changes < 40 || plane.refused.Load() > 0 {
		t.Errorf("%d changes were accepted, want at least 40; %d refused: %v", changes, plane.refused.Load(), plane.reason.Load())
	}
}
