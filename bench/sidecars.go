package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/tulle-mesh/tulle/bench/load"
)

// sidecarFeature is one thing that only the sidecars of a mesh can do: what a TrafficPolicy on the called service says with
// it and without it. Where nothing is said without it, balancing as it is by default is said, so that there is a policy both times.
type sidecarFeature struct {
	name          string
	with, without string // in spec
	policies      int    // this many AuthorizationPolicies are in force on the called service, the last allows the caller; or none
	through       bool   // the call goes through a program that calls on: with x-request-id, and without
}

var sidecarFeatures = []sidecarFeature{
	{name: "class of each request", with: `priority: [{match: {headers: [{name: x-class, value: batch}]}, class: batch}, {class: critical}]`},
	{name: "deadline, which travels on", with: `timeouts: {request: 30s}`},
	{name: "deadline and class through a program", with: `timeouts: {request: 30s}`, without: `timeouts: {request: 30s}`, through: true},
	{name: "timeout of each attempt", with: `timeouts: {attempt: 10s}`},
	{name: "retries and their budget over hops (on unless said otherwise)", with: `retries: {}`, without: `retries: {attempts: 0}`},
	{name: "waits that are learned (on unless said otherwise)", with: `retries: {}`, without: `retries: {wait: {base: 25ms, maximum: 250ms}}`},
	{name: "hedging after 1 s", with: `hedging: {after: 1s}`},
	{name: "rate limit per caller", with: `rateLimits: [{name: callers, requests: 100000000, by: [{caller: true}]}]`},
	{name: "rate limit per caller, with response fields", with: `rateLimits: [{name: callers, requests: 100000000, by: [{caller: true}], headers: true}]`},
	{name: "adaptive limit", with: `concurrency: {least: 1000}`},
	{name: "adaptive limit, with a queue by tenants", with: `concurrency: {least: 1000, queue: 1s}`},
	{name: "bounds of what is under way (capacity)", with: `capacity: {connections: 10000, requests: 10000}`},
	{name: "breakers and fallback", with: `{breakers: {connections: 10000, pending: 10000, requests: 10000}, fallback: {name: known, port: 8080}}`},
	{name: "sessions by cookie", with: `session: {}`},
	{name: "ejection by latency and success rate", with: `ejection: {latency: {}, successRate: {}}`},
	{name: "a thousand authorization policies", policies: 1000},
	{name: "health checks of callers", with: `healthChecks: [{http: {path: /}, interval: 1s}]`},
}

// passage is the server of the mesh and, through is true, programs before it that call it: one hands x-request-id on, one
// does not.
const passage = `worker_processes 2; daemon off; pid %[1]s/%[3]s.pid; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; upstream echo { server echo:8080; keepalive 256; }
server { listen 127.0.0.1:8080 backlog=4096; location / { proxy_pass http://echo; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host echo:8080; %[2]s } } }
`

// costOfSidecars measures each in one mesh, with it and right before that without it.
func costOfSidecars(r *results) error {
	w, err := newWorld(r.options)
	if err != nil {
		return err
	}
	defer w.close()
	run, err := w.mesh(load.HTTP1)
	if err != nil {
		return err
	}
	data := filepath.Join(w.dir, "data")
	for name, more := range map[string]string{"known": "", "unknown": `proxy_set_header X-Request-Id ""; proxy_set_header Traceparent "";`} {
		conf := w.file(name+".conf", fmt.Sprintf(passage, w.dir, more, name))
		if _, err := w.start(w.options.tulle, "run", "--data-dir", data, "--service", name, "--port", "8080/http", "--wait-for", "echo", "--", "nginx", "-c", conf); err != nil {
			return err
		}
		if out, err := exec.Command(w.options.tulle, "run", "--data-dir", data, "--service", "probe", "--wait-for", name, "--", "true").CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
	}
	run.pids = w.proxies()
	for round := range r.options.rounds {
		for _, f := range sidecarFeatures {
			if !wanted(r.options.features, f.name) {
				continue
			}
			without, err := w.sidecarCost(run, data, f, false)
			if err != nil {
				return fmt.Errorf("without %s: %w", f.name, err)
			}
			with, err := w.sidecarCost(run, data, f, true)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			r.features[f.name] = append(r.features[f.name], featureCost{without, with})
			say("round %d  sidecars %-34s %6.2f µs, without %6.2f µs", round+1, f.name, with, without)
		}
	}
	return nil
}

