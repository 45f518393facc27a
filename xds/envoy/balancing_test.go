package envoy

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tulle-mesh/tulle/model"
)

// ext is a cluster with the policies of load_balancing_policy, each as "type {fields}".
func ext(policies ...string) string {
	return `{"name": "c", "connect_timeout": "1s", "load_balancing_policy": ` + several(policies...) + `}`
}

func several(policies ...string) string {
	var out []string
	for _, p := range policies {
		kind, rest, _ := strings.Cut(p, " ")
		if !strings.Contains(kind, "/") {
			kind = "envoy.extensions.load_balancing_policies." + kind
		}
		out = append(out, `{"typed_extension_config": {"name": "n", "typed_config": {"@type": "type.googleapis.com/`+strings.TrimPrefix(kind, "/")+`"`+rest+`}}}`)
	}
	return `{"policies": [` + strings.Join(out, ",") + `]}`
}

// own is a TypedStruct of ours.
func own(value string) string {
	return `/xds.type.v3.TypedStruct , "type_url": "type.googleapis.com/tulle.v1.Balancing", "value": ` + value
}

func TestBalancing(t *testing.T) {
	const slow = `, "slow_start_config": {"slow_start_window": "60s", "aggression": {"default_value": 2, "runtime_key": "k"}, "min_weight_percent": {"value": 5}}`
	slowly := model.SlowStart{Window: time.Minute, Aggression: 2, Least: 5}
	weighted := model.LocalityOptions{Mode: model.LocalityWeighted}
	const byWeight = `, "locality_lb_config": {"locality_weighted_lb_config": {}}`
	for _, c := range []struct {
		text string
		want model.Balancing
	}{
		{`{"name": "c"}`, model.Balancing{Policy: model.RoundRobin}},
		{`{"name": "c", "round_robin_lb_config": {"slow_start_config": {"slow_start_window": "60s", "aggression": {"default_value": 2, "runtime_key": "k"}, "min_weight_percent": {"value": 5}}}}`,
			model.Balancing{Policy: model.RoundRobin, SlowStart: slowly}},
		{`{"name": "c", "lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 4, "slow_start_config": {"slow_start_window": "60s"}}, "common_lb_config": {"locality_weighted_lb_config": {}}}`,
			model.Balancing{Policy: model.LeastRequest, ChoiceCount: 4, SlowStart: model.SlowStart{Window: time.Minute}, Locality: weighted}},
		{ext("round_robin.v3.RoundRobin " + slow + byWeight), model.Balancing{Policy: model.RoundRobin, SlowStart: slowly, Locality: weighted}},
		{ext(`least_request.v3.LeastRequest , "choice_count": 3` + slow), model.Balancing{Policy: model.LeastRequest, ChoiceCount: 3, SlowStart: slowly}},
		{ext("random.v3.Random " + byWeight), model.Balancing{Policy: model.Random, Locality: weighted}},
		{ext(`ring_hash.v3.RingHash , "hash_function": "XX_HASH", "minimum_ring_size": 10, "maximum_ring_size": 99`), model.Balancing{Policy: model.RingHash, MinRing: 10, MaxRing: 99}},
		{ext(`maglev.v3.Maglev , "table_size": 257, "locality_weighted_lb_config": {}`), model.Balancing{Policy: model.Maglev, TableSize: 257, Locality: weighted}},
		{ext(`client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin , "blackout_period": "3s", "weight_expiration_period": "60s", "weight_update_period": "0.01s", "error_utilization_penalty": 2`),
			model.Balancing{Policy: model.LeastUtilized, Utilization: model.Utilization{Blackout: 3 * time.Second, Expiry: time.Minute, Update: 100 * time.Millisecond, ErrorPenalty: 2}}},
		{ext(`client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin , "blackout_period": "0s", "error_utilization_penalty": 0`),
			model.Balancing{Policy: model.LeastUtilized, Utilization: model.Utilization{Blackout: 1, Expiry: 3 * time.Minute, Update: time.Second, ErrorPenalty: -1}}},
		{ext(`wrr_locality.v3.WrrLocality , "endpoint_picking_policy": ` + several("random.v3.Random ")), model.Balancing{Policy: model.Random, Locality: weighted}},
		{ext("/google.protobuf.Empty ,\"value\": {}", "random.v3.Random "), model.Balancing{Policy: model.Random}},
		{ext(`/xds.type.v3.TypedStruct , "type_url": "type.googleapis.com/example.Other", "value": {"a": 1}`, "random.v3.Random "), model.Balancing{Policy: model.Random}},
		{ext(own(`{"policy": "PeakEWMA", "decay": "5s", "start": "10ms", "slowStart": {"window": "60s", "aggression": 2, "least": 5},
			"locality": {"mode": "Prefer", "spillAt": 20, "failover": [{"from": "eu", "to": "us"}, {"from": "*", "to": "asia"}], "labels": ["rack", "tier"]}}`), "random.v3.Random "),
			model.Balancing{Policy: model.PeakEWMA, EWMA: model.EWMA{Decay: 5 * time.Second, Start: 10 * time.Millisecond}, SlowStart: slowly,
				Locality: model.LocalityOptions{Mode: model.LocalityPrefer, SpillAt: 20, Failover: []model.Failover{{From: "eu", To: "us"}, {From: "*", To: "asia"}}, Labels: []string{"rack", "tier"}}}},
		{ext(own(`{"choices": 3, "blackout": "1s", "expiry": "2s", "update": "3s", "errorPenalty": -1, "ring": {"minimum": 1, "maximum": 2}}`)),
			model.Balancing{ChoiceCount: 3, MinRing: 1, MaxRing: 2, Utilization: model.Utilization{Blackout: time.Second, Expiry: 2 * time.Second, Update: 3 * time.Second, ErrorPenalty: -1}}},
		{ext(own(`{"shards": {"slots": 256}}`)), model.Balancing{Shards: &model.Shards{Slots: 256, Label: model.LabelShards}}},
		{ext(own(`{"shards": {"slots": 4, "label": "owns", "otherwise": "Any"}}`)), model.Balancing{Shards: &model.Shards{Slots: 4, Label: "owns", Any: true}}},
		{ext(own(`{"policy": "Maglev", "table": 257}`)), model.Balancing{Policy: model.Maglev, TableSize: 257}},
		{`{"name": "c", "lb_subset_config": {"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"v": "1", "n": 2, "b": true}, "subset_selectors": [{"keys": ["v", "a"]}]}}`,
			model.Balancing{Policy: model.RoundRobin, Subsets: &model.Subsets{Selectors: [][]string{{"a", "v"}}, Fallback: model.SubsetDefault,
				Default: []model.Label{{Name: "b", Value: "true"}, {Name: "n", Value: "2"}, {Name: "v", Value: "1"}}}}},
	} {
		got, err := read(t, "cluster", c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if c.want.Subsets == nil {
			c.want.Subsets = &model.Subsets{Fallback: model.SubsetAny}
		}
		if b := got.(*model.Cluster).Balancing; !reflect.DeepEqual(b, c.want) {
			t.Errorf("%s:\n%+v\n%+v expected", c.text, b, c.want)
		}
	}
}

func TestBalancingRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"name": "c", "lb_policy": "LOAD_BALANCING_POLICY_CONFIG"}`:                                                                                         "load_balancing_policy: is missing",
		`{"name": "c", "common_lb_config": {"zone_aware_lb_config": {}}}`:                                                                                    "common_lb_config.zone_aware_lb_config: is not run",
		`{"name": "c", "common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}}}`:                                            "common_lb_config.consistent_hashing_lb_config: is not run",
		`{"name": "c", "round_robin_lb_config": {"slow_start_config": {}}}`:                                                                                  "round_robin_lb_config.slow_start_config.slow_start_window: is missing",
		`{"name": "c", "round_robin_lb_config": {"slow_start_config": {"slow_start_window": "1s", "aggression": {"default_value": 0, "runtime_key": "k"}}}}`: "round_robin_lb_config.slow_start_config.aggression.default_value: is not more than 0",
		`{"name": "c", "round_robin_lb_config": {"slow_start_config": {"slow_start_window": "1s", "min_weight_percent": {"value": 101}}}}`:                   "round_robin_lb_config.slow_start_config.min_weight_percent: is not from 0 to 100",
		`{"name": "c", "lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"active_request_bias": {"default_value": 1, "runtime_key": "k"}}}`:          "least_request_lb_config.active_request_bias: is not run",
		ext(): "load_balancing_policy.policies: is empty",
		ext("/google.protobuf.Empty ,\"value\": {}"):                                                                                            `load_balancing_policy.policies[0].typed_extension_config.typed_config: "type.googleapis.com/google.protobuf.Empty" is not run`,
		ext("round_robin.v3.RoundRobin , \"locality_lb_config\": {\"zone_aware_lb_config\": {}}"):                                               "load_balancing_policy.policies[0].typed_extension_config.typed_config.locality_lb_config.zone_aware_lb_config: is not run",
		ext(`ring_hash.v3.RingHash , "hash_function": "MURMUR_HASH_2"`):                                                                         "load_balancing_policy.policies[0].typed_extension_config.typed_config.hash_function: MURMUR_HASH_2 is not run",
		ext(`ring_hash.v3.RingHash , "consistent_hashing_lb_config": {"hash_balance_factor": 150}`):                                             "load_balancing_policy.policies[0].typed_extension_config.typed_config.consistent_hashing_lb_config: is not run",
		ext(`maglev.v3.Maglev , "table_size": 256`):                                                                                             "load_balancing_policy.policies[0].typed_extension_config.typed_config.table_size: 256 is not a prime",
		ext(`least_request.v3.LeastRequest , "selection_method": "FULL_SCAN"`):                                                                  "load_balancing_policy.policies[0].typed_extension_config.typed_config.selection_method: FULL_SCAN is not run",
		ext(`client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin , "enable_oob_load_report": true`):                                "load_balancing_policy.policies[0].typed_extension_config.typed_config.enable_oob_load_report: of true is not run",
		ext(`client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin , "metric_names_for_computing_utilization": ["a"]`):               "load_balancing_policy.policies[0].typed_extension_config.typed_config.metric_names_for_computing_utilization: is not run",
		ext(`client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin , "error_utilization_penalty": -1`):                               "load_balancing_policy.policies[0].typed_extension_config.typed_config.error_utilization_penalty: is less than 0",
		ext(`wrr_locality.v3.WrrLocality `):                                                                                                     "load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy: is missing",
		ext(`wrr_locality.v3.WrrLocality , "endpoint_picking_policy": ` + several(`wrr_locality.v3.WrrLocality `)):                              "load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy.policies[0].typed_extension_config.typed_config:",
		ext(own(`{"policy": "Fastest"}`)):                                                                                                       "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.policy: is none of its words",
		ext(own(`{"polcy": "Random"}`)):                                                                                                         "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.polcy: is no field of it",
		ext(own(`{"decay": 5}`)):                                                                                                                "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.decay: is no text",
		ext(own(`{"decay": "-5s"}`)):                                                                                                            "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.decay: is no duration",
		ext(own(`{"shards": {"label": "owns"}}`)):                                                                                               "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.shards.slots: is missing",
		ext(own(`{"shards": {"slots": 4, "otherwise": "None"}}`)):                                                                               "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.shards.otherwise: is none of its words",
		ext(own(`{"policy": "Maglev", "shards": {"slots": 4}}`)):                                                                                "load_balancing_policy.policies[0].typed_extension_config.typed_config.value: shards: mean nothing",
		ext(own(`{"locality": {"mode": "Near"}}`)):                                                                                              "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.locality.mode: is none of its words",
		ext(own(`{"locality": {"failover": [{"form": "eu"}]}}`)):                                                                                "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.locality.failover[0].form: is no field of it",
		ext(own(`{"choices": 1}`)):                                                                                                              "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.choices: is less than 2",
		ext(own(`{"policy": "Maglev", "table": 256}`)):                                                                                          "load_balancing_policy.policies[0].typed_extension_config.typed_config.value.table.table_size: 256 is not a prime",
		`{"name": "c", "ring_hash_lb_config": {}, "load_balancing_policy": ` + several("random.v3.Random ") + `}`:                               "ring_hash_lb_config: has no effect beside load_balancing_policy",
		`{"name": "c", "common_lb_config": {"locality_weighted_lb_config": {}}, "load_balancing_policy": ` + several("random.v3.Random ") + `}`: "common_lb_config.locality_weighted_lb_config: has no effect beside load_balancing_policy",
		`{"name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "load_balancing_policy": ` + several("random.v3.Random ") + `}`: "load_balancing_policy: does not fit type ORIGINAL_DST",
		`{"name": "c", "lb_subset_config": {}}`:                                                                                                 "lb_subset_config.subset_selectors: is empty",
		`{"name": "c", "lb_subset_config": {"subset_selectors": [{"keys": []}]}}`:                                                               "lb_subset_config.subset_selectors[0].keys: is empty",
		`{"name": "c", "lb_subset_config": {"subset_selectors": [{"keys": ["a"], "fallback_policy": "ANY_ENDPOINT"}]}}`:                         "lb_subset_config.subset_selectors[0].fallback_policy: is not run",
		`{"name": "c", "lb_subset_config": {"subset_selectors": [{"keys": ["a"]}], "fallback_policy": "DEFAULT_SUBSET"}}`:                       "lb_subset_config.default_subset: has no fields",
		`{"name": "c", "lb_subset_config": {"subset_selectors": [{"keys": ["a"]}], "panic_mode_any": true}}`:                                    "lb_subset_config.panic_mode_any: is not run",
		`{"name": "c", "lb_subset_config": {"subset_selectors": [{"keys": ["a"]}], "locality_weight_aware": true}}`:                             "lb_subset_config.locality_weight_aware: is not run",
		`{"name": "c", "metadata": {"filter_metadata": {"tulle.v1": {"ejection": {"probe": true}}}}}`:                                           "metadata.filter_metadata.tulle.v1.ejection: needs outlier_detection",
		`{"name": "c", "outlier_detection": {}, "metadata": {"filter_metadata": {"tulle.v1": {"ejection": {"prob": true}}}}}`:                   "metadata.filter_metadata.tulle.v1.ejection.prob: is no field of it",
		`{"name": "c", "outlier_detection": {}, "metadata": {"filter_metadata": {"tulle.v1": {"ejection": {"probe": "yes"}}}}}`:                 "metadata.filter_metadata.tulle.v1.ejection.probe: is neither true nor false",
	} {
		if _, err := read(t, "cluster", text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\n%v\n%s expected", text, err, want)
		}
	}
	for text, want := range map[string]string{
		`{` + anyRoute + `, "route": {"cluster": "c", "metadata_match": {"filter_metadata": {"envoy.lb": {"v": ["1"]}}}}}`:        "virtual_hosts[0].routes[0].route.metadata_match.filter_metadata.envoy.lb: has a value that is not text",
		`{` + anyRoute + `, "route": {"cluster": "c", "metadata_match": {"filter_metadata": {"other": {"v": "1"}}}}}`:             `virtual_hosts[0].routes[0].route.metadata_match.filter_metadata: "other" is not run`,
		`{` + anyRoute + `, "route": {"cluster_header": "x-c", "metadata_match": {"filter_metadata": {"envoy.lb": {"v": "1"}}}}}`: "virtual_hosts[0].routes[0].route.metadata_match: with cluster_header is not run",
	} {
		if _, err := read(t, "route", text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\n%v\n%s expected", text, err, want)
		}
	}
}

