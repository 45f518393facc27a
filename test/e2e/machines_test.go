//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/testenv"
	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Tests whose names begin with TestRoot need root, here to make the machines; tools/check leaves them out when it runs
// the tests as an ordinary user, and only then.

// machines are two network namespaces with a wire between them, ended with the test.
func machines(t *testing.T) (here, there []string, hereIP, thereIP string) {
	t.Helper()
	testenv.NeedRoot(t)
	ip := program(t, "ip", "iproute2")
	names := [2]string{fmt.Sprintf("tulle-e2e-%d-a", os.Getpid()), fmt.Sprintf("tulle-e2e-%d-b", os.Getpid())}
	addrs := [2]string{"10.231.7.1", "10.231.7.2"}
	run := func(line string) {
		t.Helper()
		if out, err := exec.Command(ip, strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	for _, n := range names {
		run("netns add " + n)
		t.Cleanup(func() { exec.Command(ip, "netns", "delete", n).Run() })
	}
	run(fmt.Sprintf("link add w0 netns %s type veth peer name w0 netns %s", names[0], names[1]))
	for i, n := range names {
		run("-n " + n + " link set lo up")
		run("-n " + n + " address add " + addrs[i] + "/24 dev w0")
		run("-n " + n + " link set w0 up")
	}
	return []string{ip, "netns", "exec", names[0]}, []string{ip, "netns", "exec", names[1]}, addrs[0], addrs[1]
}

// far is another machine of a mesh.
type far struct {
	*mesh
	address string // of the control plane, as it is known there
	tokens  *mesh  // where tokens are made
}

// token makes a join token.
func (f *far) token(args ...string) string {
	f.t.Helper()
	return strings.TrimSpace(f.tokens.ok(f.tokens.cli(append([]string{"token"}, args...)...)))
}

// run starts a workload there, with a token of its own, which is used up with that.
func (f *far) run(flags []string, command ...string) *process {
	f.t.Helper()
	return f.mesh.run(append(flags, "--control", f.address, "--token", f.token("--any")), command...)
}

// call runs a program there as a pure client, to its end.
func (f *far) call(command ...string) result {
	f.t.Helper()
	return f.finish(f.runCommand([]string{"--service", "shell", "--control", f.address, "--token", f.token("--any")}, command...))
}

func newMachines(t *testing.T, listen string) (*mesh, *far) {
	t.Helper()
	here, there, hereIP, _ := machines(t)
	dir := tempDir(t)
	if listen == "" {
		listen = hereIP
	}
	m := &mesh{t: t, tulle: binary(t, "tulle"), dir: dir, data: filepath.Join(dir, "d"), on: here,
		http: net.JoinHostPort(listen, "7070"), grpc: net.JoinHostPort(listen, "15012")}
	m.up()
	other := *m
	other.on, other.data, other.dir = there, filepath.Join(dir, "d2"), filepath.Join(dir, "o")
	return m, &far{mesh: &other, address: hereIP, tokens: m}
}

var hello = []string{"--port", "8080", "--ready", "http:/readyz"}

func (m *mesh) helloProgram(message string) []string {
	return []string{binary(m.t, "podinfo"), "--port", "8080", "--ui-message", message, "--level", "debug"}
}

// TestRootTwoMachines: a workload of another machine joins with a token, calls go both ways over mTLS, and what was
// used up or is away later is not needed again.
func TestRootTwoMachines(t *testing.T) {
	for _, listen := range []string{"", "0.0.0.0"} {
		t.Run("listening on "+listen, func(t *testing.T) { twoMachines(t, listen) })
	}
}

func twoMachines(t *testing.T, listen string) {
	m, there := newMachines(t, listen)
	m.podinfo("this is near", "--service", "near")
	p := there.run(append([]string{"--service", "far"}, hello...), m.helloProgram("this is far")...)
	m.announced(p)

	curl := []string{"curl", "-sS", "--fail-with-body", "--max-time", "10"}
	calls := func(when string) {
		t.Helper()
		for _, x := range []struct{ from, to string }{{"here", "near"}, {"here", "far"}, {"there", "near"}, {"there", "far"}} {
			call := m.call
			if x.from == "there" {
				call = there.call
			}
			if r := call(append(curl, "http://"+x.to+":8080/")...); !strings.Contains(r.stdout, "this is "+x.to) {
				t.Fatalf("%s, from %s to %s: %s", when, x.from, x.to, r)
			}
		}
	}
	calls("at first")
	eventually(t, patience, "every edge is known", func() error {
		edges := 0
		for _, e := range decode[[]telemetry.Edge](t, m.ok(m.cli("stat", "--window", "1m", "-o", "json"))) {
			if e.Destination == "" {
				continue
			}
			if edges++; !e.MTLS {
				t.Fatalf("not over mTLS: %+v", e)
			}
		}
		if edges < 2 {
			return fmt.Errorf("%d edges", edges)
		}
		return nil
	})
	if s := m.status(); len(s.Proxies) < 2 || s.Proxies[0].Workload == "" {
		t.Errorf("proxies: %+v", s.Proxies)
	}
	m.ok(m.cli("check"))
	t.Run("what a proxy remembers is told to who cannot reach it", func(t *testing.T) {
		m.ok(m.call(append(curl, "-H", "x-request-id: near-and-far", "http://far:8080/")...))
		views := decode[[]flight.Explained](t, m.ok(m.cli("explain", "near-and-far", "-o", "json")))
		if at := len(views) - 1; at < 0 || views[at].Service != "far" || views[at].Direction != "inbound" || views[at].Status != 200 {
			t.Errorf("%+v", views)
		}
	})

	t.Run("what the control plane listens on is not for programs", func(t *testing.T) {
		for _, port := range []string{"7070", "15012"} {
			if r := m.ok(m.call(self(t), "dial", net.JoinHostPort(there.address, port), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")); !strings.HasPrefix(r, "ECONNRESET ") {
				t.Errorf("port %s: %s", port, r)
			}
		}
	})
	t.Run("a token lets in whom it is for, as often as it says", func(t *testing.T) { tokens(t, there) })
	t.Run("a proxy that is killed comes back with its identity", func(t *testing.T) {
		p.killProxy()
		calls("after the proxy was killed")
		l := m.load(nil, "http://far:8080/")
		m.control.killAll()
		p.killProxy()
		l.more(200)
		if c := l.finish(); c.Failed > l.connections {
			t.Errorf("more failed than was under way: %v", c.Errors)
		}
	})
}

func tokens(t *testing.T, there *far) {
	try := func(token string, flags ...string) result {
		t.Helper()
		begin := time.Now()
		r := there.finish(there.runCommand(append([]string{"--service", "shell", "--control", there.address, "--token", token}, flags...), "true"))
		if d := time.Since(begin); d > 4*time.Second {
			t.Errorf("took %s: %s", d, r)
		}
		return r
	}
	refused := func(what string, r result) {
		t.Helper()
		if r.code != 1 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "token") {
			t.Errorf("%s: %s", what, r)
		}
	}
	once := there.token("--namespace", "team", "--service-account", "shell")
	refused("for another namespace", try(once))
	refused("for another service account", try(once, "--namespace", "team", "--service-account", "root"))
	there.ok(try(once, "--namespace", "team"))
	refused("a second time", try(once, "--namespace", "team"))
	refused("not a token", try("nonsense"))
}

// killProxy kills the proxy of a workload and waits for the next one.
func (p *process) killProxy() {
	p.t.Helper()
	was := p.proxyOf()
	if was == 0 {
		p.t.Fatalf("%s has no proxy", p.name)
	}
	if err := syscall.Kill(was, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, patience, "the next proxy", func() error {
		if now := p.proxyOf(); now == 0 || now == was {
			return errors.New("none")
		}
		return nil
	})
}
