//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/ratelimit"
)

// limited is a TrafficPolicy of the service httpbin.
func limited(spec string) string {
	return "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: httpbin}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: httpbin}]\n" + spec
}

// TestRateLimits: what a TrafficPolicy says about a service, its own workload's proxy keeps, whoever calls; a limit for the
// whole mesh is counted by the control plane, for all workloads together.
func TestRateLimits(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	codes := func(n int, args ...string) string {
		var all []string
		for range n {
			all = append(all, m.ok(m.call(append([]string{"curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)))
		}
		return strings.Join(all, " ")
	}
	m.apply(limited(`  rateLimits:
  - {name: own, requests: 3, window: 1h, by: [{header: x-key}], headers: true}
`))
	m.ok(m.cli("wait"))
	if got := codes(4, "-H", "X-Key: a", "http://httpbin:8080/get"); got != "200 200 200 429" {
		t.Errorf("of one key: %s", got)
	}
	if got := codes(1, "-H", "X-Key: b", "http://httpbin:8080/get"); got != "200" {
		t.Errorf("of another key: %s", got)
	}
	head := m.ok(m.call("curl", "-sS", "-i", "-H", "X-Key: a", "http://httpbin:8080/get"))
	for _, want := range []string{`ratelimit-policy: "own";q=3;w=3600`, `ratelimit: "own";r=0;t=`, "retry-after: ", "tulle-reason: rate_limited"} {
		if !strings.Contains(strings.ToLower(head), want) {
			t.Errorf("the answer has no %q:\n%s", want, head)
		}
	}
	m.httpbin() // a second workload
	m.apply(limited(`  rateLimits:
  - {name: all, requests: 4, window: 1h, global: {failClosed: true, timeout: 5s}}
`))
	m.ok(m.cli("wait"))
	if got := codes(8, "http://httpbin:8080/get"); strings.Count(got, "200") != 4 || strings.Count(got, "429") != 4 {
		t.Errorf("for the whole mesh: %s, four of eight are allowed", got)
	}
	m.apply(limited(fmt.Sprintf("  capacity: {requests: %d}\n", 50)))
	m.ok(m.cli("wait"))
	if got := codes(2, "http://httpbin:8080/get"); got != "200 200" {
		t.Errorf("without limits of rate: %s", got)
	}
}

// rlsMain is a rate-limit service on port 8081 that lets two requests of each descriptor pass.
func rlsMain([]string) error {
	l, err := net.Listen("tcp", "127.0.0.1:8081")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[string]int{}
	g := grpc.NewServer()
	ratelimit.Serve(g, func(_ spiffe.ID, q *model.RateQuestion, _ uint32) *model.RateAnswer {
		mu.Lock()
		defer mu.Unlock()
		a := &model.RateAnswer{}
		for _, d := range q.Descriptors {
			key := fmt.Sprint(q.Domain, d)
			seen[key]++
			a.Descriptors = append(a.Descriptors, model.DescriptorAnswer{Over: seen[key] > 2})
		}
		return a
	})
	return g.Serve(l)
}

// TestRateLimitServiceInTheMesh: a limit may name a service of the mesh that counts; it is asked over mTLS, as the workload.
func TestRateLimitServiceInTheMesh(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	m.announced(m.run([]string{"--service", "rls", "--port", "8081/grpc"}, self(t), "rls"))
	m.apply(limited(`  rateLimits:
  - {name: asked, by: [{header: x-user, key: user}], global: {service: rls, port: 8081, domain: shop, timeout: 5s, failClosed: true}}
`))
	m.ok(m.cli("wait"))
	for _, user := range []string{"a", "b"} {
		var got []string
		for range 3 {
			got = append(got, m.ok(m.call("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "X-User: "+user, "http://httpbin:8080/get")))
		}
		if codes := strings.Join(got, " "); codes != "200 200 429" {
			t.Errorf("user %s: %s", user, codes)
		}
	}
}
