package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/bench/load"
)

// feature is one thing that can be switched on, as it is written in Envoy's bootstrap file. Requests take it on their way
// and nothing comes of it: no limit is reached, nothing fails. What is measured is what it costs to have it.
type feature struct {
	name    string
	route   string // beside match and route of the one route
	action  string // in the route action
	filter  string // among http_filters, before the router
	cluster string // in the cluster
}

// featureGoal is how much each may add, in µs of CPU per request.
const featureGoal = 0.5

const typed = "type.googleapis.com/envoy.extensions.filters.http."

var features = []feature{
	{name: "header modification", route: `request_headers_to_add: [{header: {key: x-a, value: b}}], response_headers_to_add: [{header: {key: x-c, value: d}}]`},
	{name: "path rewrite", action: `prefix_rewrite: /`},
	{name: "regex rewrite", action: `regex_rewrite: {pattern: {regex: "^/a(.*)"}, substitution: "/b\\1"}`},
	{name: "timeouts", action: `timeout: 30s, idle_timeout: 60s`},
	{name: "retries, with a budget", action: `retry_policy: {retry_on: "5xx,reset", num_retries: 2, per_try_timeout: 10s}`,
		cluster: `circuit_breakers: {thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000, retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 3}}]}`},
	{name: "outlier ejection", cluster: `outlier_detection: {consecutive_5xx: 5, interval: 1s}`},
	{name: "health checks", cluster: `health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 3, healthy_threshold: 1, tcp_health_check: {}}]`},
	{name: "round robin with slow start", cluster: `load_balancing_policy: {policies: [{typed_extension_config: {name: rr, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin, slow_start_config: {slow_start_window: 10s}}}}]}`},
	{name: "ring hash by header", action: `hash_policy: [{header: {header_name: host}}]`, cluster: `lb_policy: RING_HASH`},
	{name: "weighted by utilization (ORCA)", cluster: `load_balancing_policy: {policies: [{typed_extension_config: {name: wrr, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin}}}]}`},
	{name: "peak EWMA", cluster: ownBalancing("policy: PeakEWMA")},
	{name: "nearest first, spill-over by load", cluster: ownBalancing("locality: {mode: Prefer, spillAt: 1000}")},
	{name: "subset by label", action: `metadata_match: {filter_metadata: {envoy.lb: {v: "1"}}}`,
		cluster: `lb_subset_config: {fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [v]}]}`},
	{name: "ejection by latency, probing", cluster: "outlier_detection: {interval: 1s}\n    metadata: {filter_metadata: {tulle.v1: {ejection: {probe: true, latency: {factor: 3}}}}}"},
	{name: "CORS", filter: `{name: envoy.filters.http.cors, typed_config: {"@type": ` + typed + `cors.v3.Cors}}`,
		route: `typed_per_filter_config: {envoy.filters.http.cors: {"@type": ` + typed + `cors.v3.CorsPolicy, allow_origin_string_match: [{exact: "https://shop.example"}], allow_methods: "GET"}}`},
	{name: "fault injection (0 %)", filter: `{name: envoy.filters.http.fault, typed_config: {"@type": ` + typed + `fault.v3.HTTPFault, abort: {http_status: 503, percentage: {numerator: 0}}}}`},
	{name: "local rate limit", filter: `{name: envoy.filters.http.local_ratelimit, typed_config: {"@type": ` + typed + `local_ratelimit.v3.LocalRateLimit, stat_prefix: l, token_bucket: {max_tokens: 10000000, tokens_per_fill: 10000000, fill_interval: 1s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}`},
	{name: "adaptive concurrency", filter: `{name: envoy.filters.http.adaptive_concurrency, typed_config: {"@type": ` + typed + `adaptive_concurrency.v3.AdaptiveConcurrency, gradient_controller_config: {sample_aggregate_percentile: {value: 90}, concurrency_limit_params: {concurrency_update_interval: 0.1s}, min_rtt_calc_params: {interval: 60s, request_count: 50, min_concurrency: 200}}}}`},
	{name: "session persistence", filter: `{name: envoy.filters.http.stateful_session, typed_config: {"@type": ` + typed + `stateful_session.v3.StatefulSession, session_state: {name: envoy.http.stateful_session.header, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState, name: x-session}}}}`},
	{name: "mirror of 0 % of the requests", action: `request_mirror_policies: [{cluster: back, runtime_fraction: {default_value: {numerator: 0}}}]`},
}

// ownBalancing is a way of balancing that Envoy has no message for.
func ownBalancing(value string) string {
	return `load_balancing_policy: {policies: [{typed_extension_config: {name: tulle, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/tulle.v1.Balancing, value: {` + value + `}}}}]}`
}