// TestSubsetsOfRoutes: labels of endpoints and of routes; those of a weighted cluster win over its route's.
func TestSubsetsOfRoutes(t *testing.T) {
	got, err := read(t, "route", `{`+anyRoute+`, "route": {"metadata_match": {"filter_metadata": {"envoy.lb": {"v": "1", "stage": "prod"}}}, "weighted_clusters": {"clusters": [
		{"name": "a", "weight": 1}, {"name": "b", "weight": 1, "metadata_match": {"filter_metadata": {"envoy.lb": {"v": "2", "a": true}}}}]}}}`)
	if err != nil {
		t.Fatal(err)
	}
	b := got.(*model.RouteTable).Hosts[0].Routes[0].Backends
	if want := []model.Label{{Name: "stage", Value: "prod"}, {Name: "v", Value: "1"}}; !reflect.DeepEqual(b[0].Subset, want) {
		t.Errorf("a: %v", b[0].Subset)
	}
	if want := []model.Label{{Name: "a", Value: "true"}, {Name: "stage", Value: "prod"}, {Name: "v", Value: "2"}}; !reflect.DeepEqual(b[1].Subset, want) {
		t.Errorf("b: %v", b[1].Subset)
	}
	got, err = read(t, "endpoints", `{"cluster_name": "c", "endpoints": [{"locality": {"region": "eu"}, "load_balancing_weight": 3, "priority": 1, "lb_endpoints": [
		{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}}}, "metadata": {"filter_metadata": {"envoy.lb": {"v": "1", "list": ["x"]}, "other": {"a": 1}}}}]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	e := got.(*model.Endpoints)
	if !reflect.DeepEqual(e.Endpoints[0].Labels, []model.Label{{Name: "v", Value: "1"}}) || !reflect.DeepEqual(e.Localities, []model.LocalityWeight{{Locality: "eu//", Priority: 1, Weight: 3}}) {
		t.Errorf("%+v", e)
	}
}

func TestEjectionFacts(t *testing.T) {
	got, err := read(t, "cluster", `{"name": "c", "outlier_detection": {}, "metadata": {"filter_metadata": {"other": {"x": 1}, "tulle.v1": {"ejection": {"probe": true, "latency": {"factor": 2.5, "least": "20ms", "hosts": 4, "requests": 50}}}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if o := got.(*model.Cluster).Outlier; !o.Probe || o.LatencyFactor != 2.5 || o.LatencyLeast != 20*time.Millisecond || o.LatencyMinimumHosts != 4 || o.LatencyRequestVolume != 50 {
		t.Errorf("%+v", o)
	}
}

// TestPolicyThereAndBack: what is written as load_balancing_policy is read as it was.
func TestPolicyThereAndBack(t *testing.T) {
	slow := model.SlowStart{Window: time.Minute, Aggression: 2, Least: 5}
	weighted := model.LocalityOptions{Mode: model.LocalityWeighted}
	for _, b := range []model.Balancing{
		{Policy: model.RoundRobin, SlowStart: slow}, {Policy: model.LeastRequest, ChoiceCount: 3, SlowStart: slow, Locality: weighted}, {Policy: model.Random, Locality: weighted},
		{Policy: model.RingHash, MinRing: 5, MaxRing: 9, Locality: weighted}, {Policy: model.Maglev, TableSize: 257, Locality: weighted},
		{Policy: model.LeastUtilized, Utilization: model.Utilization{Blackout: time.Second, Expiry: time.Minute, Update: time.Second, ErrorPenalty: 2}},
		{Policy: model.LeastUtilized, Locality: weighted, Utilization: model.Utilization{Blackout: time.Second, Expiry: time.Minute, Update: time.Second, ErrorPenalty: -1}},
	} {
		p, err := Policy(&b)
		if err != nil || p == nil {
			t.Fatalf("%+v: %v", b, err)
		}
		c, _, err := Cluster("", &clusterv3.Cluster{Name: "c", ConnectTimeout: durationpb.New(time.Second), LoadBalancingPolicy: p, LoadAssignment: nil})
		if err != nil {
			t.Errorf("%+v: %v", b, err)
			continue
		}
		c.Balancing.Subsets = nil
		if !reflect.DeepEqual(c.Balancing, b) {
			t.Errorf("%+v\n%+v expected", c.Balancing, b)
		}
	}
	for _, b := range []model.Balancing{{}, {Policy: model.PeakEWMA}, {SlowStart: model.SlowStart{Window: -1}}, {SlowStart: model.SlowStart{Window: 1, Aggression: math.Inf(1)}}} {
		if p, err := Policy(&b); p != nil || err != nil {
			t.Errorf("%+v: %v %v", b, p, err)
		}
	}
}

// TestRelayBalancing: what tcp_proxy says about endpoints.
func TestRelayBalancing(t *testing.T) {
	of := func(fields string) string {
		return `{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "filter_chains": [{"filters": [{"name": "n", "typed_config":
			{"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "s", ` + fields + `}}]}]}`
	}
	got, err := read(t, "listener", of(`"hash_policy": [{"source_ip": {}}], "metadata_match": {"filter_metadata": {"envoy.lb": {"v": "1"}}},
		"weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2, "metadata_match": {"filter_metadata": {"envoy.lb": {"v": "2"}}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	c := got.(model.Listener).Chains[0].TCP
	want := []model.WeightedCluster{{Cluster: model.Free("a"), Weight: 1, Subset: []model.Label{{Name: "v", Value: "1"}}},
		{Cluster: model.Free("b"), Weight: 2, Subset: []model.Label{{Name: "v", Value: "2"}}}}
	if !c.HashSource || !reflect.DeepEqual(c.Clusters, want) {
		t.Errorf("%+v", c)
	}
	if _, err := read(t, "listener", of(`"cluster": "c", "hash_policy": [{"filter_state": {"key": "k"}}]`)); err == nil || !strings.Contains(err.Error(), "hash_policy[0]") {
		t.Error(err)
	}
}
