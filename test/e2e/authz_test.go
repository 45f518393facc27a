//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// authorize is an AuthorizationPolicy on a service.
func authorize(name, service, spec string) string {
	return fmt.Sprintf("apiVersion: tulle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: %s}]\n%s", name, service, spec)
}

// statuses starts a caller that stays and calls again and again; it answers the last status.
func (m *mesh) statuses(service, url string) func() string {
	p := m.run([]string{"--service", service}, "sh", "-c", "while :; do curl -s -o /dev/null -w '%{http_code}\\n' --max-time 5 "+url+"; sleep 0.02; done")
	return func() string {
		text := strings.TrimSuffix(p.stdout(), "\n")
		return text[strings.LastIndexByte(text, '\n')+1:]
	}
}

// as is call by another service.
func (m *mesh) as(service string, command ...string) result {
	return m.finish(m.runCommand([]string{"--service", service}, command...))
}

// foretold reports whether 'tulle authz check' says what the proxy has done.
func (m *mesh) foretold(allowed, unreadable bool, question ...string) {
	m.t.Helper()
	r := m.cli(append([]string{"authz", "check"}, question...)...)
	if (r.code == 0) != allowed || r.code > 1 || strings.Contains(r.stdout, "400, path: ") != unreadable {
		m.t.Errorf("authz check %q: %s", question, r)
	}
}

