//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestControlPlaneKilled: traffic goes on without a control plane, and the next one knows everything.
func TestControlPlaneKilled(t *testing.T) {
	m := newMesh(t)
	m.httpbin("--service", "reviews", "--version", "v1")
	m.httpbin("--service", "reviews", "--version", "v2")
	m.apply(weights(50, 50))
	l := m.load([]string{"-posts"}, "http://reviews:8080/anything")
	before := knowledge(m)
	m.control.killAll()
	always(t, 3*time.Second, "traffic without a control plane", func() error {
		if c := l.counts(); c.Failed > 0 {
			return fmt.Errorf("%d requests failed: %v", c.Failed, c.Errors)
		}
		return nil
	})
	l.more(200)

	m.up()
	if got := knowledge(m); got.objects != before.objects || got.services != before.services {
		t.Errorf("after the restart objects and services are\n%s\nthey were\n%s", got, before)
	}
	eventually(t, patience, "all workloads are back", func() error {
		if got := knowledge(m); got != before {
			return fmt.Errorf("\n%s\nbefore:\n%s", got, before)
		}
		return nil
	})
	// They are not only remembered: they are held, and newcomers are let in.
	if got := m.curl("-o", "/dev/null", "-w", "%{http_code}", "http://reviews:8080/anything"); got != "200" {
		t.Errorf("a newcomer's call: %s", got)
	}
	m.podinfo("newcomer", "--service", "newcomer")
	if got := m.curl("http://newcomer:8080/"); !strings.Contains(got, "newcomer") {
		t.Errorf("a call of a newcomer: %s", got)
	}
	m.apply(weights(100, 0))
	always(t, 11*time.Second, "nobody is forgotten when the time of grace is over", func() error {
		if n := m.instances("reviews.default:8080"); n != 2 {
			return fmt.Errorf("reviews has %d endpoints", n)
		}
		return nil
	})
	l.more(200)
	l.flawless()
}

// known is what a control plane knows.
type known struct{ objects, services, endpoints string }

func (k known) String() string { return k.objects + k.services + k.endpoints }

func knowledge(m *mesh) known {
	m.t.Helper()
	var k known
	k.objects = m.ok(m.cli("get", "httproute", "reviews", "-o", "yaml"))
	k.objects, _, _ = strings.Cut(k.objects, "\nstatus:")
	for _, s := range m.status().Services {
		k.services += fmt.Sprintln(s.Name, s.VIP4, s.VIP6, s.Ports, s.Implicit)
	}
	for _, s := range m.endpoints() {
		for _, e := range s.Endpoints {
			k.endpoints += fmt.Sprintln(s.Cluster, e.Workload, e.Address, e.Port, e.Version, e.Health, e.Identity)
		}
	}
	return k
}

// TestInstanceKilled: one of two instances dies with its proxy. No idempotent request fails.
func TestInstanceKilled(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	m.httpbin()
	l := m.load(nil, "http://httpbin:8080/anything")
	var times []time.Duration
	for range 3 {
		begin := time.Now()
		p.killAll()
		eventually(t, patience, "its endpoint is gone", func() error {
			if n := m.instances("httpbin.default:8080"); n != 1 {
				return fmt.Errorf("%d endpoints", n)
			}
			return nil
		})
		times = append(times, time.Since(begin).Round(10*time.Millisecond))
		l.more(100)
		p = m.httpbin()
		l.more(100)
	}
	t.Logf("the endpoint was gone after %v", times)
	if slices.Max(times) > 3*time.Second {
		t.Errorf("the endpoint was gone after %v, want at most 3s each", times)
	}
	l.flawless()
}

// TestInstanceKilledInResponse: at most the responses that have begun fail.
func TestInstanceKilledInResponse(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	m.httpbin()
	l := m.load(nil, "http://httpbin:8080/drip?numbytes=20&duration=0.2&delay=0.1")
	p.killAll()
	l.more(100)
	c := l.finish()
	// Responses that had begun are lost with their instance; every other request is not.
	if c.Failed > l.connections {
		t.Errorf("%d requests failed, at most the %d in flight may: %v", c.Failed, l.connections, c.Errors)
	}
}

