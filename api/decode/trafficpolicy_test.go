package decode_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

const reviews = `apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: reviews}
spec:
  targetRefs:
  - {group: "", kind: Service, name: reviews}
  balancing: {policy: LeastRequest}
  timeouts: {request: 10s}
`

// TestPolicyDefaults: what is left out is written out, so that whoever gets the object back sees all of it.
func TestPolicyDefaults(t *testing.T) {
	text := strings.Replace(reviews, "  balancing: {policy: LeastRequest}\n", `  balancing: {slowStart: {window: 30s}, locality: {}}
  hash: [{cookie: {name: u, ttl: 1h}}]
  ejection: {successRate: {}, failurePercent: {}, latency: {}}
  healthChecks: [{http: {}}]
  retries: {}
  retryBudget: {}
  hedging: {after: 50ms}
  session: {}
  rateLimits: [{name: a, requests: 5}, {name: b, requests: 1, global: {}}]
  concurrency: {}
`, 1)
	text = strings.Replace(text, "{slowStart", "{policy: Maglev, slowStart", 1)
	_, errs := decode.Read("f", []byte(text))
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "f:7: TrafficPolicy/reviews: spec.balancing.slowStart: means nothing with policy Maglev") {
		t.Fatal(errs)
	}
	docs, errs := decode.Read("f", []byte(strings.Replace(text, "slowStart: {window: 30s}, ", "", 1)))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := `{"targetRefs":[{"group":"","kind":"Service","name":"reviews"}],` +
		`"balancing":{"policy":"Maglev","table":65537,"locality":{"mode":"Prefer"},"panic":50},"hash":[{"cookie":{"name":"u","ttl":"1h","path":"/"}}],` +
		`"ejection":{"consecutive5xx":5,"consecutiveGateway":5,"interval":"10s","base":"30s","maximum":"5m","maxPercent":50,` +
		`"successRate":{"deviations":1.9,"minimumHosts":5,"minimumRequests":100},"failurePercent":{"threshold":85,"minimumHosts":5,"minimumRequests":50},"latency":{"factor":3,"least":"10ms","minimumHosts":3,"minimumRequests":20},"probe":true},` +
		`"healthChecks":[{"http":{"path":"/","method":"GET","statuses":[{"from":200,"to":299}]},"interval":"5s","timeout":"1s","noTraffic":"5s","jitter":"500ms","unhealthy":3,"healthy":2}],` +
		`"timeouts":{"request":"10s"},"retries":{"attempts":2,"when":["untouched","reset","gateway"],"wait":{"least":"1ms","maximum":"2s"},"retryAfter":"10s"},` +
		`"retryBudget":{"percent":20,"least":10},"hedging":{"after":"50ms","most":2},"session":{"type":"Cookie","name":"tulle-session","path":"/"},` +
		`"rateLimits":[{"name":"a","side":"Server","requests":5,"window":"1s","burst":5,"status":429},` +
		`{"name":"b","side":"Server","requests":1,"window":"1s","burst":1,"status":429,"global":{"domain":"tulle","timeout":"20ms"}}],` +
		`"concurrency":{"least":4,"most":10000,"queue":"0s"}}`
	if got := dump(t, docs[0].Object); !strings.Contains(got, `"spec":`+want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPolicyDefaultsFit: a default gives way to what is written, instead of contradicting it.
func TestPolicyDefaultsFit(t *testing.T) {
	for in, want := range map[string]string{
		"ejection: {consecutive5xx: 3}":              `"consecutive5xx":3,"consecutiveGateway":3,`,
		"ejection: {consecutive5xx: 0}":              `"consecutive5xx":0,"consecutiveGateway":5,`,
		"ejection: {base: 10m}":                      `"base":"10m","maximum":"10m"`,
		"healthChecks: [{tcp: {}, interval: 500ms}]": `"interval":"500ms","timeout":"500ms"`,
		"healthChecks: [{tcp: {}, interval: 2s}]":    `"interval":"2s","timeout":"1s"`,
	} {
		docs, errs := decode.Read("f", []byte(strings.Replace(reviews, "balancing: {policy: LeastRequest}", in, 1)))
		if len(errs) > 0 {
			t.Errorf("%s: %v", in, errs)
		} else if got := dump(t, docs[0].Object); !strings.Contains(got, want) {
			t.Errorf("%s: got\n%s", in, got)
		}
	}
}

// TestPolicyWithin: fields that mean nothing on a route, though their part does, are refused.
func TestPolicyWithin(t *testing.T) {
	for in, want := range map[string]string{
		"breakers: {connections: 5}":              `spec.breakers.connections: means nothing on targetRefs[0], HTTPRoute/a: connections are the Service's`,
		"breakers: {retries: 5}":                  `spec.breakers.retries: means nothing on targetRefs[0], HTTPRoute/a: retries are counted for the Service`,
		"rateLimits: [{name: a, connections: 5}]": `spec.rateLimits[0].connections: means nothing on targetRefs[0], HTTPRoute/a: connections are the Service's`,
	} {
		text := "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}]\n  " + in + "\n"
		if _, errs := decode.Read("f", []byte(text)); len(errs) != 1 || !strings.Contains(errs[0].Error(), "f:6: TrafficPolicy/p: "+want) {
			t.Errorf("%s: %v", in, errs)
		}
	}
}

// TestPolicyErrors: what is unknown, out of bounds or contradicts itself is refused with its line.
func TestPolicyErrors(t *testing.T) {
	for old, list := range map[string][][2]string{
		`{group: "", kind: Service, name: reviews}`: {
			{`{group: "", kind: Pod, name: a}`, `:6: TrafficPolicy/reviews: spec.targetRefs[0].kind: "Pod" is not what a policy attaches to`},
			{`{group: "", kind: HTTPRoute, name: a}`, `:6: TrafficPolicy/reviews: spec.targetRefs[0].group: is "": a HTTPRoute is of the group`},
			{`{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}`, `:7: TrafficPolicy/reviews: spec.balancing: means nothing on targetRefs[0], HTTPRoute/a: it is about a Service`},
			{`{group: gateway.networking.k8s.io, kind: TCPRoute, name: a}`, `spec.balancing: means nothing on`},
			{`{group: gateway.networking.k8s.io, kind: TLSRoute, name: a}`, `spec.timeouts.request: means nothing on targetRefs[0], TLSRoute/a: what it takes are connections: write idle or stream`},
			{`{group: "", kind: Service, name: a, sectionName: "0"}`, `:6: TrafficPolicy/reviews: spec.targetRefs[0].sectionName: "0" is not the name or the number of a port`},
			{"{group: \"\", kind: Service, name: a}\n  - {group: \"\", kind: Service, name: a}", `:7: TrafficPolicy/reviews: spec.targetRefs[1]: Service/a is named twice`},
		},
		"  balancing: {policy: LeastRequest}\n  timeouts: {request: 10s}\n": {{"", `:4: TrafficPolicy/reviews: spec: says nothing`}},
		"{policy: LeastRequest}": {
			{"{polcy: Random}", `:7: TrafficPolicy/reviews: spec.balancing.polcy: is not a field: did you mean policy?`},
			{"{policy: Best}", `spec.balancing.policy: "Best" is not a policy: write one of LeastRequest, PeakEWMA`},
			{"{policy: Random, choices: 3}", `spec.balancing.choices: means nothing with policy Random: write policy: LeastRequest, or remove it`},
			{"{choices: 99}", `spec.balancing.choices: 99 is out of bounds: write 2 to 16`},
			{"{policy: RingHash, ring: {minimum: 9, maximum: 8}}", `spec.balancing.ring.minimum: 9 is more than the maximum of 8`},
			{"{policy: Maglev, table: 100}", `spec.balancing.table: 100 is not a prime of at most 5000011`},
			{"{slowStart: {}}", `spec.balancing.slowStart.window: is missing`},
			{"{slowStart: {window: 30}}", `spec.balancing.slowStart.window: must be text, this is the number 30: put it in quotes`},
			{"{locality: {mode: Weighted}}", `spec.balancing.locality.weights: and mode: Weighted belong together`},
			{"{locality: {mode: Ignore, spillAt: 3}}", `spec.balancing.locality: spillAt, failover and labels mean nothing with mode Ignore`},
			{"{locality: {labels: [rack, rack]}}", `spec.balancing.locality.labels[1]: "rack"`},
			{"{locality: {failover: [{from: eu, to: eu}]}}", `spec.balancing.locality.failover[0]: from "eu" to "eu"`},
			{"{panic: 101}", `spec.balancing.panic: 101 is out of bounds: write 0 to 100`},
			{"{}\n  hash: [{header: a, query: b}]", `spec.hash[0]: names 2 things: write one of header, cookie, query, source and path`},
			{"{shards: {slots: 16385}}", `spec.balancing.shards.slots: 16385 is out of bounds: write 1 to 16384`},
			{"{shards: {slots: 4, label: a b}}", `spec.balancing.shards.label: "a b" is not the name of a label`},
			{"{shards: {slots: 4, otherwise: All}}", `spec.balancing.shards.otherwise: "All": write Refuse or Any`},
			{"{policy: Maglev, shards: {slots: 4}}", `spec.balancing.shards: means nothing with policy Maglev`},
			{"{}\n  hash: [{header: a}]", `spec.hash: means nothing with balancing.policy LeastRequest`},
			{"{}\n  sticky: [{header: a}]", `spec.sticky: means nothing on targetRefs[0], Service/reviews: it is about the backends`},
			{"{}\n  fallback: {name: b}", `spec.fallback.port: 0 is out of bounds`},
			{"{}\n  connections: {}", `spec.connections: says nothing`},
			{"{}\n  connections: {idleTimeout: 2m, maxDuration: 1m}", `spec.connections.idleTimeout: 2m is longer than maxDuration 1m`},
			{"{}\n  connections: {http2: {keepAliveTimeout: 1s}}", `spec.connections.http2.keepAliveTimeout: means nothing without keepAlive`},
			{"{}\n  breakers: {requests: -1}", `spec.breakers.requests: -1 is out of bounds`},
			{"{}\n  breakers: {requests: 0}", `:8: TrafficPolicy/reviews: spec.breakers.requests: is 0, which lets nothing through: leave it out`},
			{"{}\n  breakers: {retries: 0, pending: 5}", `spec.breakers.retries: is 0`},
			{"{}\n  ejection: {consecutive5xx: 3, consecutiveGateway: 4}", `spec.ejection.consecutiveGateway: 4 is never reached`},
			{"{}\n  ejection: {base: 10m, maximum: 5m}", `spec.ejection.maximum: 5m is shorter than base 10m`},
			{"{}\n  ejection: {latency: {factor: 1}}", `spec.ejection.latency.factor: 1 is out of bounds`},
			{"{}\n  ejection: {latency: {minimumHosts: 1}}", `spec.ejection.latency.minimumHosts: 1`},
			{"{}\n  healthChecks: [{}]", `spec.healthChecks[0]: asks in 0 ways: write one of http, grpc and tcp`},
			{"{}\n  healthChecks: [{tcp: {}}, {tcp: {}}]", `spec.healthChecks: has 2 entries: write one`},
			{"{}\n  healthChecks: [{http: {path: healthz}}]", `spec.healthChecks[0].http.path: "healthz" is not a path`},
			{"{}\n  healthChecks: [{http: {}, timeout: 9s}]", `spec.healthChecks[0].timeout: 9s is longer than the interval 5s`},
			{"{}\n  retries: {attempts: 11}", `spec.retries.attempts: 11 is out of bounds: write 0 to 10`},
			{"{}\n  retries: {grpc: [unavailable]}", `spec.retries.grpc: every gRPC call is a POST`},
			{"{}\n  retries: {when: [always]}", `spec.retries.when[0]: "always" is not known or is there twice: write untouched, reset`},
			{"{}\n  retries: {when: []}", `spec.retries.when: is empty`},
			{"{}\n  retries: {grpc: [ok]}", `spec.retries.grpc[0]: "ok" is not known`},
			{"{}\n  retries: {wait: {base: 1s, least: 1ms}}", `spec.retries.wait.least: means nothing with base`},
			{"{}\n  retries: {wait: {base: 1s, maximum: 500ms}}", `spec.retries.wait.maximum: 500ms is shorter than base 1s`},
			{"{}\n  retryBudget: {percent: 101}", `spec.retryBudget.percent: 101 is out of bounds`},
			{"{}\n  hedging: {}", `spec.hedging: does not say when`},
			{"{}\n  hedging: {quantile: 100}", `spec.hedging.quantile: 100 is out of bounds`},
			{"{}\n  session: {type: Header, lifetime: 1h}", `spec.session: path and lifetime are a cookie's`},
			{"{}\n  priority: [{class: vip}]", `spec.priority[0].class: "vip" is not a class: write critical, default or batch`},
			{"{}\n  priority: [{class: batch}, {class: critical}]", `spec.priority[0]: holds for every request`},
			{"{}\n  rateLimits: [{name: a}]", `spec.rateLimits[0]: bounds 0 things`},
			{"{}\n  rateLimits: [{name: a, requests: 1, bytes: 1}]", `spec.rateLimits[0]: bounds 2 things`},
			{"{}\n  rateLimits: [{name: a, connections: 1, by: [{caller: true}]}]", `spec.rateLimits[0]: connections are counted before there is a request`},
			{"{}\n  rateLimits: [{name: a, requests: 1}, {name: a, requests: 2}]", `spec.rateLimits[1].name: "a" is not a name of at most 63`},
			{"{}\n  rateLimits: [{name: a, requests: 1, by: [{value: x}]}]", `spec.rateLimits[0].by[0]: key and value are for descriptors`},
			{"{}\n  rateLimits: [{name: a, connections: 1}, {name: b, connections: 9, window: 1m}]", `spec.rateLimits[1].connections: is the second limit of connections`},
			{"{}\n  rateLimits: [{name: a, connections: 1, status: 430}]", `spec.rateLimits[0].status: means nothing`},
			{"{}\n  rateLimits: [{name: a, bytes: 1, status: 430}]", `spec.rateLimits[0].status: means nothing`},
			{"{}\n  fallback: {name: reviews, port: 80}", `spec.fallback.name: is targetRefs[0], Service/reviews, itself`},
			{"{}\n  capacity: {}", `spec.capacity: bounds nothing`},
			{"{}\n  rateLimits: [{name: a, requests: 1, side: Client}]", `:8: TrafficPolicy/reviews: spec.rateLimits[0].side: "Client" is no side: write Server, Caller or Outside`},
			{"{}\n  rateLimits: [{name: a, requests: 1, side: Caller, by: [{caller: true}]}]", `spec.rateLimits[0].by[0]: means nothing with side Caller`},
			{"{}\n  rateLimits: [{name: a, requests: 1, side: Caller, global: {}}]", `spec.rateLimits[0].global: means nothing with side Caller`},
			{"{}\n  rateLimits: [{name: a, requests: 1, side: Outside}]", `spec.rateLimits[0]: side Outside knows connections and bytes`},
			{"{}\n  rateLimits: [{name: a, connections: 1, side: Outside}, {name: b, connections: 1, side: Outside}]", `spec.rateLimits[1].connections: is the second limit of connections of side Outside`},
			{"{}\n  concurrency: {fairness: {}}", `:8: TrafficPolicy/reviews: spec.concurrency.fairness: means nothing without a queue`},
			{"{}\n  concurrency: {queue: 1s, fairness: {by: [{header: a}, {caller: true}], weights: [{tenant: b, weight: 2}]}}", `spec.concurrency.fairness.weights: are of callers, or of the values of a header`},
			{"{}\n  concurrency: {queue: 1s, fairness: {weights: [{tenant: a.b.c, weight: 2}]}}", `spec.concurrency.fairness.weights[0].tenant: "a.b.c" is not a service`},
			{"{}\n  concurrency: {queue: 1s, fairness: {weights: [{tenant: a, weight: 0}]}}", `spec.concurrency.fairness.weights[0].weight: 0 is out of bounds`},
			{"{}\n  concurrency: {queue: 1s, fairness: {by: [{header: a}], weights: [{tenant: a, weight: 1}, {tenant: a, weight: 1}]}}", `spec.concurrency.fairness.weights[1].tenant: "a" is no value of 1 to 256 bytes, or there twice`},
			{"{}\n  concurrency: {queue: 1s, fairness: {by: [{address: true, header: a}]}}", `spec.concurrency.fairness.by[0]: names 2 things`},
			{"{}\n  concurrency: {least: 9, most: 8}", `spec.concurrency.least: 9 is more than most, 8`},
		},
		"{request: 10s}": {
			{"{request: 1s, attempt: 2s}", `:8: TrafficPolicy/reviews: spec.timeouts.attempt: 2s is longer than the request's 1s`},
			{"{request: 1.5s}", `spec.timeouts.request: "1.5s" is not a duration: write for example 500ms, 2s or 1m30s`},
			{"{}", `spec.timeouts: says nothing`},
		},
	} {
		for _, c := range list {
			text := strings.Replace(reviews, old, c[0], 1)
			docs, errs := decode.Read("f", []byte(text))
			if len(docs) > 0 || !strings.Contains(errs.Error(), c[1]) {
				t.Errorf("%s\ngot  %s\nwant %s", c[0], errs, c[1])
			}
		}
	}
}

// TestMeshDefaults: what is about one service is no default of the mesh.
func TestMeshDefaults(t *testing.T) {
	text := "apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  defaults:\n    ejection: {}\n    retries: {attempts: 1}\n"
	docs, errs := decode.Read("f", []byte(text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if d := docs[0].Object.(*v1alpha1.MeshConfig).Spec.Defaults; *d.Ejection.MaxPercent != 50 || *d.Retries.Attempts != 1 || d.Retries.RetryAfter != "10s" {
		t.Errorf("%+v", d)
	}
	_, errs = decode.Read("f", []byte(text+"    session: {}\n    hedging: {most: 9}\n"))
	if got := errs.Error(); !strings.Contains(got, "f:8: MeshConfig/mesh: spec.defaults.session: is about one service") || !strings.Contains(got, "f:9: MeshConfig/mesh: spec.defaults.hedging.most: 9 is out of bounds") {
		t.Error(got)
	}
}
