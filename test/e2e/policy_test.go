//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// policyOn is a TrafficPolicy on the service reviews.
func policyOn(parts string) string {
	return "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: reviews}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: reviews}]\n" + parts
}

// TestPolicy: what a TrafficPolicy says about endpoints and connections is what a workload's own proxy does.
func TestPolicy(t *testing.T) {
	m := newMesh(t)
	m.podinfo("is v1", "--service", "reviews", "--version", "v1")
	m.podinfo("is v2", "--service", "reviews", "--version", "v2")
	// A caller that stays: what its proxy has found, stays too. It prints who has answered, without end.
	caller := m.run([]string{"--service", "caller"}, "sh", "-c", "while :; do curl -sS --max-time 5 http://reviews:8080/ | grep -o 'is v.' || echo failed; sleep 0.02; done")
	said := func() (v1, v2, failed int) {
		from := len(caller.stdout())
		eventually(t, patience, "the caller has had 40 answers", func() error {
			if n := strings.Count(caller.stdout()[from:], "\n"); n < 40 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		text := caller.stdout()[from:]
		return strings.Count(text, "is v1"), strings.Count(text, "is v2"), strings.Count(text, "failed")
	}
	becomes := func(what string, holds func(v1, v2, failed int) bool) {
		t.Helper()
		eventually(t, patience, what, func() error {
			if v1, v2, failed := said(); !holds(v1, v2, failed) {
				return fmt.Errorf("%d of v1, %d of v2, %d failed", v1, v2, failed)
			}
			return nil
		})
	}
	both := func(v1, v2, failed int) bool { return v1 > 0 && v2 > 0 && failed == 0 }
	onlyV1 := func(v1, v2, failed int) bool { return v1 > 0 && v2 == 0 && failed == 0 }
	becomes("both answer", both)

	t.Run("health checks over HTTP", func(t *testing.T) {
		m.apply(policyOn("  healthChecks: [{http: {path: /readyz}, interval: 100ms, timeout: 100ms, unhealthy: 2, healthy: 2}]\n"))
		becomes("both pass", both)
		m.curl("-X", "POST", "http://reviews-v2:8080/readyz/disable")
		becomes("v2 fails its checks", onlyV1)
		m.curl("-X", "POST", "http://reviews-v2:8080/readyz/enable")
		becomes("v2 passes them again", both)
	})
	t.Run("health checks over TCP", func(t *testing.T) {
		m.apply(policyOn("  healthChecks: [{tcp: {}, interval: 300ms, timeout: 200ms}]\n"))
		becomes("both pass", both)
		m.apply(policyOn("  healthChecks: [{tcp: {receive: [nothing]}, interval: 300ms, timeout: 200ms}]\n  balancing: {panic: 0}\n"))
		becomes("nobody says that", func(v1, v2, failed int) bool { return v1+v2 == 0 })
		m.apply(policyOn("  balancing: {panic: 0}\n"))
		becomes("nobody is asked", both)
	})
	t.Run("ejection", func(t *testing.T) {
		m.apply(policyOn("  ejection: {consecutive5xx: 1, consecutiveGateway: 0, base: 1m, interval: 200ms, probe: false}\n"))
		bad := m.run([]string{"--service", "reviews", "--version", "v3", "--port", "8080"}, binary(t, "podinfo"), "--port", "8080", "--ui-message", "is v3", "--level", "debug", "--random-error")
		m.announced(bad)
		eventually(t, patience, "v3, which fails a third of its requests, gets none", func() error {
			from := len(caller.stdout())
			if v1, v2, failed := said(); !both(v1, v2, failed) || strings.Contains(caller.stdout()[from:], "is v3") {
				return errors.New(caller.stdout()[from:])
			}
			return nil
		})
		bad.stop(10 * time.Second)
	})
	t.Run("health checks over gRPC", func(t *testing.T) {
		p := m.run([]string{"--service", "calls", "--port", "8080", "--port", "9999", "--ready", "http:/readyz"}, binary(t, "podinfo"), "--port", "8080", "--grpc-port", "9999", "--level", "debug")
		m.announced(p)
		check := func(service string) string {
			text := policyOn("  balancing: {panic: 0}\n  healthChecks: [{grpc: {service: " + service + "}, interval: 100ms, timeout: 100ms}]\n")
			return strings.ReplaceAll(strings.ReplaceAll(text, "kind: Service, name: reviews", `kind: Service, name: calls, sectionName: "9999"`), "reviews", "calls")
		}
		m.apply(check("podinfo"))
		for range 3 {
			if r := m.call(self(t), "grpc-health", "calls:9999", "podinfo"); r.code != 0 {
				t.Errorf("a service that is well: %s", r)
			}
		}
		m.apply(check("nobody"))
		eventually(t, patience, "a service that nobody knows is not asked for anything", func() error {
			if r := m.call(self(t), "grpc-health", "calls:9999", "podinfo"); r.code == 0 {
				return errors.New(r.stdout)
			}
			return nil
		})
	})
	t.Run("a breaker of relayed connections", func(t *testing.T) {
		p := m.run([]string{"--service", "raw", "--port", "9000/tcp"}, self(t), "serve-after-fin", "9000")
		m.announced(p)
		many := func() result { return m.call(self(t), "many", "raw:9000", "3") }
		m.ok(many())
		m.apply(strings.ReplaceAll(policyOn("  breakers: {connections: 2}\n"), "reviews", "raw"))
		eventually(t, patience, "one of three connections is refused where two may be", func() error { // on a busy machine the first may end before the third comes
			if r := many(); r.code == 0 || !strings.Contains(r.stderr, "connection ") {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
		m.ok(m.cli("delete", "trafficpolicy", "raw"))
		eventually(t, patience, "three connections again", func() error {
			if r := many(); r.code != 0 {
				return errors.New(r.stderr)
			}
			return nil
		})
	})
	t.Run("what is not valid has no effect", func(t *testing.T) {
		before := m.ok(m.cli("get", "trafficpolicy", "reviews", "-o", "yaml"))
		r := m.cliInput(policyOn("  timeouts: {request: 1s, attempt: 2s}\n"), "apply", "-f", "-")
		if r.code == 0 || !strings.Contains(r.stderr, "stdin:6: TrafficPolicy/reviews: spec.timeouts.attempt: 2s is longer than the request's 1s") {
			t.Error(r)
		}
		if after := m.ok(m.cli("get", "trafficpolicy", "reviews", "-o", "yaml")); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	})
}