// file answers a bootstrap file with the feature switched on.
func (f feature) file(text string) string {
	const action, filters, static = "              - match: {prefix: /}\n                route: {cluster: back, timeout: 0s}\n", "          http_filters:\n", "    type: STATIC\n"
	if f.route != "" {
		text = strings.Replace(text, action, "              - {match: {prefix: /}, route: {cluster: back, timeout: 0s}, "+f.route+"}\n", 1)
	}
	if f.action != "" {
		timeout := "timeout: 0s, "
		if strings.Contains(f.action, "timeout: 30s") {
			timeout = ""
		}
		text = strings.Replace(text, "route: {cluster: back, timeout: 0s}", "route: {cluster: back, "+timeout+f.action+"}", 1)
	}
	if f.filter != "" {
		text = strings.Replace(text, filters, filters+"          - "+f.filter+"\n", 1)
	}
	if f.cluster != "" {
		if i, j := strings.Index(text, "    circuit_breakers:"), strings.Index(text, "    load_assignment:"); strings.Contains(f.cluster, "circuit_breakers") && i >= 0 {
			text = text[:i] + text[j:]
		}
		text = strings.Replace(text, static, static+"    "+f.cluster+"\n", 1)
	}
	return text
}

// costOfFeatures measures HTTP/1.1 through one plain proxy: with each feature alone, and right before it with none, so that a
// machine that becomes slower or faster meanwhile does not count.
func costOfFeatures(r *results) error {
	r.features = map[string][]featureCost{}
	for round := range r.options.rounds {
		for _, f := range features {
			if !wanted(r.options.features, f.name) {
				continue
			}
			without, err := costWith(r.options, feature{})
			if err != nil {
				return err
			}
			with, err := costWith(r.options, f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			r.features[f.name] = append(r.features[f.name], featureCost{without, with})
			fmt.Fprintf(os.Stderr, "round %d  feature %-34s %6.2f µs, without %6.2f µs\n", round+1, f.name, with, without)
		}
	}
	return nil
}

// featureCost is the CPU µs per request of one round.
type featureCost struct{ without, with float64 }

// costWith measures one proxy that has one feature.
func costWith(o options, f feature) (each float64, err error) {
	s := subject{"Tulle", func(w *world, k load.Kind, t topology, backend string) (*running, error) {
		front := freePort()
		text, err := os.ReadFile(w.bootstrap("tulle", k, front, backend, false, false))
		if err != nil {
			return nil, err
		}
		pid, err := w.start(o.tulle, "proxy", "--bootstrap", w.file("feature.yaml", f.file(string(text))), "--concurrency", "2")
		return &running{address: front, pids: []int{pid}}, err
	}}
	_, err = with(o, s, load.HTTP1, plain, func(_ *world, run *running) error {
		p := plan(o, load.HTTP1, plain, run, 32)
		if _, err := generate(run, p); err != nil { // warm
			return err
		}
		before, err := cpu(run.pids)
		if err != nil {
			return err
		}
		done, err := generate(run, p)
		if err != nil {
			return err
		}
		after, err := cpu(run.pids)
		each = (after - before).Seconds() * 1e6 / float64(done.Done)
		return err
	})
	return each, err
}

const featureHeading = "\n## What each feature adds\n"

// featureTable says what each adds to the plain proxy that was measured right before it.
func (r *results) featureTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s\nOne plain proxy, HTTP/1.1, 32 connections, each feature switched on alone, and none right before it; measured on %s, %d rounds of %s. More is\nthe median of the rounds' differences, beside it the least and the greatest of them, which say how sure it is. The goal is at most %.1f µs more.\n\n| feature | without: CPU µs per request | with | more | least | greatest | |\n|---|---:|---:|---:|---:|---:|---|\n",
		featureHeading, r.begun.Format("2006-01-02"), r.options.rounds, r.options.duration, featureGoal)
	for _, f := range features {
		r.featureRow(b, f.name)
	}
}

// featureRow is one feature's line, if it was measured.
func (r *results) featureRow(b *bytes.Buffer, name string) {
	var without, with, more []float64
	for _, c := range r.features[name] {
		without, with, more = append(without, c.without), append(with, c.with), append(more, c.with-c.without)
	}
	if more == nil { // not asked for this time
		b.WriteString(r.oldRow(name))
		return
	}
	verdict := "reached"
	if median(more) > featureGoal {
		verdict = "**missed**"
	}
	fmt.Fprintf(b, "| %s | %.2f | %.2f | %+.2f | %+.2f | %+.2f | %s |\n", name, median(without), median(with), median(more), slices.Min(more), slices.Max(more), verdict)
}
