package bootstrap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/xds/bootstrap"
)

const front = `static_resources:
  listeners:
  - name: front
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
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
  clusters:
  - name: back
    load_assignment:
      cluster_name: back
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}
`

func TestDecode(t *testing.T) {
	b, err := bootstrap.Decode("front.yaml", []byte(front))
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Listeners) != 1 || b.Listeners[0].Chains[0].HTTP.Routes.Hosts[0].Routes[0].Backends[0].Cluster.String() != "back" {
		t.Errorf("listeners: %+v", b.Listeners)
	}
	if len(b.Clusters) != 1 || len(b.Endpoints) != 1 || b.Endpoints[0].Endpoints[0].Address.String() != "127.0.0.1:8080" {
		t.Errorf("clusters: %+v, endpoints: %+v", b.Clusters, b.Endpoints)
	}
}

// TestErrors: one line that says file, line, field and what to do.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"stat_prefix: front", "stat_prefixx: front", `f.yaml:10: unknown field "stat_prefixx"`},
		{"stat_prefix: front", "tracing: {}", "f.yaml:10: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.tracing: is not run by Tulle"},
		{"port_value: 10000", "port_value: 70000", "f.yaml:4: static_resources.listeners[0].address.socket_address.port_value: 70000 is not a port"},
		{"port_value: 10000", "port_value: many", "f.yaml:4: invalid value for uint32"},
		{"name: back\n", "name: back\n    name: again\n", `f.yaml:24: "name" is there already, on line 23`},
		{"timeout: 0s", "timeout: 0s, retry_policy: {per_try_idle_timeout: 1s}", "f.yaml:17: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.retry_policy.per_try_idle_timeout: is not run"},
		{"  clusters:", "   clusters:", "f.yaml:"},
		{"  listeners:\n", "  listeners:\n  - {name: first, address: {socket_address: {address: 127.0.0.1, port_value: 10000}}, filter_chains: [{filters: [{name: t, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: back}}]}]}\n",
			"f.yaml:5: static_resources.listeners[1].address: 127.0.0.1:10000 is an address of listener first"},
		{"cluster: back, timeout", "cluster: bck, timeout", `f.yaml:17: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route: "bck" is not one of static_resources.clusters`},
		{"timeout: 0s", "timeout: 3", "f.yaml:17: syntax error unexpected token 3; a value of another kind belongs here"},
		{"port_value: 8080}}}\n", "port_value: 8080}}}\n---\nadmin: {}\n", "f.yaml:30: begins a second document"},
		{"http_connection_manager.v3.HttpConnectionManager", "no.such.Thing", "f.yaml:9: "},
		{"envoy.extensions.filters.http.router.v3.Router", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "f.yaml:20: "},
	} {
		text := strings.Replace(front, c.old, c.new, 1)
		if text == front {
			t.Fatalf("%q is not in the file", c.old)
		}
		_, err := bootstrap.Decode("f.yaml", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, expected %s…", c.new, err, c.want)
		}
	}
}

// TestLineBehindDots: the name of an extension has dots; the line is that of the field in it.
func TestLineBehindDots(t *testing.T) {
	text := front + `    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            hpack_table_size: 0
`
	_, err := bootstrap.Decode("f.yaml", []byte(text))
	if err == nil || !strings.HasPrefix(err.Error(), "f.yaml:34: ") {
		t.Error(err)
	}
}

// TestMerge: << brings what is not there, once.
func TestMerge(t *testing.T) {
	for text, want := range map[string]string{
		"x: &x {id: a, cluster: b}\nnode: {<<: *x, id: c}\n":               `f:1: unknown field "x"`,
		"node: {<<: {id: a, cluster: b}, id: c}\n":                         "",
		"node: {<<: {id: a}, <<: {cluster: b}}\n":                          `f:1: "<<" is there already, on line 1`,
		"node: {<<: [{id: a}]}\n":                                          "f:1: << merges one object",
		"node: {id: a, id: b}\n":                                           `f:1: "id" is there already, on line 1`,
		"node: {id: a, metadata: {a: .inf, b: 0x10, c: ~, d: !!binary x}}": "",
	} {
		_, err := bootstrap.Decode("f", []byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, expected %s", text, err, want)
		}
	}
}

// TestExamples: every example of the tree is within the subset.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../test/bootstrap/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		if _, err := bootstrap.Read(f); err != nil {
			t.Error(err)
		}
	}
}

// TestAlone: an empty document behind the first one is none, and whoever says so may name clusters that are not there.
func TestAlone(t *testing.T) {
	text := strings.Replace(front, "virtual_hosts:", "validate_clusters: false\n            virtual_hosts:", 1)
	text = strings.Replace(text, "cluster: back", "cluster: bck", 1)
	if _, err := bootstrap.Decode("f.yaml", []byte("---\n"+text+"---\n...\n")); err != nil {
		t.Error(err)
	}
}

func TestRead(t *testing.T) {
	if _, err := bootstrap.Read(filepath.Join(t.TempDir(), "missing.yaml")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// FuzzDecode: whatever the file holds, there is an answer, and an error is one line.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(front))
	f.Add([]byte(`{"static_resources": {"clusters": [{"name": "x", "type": "STATIC"}]}}`))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("<<: {static_resources: {}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := bootstrap.Decode("f", text)
		if (b == nil) == (err == nil) {
			t.Fatalf("%v and %v", b, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q is not one line", err)
		}
	})
}
