//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestDNS: what names mean inside the mesh, with the C library's own resolver.
func TestDNS(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	names := m.ok(m.call("sh", "-c", "for n in httpbin httpbin.default httpbin.default.svc.cluster.local; do getent ahostsv4 $n | awk 'NR==1 {print $1}'; done"))
	all := strings.Fields(names)
	if len(all) != 3 || all[0] != all[1] || all[1] != all[2] {
		t.Fatalf("the three names of a service mean %q", names)
	}
	v4 := netip.MustParseAddr(all[0])
	if !netip.MustParsePrefix("198.18.0.0/15").Contains(v4) {
		t.Errorf("httpbin is %s, which is not in 198.18.0.0/15", v4)
	}
	text := strings.Fields(m.ok(m.call("getent", "ahostsv6", "httpbin")))[0]
	if v6, err := netip.ParseAddr(text); err != nil || !netip.MustParsePrefix("fd74:756c:6c65::/64").Contains(v6) {
		t.Errorf("httpbin is %s, which is not in fd74:756c:6c65::/64", text)
	}
	if r := m.call("getent", "hosts", "no-such-service"); r.code != 2 {
		t.Errorf("a service that does not exist: %s", r)
	}
	if r := m.call("getent", "hosts", "no-such-service.default.svc.cluster.local"); r.code != 2 {
		t.Errorf("a service that does not exist, in full: %s", r)
	}
	if got := m.ok(m.call("getent", "ahostsv4", "localhost")); !strings.HasPrefix(got, "127.0.0.1") {
		t.Errorf("localhost: %s", got)
	}

	// The address stays, whoever ends in between.
	m.control.killAll()
	m.up()
	if got := m.address("httpbin"); got != v4.String() {
		t.Errorf("after the control plane was killed httpbin is %s, it was %s", got, v4)
	}
	p.stop(patience)
	if got := m.address("httpbin"); got != v4.String() {
		t.Errorf("without an instance httpbin is %s, it was %s", got, v4)
	}
	m.control.stop(patience)
	m.up()
	m.httpbin()
	if got := m.address("httpbin"); got != v4.String() {
		t.Errorf("after everything was ended httpbin is %s, it was %s", got, v4)
	}
	if got := m.curl("-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", "-4", "http://httpbin:8080/get"); got != "200 "+v4.String() {
		t.Errorf("a call: %s", got)
	}
}

// address answers the IPv4 address of a name inside the mesh.
func (m *mesh) address(name string) string {
	m.t.Helper()
	r := m.call("getent", "ahostsv4", name)
	address, _, _ := strings.Cut(m.ok(r), " ")
	return address
}

// TestNamespaces: a short name means the caller's own namespace.
func TestNamespaces(t *testing.T) {
	m := newMesh(t)
	m.podinfo("of default", "--service", "web")
	m.podinfo("of team", "--service", "web", "--namespace", "team")
	for _, c := range []struct{ namespace, host, want string }{
		{"default", "web", "of default"}, {"team", "web", "of team"}, {"default", "web.team", "of team"}, {"team", "web.default.svc.cluster.local", "of default"},
	} {
		got := m.ok(m.finish(m.runCommand([]string{"--service", "shell", "--namespace", c.namespace}, "curl", "-sS", "http://"+c.host+":8080/")))
		if !strings.Contains(got, c.want) {
			t.Errorf("%s from namespace %s is %s, want %q", c.host, c.namespace, got, c.want)
		}
	}
}

// TestPublishForward: into the mesh from outside, and out of it.
func TestPublishForward(t *testing.T) {
	m := newMesh(t)
	published, forwarded := freePort(t), freePort(t)
	l, err := net.Listen("tcp", "127.0.0.1:"+forwarded)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "of the machine") })}
	go server.Serve(l)
	defer server.Close()

	p := m.httpbin("--publish", published)
	curl := program(t, "curl", "curl")
	for range 3 {
		r := finish(t, exec.Command(curl, "-sS", "-d", strings.Repeat("p", 100000), "http://127.0.0.1:"+published+"/post"), patience)
		if m.ok(r); !strings.Contains(r.stdout, strings.Repeat("p", 100000)) || !strings.Contains(r.stdout, `"X-Request-Id"`) {
			t.Errorf("a call from outside: %s", r)
		}
	}
	run := func(flags []string, url string) result {
		return m.finish(m.runCommand(append([]string{"--service", "shell"}, flags...), "curl", "-sS", "--max-time", "10", url))
	}
	if r := run([]string{"--forward", forwarded}, "http://127.0.0.1:"+forwarded+"/"); r.stdout != "of the machine" {
		t.Errorf("a forwarded port: %s", r)
	}
	if r := run([]string{"--forward", "81=127.0.0.1:" + forwarded}, "http://localhost:81/"); r.stdout != "of the machine" {
		t.Errorf("a port forwarded under another number: %s", r)
	}
	if r := run(nil, "http://127.0.0.1:"+forwarded+"/"); r.code != 7 {
		t.Errorf("a port that was not forwarded: %s", r)
	}
	p.signal(syscall.SIGTERM)
	p.wait(patience)
	if c, err := net.Dial("tcp", "127.0.0.1:"+published); err == nil {
		c.Close()
		t.Error("the published port is open after the workload has ended")
	}
}

// TestOutside: addresses that are not in the mesh are reached as always. The server is on the machine's own address.
func TestOutside(t *testing.T) {
	host := machineAddress(t)
	if host == "" {
		t.Fatal("TestOutside needs an address that is not the loopback's: connect the machine to a network")
	}
	m := newMesh(t)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "outside saw %s", r.Host) })}
	go server.Serve(l)
	defer server.Close()
	if got := m.curl("http://" + l.Addr().String() + "/"); got != "outside saw "+l.Addr().String() {
		t.Errorf("a server outside of the mesh: %s", got)
	}
	closed := net.JoinHostPort(host, freePort(t))
	if r := m.call(self(t), "dial", closed); !strings.HasPrefix(r.stdout, "ECONNRE") {
		t.Errorf("a port outside on which nobody listens: %s", r)
	}
}
