package envoy

import (
	"errors"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// FuzzDecode: whatever a control plane sends, there is an answer; a refusal is one line, and what is decoded can be decoded
// again.
func FuzzDecode(f *testing.F) {
	seed := func(kind byte, m proto.Message, text string) {
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
	}
	seed(0, &listenerv3.Listener{}, `{"name": "l", "address": {"socket_address": {"address": "::", "port_value": 1}}, "filter_chains": [{"filters": [{"name": "t", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "c"}}]}]}`)
	seed(1, &clusterv3.Cluster{}, `{"name": "x", "type": "STATIC", "health_checks": [{"timeout": "1s", "interval": "1s", "tcp_health_check": {"send": {"text": "00"}}}], "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "::1", "port_value": 1}}}}]}]}}`)
	seed(2, &routev3.RouteConfiguration{}, `{"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [{`+anyRoute+`, `+toC+`, "hash_policy": [{"cookie": {"name": "x", "ttl": "1s"}}]}}]}]}`)
	seed(2, &routev3.RouteConfiguration{}, `{"virtual_hosts": [{"name": "h", "domains": ["*"], "typed_per_filter_config": {"a\nb": {}}}]}`)
	seed(1, &clusterv3.Cluster{}, `{"name": "x", "load_balancing_policy": `+several(own(`{"policy": "PeakEWMA", "locality": {"failover": [{"from": "a\nb"}], "labels": ["x"]}}`), "random.v3.Random ")+`, "metadata": {"filter_metadata": {"tulle.v1": {"a\nb": 1}}}}`)
	seed(3, &endpointv3.ClusterLoadAssignment{}, `{"cluster_name": "x", "endpoints": [{"priority": 1}]}`)
	seed(4, &tlsv3.Secret{}, `{"name": "s", "validation_context": {"trusted_ca": {"inline_string": "x"}}}`)
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		var err error
		for range 2 {
			was := err
			switch kind % 5 {
			case 0:
				var m listenerv3.Listener
				if proto.Unmarshal(b, &m) == nil {
					_, err = Listener("", &m)
				}
			case 1:
				var m clusterv3.Cluster
				if proto.Unmarshal(b, &m) == nil {
					_, _, err = Cluster("", &m)
				}
			case 2:
				var m routev3.RouteConfiguration
				if proto.Unmarshal(b, &m) == nil {
					_, err = RouteTable("", &m)
				}
			case 3:
				var m endpointv3.ClusterLoadAssignment
				if proto.Unmarshal(b, &m) == nil {
					_, err = Endpoints("", &m)
				}
			default:
				var m tlsv3.Secret
				if proto.Unmarshal(b, &m) == nil {
					_, err = Secret("", &m)
				}
			}
			var refused *RefusedError
			if err != nil && (!errors.As(err, &refused) || strings.ContainsAny(err.Error(), "\r\n")) {
				t.Fatalf("%q is not one line of ours", err)
			}
			if was != nil && (err == nil || err.Error() != was.Error()) {
				t.Fatalf("refused with %q, then with %v", was, err)
			}
		}
	})
}
