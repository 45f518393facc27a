//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reviewsRoute is an HTTPRoute for the service reviews with the given rules, indented by two.
func reviewsRoute(rules string) string {
	return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 8080}]
  rules:
` + rules
}

func weights(v1, v2 int) string {
	return reviewsRoute(fmt.Sprintf(`  - backendRefs:
    - {name: reviews-v1, port: 8080, weight: %d}
    - {name: reviews-v2, port: 8080, weight: %d}
`, v1, v2))
}

// TestRoutes: what HTTPRoute does to requests, seen by curl and by what it reaches.
func TestRoutes(t *testing.T) {
	m := newMesh(t)
	m.podinfo("is v1", "--service", "reviews", "--version", "v1")
	m.podinfo("is v2", "--service", "reviews", "--version", "v2")
	m.httpbin()
	version := func(args ...string) string {
		got := m.curl(args...)
		for _, v := range []string{"v1", "v2"} {
			if strings.Contains(got, "is "+v) {
				return v
			}
		}
		return got
	}

	t.Run("A/B by header", func(t *testing.T) {
		m.apply(reviewsRoute(`  - matches: [{headers: [{name: x-user, value: alice}]}]
    backendRefs: [{name: reviews-v2, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /api}, queryParams: [{name: beta, value: "1"}]}]
    backendRefs: [{name: reviews-v2, port: 8080}]
  - backendRefs: [{name: reviews-v1, port: 8080}]
