//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestControlPlaneLocal: what a control plane opens, to whom, and how long it takes.
func TestControlPlaneLocal(t *testing.T) {
	begin := time.Now()
	m := newMesh(t)
	t.Logf("measured: ready after %s, with a new data folder", time.Since(begin).Round(time.Millisecond))
	m.httpbin()
	private(t, m.data)

	var tcp []string
	for _, line := range socketsOf(t, m.control.pid()) {
		switch {
		case strings.HasPrefix(line, "unix @"):
			t.Errorf("the control plane has the abstract socket %s, which every user can connect to", line)
		case strings.HasPrefix(line, "tcp "):
			tcp = append(tcp, strings.TrimPrefix(line, "tcp "))
		}
	}
	if got, want := fmt.Sprint(len(tcp)), "2"; got != want || !strings.Contains(fmt.Sprint(tcp), m.http) || !strings.Contains(fmt.Sprint(tcp), m.grpc) {
		t.Errorf("the control plane listens on %v, want %s and %s", tcp, m.http, m.grpc)
	}

	// One folder has one control plane.
	second := m.command("up", "--data-dir", m.data, "--http-listen", freeAddress(t), "--grpc-listen", freeAddress(t))
	if r := m.finish(second); r.code == 0 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, fmt.Sprint(m.control.pid())) {
		t.Errorf("a second control plane on the same folder: %s", r)
	}
	if r := m.cli("check"); r.code != 0 {
		t.Errorf("tulle check: %s", r)
	}

	begin = time.Now()
	m.control.killAll()
	m.up()
	t.Logf("measured: ready again after kill -9: %s", time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	m.control.signal(15)
	if code := m.control.wait(patience); code != 0 {
		t.Errorf("SIGTERM: exit code %d", code)
	}
	t.Logf("measured: ended after %s", time.Since(begin).Round(time.Millisecond))
}

