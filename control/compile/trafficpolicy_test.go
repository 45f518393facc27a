package compile_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

func policy(t *testing.T, created int64, text string) compile.Policy {
	t.Helper()
	p := &v1alpha1.TrafficPolicy{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	v1alpha1.Default(p)
	if errs := v1alpha1.Validate(p); len(errs) > 0 {
		t.Fatal(errs)
	}
	return compile.Policy{Object: p, Created: created}
}

// on answers a policy on one target.
func on(t *testing.T, created int64, name, target, parts string) compile.Policy {
	t.Helper()
	return policy(t, created, fmt.Sprintf("metadata: {name: %s}\nspec:\n  targetRefs: [{%s}]\n%s", name, target, parts))
}

const (
	onCart   = `group: "", kind: Service, name: cart`
	onPort   = `group: "", kind: Service, name: cart, sectionName: "80"`
	onCanary = `group: gateway.networking.k8s.io, kind: HTTPRoute, name: canary`
	onRule   = `group: gateway.networking.k8s.io, kind: HTTPRoute, name: canary, sectionName: numbers`
)

func with(t *testing.T, mesh string, list ...compile.Policy) compile.Compiler {
	t.Helper()
	r := route(t, 1, canary)
	name := v1alpha1.SectionName("numbers")
	r.Object.(*v1alpha1.HTTPRoute).Spec.Rules[1].Name = &name
	var parts *v1alpha1.TrafficParts
	if mesh != "" {
		m := &v1alpha1.MeshConfig{}
		if err := yaml.UnmarshalStrict([]byte("metadata: {name: mesh}\nspec:\n  defaults:\n"+mesh), m); err != nil {
			t.Fatal(err)
		}
		v1alpha1.Default(m)
		if errs := v1alpha1.Validate(m); len(errs) > 0 {
			t.Fatal(errs)
		}
		parts = m.Spec.Defaults
	}
	c := compiler(t, r)
	c.Index = c.Index.With(list, parts)
	return c
}

// TestNearest: rule before route before port before service before mesh; whole parts, but timeouts value by value, and what a
// route says itself first.
func TestNearest(t *testing.T) {
	c := with(t, "    timeouts: {idle: 9m, stream: 1h}\n    hedging: {after: 9ms}\n",
		on(t, 1, "service", onCart, "  timeouts: {request: 7s, attempt: 7s, idle: 7m}\n  retries: {attempts: 7}\n  session: {name: s7}\n"),
		on(t, 2, "port", onPort, "  timeouts: {attempt: 6s}\n  retries: {attempts: 6, statuses: [418]}\n"),
		on(t, 3, "route", onCanary, "  timeouts: {request: 5s}\n  retries: {attempts: 5}\n"),
		on(t, 4, "rule", onRule, "  retries: {attempts: 4}\n  breakers: {requests: 44}\n"))
	table, _ := c.RouteTable(port(80))
	numbers, prefix := table.Routes[1], table.Routes[2]
	if numbers.Retry.Attempts != 4 || numbers.Breakers == nil || numbers.Breakers.Requests != 44 || numbers.Session.Cookie != "s7" || numbers.Hedge.After != 9*time.Millisecond {
		t.Errorf("rule: %+v", numbers)
	}
	if want := (model.Timeouts{Request: 5 * time.Second, Idle: 7 * time.Minute, MaxStream: time.Hour}); numbers.Timeouts != want {
		t.Errorf("rule: %+v, want %+v (an attempt of 6s in a request of 5s is no bound)", numbers.Timeouts, want)
	}
	if prefix.Retry.Attempts != 5 || prefix.Breakers != nil || prefix.Timeouts.Request != 1500*time.Millisecond || prefix.Timeouts.Attempt != time.Second {
		t.Errorf("route: %+v", prefix)
	}
	var from []string
	for _, s := range c.RouteTreatment(port(80), &numbers).From {
		from = append(from, strings.TrimSpace(s.Field+" "+s.From+" "+s.On))
	}
	for _, want := range []string{"retries TrafficPolicy/default/rule HTTPRoute/canary#numbers", "timeouts.request TrafficPolicy/default/route HTTPRoute/canary",
		"timeouts.attempt TrafficPolicy/default/port Service/cart#80", "timeouts.idle TrafficPolicy/default/service Service/cart", "timeouts.stream MeshConfig/mesh"} {
		if !slices.Contains(from, want) {
			t.Errorf("%q is not among %q", want, from)
		}
	}
	if other, _ := c.RouteTable(port(81)); other.Routes[0].Retry.Attempts != 7 {
		t.Errorf("port 81: %+v", other.Routes[0].Retry)
	}
}

// everything is a policy that says all that can be said about a service.
const everything = `
  balancing: {policy: RingHash, ring: {minimum: 2048}, panic: 0, locality: {spillAt: 20, failover: [{from: eu, to: us}], labels: [rack]}}
  hash: [{cookie: {name: u, ttl: 1h}, terminal: true}, {header: X-User}]
  connections: {connectTimeout: 300ms, idleTimeout: 4s, maxRequests: 100, closeOnFailure: true, http2: {maxStreams: 50}}
  breakers: {connections: 1000, pending: 10, requests: 500, retries: 5}
  fallback: {name: cart-v1, port: 80}
  ejection: {maxPercent: 30, successRate: {}, failurePercent: {threshold: 70}, latency: {factor: 4, least: 20ms}}
  healthChecks: [{http: {path: /healthz, statuses: [{from: 200, to: 204}]}, interval: 2s}]
  retries: {when: [5xx, conflict], grpc: [unavailable, internal], anyMethod: true, statuses: [418], wait: {base: 25ms}, sameHost: true}
  retryBudget: {percent: 10}
  hedging: {quantile: 95.5}
  session: {type: Header, name: x-at, idleTimeout: 1m}
  priority: [{match: {path: {value: /pay}}, class: critical}, {from: [report], class: batch}]
  rateLimits:
  - {name: perCaller, requests: 100, window: 1s, burst: 20, by: [{caller: true}, {header: X-Key}], headers: true}
  - {name: net, bytes: 1048576}
  - {name: dials, connections: 50}
  - {name: shared, requests: 10, by: [{value: v, key: k}], global: {domain: d}}
  capacity: {requests: 300}
  concurrency: {most: 64, queue: 50ms}
`

func TestEverything(t *testing.T) {
	c := with(t, "", on(t, 1, "all", onCart, everything))
	m, _ := c.Cluster(port(81))
	zero := 0.0
	want := model.Cluster{
		Name: port(81), Protocol: model.ProtocolTCP, ConnectTimeout: 300 * time.Millisecond,
		Balancing: model.Balancing{Policy: model.RingHash, MinRing: 2048, MaxRing: 8 << 20, Panic: &zero,
			Locality: model.LocalityOptions{Mode: model.LocalityPrefer, SpillAt: 20, Failover: []model.Failover{{From: "eu", To: "us"}}, Labels: []string{"rack"}}},
		Upstream: model.UpstreamHTTP{HTTP2: model.HTTP2Options{MaxStreams: 50}},
		Breakers: [2]model.Breakers{{Connections: 1000, Pending: 10, Requests: 500, Retries: 5}},
		Budget:   model.Budget{Percent: 10, Least: 10},
		HealthChecks: []model.HealthCheck{{Kind: model.CheckHTTP, Timeout: time.Second, Interval: 2 * time.Second, NoTrafficInterval: 2 * time.Second,
			Jitter: 200 * time.Millisecond, UnhealthyThreshold: 3, HealthyThreshold: 2, ReuseConnection: true, Path: "/healthz", Method: "GET",
			Statuses: []model.StatusRange{{From: 200, To: 205}}}},
		Outlier: m.Outlier, IdleTimeout: 4 * time.Second, MaxRequests: 100, CloseOnHealthFailure: true,
	}
	if !reflect.DeepEqual(*m, want) {
		t.Errorf("cluster\n%+v, want\n%+v", *m, want)
	}
	if o := m.Outlier; o.Consecutive5xx != 5 || o.MaxPercent != 30 || !o.AlwaysOne || o.SuccessStdevFactor != 1900 || o.FailureThreshold != 70 || o.BaseEjection != 30*time.Second ||
		o.LatencyFactor != 4 || o.LatencyLeast != 20*time.Millisecond || o.LatencyMinimumHosts != 3 || o.LatencyRequestVolume != 20 || !o.Probe {
		t.Errorf("ejection: %+v", *o)
	}
	table, _ := c.RouteTable(port(81))
	r := table.Routes[0]
	retry := model.Retry{On: model.Retry5xx | model.Retry4xx | model.RetryGRPC | model.RetryStatuses, Statuses: []uint16{418}, GRPC: 1<<14 | 1<<13, Attempts: 2, AnyMethod: true,
		Base: 25 * time.Millisecond, Max: 250 * time.Millisecond, RetryAfter: 10 * time.Second}
	if !reflect.DeepEqual(*r.Retry, retry) {
		t.Errorf("retries: %+v, want %+v", *r.Retry, retry)
	}
	if *r.Hedge != (model.Hedge{Quantile: 955, Most: 2}) || *r.Session != (model.Session{Header: "x-at", Idle: time.Minute}) || r.Fallback.Cluster.Service.Name != "cart-v1" || r.Fallback.Invalid {
		t.Errorf("route: %+v %+v %+v", r.Hedge, r.Session, r.Fallback)
	}
	if want := []model.HashKey{{Kind: model.HashCookie, Name: "u", TTL: time.Hour, Generate: true, Path: "/", Terminal: true}, {Kind: model.HashHeader, Name: "x-user"}}; !reflect.DeepEqual(r.Hash, want) {
		t.Errorf("hash: %+v", r.Hash)
	}
	classes := []model.ClassRule{{Match: model.Match{Path: "/pay"}, Class: model.ClassCritical}, {Match: model.Match{Path: "/"}, From: []string{"report.default"}, Class: model.ClassBatch}}
	if !reflect.DeepEqual(table.Classes, classes) {
		t.Errorf("classes: %+v", table.Classes)
	}
	in := &model.Inbound{MaxRequests: 300, Adaptive: &model.Adaptive{Least: 4, Most: 64, Queue: 50 * time.Millisecond},
		Limits: []model.RateLimit{
			{Name: "perCaller", Requests: 100, Window: time.Second, Burst: 20, By: []model.RateKey{{Kind: model.RateByCaller}, {Kind: model.RateByHeader, Name: "x-key"}}, Headers: true, Status: 429},
			{Name: "net", Requests: 1048576, Window: time.Second, Burst: 1048576, Bytes: true, Status: 429},
			{Name: "shared", Requests: 10, Window: time.Second, Burst: 10, By: []model.RateKey{{Kind: model.RateByFixed, Key: "k", Value: "v"}}, Status: 429,
				Global: &model.GlobalLimit{Domain: "d", Timeout: 20 * time.Millisecond}},
		},
		ConnectionRate: &model.RateLimit{Name: "dials", Requests: 50, Window: time.Second, Burst: 50, Status: 429}}
	if !reflect.DeepEqual(table.Inbound, in) {
		t.Errorf("inbound\n%+v, want\n%+v", table.Inbound, in)
	}
}

// TestSilence: without a policy a cluster has nothing but the mesh's budget, and a table nothing at all.
func TestSilence(t *testing.T) {
	c := with(t, "")
	m, _ := c.Cluster(port(81))
	if want := (model.Cluster{Name: port(81), Protocol: model.ProtocolTCP, ConnectTimeout: compile.ConnectTimeout, Budget: model.Budget{Percent: 20, Least: 10}}); !reflect.DeepEqual(*m, want) {
		t.Errorf("%+v", *m)
	}
	if table, _ := c.RouteTable(port(81)); table.Inbound != nil || table.Classes != nil || table.Routes[0].Retry != nil {
		t.Errorf("%+v", table)
	}
}

// versions has an implicit version of cart.
type versions struct{ services }

func (v versions) Service(n model.ServiceName) (*registry.Service, bool) {
	s, ok := v.services.Service(n)
	if ok && n.Name == "cart-v1" {
		s.Implicit, s.Selector = true, map[string]string{"service": "cart", "version": "v1"}
	}
	return s, ok
}

// TestVersions: a version that exists by itself has its service's policies, unless there is one on it.
func TestVersions(t *testing.T) {
	v1, v2 := cart, cart
	v1.Name, v2.Name = "cart-v1", "cart-v2"
	c := with(t, "", on(t, 1, "all", onCart, "  breakers: {requests: 7}\n  ejection: {}\n"),
		on(t, 2, "v1", `group: "", kind: Service, name: cart-v1`, "  breakers: {requests: 1}\n"))
	c.Services = versions{services{"cart", "cart-v1", "cart-v2"}}
	m, _ := c.Cluster(model.PortName{Service: v1, Port: 80})
	if m.Breakers[0].Requests != 1 || m.Outlier == nil {
		t.Errorf("version: %+v", m)
	}
	if m, _ := c.Cluster(model.PortName{Service: v2, Port: 80}); m.Outlier != nil {
		t.Errorf("a Service of its own: %+v", m)
	}
}

// TestPolicyConflict: of two policies on one place the older one's part counts, and the other one is named, whatever the
// port is called; parts that only one has are both in force.
func TestPolicyConflict(t *testing.T) {
	c := with(t, "",
		on(t, 2, "young", `group: "", kind: Service, name: cart, sectionName: raw`, "  breakers: {requests: 2}\n  ejection: {}\n"),
		on(t, 1, "old", `group: "", kind: Service, name: cart, sectionName: "81"`, "  breakers: {requests: 1}\n"))
	m, _ := c.Cluster(port(81))
	if m.Breakers[0].Requests != 1 || m.Outlier == nil {
		t.Errorf("%+v", m)
	}
	got := c.Conflicts(port(81), takes)
	want := "Service/default/cart:81: TrafficPolicy/default/old and TrafficPolicy/default/young both match `any connection to cart.default:81`; " +
		"TrafficPolicy/default/old wins: it is older. Remove breakers from one of them, or attach one to a port, a route or a rule"
	if len(got) != 1 || got[0].String() != want {
		t.Errorf("got %v", got)
	}
}
