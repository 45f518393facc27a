//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// guarded is an AuthorizationPolicy that asks the authorizer about everything that httpbin is asked for, but below /status.
func guarded(external string) string {
	return "apiVersion: tulle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: asked}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: httpbin}]\n" +
		"  action: External\n  rules:\n  - to: [{notPaths: [\"/status/*\"]}]\n  external: {" + external + "}\n"
}

// TestExternalAuthorizer: Istio's sample authorizer, a workload of the mesh, has the last word, over gRPC and over HTTP. What it
// adds reaches the program, what it refuses the client; while it is away nothing passes, or everything if the policy says so.
func TestExternalAuthorizer(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	asked := m.run([]string{"--service", "authorizer", "--port", "8000/http", "--port", "9000/grpc"}, binary(t, "extauthz"), "-http", "8000", "-grpc", "9000")
	m.announced(asked)
	get := func(path string, args ...string) string {
		return m.ok(m.call(append([]string{"curl", "-sS", "-i", "--max-time", "20", "http://httpbin:8080" + path}, args...)...))
	}
	for protocol, more := range map[string]string{"GRPC": "service: {name: authorizer, port: 9000}, timeout: 5s",
		"HTTP": "service: {name: authorizer, port: 8000}, protocol: HTTP, timeout: 5s, requestHeaders: [x-ext-authz], upstreamHeaders: [x-ext-authz-check-result]"} {
		m.apply(guarded(more))
		if out := get("/headers", "-H", "x-ext-authz: allow"); !strings.Contains(out, " 200") || !strings.Contains(strings.ToLower(out), "x-ext-authz-check-result") {
			t.Errorf("%s, allowed: %s", protocol, out)
		}
		out := get("/headers", "-H", "x-ext-authz: no")
		for _, want := range []string{" 403", "tulle-reason: authz_denied", "x-request-id: ", "x-ext-authz-check-result: denied", "denied by ext_authz"} {
			if !strings.Contains(strings.ToLower(out), want) {
				t.Errorf("%s, refused, without %q: %s", protocol, want, out)
			}
		}
		if out := get("/status/204"); !strings.Contains(out, " 204") {
			t.Errorf("%s, not asked: %s", protocol, out)
		}
	}
	for open, want := range map[bool]string{false: "tulle-reason: authorizer_unavailable", true: " 200"} {
		m.apply(guarded(fmt.Sprintf("service: {name: nobody-there, port: 9000}, timeout: 1s, failOpen: %v", open)))
		if out := get("/headers"); !strings.Contains(out, want) {
			t.Errorf("nobody there, open is %v: %s", open, out)
		}
	}
}