// socketsOf answers the sockets on which a process listens, as "tcp ADDRESS" or "unix PATH"; @ begins an abstract one.
func socketsOf(t *testing.T, pid int) []string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("the files of process %d: %v", pid, err)
	}
	mine := map[string]bool{}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "socket:[") {
			mine[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	var out []string
	for line := range strings.Lines(readText(fmt.Sprintf("/proc/%d/net/unix", pid))) {
		if f := strings.Fields(line); len(f) == 8 && mine[f[6]] && f[3] == "00010000" { // it listens
			out = append(out, "unix "+f[7])
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		for line := range strings.Lines(readText(fmt.Sprintf("/proc/%d/net/%s", pid, table))) {
			f := strings.Fields(line)
			if len(f) < 10 || !mine[f[9]] || f[3] != "0A" { // LISTEN
				continue
			}
			var a [4]byte
			var port int
			if _, err := fmt.Sscanf(f[1], "%02X%02X%02X%02X:%04X", &a[3], &a[2], &a[1], &a[0], &port); err != nil || table == "tcp6" {
				out = append(out, "tcp "+f[1])
				continue
			}
			out = append(out, fmt.Sprintf("tcp %s:%d", net.IP(a[:]), port))
		}
	}
	return out
}

// TestExternalEtcd: the same control plane with its state in somebody else's etcd.
func TestExternalEtcd(t *testing.T) {
	etcd := program(t, "etcd", "etcd-server")
	client, peer := "http://"+freeAddress(t), "http://"+freeAddress(t)
	dir := tempDir(t)
	start(t, "etcd", exec.Command(etcd, "--data-dir", filepath.Join(dir, "e"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error"))
	m := newMesh(t, "--etcd-endpoints", client)
	if exists(filepath.Join(m.data, "etcd")) {
		t.Error("there is an embedded etcd as well")
	}
	if got := m.status().Control.Store; !strings.Contains(got, client) {
		t.Errorf("the status says that the store is %q", got)
	}
	m.httpbin("--service", "reviews", "--version", "v1")
	m.httpbin("--service", "reviews", "--version", "v2")
	m.apply(weights(50, 50))
	before := knowledge(m)
	l := m.load(nil, "http://reviews:8080/anything")
	m.control.killAll()
	m.up()
	eventually(t, patience, "everything is back", func() error {
		if got := knowledge(m); got != before {
			return fmt.Errorf("\n%s\nbefore:\n%s", got, before)
		}
		return nil
	})
	l.more(100)
	l.flawless()
}

// TestCommands: every listing in every format, and the errors that everybody makes.
func TestCommands(t *testing.T) {
	m := newMesh(t)
	m.httpbin("--service", "reviews", "--version", "v1")
	m.httpbin("--service", "reviews", "--version", "v2")
	m.apply(weights(90, 10))
	l := m.load(nil, "http://reviews:8080/anything")
	for command, want := range map[string]string{
		"status": "reviews.default", "endpoints": "reviews-v1", "endpoints reviews": "127.0.0.1:", "routes": "90%", "routes reviews": "reviews-v2.default:8080 10%",
		"stat --window 5s": "load.default", "check": "ok", "cert": "intermediate", "get httproutes": "True", "get httproute reviews": "reviews",
	} {
		eventually(t, patience, command, func() error { // what flows is reported once a second
			if r := m.cli(strings.Fields(command)...); r.code != 0 || !strings.Contains(r.stdout, want) {
				return fmt.Errorf("want %q: %s", want, r)
			}
			return nil
		})
		text := m.ok(m.cli(append(strings.Fields(command), "-o", "json")...))
		if _, err := json.MarshalIndent(decode[any](t, text), "", "  "); err != nil || len(text) < 10 {
			t.Errorf("%s -o json: %s", command, text)
		}
		if text := m.ok(m.cli(append(strings.Fields(command), "-o", "yaml")...)); len(text) < 10 || strings.HasPrefix(text, "{") {
			t.Errorf("%s -o yaml: %s", command, text)
		}
	}
	l.flawless()
	for command, want := range map[string]string{
		"stat -o xml": "json", "statsu": "status", "get wombats": "wombats", "get httproute nobody": "nobody", "delete httproute nobody": "nobody",
		"apply -f /no/such/file.yaml": "/no/such/file.yaml", "apply": "-f", "endpoints nobody": "nobody", "up --no-such-flag": "--help",
		"up --http-listen " + m.http: "", "run -- true": "--service", "run --service Bad -- true": "Bad", "run --service a --port x -- true": "--port",
	} {
		r := m.cli(strings.Fields(command)...)
		if strings.HasPrefix(command, "run ") {
			r = m.finish(m.command(strings.Fields(command)...))
		}
		if r.code == 0 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, want) || r.stdout != "" {
			t.Errorf("%s: want one line with %q: %s", command, want, r)
		}
	}
}

// TestJoinToken: a workload that reaches the control plane over the network only, as from another machine.
func TestJoinToken(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	token := strings.TrimSpace(m.ok(m.cli("token", "--service", "remote")))
	remote := func(token string) result {
		c := m.command("run", "--data-dir", filepath.Join(m.dir, "r"), "--control", m.grpc, "--token", token, "--service", "remote", "--",
			"curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get")
		return m.finish(c)
	}
	lines := strings.Split(token, "\n")
	if r := remote(lines[len(lines)-1]); r.stdout != "200" {
		t.Errorf("a call from a workload with a token: %s", r)
	}
	if r := remote("wrong"); r.code == 0 || r.stdout != "" {
		t.Errorf("a workload with a wrong token: %s", r)
	}
}

// TestDemo: the demo without a terminal, with two deaths in it. It leaves nothing behind.
func TestDemo(t *testing.T) {
	m := &mesh{t: t, tulle: binary(t, "tulle"), dir: tempDir(t)}
	before := map[int]bool{}
	for _, p := range processes() {
		before[p.pid] = true
	}
	c := m.command("demo", "--for", "20s", "--json")
	c.Env = append(c.Env, "TMPDIR="+m.dir)
	p := start(t, "tulle demo", c)
	eventually(t, 60*time.Second, "traffic on every edge", func() error {
		if !strings.Contains(p.stderr(), "traffic on every edge") || p.ended() {
			return errors.New(p.stderr())
		}
		return nil
	})
	// What the tour does by keys: an instance of two dies, the control plane dies.
	for _, what := range []string{"--service catalog ", "up --data-dir "} {
		victim := 0
		for _, q := range processes() {
			if q.parent == p.pid() && strings.Contains(q.command, what) {
				victim = q.pid
			}
		}
		if victim == 0 {
			t.Fatalf("the demo has no process %q", what)
		}
		kill(append([]int{victim}, descendants(victim)...))
	}
	if code := p.wait(2 * time.Minute); code != 0 {
		t.Errorf("the demo ended with %d", code)
	}
	got := decode[struct {
		Edges []struct {
			Source, Destination string
			Requests, Failures  int
			P50                 float64 `json:"p50_ms"`
			P99                 float64 `json:"p99_ms"`
			MTLS                bool    `json:"mtls"`
		}
	}](t, p.stdout())
	if len(got.Edges) < 6 {
		t.Errorf("only %d edges: %s", len(got.Edges), p.stdout())
	}
	for _, e := range got.Edges {
		if e.Requests == 0 || e.Failures > 0 || !e.MTLS {
			t.Errorf("%+v", e)
		}
	}
	t.Logf("%s", p.stdout())
	nothingLeft(t, m.dir, before)
}

// TestDemoInterrupted: Ctrl-C at any time, and everything is gone.
func TestDemoInterrupted(t *testing.T) {
	m := &mesh{t: t, tulle: binary(t, "tulle"), dir: tempDir(t)}
	before := map[int]bool{}
	for _, p := range processes() {
		before[p.pid] = true
	}
	c := m.command("demo")
	c.Env = append(c.Env, "TMPDIR="+m.dir)
	p := start(t, "tulle demo", c)
	eventually(t, 60*time.Second, "the workloads are being started", func() error {
		if len(descendants(p.pid())) < 10 {
			return errors.New(p.stderr())
		}
		return nil
	})
	p.signal(2)
	p.wait(60 * time.Second)
	nothingLeft(t, m.dir, before)
}

// nothingLeft checks for processes and files of a demo in a folder.
func nothingLeft(t *testing.T, dir string, before map[int]bool) {
	t.Helper()
	eventually(t, patience, "no process is left", func() error {
		for _, q := range processes() {
			// A proxy is not told its folder in its arguments: its environment has it.
			env := readText(fmt.Sprintf("/proc/%d/environ", q.pid))
			if !before[q.pid] && (strings.Contains(q.command, dir) || strings.Contains(env, "TMPDIR="+dir)) {
				return fmt.Errorf("process %d: %s", q.pid, q.command)
			}
		}
		return nil
	})
	if left, err := filepath.Glob(filepath.Join(dir, "tulle-demo-*")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
}