// TestProxyCrash: a proxy dies; the program beside it does not notice.
func TestProxyCrash(t *testing.T) {
	m := newMesh(t)
	server := m.httpbin()
	client := m.run([]string{"--service", "client"}, "sh", "-c", "while true; do curl -s -o /dev/null -w '%{http_code}\\n' --max-time 2 http://httpbin:8080/get; sleep 0.02; done")
	flows := func() {
		t.Helper()
		before := strings.Count(client.stdout(), "200\n")
		eventually(t, patience, "calls are answered", func() error {
			if n := strings.Count(client.stdout(), "200\n"); n < before+10 {
				return fmt.Errorf("%d after %d; %s", n, before, tail(client.stderr()))
			}
			return nil
		})
	}
	flows()
	for name, p := range map[string]*process{"server": server, "client": client} {
		programs := fmt.Sprint(server.programOf("go-httpbin"), client.programOf("sh"))
		proxy := p.proxyOf()
		if proxy == 0 {
			t.Fatalf("the %s has no proxy", name)
		}
		begin := time.Now()
		kill([]int{proxy})
		eventually(t, patience, "another proxy", func() error {
			if q := p.proxyOf(); q == 0 || q == proxy {
				return fmt.Errorf("process %d", q)
			}
			return nil
		})
		flows()
		t.Logf("the proxy of the %s was replaced and calls flowed after %s", name, time.Since(begin).Round(time.Millisecond))
		if now := fmt.Sprint(server.programOf("go-httpbin"), client.programOf("sh")); now != programs {
			t.Errorf("the programs were the processes %s, now they are %s", programs, now)
		}
	}
	eventually(t, patience, "one endpoint", func() error {
		if n := m.instances("httpbin.default:8080"); n != 1 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
}

// TestPartKilled: only the program, or only the proxy, of one of two instances dies. No idempotent request fails.
func TestPartKilled(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	l := m.load(nil, "http://httpbin:8080/anything")
	for range 2 {
		p := m.httpbin()
		l.more(100)
		kill([]int{p.proxyOf()})
		l.more(200)
		kill([]int{p.programOf("go-httpbin")})
		if code := p.wait(patience); code != 128+9 {
			t.Errorf("the program was killed, the exit code is %d", code)
		}
		l.more(100)
	}
	l.flawless()
}

// TestGracefulStop: an instance that is asked to end loses nothing, neither do instances that come.
func TestGracefulStop(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	m.httpbin()
	l := m.load([]string{"-posts"}, "http://httpbin:8080/anything")
	for range 2 {
		p.signal(syscall.SIGTERM)
		if code := p.wait(patience); code != 0 {
			t.Errorf("the instance ended with %d: %s", code, p.stderr())
		}
		l.more(100)
		p = m.httpbin()
		l.more(100)
	}
	l.flawless()
}

// TestGracefulStopGRPC: likewise for calls that may not be repeated, over the one connection that gRPC has.
func TestGracefulStopGRPC(t *testing.T) {
	m := newMesh(t)
	instance := func() *process {
		p := m.run([]string{"--service", "health", "--port", "9999/grpc", "--ready", "tcp"}, binary(t, "podinfo"), "--port", "9898", "--grpc-port", "9999", "--level", "debug")
		m.announced(p)
		return p
	}
	p := instance()
	instance()
	l := m.loadBy(1, "grpc-load", "health:9999", "podinfo")
	for range 2 {
		p.signal(syscall.SIGTERM)
		p.wait(patience)
		l.more(100)
		p = instance()
		l.more(100)
	}
	l.flawless()
}

// TestStartedFirst: a workload may be started a moment before its control plane is, also where one has died.
func TestStartedFirst(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	m.control.killAll()
	p := m.run([]string{"--service", "early"}, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get")
	m.up()
	if code := p.wait(patience); code != 0 || p.stdout() != "200" {
		t.Errorf("exit code %d, %q, %s", code, p.stdout(), p.stderr())
	}
}

// TestSupervisorKilled: neither program nor proxy outlives its supervisor.
func TestSupervisorKilled(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	all := descendants(p.pid())
	if len(all) != 2 {
		t.Fatalf("a supervisor has %d descendants, want a proxy and a program", len(all))
	}
	kill([]int{p.pid()})
	eventually(t, patience, "both end", func() error {
		for _, q := range all {
			if syscall.Kill(q, 0) == nil {
				return fmt.Errorf("process %d runs", q)
			}
		}
		return nil
	})
}

// TestNothingLost: what was acknowledged is there after kill -9 at any moment.
func TestNothingLost(t *testing.T) {
	m := newMesh(t)
	m.podinfo("is v1", "--service", "reviews", "--version", "v1")
	const clients = 4
	for round := range 3 {
		acknowledged := make([]int, clients)
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for n := 1; ; n++ {
					c := m.command("apply", "-f", "-", "--data-dir", m.data)
					c.Stdin = strings.NewReader(strings.Replace(reviewsRoute(fmt.Sprintf("  - timeouts: {request: %dms}\n    backendRefs: [{name: reviews-v1, port: 8080}]\n", n)),
						"metadata: {name: reviews}", fmt.Sprintf("metadata: {name: r%d-%d}", round, i), 1))
					if c.Run() != nil {
						return
					}
					acknowledged[i] = n
				}
			})
		}
		eventually(t, patience, "some changes", func() error {
			if n := strings.Count(m.ok(m.cli("get", "httproutes", "-o", "json")), fmt.Sprintf(`"name": "r%d-`, round)); n < clients {
				return fmt.Errorf("%d routes", n)
			}
			return nil
		})
		m.control.killAll()
		all.Wait()
		m.up()
		for i, n := range acknowledged {
			text := m.ok(m.cli("get", "httproute", fmt.Sprintf("r%d-%d", round, i), "-o", "yaml"))
			var stored int
			if _, after, ok := strings.Cut(text, "request: "); ok {
				fmt.Sscanf(after, "%dms", &stored)
			}
			if stored < n {
				t.Errorf("change %d of route %d was acknowledged, stored is %d:\n%s", n, i, stored, text)
			}
		}
		t.Logf("acknowledged: %v", acknowledged)
	}
}

// TestDeathUnseen: an instance dies while there is no control plane. Its callers do without it, and the next
// control plane finds out.
func TestDeathUnseen(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	m.httpbin()
	l := m.load(nil, "http://httpbin:8080/anything")
	m.control.killAll()
	p.killAll()
	l.more(200)
	m.up()
	if n := m.instances("httpbin.default:8080"); n != 2 {
		t.Errorf("just after the start httpbin has %d endpoints: nobody is forgotten so early", n)
	}
	eventually(t, patience, "the dead one is gone", func() error {
		if n := m.instances("httpbin.default:8080"); n != 1 {
			return fmt.Errorf("%d endpoints", n)
		}
		return nil
	})
	l.more(200)
	l.flawless()
}
