//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTLSRoute: connections of TLS programs go to who has the name, untouched: the client verifies the backend's own certificate.
// A name of no route is reset.
func TestTLSRoute(t *testing.T) {
	m := newMesh(t)
	m.part("edge", []string{"edge.test"}, "--service", "edge", "--port", "8443/tls", "--port", "9000/tcp")
	a := m.part("a", []string{"a.test", "*.a.wild.test"}, "--service", "a", "--port", "8443")
	b := m.part("b", []string{"b.test", "*.wild.test"}, "--service", "b", "--port", "8443")
	m.apply(gatewayRoute("TLSRoute", "default", "a", "edge", "  hostnames: [a.test, \"*.a.wild.test\"]\n  rules: [{backendRefs: [{name: a, port: 8443}]}]\n") + "---\n" +
		gatewayRoute("TLSRoute", "default", "b", "edge", "  hostnames: [b.test, \"*.wild.test\"]\n  rules: [{backendRefs: [{name: b, port: 8443}]}]\n"))
	var pems [2]string
	a.tell("certificate", nil, &pems[0])
	b.tell("certificate", nil, &pems[1])
	roots := writeFile(t, filepath.Join(m.dir, "roots.pem"), pems[0]+pems[1])
	get := func(name string) result {
		return m.call("curl", "-sS", "--max-time", "10", "--cacert", roots, "--connect-to", "::edge:8443", "https://"+name+":8443/")
	}
	for name, want := range map[string]string{"a.test": "a", "x.a.wild.test": "a", "b.test": "b", "x.wild.test": "b"} {
		if got := m.ok(get(name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// What is declared of a port stands, and that is said at once.
	raw := strings.Replace(gatewayRoute("TLSRoute", "default", "raw", "edge", "  hostnames: [raw.test]\n  rules: [{backendRefs: [{name: a, port: 8443}]}]\n"), "namespace: default}]", "namespace: default, port: 9000}]", 1)
	if r := m.cliInput(raw, "apply", "-f", "-"); r.code != 0 || !strings.Contains(r.stderr, "warning: stdin:5: TLSRoute/raw: spec.parentRefs[0]: port 9000 of Service edge.default is declared tcp, which a TLSRoute cannot decide about") {
		t.Errorf("a TLSRoute on a port that is declared TCP: %s", r)
	}
	for _, name := range []string{"edge.test", "wild.test", "xa.test"} {
		if r := get(name); r.code != 35 || !strings.Contains(strings.ToLower(r.stderr), "reset") { // CURLE_SSL_CONNECT_ERROR
			t.Errorf("%s, which is nobody's: %s", name, r)
		}
	}
}

// grpcRoute is a GRPCRoute for the service calls with the given rules, indented by two.
func grpcRoute(rules string) string {
	return gatewayRoute("GRPCRoute", "default", "calls", "calls", "  rules:\n"+rules)
}

// TestGRPCRoute: calls of grpc-go clients to grpc-go servers, unary ones and streams.
func TestGRPCRoute(t *testing.T) {
	m := newMesh(t)
	v1 := m.part("v1", nil, "--service", "calls", "--version", "v1", "--port", "9000/grpc")
	v2 := m.part("v2", nil, "--service", "calls", "--version", "v2", "--port", "9000/grpc")
	deep := m.part("deep", nil, "--service", "deep", "--port", "9000/grpc")
	shell := m.part("shell", nil, "--service", "shell")
	m.apply(grpcRoute(`  - matches: [{method: {service: shop.Cart, method: Add}}]
    backendRefs: [{name: calls-v2, port: 9000}]
  - matches: [{headers: [{name: x-beta, value: "1"}]}]
    backendRefs: [{name: calls-v2, port: 9000}]
  - matches: [{method: {service: shop.List}}]
    backendRefs: [{name: calls-v1, port: 9000, weight: 3}, {name: calls-v2, port: 9000, weight: 1}]
  - matches: [{method: {service: shop.Cart}}]
    backendRefs: [{name: calls-v1, port: 9000}]
`))
	t.Run("matches", func(t *testing.T) {
		for _, c := range []struct{ method, beta, want string }{
			{"shop.Cart/Add", "", "OK v2"}, {"shop.Cart/Get", "", "OK v1"}, {"shop.Cart/Get", "1", "OK v1"}, {"shop.Other/Get", "1", "OK v2"},
		} {
			for _, messages := range []int{0, 20} {
				o := order{URL: "grpc://calls:9000/" + c.method, N: 3, Messages: messages}
				if c.beta != "" {
					o.Header = map[string]string{"x-beta": c.beta}
				}
				if got := shell.ask(o); got[c.want] != 3 {
					t.Errorf("%s, x-beta %q, %d messages: %v, want %s", c.method, c.beta, messages, got, c.want)
				}
			}
		}
		if got := shell.ask(order{URL: "grpc://calls:9000/shop.Other/Get"}); got.of("Unimplemented ")+got.of("NotFound ") != 1 {
			t.Errorf("a method of no rule: %v", got)
		}
	})
	t.Run("weights, call by call on one connection", func(t *testing.T) {
		for _, messages := range []int{0, 3} {
			got := shell.ask(order{URL: "grpc://calls:9000/shop.List/All", N: 400, Messages: messages})
			if n := got["OK v2"]; n < 60 || n > 145 || n+got["OK v1"] != 400 { // a quarter is 100; five standard deviations are 43
				t.Errorf("%d messages: %v of 400 at 3:1", messages, got)
			}
		}
	})
	t.Run("retry on a status", func(t *testing.T) {
		v1.be(conduct{First: true})
		v2.be(conduct{First: true})
		ask := func() tally {
			return shell.ask(order{URL: "grpc://calls:9000/shop.Cart/Pay", N: 20, Header: map[string]string{"x-id": fmt.Sprint(time.Now().UnixNano(), "-%")}})
		}
		if got := ask(); got["Unavailable v1"] != 20 {
			t.Errorf("by default, with calls that may have arrived: %v", got)
		}
		m.apply(`apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: calls}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: calls}]
  retries: {attempts: 1, grpc: [unavailable], anyMethod: true, wait: {base: 1ms, maximum: 2ms}}
---
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: budget}
spec:
  targetRefs: [{group: "", kind: Service, name: calls}]
  retryBudget: {percent: 100, least: 100}
`)
		if got := ask(); got["OK v1"] != 20 {
			t.Errorf("with anyMethod: %v", got)
		}
		v1.be(conduct{})
		v2.be(conduct{})
	})
	t.Run("a deadline goes on, through a program that does not hand it on", func(t *testing.T) {
		left := func(o order) (ms int) {
			for answer := range shell.ask(o) {
				text, ok := strings.CutPrefix(answer, "OK true ")
				if ms, _ = strconv.Atoi(text); !ok {
					t.Fatalf("no deadline: %s", answer)
				}
			}
			return ms
		}
		if ms := left(order{URL: "grpc://calls:9000/shop.Cart/Get", Body: "left", Timeout: 5 * time.Second}); ms < 3000 || ms > 5000 {
			t.Errorf("of 5 s, %d ms are left at the first", ms)
		}
		v1.be(conduct{Work: 300 * time.Millisecond, Next: "grpc://deep:9000/shop.Deep/Get"})
		if ms := left(order{URL: "grpc://calls:9000/shop.Cart/Get", Body: "left", Timeout: 5 * time.Second}); ms < 2500 || ms > 4700 {
			t.Errorf("of 5 s, less 300 ms of work, %d ms are left at the second", ms)
		}
		deep.be(conduct{Work: time.Minute})
		begin := time.Now()
		if got := shell.ask(order{URL: "grpc://calls:9000/shop.Cart/Get", Timeout: 700 * time.Millisecond}); got.of("DeadlineExceeded ") != 1 || time.Since(begin) > 2*time.Second {
			t.Errorf("a server that is too slow, two hops away: %v after %s", got, time.Since(begin))
		}
		deep.abandoned(1, 2*time.Second)
	})
}
