//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRouteActions: what routes do besides sending requests on, from the resource to curl.
func TestRouteActions(t *testing.T) {
	m := newMesh(t)
	m.podinfo("is v1", "--service", "reviews", "--version", "v1")
	v2 := m.podinfo("is v2", "--service", "reviews", "--version", "v2")
	m.httpbin()
	head := func(args ...string) string {
		return strings.ToLower(m.ok(m.call(append([]string{"curl", "-sS", "-i"}, args...)...)))
	}
	who := func(got string) string {
		for _, v := range []string{"is v1", "is v2"} {
			if strings.Contains(got, v) {
				return v
			}
		}
		return got
	}

	t.Run("redirect, rewrite, CORS and faults", func(t *testing.T) {
		m.apply(`apiVersion: tulle.dev/v1alpha1
kind: FaultInjection
metadata: {name: teapot}
spec:
  abort: {httpStatus: 418}
  headers: [{name: x-break, value: "yes"}]
---
apiVersion: tulle.dev/v1alpha1
kind: FaultInjection
metadata: {name: late}
spec:
  delay: {duration: 300ms}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: httpbin}
spec:
  parentRefs: [{group: "", kind: Service, name: httpbin}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 301}}]
  - matches: [{path: {type: PathPrefix, value: /v1/}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: httpbin, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /put}, method: PUT}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://*.shop.example"], allowMethods: [PUT], maxAge: 60}}]
    backendRefs: [{name: httpbin, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /delay}}]
    filters: [{type: ExtensionRef, extensionRef: {group: tulle.dev, kind: FaultInjection, name: late}}]
    backendRefs: [{name: httpbin, port: 8080}]
  - filters: [{type: ExtensionRef, extensionRef: {group: tulle.dev, kind: FaultInjection, name: teapot}}]
    backendRefs: [{name: httpbin, port: 8080}]
`)
		const at = "http://httpbin:8080"
		if got := head(at + "/old/a?b=c"); !strings.HasPrefix(got, "http/1.1 301 ") || !strings.Contains(got, "\r\nlocation: https://new.example/a?b=c\r\n") {
			t.Errorf("redirect: %s", got)
		}
		if got := head(at + "/v1/status/202"); !strings.HasPrefix(got, "http/1.1 202 ") {
			t.Errorf("rewrite: %s", got)
		}
		preflight := head("-X", "OPTIONS", "-H", "Origin: https://a.shop.example", "-H", "Access-Control-Request-Method: PUT", at+"/put")
		if !strings.HasPrefix(preflight, "http/1.1 200 ") || !strings.Contains(preflight, "access-control-allow-origin: https://a.shop.example\r\n") || !strings.Contains(preflight, "access-control-max-age: 60\r\n") {
			t.Errorf("preflight: %s", preflight)
		}
		if got := head("-X", "PUT", "-H", "Origin: https://evil.example", at+"/put"); strings.Contains(got, "access-control-allow-origin") {
			t.Errorf("another origin: %s", got)
		}
		if got := head("-H", "X-Break: yes", at+"/get"); !strings.HasPrefix(got, "http/1.1 418 ") || !strings.Contains(got, "tulle-reason: fault_injected\r\n") {
			t.Errorf("abort: %s", got)
		}
		if got := head(at + "/get"); !strings.HasPrefix(got, "http/1.1 200 ") {
			t.Errorf("no fault without its header: %s", got)
		}
		began := time.Now()
		if got := head(at + "/delay/0"); !strings.HasPrefix(got, "http/1.1 200 ") || time.Since(began) < 300*time.Millisecond {
			t.Errorf("delay: %s after %v", got, time.Since(began))
		}
	})

	t.Run("sessions", func(t *testing.T) {
		m.apply(reviewsRoute(`  - sessionPersistence: {sessionName: sid, type: Cookie}
    backendRefs: [{name: reviews-v1, port: 8080}, {name: reviews-v2, port: 8080}]
`))
		seen := map[string]bool{}
		for range 8 {
			first := m.ok(m.call("curl", "-sS", "-i", "http://reviews:8080/"))
			_, cookie, found := strings.Cut(first, "sid=")
			cookie, _, _ = strings.Cut(cookie, ";")
			if !found {
				t.Fatalf("no session: %s", first)
			}
			seen[who(first)] = true
			if got := m.curl("-H", "Cookie: sid="+cookie, "http://reviews:8080/?[1-10]"); strings.Count(got, who(first)) != 10 {
				t.Errorf("a session with %s: %s", who(first), got)
			}
		}
		if len(seen) != 2 {
			t.Errorf("eight sessions are all with %v", seen)
		}
	})

	t.Run("sticky canary", func(t *testing.T) {
		m.apply(`apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: sticky}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: reviews}]
  sticky: [{header: x-user}]
`)
		with := map[int]string{}
		for _, weight := range []int{20, 50} {
			m.apply(weights(100-weight, weight))
			for user := range 20 {
				got := m.curl("-H", fmt.Sprint("X-User: ", user), "http://reviews:8080/?[1-3]")
				if strings.Count(got, who(got)) != 3 {
					t.Errorf("user %d at %d percent: %s", user, weight, got)
				}
				if with[user] == "is v2" && who(got) != "is v2" {
					t.Errorf("user %d left the canary while it grew", user)
				}
				with[user] = who(got)
			}
		}
	})

	t.Run("mirror", func(t *testing.T) {
		m.apply(reviewsRoute(`  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: reviews-v2, port: 8080}}}]
    backendRefs: [{name: reviews-v1, port: 8080}]
`))
		if got := m.curl("http://reviews:8080/?copied=[1-20]"); strings.Count(got, "is v1") != 20 {
			t.Errorf("the callers got %s", got)
		}
		eventually(t, patience, "the other version has logged the copies", func() error {
			if n := strings.Count(v2.stdout()+v2.stderr(), "copied="); n < 20 {
				return fmt.Errorf("%d of 20", n)
			}
			return nil
		})
	})
}
