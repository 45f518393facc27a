//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// rolled is a route to goods with a rollout of v2, named and with its revision.
func rolled(revision string) string {
	return gatewayRoute("HTTPRoute", "default", "goods", "goods", "  rules: [{name: main, backendRefs: [{name: goods-v1, port: 8080}, {name: goods-v2, port: 8080}]}]\n") +
		"---\napiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: v2}\nspec:\n" +
		"  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: goods, sectionName: main}]\n" +
		"  sticky: [{header: user-agent}]\n  retries: {attempts: 0}\n" +
		"  rollout: {canary: goods-v2, steps: [20, 100], interval: 2s, requests: 20, revision: \"" + revision + "\"}\n"
}

// TestRollout: a bad version goes back and stays back, over a restart of the control plane as well, and costs no more than what it
// got; a good one gets everything, without a failure.
func TestRollout(t *testing.T) {
	m := newMesh(t)
	m.part("one", nil, "--service", "goods", "--version", "v1", "--port", "8080/http")
	two := m.part("two", nil, "--service", "goods", "--version", "v2", "--port", "8080/http")
	shell := m.part("shell", nil, "--service", "shell")
	became := func(reason string, asks func()) {
		t.Helper()
		eventually(t, patience, "the rollout is "+reason, func() error {
			asks()
			if got := m.ok(m.cli("routes", "goods")); !strings.Contains(got, reason) {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	users := func() tally {
		all := tally{}
		for i := range 10 {
			for k, n := range shell.ask(order{URL: "http://goods:8080/", N: 10, Workers: 2, Header: map[string]string{"User-Agent": fmt.Sprint("user", i)}}) {
				all[k] += n
			}
		}
		return all
	}
	two.be(conduct{Fail: 0.5})
	m.apply(rolled("1"))
	bad := 0
	became("RolledBackFailed", func() { bad += 100 - users().of("200 ") })
	if bad == 0 || bad > two.got() {
		t.Errorf("%d failed, the canary had %d", bad, two.got())
	}
	before := two.got()
	m.control.killAll()
	m.up()
	if got := users(); got.of("200 ") != 100 || two.got() != before {
		t.Errorf("after it went back %v, and the canary had %d more", got, two.got()-before)
	}
	two.be(conduct{})
	m.apply(rolled("2"))
	became("Completed", func() {
		if got := users(); got.of("200 ") != 100 {
			t.Errorf("while a good version rolls out: %v", got)
		}
	})
	before = two.got()
	if got := users(); got.of("200 ") != 100 || two.got()-before != 100 {
		t.Errorf("at the end %v, and the canary had %d of 100", got, two.got()-before)
	}
	if got := m.ok(m.cli("get", "trafficpolicy", "v2", "-o", "yaml")); !strings.Contains(got, "RolledOut") {
		t.Errorf("tulle get: %s", got)
	}
}
