package envoy

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

const (
	localFilter = `{"name": "l", "typed_config": {` + types + `extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "x", "token_bucket": {"max_tokens": 20, "tokens_per_fill": 10, "fill_interval": "2s"}, ` + onForAll + `}}`
	onForAll    = `"filter_enabled": {"runtime_key": "a", "default_value": {"numerator": 100}}, "filter_enforced": {"default_value": {"numerator": 100}}`
	askFilter   = `{"name": "g", "typed_config": {` + types + `extensions.filters.http.ratelimit.v3.RateLimit", "domain": "edge", "failure_mode_deny": true, "timeout": "0.05s", "rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "rls"}}}}}`
	adaptFilter = `{"name": "a", "typed_config": {` + types + `extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency", "gradient_controller_config": {"concurrency_limit_params": {"concurrency_update_interval": "0.2s", "max_concurrency_limit": 50}, "min_rtt_calc_params": {"interval": "60s", "min_concurrency": 5, "buffer": {"value": 100}}}}}`
	lastFilter  = `{"name": "r", "typed_config": {` + types + `extensions.filters.http.router.v3.Router"}}`
)

// limitedChain decodes a chain with network filters before an http_connection_manager that has these HTTP filters.
func limitedChain(t *testing.T, network, filters string) (model.Chain, error) {
	t.Helper()
	if filters != "" {
		filters += ", "
	}
	v, err := read(t, "listener", `{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "filter_chains": [{"filters": [`+network+`{"name": "h", "typed_config": {`+types+
		`extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "x", "rds": {"route_config_name": "r", "config_source": {"ads": {}}}, "http_filters": [`+filters+lastFilter+`]}}]}]}`)
	if err != nil {
		return model.Chain{}, err
	}
	return v.(model.Listener).Chains[0], nil
}

func TestLimitFilters(t *testing.T) {
	c, err := limitedChain(t, "", localFilter+", "+askFilter+", "+adaptFilter)
	if err != nil {
		t.Fatal(err)
	}
	want := &model.Inbound{Limits: []model.RateLimit{{Name: "local_ratelimit", Requests: 10, Burst: 20, Window: 2 * time.Second}},
		Adaptive: &model.Adaptive{Least: 5, Most: 50, Interval: 200 * time.Millisecond, Probe: time.Minute, Tolerance: 2}}
	if !reflect.DeepEqual(c.HTTP.Inbound, want) {
		t.Errorf("%+v", c.HTTP.Inbound)
	}
	if g := c.HTTP.Global; g == nil || *g != (model.GlobalLimit{Cluster: model.Free("rls"), Domain: "edge", Timeout: 50 * time.Millisecond, Closed: true}) {
		t.Errorf("%+v", g)
	}
	if c, err = limitedChain(t, "", ""); err != nil || c.HTTP.Inbound != nil || c.HTTP.Global != nil {
		t.Errorf("without filters: %+v, %v", c.HTTP, err)
	}
	for text, want := range map[string]*model.RateLimit{
		strings.Replace(localFilter, `{"numerator": 100}}}}`, `{}}}}`, 1):                                {Name: "local_ratelimit", Requests: 10, Burst: 20, Window: 2 * time.Second, Shadow: true},
		strings.Replace(localFilter, `{"numerator": 100}`, `{"numerator": 5}`, 1):                        {Name: "local_ratelimit", Requests: 10, Burst: 20, Window: 2 * time.Second, Match: &model.Match{Path: "/", Fraction: 50000}},
		strings.Replace(localFilter, onForAll, `"status": {"code": "ServiceUnavailable"}, `+onForAll, 1): {Name: "local_ratelimit", Requests: 10, Burst: 20, Window: 2 * time.Second, Status: 503},
		strings.Replace(localFilter, ", "+onForAll, "", 1):                                               nil, // Envoy's default: off
	} {
		c, err := limitedChain(t, "", text)
		if err != nil {
			t.Fatal(err)
		}
		if l := c.HTTP.Inbound.Limits; want == nil && len(l) != 0 || want != nil && (len(l) != 1 || !reflect.DeepEqual(l[0], *want)) {
			t.Errorf("%s: %+v", text, l)
		}
	}
}

