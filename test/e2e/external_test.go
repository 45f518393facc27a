//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
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
	httpbin := m.run([]string{"--service", "httpbin", "--port", "8080"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF", "-max-duration", "5m")
	m.announced(httpbin)
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
		port := map[string]string{"GRPC": "9000", "HTTP": "8000"}[protocol]
		explained(t, m, "agreed by authorizer.default:"+port, "refused by authorizer.default:"+port)
		if out := get("/status/204"); !strings.Contains(out, " 204") {
			t.Errorf("%s, not asked: %s", protocol, out)
		}
	}
	for open, want := range map[bool]string{false: "tulle-reason: authorizer_unavailable", true: " 200"} {
		m.apply(guarded(fmt.Sprintf("service: {name: nobody-there, port: 9000}, timeout: 1s, failOpen: %v", open)))
		if out := get("/headers"); !strings.Contains(out, want) {
			t.Errorf("nobody there, open is %v: %s", open, out)
		}
		explained(t, m, map[bool]string{false: "without an answer of nobody-there.default:9000\n", true: "let through without an answer of nobody-there.default:9000 (failOpen)"}[open])
	}
	if text := httpbin.stderr(); !strings.Contains(text, "msg=authz_denied") || !strings.Contains(text, "answer=refused") || !strings.Contains(text, "msg=authz_unanswered") {
		t.Errorf("the log:\n%s", tail(text))
	}
	t.Run("OPA", func(t *testing.T) { opa(t, m) })
}

// explained asks httpbin's proxy what it remembers.
func explained(t *testing.T, m *mesh, parts ...string) {
	t.Helper()
	said := m.ok(m.cli("explain", "--service", "httpbin"))
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("without %q:\n%s", part, said)
		}
	}
}

// rego is a policy of OPA's own API (system.authz): what it refuses is answered 401. Of what it is asked about only GET is allowed, which
// changes nothing in it; whoever says so may write who is gone.
const rego = `package system.authz

default allow := false

allow if {
	input.method == "GET"
	input.path[0] == "v1"
	input.path[2] == "ok"
	input.headers["X-User"][0] in {"alice", "carol"}
	not data.gone[input.headers["X-User"][0]]
	not input.path[3] == "secret"
}

allow if {
	input.method == "PUT"
	input.path[2] == "gone"
}
`

// opa: Open Policy Agent, a workload of the mesh, has the last word about GET. Its data API answers 200 whatever a policy says, so it
// is the policy about its own API that decides: a request to /v1/data/ok/<path> is answered 200 or 401.
func opa(t *testing.T, m *mesh) {
	policy := writeFile(t, filepath.Join(m.dir, "authz.rego"), rego)
	m.announced(m.run([]string{"--service", "opa", "--port", "8181/http"}, binary(t, "opa"), "run", "--server", "--addr", "0.0.0.0:8181", "--authorization", "basic", "--disable-telemetry", policy))
	m.apply(guarded("service: {name: opa, port: 8181}, protocol: HTTP, path: /v1/data/ok, timeout: 5s, requestHeaders: [x-user]"))
	for _, c := range []struct{ path, user, method, want string }{
		{"/headers", "alice", "GET", "200"}, {"/headers", "bob", "GET", "401"}, {"/headers", "", "GET", "401"}, {"/secret", "alice", "GET", "401"}, {"/x/../secret", "alice", "GET", "401"}, {"/anything", "alice", "DELETE", "401"},
		{"/status/204", "bob", "GET", "204"}, // nobody asks about it
	} {
		r := m.call("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %header{tulle-reason}", "--path-as-is", "--max-time", "20", "-X", c.method, "-H", "X-User: "+c.user, "http://httpbin:8080"+c.path)
		want := c.want + " "
		if c.want == "401" {
			want += "authz_denied"
		}
		if r.stdout != want {
			t.Errorf("%s %s by %q: %s, want %s", c.method, c.path, c.user, r, want)
		}
	}
	again(t, m)
}

// again: who is refused by now loses what is open, and nobody else does.
func again(t *testing.T, m *mesh) {
	m.apply(guarded("service: {name: opa, port: 8181}, protocol: HTTP, path: /v1/data/ok, timeout: 5s, requestHeaders: [x-user], askAgain: 1s"))
	open := map[string]*process{}
	for _, user := range []string{"alice", "carol"} {
		open[user] = m.run([]string{"--service", "shell"}, "curl", "-sSN", "-H", "X-User: "+user, "http://httpbin:8080/drip?duration=100&numbytes=100&delay=0")
		eventually(t, patience, user+" gets something", func() error {
			if open[user].stdout() == "" {
				return errors.New(open[user].stderr())
			}
			return nil
		})
	}
	if out := m.ok(m.call("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "-H", "Content-Type: application/json", "-d", "true", "http://opa:8181/v1/data/gone/carol")); out != "204" {
		t.Fatalf("OPA does not take it: %s", out)
	}
	if code := open["carol"].wait(patience); code != 18 && code != 56 && code != 92 { // broken off
		t.Errorf("carol's stream ended with %d: %s", code, open["carol"].stderr())
	}
	if open["alice"].ended() {
		t.Errorf("alice's stream has ended: %s", open["alice"].stderr())
	}
	open["alice"].stop(patience)
}
