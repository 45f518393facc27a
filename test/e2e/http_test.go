//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestHTTP calls go-httpbin with curl; neither knows of the mesh.
func TestHTTP(t *testing.T) {
	m := newMesh(t)
	m.httpbin()

	t.Run("query", func(t *testing.T) {
		got := decode[struct {
			Args map[string][]string `json:"args"`
			URL  string              `json:"url"`
		}](t, m.curl("http://httpbin:8080/get?a=1&a=2&b=x%20y"))
		if fmt.Sprint(got.Args) != "map[a:[1 2] b:[x y]]" || got.URL != "http://httpbin:8080/get?a=1&a=2&b=x%20y" {
			t.Errorf("httpbin saw %v", got)
		}
	})
	t.Run("body of a megabyte", func(t *testing.T) { bodyRoundTrip(t, m) })
	t.Run("statuses", func(t *testing.T) {
		var want strings.Builder
		command := []string{"curl", "-s", "-o", "/dev/null", "-w", "%{http_code} "}
		for _, code := range []int{200, 204, 301, 304, 404, 418, 500, 503} {
			if code != 200 {
				command = append(command, "-o", "/dev/null")
			}
			command = append(command, fmt.Sprintf("http://httpbin:8080/status/%d", code))
			fmt.Fprintf(&want, "%d ", code)
		}
		if got := m.ok(m.call(command...)); got != want.String() {
			t.Errorf("statuses %q, want %q", got, want.String())
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		got := m.curl("-I", "http://httpbin:8080/bytes/1234")
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(strings.ToLower(got), "content-length: 1234") {
			t.Errorf("HEAD: %s", got)
		}
	})
	t.Run("streams", func(t *testing.T) {
		if got := m.curl("http://httpbin:8080/stream/20"); strings.Count(got, "\n") != 20 {
			t.Errorf("a stream of %d lines, want 20", strings.Count(got, "\n"))
		}
		got := m.curl("http://httpbin:8080/drip?numbytes=500&duration=1&delay=0")
		if len(got) != 500 {
			t.Errorf("drip answered %d bytes, want 500", len(got))
		}
		sent := m.callInput(strings.NewReader(strings.Repeat("chunk ", 50000)),
			"curl", "-sS", "-T", "-", "-X", "POST", "-H", "Content-Type: text/plain", "http://httpbin:8080/post")
		if got := decode[struct{ Data string }](t, m.ok(sent)).Data; len(got) != 300000 {
			t.Errorf("a chunked body of 300000 bytes arrived with %d", len(got))
		}
	})
	t.Run("Expect", func(t *testing.T) {
		r := m.call("curl", "-sS", "-v", "-H", "Expect: 100-continue", "-d", strings.Repeat("e", 5000), "http://httpbin:8080/post")
		if m.ok(r); !strings.Contains(r.stderr, "< HTTP/1.1 100 Continue") {
			t.Errorf("no 100 Continue: %s", r.stderr)
		}
	})
	t.Run("headers", func(t *testing.T) { headersSeen(t, m) })
	t.Run("large response", func(t *testing.T) {
		got := m.ok(m.call("sh", "-c", "curl -sS 'http://httpbin:8080/range/4000000?duration=0' | wc -c"))
		if strings.TrimSpace(got) != "4000000" {
			t.Errorf("%s bytes of 4000000 arrived", strings.TrimSpace(got))
		}
	})
	t.Run("keep-alive", func(t *testing.T) {
		got := m.curl("-o", "/dev/null", "-w", "%{num_connects} ", "http://httpbin:8080/status/200?[1-5]")
		if got != "1 0 0 0 0 " {
			t.Errorf("connections opened per request: %q", got)
		}
	})
	t.Run("compressed", func(t *testing.T) {
		if got := m.curl("--compressed", "http://httpbin:8080/gzip"); !strings.Contains(got, `"gzipped": true`) {
			t.Errorf("gzip: %s", got)
		}
	})
	t.Run("other names", func(t *testing.T) {
		for _, host := range []string{"httpbin.default", "httpbin.default.svc.cluster.local"} {
			if got := m.curl("-o", "/dev/null", "-w", "%{http_code}", "http://"+host+":8080/get"); got != "200" {
				t.Errorf("%s: %s", host, got)
			}
		}
	})
}

// bodyRoundTrip posts a megabyte that cannot be guessed and compares the echo.
func bodyRoundTrip(t *testing.T, m *mesh) {
	random := make([]byte, 1<<20)
	rand.Read(random)
	file := filepath.Join(m.dir, "body")
	if err := os.WriteFile(file, random, 0o644); err != nil {
		t.Fatal(err)
	}
	got := decode[struct{ Data string }](t, m.curl("--data-binary", "@"+file, "-H", "Content-Type: application/octet-stream", "http://httpbin:8080/post"))
	_, text, _ := strings.Cut(got.Data, "base64,")
	echo, err := base64.URLEncoding.DecodeString(text)
	if err != nil || !bytes.Equal(echo, random) {
		t.Errorf("the echo of a megabyte differs: %d bytes, %v", len(echo), err)
	}
}

// headersSeen: what each side of the mesh sees of the headers.
func headersSeen(t *testing.T, m *mesh) {
	r := m.call("curl", "-sS", "-D", "/dev/stderr", "-H", "X-Own: v1", "-H", "Tulle-Source: forged", "-H", "Connection: X-Hop", "-H", "X-Hop: 1", "http://httpbin:8080/headers")
	seen := decode[struct {
		Headers map[string][]string `json:"headers"`
	}](t, m.ok(r)).Headers
	if fmt.Sprint(seen["X-Own"]) != "[v1]" || len(seen["X-Request-Id"]) != 1 || len(seen["X-Hop"]) != 0 || fmt.Sprint(seen["Host"]) != "[httpbin:8080]" {
		t.Errorf("the server saw %v", seen)
	}
	for name := range seen {
		if strings.HasPrefix(strings.ToLower(name), "tulle-") {
			t.Errorf("the server saw %s: %v", name, seen[name])
		}
	}
	if strings.Contains(strings.ToLower(r.stderr), "\ntulle-") {
		t.Errorf("the client saw headers of the mesh: %s", r.stderr)
	}
	own := m.call("curl", "-sS", "-H", "X-Request-Id: mine-1", "http://httpbin:8080/headers")
	if !strings.Contains(m.ok(own), "mine-1") {
		t.Errorf("the caller's own request id was replaced: %s", own.stdout)
	}
}

// TestHTTP2: a client that speaks HTTP/2 from its first byte, to a server that does.
func TestHTTP2(t *testing.T) {
	m := newMesh(t)
	p := m.run([]string{"--service", "h2", "--port", "8080", "--ready", "http:/readyz"}, binary(t, "podinfo"), "--port", "8080", "--h2c", "--level", "debug")
	m.announced(p)
	got := m.curl("--http2-prior-knowledge", "-w", "\nversion %{http_version}", "-d", strings.Repeat("b", 100000), "http://h2:8080/echo")
	if !strings.Contains(got, strings.Repeat("b", 100000)) || !strings.HasSuffix(got, "version 2") {
		t.Errorf("the echo over HTTP/2: %d bytes, …%s", len(got), tail(got[max(0, len(got)-100):]))
	}
}

// TestPodinfo: readiness, waiting for a service, and gRPC.
func TestPodinfo(t *testing.T) {
	m := newMesh(t)
	waiting := m.run([]string{"--service", "late", "--wait-for", "podinfo"}, "curl", "-sS", "--max-time", "20", "http://podinfo:9898/version")
	p := m.run([]string{"--service", "podinfo", "--port", "9898/http", "--port", "grpc=9999/grpc", "--ready", "http:/readyz"},
		binary(t, "podinfo"), "--port", "9898", "--grpc-port", "9999", "--level", "debug")
	m.announced(p)
	if code := waiting.wait(patience); code != 0 || !strings.Contains(waiting.stdout(), `"version"`) {
		t.Errorf("the program that waited for podinfo: exit code %d, %s", code, waiting.stdout())
	}
	if got := m.curl("http://podinfo:9898/readyz"); !strings.Contains(got, "OK") {
		t.Errorf("/readyz: %s", got)
	}
	got := m.ok(m.call(self(t), "grpc-health", "podinfo:9999", "podinfo"))
	if want := "SERVING\nrpc error: code = NotFound desc = unknown service\nSERVING\n"; got != want {
		t.Errorf("gRPC health:\n%s\nwant:\n%s", got, want)
	}

	// Not ready is not announced.
	unready := m.run([]string{"--service", "unready", "--port", "9898", "--ready", "http:/readyz"}, binary(t, "podinfo"), "--port", "9898", "--unready", "--level", "debug")
	eventually(t, patience, "the program listens", func() error {
		if !strings.Contains(m.ok(m.cli("status")), "unready") {
			return fmt.Errorf("it is not known: %s", unready.stderr())
		}
		return nil
	})
	if n := m.instances("unready.default:9898"); n != 0 {
		t.Errorf("a workload that is not ready has %d endpoints", n)
	}
}

// TestSamePort: every instance has its port 8080, and all get their share.
func TestSamePort(t *testing.T) {
	m := newMesh(t)
	m.podinfo("one", "--service", "same")
	m.podinfo("two", "--service", "same")
	got := m.curl("http://same:8080/?[1-200]")
	one, two := strings.Count(got, `"message": "one"`), strings.Count(got, `"message": "two"`)
	if one+two != 200 || one < 40 || two < 40 {
		t.Errorf("200 requests went %d to the one and %d to the other", one, two)
	}
}

// TestSelf: a program that calls itself, by its own loopback and by its service's name.
func TestSelf(t *testing.T) {
	m := newMesh(t)
	pipe := filepath.Join(m.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := m.run([]string{"--service", "self", "--port", "8080"}, "sh", "-c", binary(t, "go-httpbin")+" -port 8080 -log-level OFF & read -r line <"+pipe+"; "+
		"for h in localhost 127.0.0.1 self; do curl -sS --max-time 5 -o /dev/null -w '%{http_code} ' http://$h:8080/get; done; kill $!")
	m.announced(p)
	writeFile(t, pipe, "go\n")
	if p.wait(patience); p.stdout() != "200 200 200 " {
		t.Errorf("%q %s", p.stdout(), p.stderr())
	}
}

// TestManyAtOnce: a crowd of workloads that start in the same moment, and two hundred connections.
func TestManyAtOnce(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	m.httpbin()
	var crowd []*process
	for range 20 {
		crowd = append(crowd, m.run([]string{"--service", "crowd"}, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get"))
	}
	for _, p := range crowd {
		if code := p.wait(2 * patience); code != 0 || p.stdout() != "200" {
			t.Errorf("exit code %d, %q: %s", code, p.stdout(), p.stderr())
		}
	}
	l := m.loadBy(200, "load", "-connections", "200", "-posts", "-pause", "0", "http://httpbin:8080/anything")
	l.more(5000)
	l.flawless()
}
