//go:build conformance

// Package ratelimit asks envoyproxy/ratelimit, with its Redis, about requests through the proxy.
package ratelimit

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

const limits = `
domain: edge
descriptors:
  - key: user
    value: greedy
    rate_limit: {unit: hour, requests_per_unit: 3}
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 1000}
  - key: generic_key
    value: all
    descriptors:
      - key: remote_address
        rate_limit: {unit: day, requests_per_unit: 20}
`

// listens reports whether somebody accepts at a port.
func listens(port int) func() error {
	return func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err
	}
}

// service starts the real service and answers its gRPC port.
func service(t *testing.T) int {
	t.Helper()
	redis, root := subject.Port(t), t.TempDir()
	r := subject.Run(t, "redis", nil, subject.Installed(t, "redis-server", "redis-server"), "--port", strconv.Itoa(redis), "--bind", "127.0.0.1", "--save", "", "--dir", root)
	r.Wait("listens", listens(redis))
	config := filepath.Join(root, "ratelimit", "config")
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "edge.yaml"), []byte(limits), 0o644); err != nil {
		t.Fatal(err)
	}
	rpc, web, debug := subject.Port(t), subject.Port(t), subject.Port(t)
	p := subject.Run(t, "ratelimit", nil, "/usr/bin/env", "USE_STATSD=false", "USE_PROMETHEUS=false", "LOG_LEVEL=warn", "REDIS_SOCKET_TYPE=tcp", fmt.Sprintf("REDIS_URL=127.0.0.1:%d", redis),
		"RUNTIME_ROOT="+root, "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false", "HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1",
		fmt.Sprintf("GRPC_PORT=%d", rpc), fmt.Sprintf("PORT=%d", web), fmt.Sprintf("DEBUG_PORT=%d", debug), subject.Binary(t, "ratelimit"))
	p.Wait("listens", listens(rpc))
	return rpc
}

const bootstrap = `
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: edge
              timeout: 5s
              failure_mode_deny: true
              rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route:
                  cluster: web
                  rate_limits:
                  - actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
                  - actions: [{generic_key: {descriptor_value: all}}, {remote_address: {}}]
  clusters:
  - name: web
    connect_timeout: 1s
    load_assignment: {cluster_name: web, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
  - name: rls
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: rls, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`

// TestRealService: each limit of the service holds exactly, and when both apply either refuses.
func TestRealService(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	t.Cleanup(web.Close)
	port := subject.Port(t)
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, bootstrap, port, web.Listener.Addr().(*net.TCPAddr).Port, service(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	p := subject.Run(t, "proxy", nil, append(subject.Command(t), file)...)
	p.Wait("listens", listens(port))
	get := func(user string) int {
		req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-User", user)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res.StatusCode
	}
	for i, want := range []int{200, 200, 200, 429, 429} {
		if got := get("greedy"); got != want {
			t.Errorf("request %d of greedy: %d, want %d", i, got, want)
		}
	}
	passed := 0
	for range 30 {
		if get("modest") == 200 {
			passed++
		}
	}
	if passed != 15 { // five of the twenty of the address went to greedy
		t.Errorf("%d of modest passed, 15 are left", passed)
	}
}