// sidecarCost answers the CPU time that all proxies of the mesh use for a request, in µs.
func (w *world) sidecarCost(run *running, data string, f sidecarFeature, on bool) (float64, error) {
	spec, host := f.without, "echo:8080"
	if on {
		spec = f.with
	}
	if spec == "" {
		spec = "balancing: {policy: LeastRequest}"
	}
	if f.through {
		host = map[bool]string{true: "known:8080", false: "unknown:8080"}[on]
	}
	if err := w.apply(data, "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: feature}\nspec: "+flow(spec)+"\n"); err != nil {
		return 0, err
	}
	if f.policies > 0 {
		if err := w.authorize(data, f.policies, on); err != nil {
			return 0, err
		}
	}
	if out, err := exec.Command(w.options.tulle, "wait", "--data-dir", data, "--timeout", "20s").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("wait: %w: %s", err, out)
	}
	p := plan(w.options, load.HTTP1, twoHops, run, 32)
	p.Address, p.Host = host, host
	warm := p
	warm.For = w.options.duration / 2
	if _, err := generate(run, warm); err != nil {
		return 0, err
	}
	before, err := cpu(run.pids)
	if err != nil {
		return 0, err
	}
	done, err := generate(run, p)
	if err != nil {
		return 0, err
	}
	after, err := cpu(run.pids)
	return (after - before).Seconds() * 1e6 / float64(max(done.Done, 1)), err
}

// authorize puts policies on the called service in force, or takes them away: as many services as there are policies may each
// call a path, and whoever measures may call what it calls.
func (w *world) authorize(data string, n int, on bool) error {
	var b bytes.Buffer
	for i := range n {
		who, path := fmt.Sprintf("service%d", i), fmt.Sprintf("/v%d/items/{id}", i)
		if i == n-1 {
			who, path = "*", "/*"
		}
		fmt.Fprintf(&b, "---\napiVersion: tulle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p%d}\nspec: {targetRefs: [{group: \"\", kind: Service, name: echo}], rules: [{from: [{serviceAccounts: [%q]}], to: [{methods: [GET, POST], paths: [%q]}]}]}\n", i, who, path)
		if i%100 < 99 && i < n-1 { // so many fit into one file
			continue
		}
		if on {
			if err := w.apply(data, b.String()); err != nil {
				return err
			}
		} else {
			c := exec.Command(w.options.tulle, "delete", "--data-dir", data, "-f", "-")
			c.Stdin = &b
			_ = c.Run() // the first time there are none
		}
		b.Reset()
	}
	return nil
}

// flow answers a spec with its target, on one line.
func flow(spec string) string {
	if spec[0] == '{' {
		spec = spec[1 : len(spec)-1]
	}
	return `{targetRefs: [{group: "", kind: Service, name: echo}], ` + spec + "}"
}

// sidecarTable says what each adds to the two proxies of a request.
func (r *results) sidecarTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nThe sidecars of two workloads, HTTP/1.1 over mTLS, 32 connections; CPU of both proxies. What a TrafficPolicy of the called service switches on, and the\nsame policy without it right before. Through a program: three sidecars, and a program between them that hands x-request-id on, or does not.\n\n| feature | without: CPU µs per request | with | more | least | greatest | |\n|---|---:|---:|---:|---:|---:|---|\n")
	for _, f := range sidecarFeatures {
		r.featureRow(b, f.name)
	}
}

// featureRow is one feature's line, if it was measured.
func (r *results) featureRow(b *bytes.Buffer, name string) {
	var without, with, more []float64
	for _, c := range r.features[name] {
		without, with, more = append(without, c.without), append(with, c.with), append(more, c.with-c.without)
	}
	if more == nil {
		return
	}
	verdict := "reached"
	if median(more) > featureGoal {
		verdict = "**missed**"
	}
	fmt.Fprintf(b, "| %s | %.2f | %.2f | %+.2f | %+.2f | %+.2f | %s |\n", name, median(without), median(with), median(more), slices.Min(more), slices.Max(more), verdict)
}