func TestConnectionFilters(t *testing.T) {
	const rate = `{"name": "n", "typed_config": {` + types + `extensions.filters.network.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "x", "token_bucket": {"max_tokens": 5, "fill_interval": "1s"}}}, `
	const most = `{"name": "c", "typed_config": {` + types + `extensions.filters.network.connection_limit.v3.ConnectionLimit", "stat_prefix": "x", "max_connections": 7}}, `
	c, err := limitedChain(t, rate+most, "")
	if err != nil || c.MaxConnections != 7 || c.ConnectionRate == nil || !reflect.DeepEqual(*c.ConnectionRate, model.RateLimit{Name: "connections", Requests: 1, Burst: 5, Window: time.Second}) || c.HTTP == nil {
		t.Errorf("%+v, %v", c, err)
	}
	off := strings.Replace(most, `"max_connections": 7`, `"max_connections": 7, "runtime_enabled": {"default_value": false}`, 1)
	if c, err = limitedChain(t, off, ""); err != nil || c.MaxConnections != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestRouteLimits(t *testing.T) {
	const actions = `"actions": [{"request_headers": {"header_name": "X-Key", "descriptor_key": "key", "skip_if_absent": true}}, {"remote_address": {}}, {"destination_cluster": {}}, {"generic_key": {"descriptor_value": "v"}}, {"header_value_match": {"descriptor_value": "m", "headers": [{"name": "X-A", "string_match": {"exact": "1"}}]}}]`
	r := routeOf(t, `{`+anyRoute+`, `+toC+`, "rate_limits": [{`+actions+`}]}}`, `, "rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "host"}}]}]`, "")
	want := []model.RateLimit{{Name: "ratelimit", Global: &model.GlobalLimit{}, Match: &model.Match{Path: "/", Headers: []model.FieldMatch{{Name: "x-a", Value: "1"}}},
		By: []model.RateKey{{Kind: model.RateByHeader, Name: "x-key", Key: "key", Optional: true}, {Kind: model.RateByAddress}, {Kind: model.RateByCluster},
			{Kind: model.RateByFixed, Key: "generic_key", Value: "v"}, {Kind: model.RateByFixed, Key: "header_match", Value: "m"}}}}
	if !reflect.DeepEqual(r.Limits, want) {
		t.Errorf("%+v", r.Limits)
	}
	host := `, "rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "host"}}]}]`
	if r = routeOf(t, `{`+anyRoute+`, `+toC+`}}`, host, ""); len(r.Limits) != 1 || r.Limits[0].By[0].Value != "host" {
		t.Errorf("of the host: %+v", r.Limits)
	}
	if r = routeOf(t, `{`+anyRoute+`, `+toC+`, "include_vh_rate_limits": true, "rate_limits": [{`+actions+`}]}}`, host, ""); len(r.Limits) != 2 {
		t.Errorf("of both: %+v", r.Limits)
	}
	not := strings.Replace(actions, `"m", "headers"`, `"m", "expect_match": false, "headers"`, 1)
	if r = routeOf(t, `{`+anyRoute+`, `+toC+`, "rate_limits": [{`+not+`}]}}`, "", ""); !r.Limits[0].Match.Headers[0].Invert {
		t.Errorf("without expect_match: %+v", r.Limits)
	}
	const local = "extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
	config := perFilter("envoy.filters.http.local_ratelimit", local, `, "stat_prefix": "x", "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}, `+onForAll)
	a, b := routeOf(t, `{`+anyRoute+`, `+toC+`}`+config+`}`, "", ""), routeOf(t, `{`+anyRoute+`, `+toC+`}}`, config, "")
	if len(a.Limits) != 1 || len(b.Limits) != 1 || a.Limits[0].Scope == b.Limits[0].Scope || a.Limits[0].Name != "local_ratelimit" || a.Limits[0].Requests != 1 {
		t.Errorf("%+v %+v", a.Limits, b.Limits)
	}
	off := perFilter("envoy.filters.http.local_ratelimit", "config.route.v3.FilterConfig", `, "disabled": true`)
	if r = routeOf(t, `{`+anyRoute+`, `+toC+`}`+off+`}`, config, ""); len(r.Limits) != 1 || !r.Limits[0].Shadow {
		t.Errorf("switched off: %+v", r.Limits)
	}
}

func TestLimitsRefused(t *testing.T) {
	for _, c := range []struct{ filters, why string }{
		{strings.Replace(localFilter, `"max_tokens": 20`, `"max_tokens": 0`, 1), "token_bucket.max_tokens: is missing"},
		{strings.Replace(localFilter, `"2s"`, `"0.01s"`, 1), "token_bucket.fill_interval: is less than"},
		{strings.Replace(localFilter, onForAll, onForAll+`, "descriptors": [{}]`, 1), "descriptors: is not run"},
		{strings.Replace(localFilter, onForAll, onForAll+`, "local_rate_limit_per_downstream_connection": true`, 1), "local_rate_limit_per_downstream_connection: is not run"},
		{askFilter + ", " + askFilter, "there is a ratelimit filter already"},
		{strings.Replace(askFilter, `"domain": "edge", `, "", 1), "domain: is missing"},
		{strings.Replace(askFilter, `"domain"`, `"stage": 1, "domain"`, 1), "stage: is not run"},
		{strings.Replace(adaptFilter, `"interval": "60s"`, `"fixed_value": "1s"`, 1), "fixed_value: is not run"},
		{strings.Replace(adaptFilter, `"max_concurrency_limit": 50`, `"max_concurrency_limit": 4`, 1), "its limits, 5 to 4"},
	} {
		if _, err := limitedChain(t, "", c.filters); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", c.filters, err, c.why)
		}
	}
	for text, why := range map[string]string{
		`"actions": [{"source_cluster": {}}]`:                            "source_cluster: is not run",
		`"actions": []`:                                                  "there is none",
		`"stage": 1, "actions": [{"remote_address": {}}]`:                "stage: is not run",
		`"actions": [{"header_value_match": {"descriptor_value": "m"}}]`: "headers: 0 of them",
		`"actions": [{"generic_key": {}}]`:                               "generic_key.descriptor_value: is missing",
		`"actions": [{"request_headers": {"header_name": "a"}}]`:         "needs header_name and descriptor_key",
	} {
		_, err := read(t, "routes", `{"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [{`+anyRoute+`, `+toC+`, "rate_limits": [{`+text+`}]}}]}]}`)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", text, err, why)
		}
	}
}