`))
		for range 3 {
			if got := version("http://reviews:8080/"); got != "v1" {
				t.Errorf("without the header: %s", got)
			}
			if got := version("-H", "X-User: alice", "http://reviews:8080/"); got != "v2" {
				t.Errorf("with the header: %s", got)
			}
		}
		if got := version("-H", "X-User: alice2", "http://reviews:8080/"); got != "v1" {
			t.Errorf("with another value: %s", got)
		}
		if got := version("http://reviews:8080/api/info?x=2&beta=1"); got != "v2" {
			t.Errorf("path and query: %s", got)
		}
		if got := version("http://reviews:8080/api/info?beta=2"); got != "v1" {
			t.Errorf("path without query: %s", got)
		}
		if got := m.ok(m.cli("routes", "reviews")); !strings.Contains(got, "x-user=alice") || !strings.Contains(got, "reviews-v2.default:8080") {
			t.Errorf("tulle routes: %s", got)
		}
	})
	t.Run("weights", func(t *testing.T) {
		m.apply(weights(90, 10))
		got := m.curl("http://reviews:8080/?[1-1000]")
		v1, v2 := strings.Count(got, "is v1"), strings.Count(got, "is v2")
		if v1+v2 != 1000 || v2 < 60 || v2 > 145 { // ten percent is 100; five standard deviations are 47
			t.Errorf("of 1000 requests at 90:10, %d went to v1 and %d to v2", v1, v2)
		}
		m.apply(weights(0, 1))
		if got := m.curl("http://reviews:8080/?[1-50]"); strings.Count(got, "is v2") != 50 {
			t.Errorf("of 50 requests at 0:1, %d went to v2", strings.Count(got, "is v2"))
		}
	})
	t.Run("headers are changed", func(t *testing.T) {
		m.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: httpbin}
spec:
  parentRefs: [{group: "", kind: Service, name: httpbin}]
  rules:
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: X-Set, value: new}]
        add: [{name: X-Add, value: second}]
        remove: [X-Gone]
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        add: [{name: X-Answer, value: "42"}]
    backendRefs: [{name: httpbin, port: 8080}]
`)
		r := m.call("curl", "-sS", "-D", "/dev/stderr", "-H", "X-Set: old", "-H", "X-Add: first", "-H", "X-Gone: 1", "http://httpbin:8080/headers")
		seen := decode[struct {
			Headers map[string][]string `json:"headers"`
		}](t, m.ok(r)).Headers
		if got := fmt.Sprint(seen["X-Set"], seen["X-Add"], seen["X-Gone"]); got != "[new] [first second] []" && got != "[new] [first,second] []" {
			t.Errorf("the server saw %s", got)
		}
		if !strings.Contains(strings.ToLower(r.stderr), "x-answer: 42\r\n") {
			t.Errorf("the client saw %s", r.stderr)
		}
	})
	t.Run("timeouts", func(t *testing.T) {
		m.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: httpbin}
spec:
  parentRefs: [{group: "", kind: Service, name: httpbin}]
  rules:
  - timeouts: {request: 300ms}
    backendRefs: [{name: httpbin, port: 8080}]
`)
		begin := time.Now()
		r := m.call("curl", "-sS", "-i", "http://httpbin:8080/delay/5")
		if !strings.HasPrefix(m.ok(r), "HTTP/1.1 504 ") || !strings.Contains(strings.ToLower(r.stdout), "tulle-reason: ") || time.Since(begin) > 3*time.Second {
			t.Errorf("a request over its timeout, after %s: %s", time.Since(begin), r)
		}
	})
	t.Run("delete", func(t *testing.T) {
		if got := m.ok(m.cli("get", "httproute", "reviews", "-o", "yaml")); !strings.Contains(got, "kind: HTTPRoute") || !strings.Contains(got, "reviews-v2") {
			t.Errorf("tulle get: %s", got)
		}
		eventually(t, patience, "the status says that it is enforced", func() error {
			if got := m.ok(m.cli("get", "httproutes")); strings.Count(got, "True") < 6 {
				return errors.New(got)
			}
			return nil
		})
		m.ok(m.cli("delete", "httproute", "reviews"))
		m.ok(m.cli("wait", "--timeout", "10s"))
		got := m.curl("http://reviews:8080/?[1-100]")
		if v1, v2 := strings.Count(got, "is v1"), strings.Count(got, "is v2"); v1+v2 != 100 || v1 < 20 || v2 < 20 {
			t.Errorf("without a route %d went to v1 and %d to v2", v1, v2)
		}
	})
}

// TestWrongResources: every error has its place, and nothing of a file with one is stored.
func TestWrongResources(t *testing.T) {
	m := newMesh(t)
	m.podinfo("is v1", "--service", "reviews", "--version", "v1")
	good := reviewsRoute("  - backendRefs: [{name: reviews-v1, port: 8080}]\n")
	for name, c := range map[string]struct{ yaml, line, want string }{
		"unknown field":    {strings.Replace(good, "backendRefs:", "backends:", 1), "7", "backends"},
		"wrong type":       {strings.Replace(good, "port: 8080}]\n  rules", "port: eighty}]\n  rules", 1), "5", "port"},
		"unknown service":  {strings.Replace(good, "name: reviews-v1", "name: reviews-v7", 1), "7", "reviews-v7"},
		"no such port":     {strings.Replace(good, "v1, port: 8080", "v1, port: 8081", 1), "7", "8081"},
		"not YAML":         {good + "\t- x: [", "8", ""},
		"unsupported kind": {strings.Replace(good, "kind: HTTPRoute", "kind: UDPRoute", 1), "2", "UDPRoute"},
		"unsupported filter": {reviewsRoute("  - filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: reviews-v1, port: 8080}}}]\n" +
			"    backendRefs: [{name: reviews-v1, port: 8080}]\n"), "7", "ExternalAuth"},
		"second of two": {good + "---\n" + strings.Replace(strings.Replace(good, "name: reviews}", "name: other}", 1), "port: 8080}]\n  rules", "port: 0}]\n  rules", 1), "", "port"},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, filepath.Join(m.dir, "route.yaml"), c.yaml)
			r := m.cli("apply", "-f", file)
			if r.code == 0 || !strings.Contains(r.stderr, file+":"+c.line) || !strings.Contains(r.stderr, c.want) {
				t.Errorf("want %s:%s and %q: %s", file, c.line, c.want, r)
			}
			if got := m.ok(m.cli("get", "httproutes", "-o", "json")); strings.Contains(got, "HTTPRoute") {
				t.Errorf("something was stored: %s", got)
			}
		})
	}
	m.ok(m.cliInput(good, "apply", "-f", "-", "--dry-run"))
	if got := m.ok(m.cli("get", "httproutes", "-o", "json")); strings.Contains(got, "HTTPRoute") {
		t.Errorf("a dry run has stored something: %s", got)
	}
}

// TestRouteChanges: two hundred changes of a route under load; no request fails and no connection is closed.
func TestRouteChanges(t *testing.T) {
	m := newMesh(t)
	m.httpbin("--service", "reviews", "--version", "v1")
	m.httpbin("--service", "reviews", "--version", "v2")
	l := m.load([]string{"-posts"}, "http://reviews:8080/anything")
	begin := time.Now()
	const changes = 200
	for i := range changes {
		yaml := weights(100-i%100, i%100)
		if i%10 == 9 {
			m.ok(m.cli("delete", "httproute", "reviews"))
			continue
		}
		if i%3 == 1 {
			yaml = reviewsRoute(fmt.Sprintf(`  - matches: [{path: {type: PathPrefix, value: /any}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-change, value: "%d"}]}}]
    backendRefs: [{name: reviews-v2, port: 8080}]
  - backendRefs: [{name: reviews-v1, port: 8080}]
`, i))
		}
		m.ok(m.cliInput(yaml, "apply", "-f", "-"))
	}
	m.ok(m.cli("wait", "--timeout", "10s"))
	t.Logf("%d changes in %s", changes, time.Since(begin).Round(time.Millisecond))
	l.more(200)
	l.flawless()
}