// TestAuthorization: what policies say is what workloads' own proxies do, on requests, connections, and what is open already.
func TestAuthorization(t *testing.T) {
	server, cli := program(t, "redis-server", "redis-server"), program(t, "redis-cli", "redis-tools")
	m := newMesh(t)
	web := m.httpbin()
	talk := m.run([]string{"--service", "talk", "--port", "8080", "--port", "9000", "--ready", "http:/healthz"}, self(t), "talk")
	redis := m.run([]string{"--service", "redis", "--port", "6379/tcp"}, server, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", m.dir, "--bind", "127.0.0.1")
	m.announced(talk)
	m.announced(redis)
	m.ok(m.call(cli, "-h", "redis", "ping"))
	load := m.load([]string{"-posts"}, "http://httpbin:8080/anything")
	streams := m.loadBy(4, "talk-load", "talk:8080", "talk:9000")
	shell := m.statuses("visitor", "http://httpbin:8080/get")
	answers := func(what string, status func() string, want string) {
		t.Helper()
		eventually(t, patience, what, func() error {
			if got := status(); got != want {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	answers("nothing is said, everything is allowed", shell, "200")

	t.Run("requests", func(t *testing.T) {
		m.apply(authorize("http", "httpbin", "  rules:\n  - name: readers\n    from: [{serviceAccounts: [shell]}]\n    to: [{methods: [GET], paths: [\"/get*\", \"/status/{code}\"]}]\n  - from: [{serviceAccounts: [load]}]\n"))
		answers("the visitor is refused", shell, "403")
		m.apply(authorize("audit", "httpbin", "  action: Audit\n  rules: [{from: [{serviceAccounts: [load]}]}]\n"))
		m.apply(authorize("later", "httpbin", "  action: Deny\n  dryRun: true\n  rules: [{from: [{serviceAccounts: [load]}]}]\n"))
		for url, want := range map[string]string{"/get?a=/admin": "200", "/status/204": "204", "/status//204": "204", "/%67et": "200", "/x/../get": "200", "/get%2fx": "400", "/ip": "403"} {
			if got := m.ok(m.call("curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080"+url)); got != want {
				t.Errorf("%s: %s", url, got)
			}
			m.foretold(want[0] == '2', want == "400", "--from", "shell", "--to", "httpbin", "--path", url)
		}
		got := m.ok(m.call("curl", "-s", "-i", "-d", "x", "http://httpbin:8080/get"))
		if !strings.HasPrefix(got, "HTTP/1.1 403") || !strings.Contains(got, "tulle-reason: authz_denied") || !strings.Contains(got, "x-request-id: ") || strings.Contains(got, "readers") {
			t.Errorf("the refusal:\n%s", got)
		}
		eventually(t, patience, "the log explains", func() error {
			if text := web.stderr(); !strings.Contains(text, "AuthorizationPolicy/default/http readers: method POST instead of GET") {
				return fmt.Errorf("%s", tail(text))
			}
			return nil
		})
		load.more(50)
		load.flawless() // policies came and went under load, and what stayed allowed has not failed
	})
	t.Run("what is open", func(t *testing.T) {
		m.run([]string{"--service", "batch"}, cli, "-h", "redis", "subscribe", "news")
		reader := m.run([]string{"--service", "reader"}, cli, "-h", "redis", "subscribe", "news")
		subscribed := func(n int) func() error {
			return func() error {
				if got := strings.TrimSpace(m.ok(m.as("publisher", cli, "-h", "redis", "publish", "news", "hello"))); got != fmt.Sprint(n) {
					return fmt.Errorf("%s subscribers", got)
				}
				return nil
			}
		}
		eventually(t, patience, "both are subscribed", subscribed(2))
		m.apply(authorize("db", "redis", "  rules: [{from: [{serviceAccounts: [reader, publisher]}]}]\n"))
		eventually(t, 2*time.Second, "the connection of the one who is not allowed has ended", subscribed(1))
		if r := m.call(cli, "-h", "redis", "ping"); strings.Contains(r.stdout, "PONG") {
			t.Errorf("a stranger has reached the database: %v", r)
		}
		if reader.ended() {
			t.Error("the connection of the one who is allowed has ended")
		}
		m.apply(authorize("talk", "talk", "  action: Deny\n  rules: [{from: [{serviceAccounts: [batch]}]}]\n"))
		streams.more(100)
		if c := streams.counts(); c.Failed > 0 {
			t.Errorf("streams of others have ended: %v", c.Errors)
		}
		m.apply(authorize("talk", "talk", "  action: Deny\n  rules: [{from: [{serviceAccounts: [load]}]}]\n"))
		eventually(t, 3*time.Second, "streams end", func() error {
			c := streams.counts()
			for _, kind := range []string{"websocket", "grpc"} {
				if !strings.Contains(fmt.Sprint(c.Errors), kind) {
					return fmt.Errorf("%v", c.Errors)
				}
			}
			return nil
		})
		streams.p.killAll()
		m.apply(authorize("db", "redis", fmt.Sprintf("  rules:\n  - {from: [{serviceAccounts: [publisher]}]}\n  - {from: [{serviceAccounts: [reader]}], notAfter: %q}\n",
			time.Now().Add(2*time.Second).UTC().Format(time.RFC3339))))
		eventually(t, 5*time.Second, "the connection of the one whose time is over has ended", subscribed(0))
	})
	t.Run("without a control plane", func(t *testing.T) {
		allowed := m.statuses("load", "http://httpbin:8080/get")
		answers("allowed", allowed, "200")
		m.control.killAll()
		proxy := web.proxyOf()
		kill([]int{proxy})
		eventually(t, patience, "another proxy", func() error {
			if q := web.proxyOf(); q == 0 || q == proxy {
				return fmt.Errorf("process %d", q)
			}
			return nil
		})
		answers("it enforces what the one before knew", shell, "403")
		answers("nobody else is refused", allowed, "200")
		m.up()
	})
	t.Run("nothing by default", func(t *testing.T) {
		other := m.statuses("visitor2", "http://talk:8080/healthz")
		answers("no policy is about it", other, "200")
		m.ok(m.cliInput(authorize("talk", "talk", "  rules: []\n"), "delete", "-f", "-"))
		m.apply("apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {authorization: {default: Deny}}\n")
		answers("the mesh allows nothing by itself", other, "403")
		m.apply(authorize("talk", "talk", "  rules: [{from: [{serviceAccounts: [visitor2]}], to: [{ports: [\"8080\"]}]}]\n"))
		answers("until a policy does", other, "200")
	})
}
