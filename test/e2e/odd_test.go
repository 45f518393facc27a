//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSameAsDirect makes the same calls with and without the mesh and compares what curl got.
func TestSameAsDirect(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	port := freePort(t)
	curl := program(t, "curl", "curl")
	start(t, "go-httpbin", exec.Command(binary(t, "go-httpbin"), "-host", "127.0.0.1", "-port", port, "-log-level", "OFF", "-max-body-size", "4194304"))
	big := writeFile(t, filepath.Join(m.dir, "big"), strings.Repeat("0123456789abcdef", 400000)) // more than httpbin takes
	for _, call := range [][]string{
		{"http://httpbin:8080/absolute-redirect/2", "-L"},
		{"http://httpbin:8080/base64/aGVsbG8="},
		{"http://httpbin:8080/basic-auth/u/p", "-u", "u:p"},
		{"http://httpbin:8080/basic-auth/u/p", "-u", "u:x"},
		{"http://httpbin:8080/bytes/100000?seed=7"},
		{"http://httpbin:8080/cache", "-H", "If-None-Match: x"},
		{"http://httpbin:8080/cookies/set?a=1&b=2", "-L", "-c", "/dev/null"},
		{"http://httpbin:8080/deflate"},
		{"http://httpbin:8080/encoding/utf8"},
		{"http://httpbin:8080/etag/abc", "-H", `If-None-Match: "abc"`},
		{"http://httpbin:8080/html", "-I"},
		{"http://httpbin:8080/image/png"},
		{"http://httpbin:8080/json", "-r", "0-9"},
		{"http://httpbin:8080/links/3/1"},
		{"http://httpbin:8080/range/1000", "-r", "10-19"},
		{"http://httpbin:8080/redirect-to?url=%2Fjson&status_code=307"},
		{"http://httpbin:8080/redirect/3", "-L"},
		{"http://httpbin:8080/response-headers?X-A=1&X-A=2"},
		{"http://httpbin:8080/robots.txt"},
		{"http://httpbin:8080/sse?count=3&duration=100ms&delay=0s", "-H", "X-Compare: lines"},
		{"http://httpbin:8080/status/418"},
		{"http://httpbin:8080/stream-bytes/50000?seed=3&chunk_size=777"},
		{"http://httpbin:8080/trailers?x-sum=42&x-more=a", "-H", "TE: trailers", "-H", "Connection: TE"},
		{"http://httpbin:8080/unstable?failure_rate=1"},
		{"http://httpbin:8080/xml"},
		{"http://httpbin:8080/no/such/page"},
		{"http://httpbin:8080/%2e%2e/a//b/../c;d?e", "--path-as-is"},
		{"http://httpbin:8080/delete", "-X", "DELETE"},
		{"http://httpbin:8080/put", "-X", "PUT", "-d", "x=1"},
		{"http://httpbin:8080/patch", "-X", "PATCH", "-d", ""},
		{"http://httpbin:8080/post", "-F", "file=@/etc/hostname", "-F", "a=b", "-H", "Content-Type: multipart/form-data; boundary=xyz"},
		{"http://httpbin:8080/anything", "-X", "OPTIONS"},
		{"http://httpbin:8080/post", "-d", "@" + big},
		{"http://httpbin:8080/get", "--http1.0"},
	} {
		args := append([]string{"-sS", "--max-time", "20", "-w", "\n%{http_code} %{content_type} %{num_redirects} %{size_download} %{redirect_url}", "-D", "-", "-H", "X-Request-Id: same"}, call...)
		direct := finish(t, exec.Command(curl, append(args, "--connect-to", "httpbin:8080:127.0.0.1:"+port)...), patience)
		meshed := m.call(append([]string{curl}, args...)...)
		if direct.code != meshed.code || comparable(direct.stdout) != comparable(meshed.stdout) {
			t.Errorf("%v\n--- direct, exit code %d %s\n%s\n--- in the mesh, exit code %d %s\n%s", call,
				direct.code, direct.stderr, tail(comparable(direct.stdout)), meshed.code, meshed.stderr, tail(comparable(meshed.stdout)))
		}
	}
}

// comparable takes out of what curl printed what may differ: the time, header case and order.
func comparable(s string) string {
	var head, out []string
	inHead := false
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\r\n", "\n"), "\n") {
		if strings.HasPrefix(line, "HTTP/") {
			inHead = true
			_, line, _ = strings.Cut(line, " ")
			line, _, _ = strings.Cut(line, " ") // the status, without the phrase
		}
		name, value, ok := strings.Cut(line, ": ")
		switch lower := strings.ToLower(name); {
		case !inHead:
			if ok && (lower == "data" || lower == "server-timing") { // has the time of day
				continue
			}
			out = append(out, strings.ToLower(line)) // trailers may be among them
		case line == "":
			inHead = false
			out = append(append(out, slices.Sorted(slices.Values(head))...), "")
			head = nil
		case lower == "date", lower == "content-length", lower == "transfer-encoding", lower == "connection", lower == "server-timing":
		case ok:
			head = append(head, lower+": "+value)
		default:
			head = append(head, line)
		}
	}
	return strings.Join(append(out, head...), "\n")
}

// TestUpgrade: a WebSocket through both proxies.
func TestUpgrade(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	if got := m.ok(m.call(self(t), "websocket", "httpbin:8080", "/websocket/echo?max_message_size=100000&max_fragment_size=100000")); got != "echo of 50000 bytes, 20 times\n" {
		t.Errorf("%s", got)
	}
}

// TestFirstByte: what a server has said is not held back until it has said all.
func TestFirstByte(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	r := m.call("curl", "-sS", "-N", "-o", "/dev/null", "-w", "%{time_starttransfer} %{time_total}", "http://httpbin:8080/drip?numbytes=10&duration=2&delay=0")
	var first, total float64
	if _, err := fmt.Sscan(m.ok(r), &first, &total); err != nil || first > 1 || total < 1.5 {
		t.Errorf("first byte after %v s of %v s", first, total)
	}
}

// TestRefused: what is ambiguous is answered by the proxy, whoever sends it.
func TestRefused(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	for name, c := range map[string]struct{ request, status string }{
		"two framings":       {"POST /post HTTP/1.1\r\nHost: httpbin\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		"two lengths":        {"POST /post HTTP/1.1\r\nHost: httpbin\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", "400"},
		"no host":            {"GET /get HTTP/1.1\r\n\r\n", "400"},
		"two hosts":          {"GET /get HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		"a folded line":      {"GET /get HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", "400"},
		"blank before colon": {"GET /get HTTP/1.1\r\nHost : a\r\n\r\n", "400"},
		"another coding":     {"POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"},
		"a giant head":       {"GET /get HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("a", 100000) + "\r\n\r\n", "431"},
	} {
		r := m.callInput(strings.NewReader(c.request), program(t, "nc", "netcat-openbsd"), "-N", "-w", "5", "httpbin", "8080")
		if !strings.HasPrefix(r.stdout, "HTTP/1.1 "+c.status) || !strings.Contains(strings.ToLower(r.stdout), "\r\ntulle-reason: ") || !strings.Contains(strings.ToLower(r.stdout), "\r\nx-request-id: ") {
			t.Errorf("%s: want %s: %s", name, c.status, r)
		}
	}
	// Several requests at once are several requests, also when the client has closed its side behind them.
	two := strings.Repeat("GET /status/204 HTTP/1.1\r\nHost: httpbin\r\n\r\n", 3) + "GET /status/205 HTTP/1.1\r\nHost: httpbin\r\nConnection: close\r\n\r\n"
	r := m.callInput(strings.NewReader(two), "nc", "-N", "-w", "5", "httpbin", "8080")
	if strings.Count(r.stdout, "HTTP/1.1 204") != 3 || strings.Count(r.stdout, "HTTP/1.1 205") != 1 {
		t.Errorf("pipelined requests: %s", r)
	}
}

// TestOddServers: servers that few people write and many still run.
func TestOddServers(t *testing.T) {
	m := newMesh(t)
	nc := program(t, "nc", "netcat-openbsd")
	answer := func(service, text string) *process {
		file := writeFile(t, filepath.Join(m.dir, service), text)
		p := m.run([]string{"--service", service, "--port", "80:7000", "--ready", "tcp"}, "sh", "-c", "while true; do "+nc+" -l -N 7000 <"+file+"; done")
		m.announced(p)
		return p
	}
	t.Run("HTTP/1.0, and the end is the end", func(t *testing.T) {
		answer("old", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"+strings.Repeat("old and long\n", 10000))
		eventually(t, patience, "the answer", func() error { // nc takes one connection, and is started again for the next
			r := m.call("curl", "-sS", "--max-time", "5", "http://old/")
			if r.code != 0 || r.stdout != strings.Repeat("old and long\n", 10000) {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
	})
	t.Run("a body that is cut off", func(t *testing.T) {
		answer("cut", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
		eventually(t, patience, "the client is told", func() error {
			r := m.call("curl", "-sS", "--max-time", "5", "http://cut/")
			if r.code != 18 && r.code != 56 { // partial file, failure in receiving
				return fmt.Errorf("%s", r)
			}
			return nil
		})
	})
	t.Run("not HTTP", func(t *testing.T) {
		answer("noise", "this is not HTTP at all\r\n\r\n")
		eventually(t, patience, "the client is told", func() error {
			r := m.call("curl", "-sS", "-i", "--max-time", "5", "http://noise/")
			if !strings.HasPrefix(r.stdout, "HTTP/1.1 502 ") || !strings.Contains(strings.ToLower(r.stdout), "tulle-reason: ") {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
	})
	t.Run("only on IPv6", func(t *testing.T) {
		p := m.run([]string{"--service", "six", "--port", "7000"}, binary(t, "podinfo"), "--host", "[::1]", "--port", "7000", "--ui-message", "six", "--level", "debug")
		m.announced(p)
		for _, family := range []string{"-4", "-6"} {
			if got := m.curl(family, "http://six:7000/"); !strings.Contains(got, "six") {
				t.Errorf("%s: %s", family, got)
			}
		}
	})
}

// TestNobodyThere: a service that is known and has no instance.
func TestNobodyThere(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	p.stop(patience)
	r := m.call("curl", "-sS", "-i", "--max-time", "5", "http://httpbin:8080/get")
	if !strings.HasPrefix(r.stdout, "HTTP/1.1 503 ") || !strings.Contains(strings.ToLower(r.stdout), "tulle-reason: no_endpoint") {
		t.Errorf("HTTP: %s", r)
	}
	// What is not HTTP cannot be told: it gets a reset.
	refusedAtOnce(t, m, "ECONNRESET", "dial", "httpbin:8080", "\x01\x02\x03")
}

// TestExplicitService: a Service as it is written for Kubernetes.
func TestExplicitService(t *testing.T) {
	m := newMesh(t)
	m.podinfo("front", "--service", "web", "--label", "tier=front")
	m.podinfo("back", "--service", "api", "--label", "tier=back")
	m.apply(`apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {tier: front}
  ports: [{name: http, port: 80, targetPort: 8080}]
`)
	if got := m.curl("http://front/?[1-20]"); strings.Count(got, `"message": "front"`) != 20 {
		t.Errorf("%d of 20 requests went to the selected workload: %s", strings.Count(got, `"message": "front"`), tail(got))
	}
	if out := m.ok(m.cli("delete", "service", "front", "--dry-run")); !strings.Contains(out, "dry run") || m.cli("get", "service", "front").code != 0 {
		t.Errorf("a dry run has deleted it: %s", out)
	}
	m.ok(m.cli("delete", "service/front"))
	eventually(t, patience, "the name is gone", func() error {
		if r := m.call("getent", "hosts", "front"); r.code != 2 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
}

// TestSlowReader: a client that stops reading stops its server; the proxies between them do not gather what is under way.
func TestSlowReader(t *testing.T) {
	m := newMesh(t)
	file, sum := randomFile(t, filepath.Join(m.dir, "big"), 64<<20)
	nc := program(t, "nc", "netcat-openbsd")
	server := m.run([]string{"--service", "bulk", "--port", "7000", "--ready", "tcp"}, "sh", "-c", "while true; do "+nc+" -l -N 7000 <"+file+"; done")
	m.announced(server)
	for name, command := range map[string]string{
		"TCP":  nc + " -d bulk 7000",
		"HTTP": "curl -sS -N http://big:8080/range/67108864",
	} {
		servers := server
		if name == "HTTP" {
			servers = m.run([]string{"--service", "big", "--port", "8080"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF", "-max-body-size", "100000000")
			m.announced(servers)
		}
		client := m.run([]string{"--service", "slow"}, "sh", "-c", command+" | { read -r line </dev/null; kill -STOP $$; sha256sum; }")
		eventually(t, patience, name+": the reader has stopped and what is under way has settled", func() error {
			if state := stateOf(client.programOf("sh")); state != "T" {
				return fmt.Errorf("state %q %s", state, client.stderr())
			}
			return nil
		})
		for who, p := range map[string]*process{"server": servers, "client": client} {
			always(t, time.Second, name+": memory of the proxy of the "+who, func() error {
				if kb := privateMemory(t, p.proxyOf()); kb > 40<<10 {
					return fmt.Errorf("%d kB", kb)
				}
				return nil
			})
		}
		_ = syscall.Kill(-client.programOf("sh"), syscall.SIGCONT)
		_ = syscall.Kill(client.programOf("sh"), syscall.SIGCONT)
		if code := client.wait(patience); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, client.stderr())
		}
		if name == "TCP" && !strings.HasPrefix(client.stdout(), sum) {
			t.Errorf("%s: checksum %s, want %s", name, client.stdout(), sum)
		}
	}
}

// stateOf answers the letter of a process's state, "" if there is none.
func stateOf(pid int) string {
	stat := []byte(readText(fmt.Sprintf("/proc/%d/stat", pid)))
	if i := bytes.LastIndexByte(stat, ')'); pid != 0 && i >= 0 {
		return string(stat[i+2 : i+3])
	}
	return ""
}

// privateMemory answers the RssAnon of a process in kB.
func privateMemory(t *testing.T, pid int) int {
	t.Helper()
	for line := range strings.Lines(readText(fmt.Sprintf("/proc/%d/status", pid))) {
		var kb int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			return kb
		}
	}
	t.Fatalf("process %d has no RssAnon", pid)
	return 0
}

// TestNoLeaks: after many connections the proxies have as many open files as before.
func TestNoLeaks(t *testing.T) {
	m := newMesh(t)
	server := m.httpbin()
	pipe := filepath.Join(m.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	client := m.run([]string{"--service", "client"}, "sh", "-c", "exec <>"+pipe+"; while read -r n; do curl -s -H 'Connection: close' \"http://httpbin:8080/status/200?[1-$n]\"; echo done $n; done")
	round := func(n int) {
		t.Helper()
		before := strings.Count(client.stdout(), "done")
		writeFile(t, pipe, fmt.Sprintln(n))
		eventually(t, patience, "the calls end", func() error {
			if strings.Count(client.stdout(), "done") == before {
				return fmt.Errorf("%s", tail(client.stdout()))
			}
			return nil
		})
	}
	round(20)
	files := func() int { return openFiles(server.proxyOf()) + openFiles(client.proxyOf()) }
	before := files()
	round(500)
	eventually(t, patience, "the proxies close what they opened", func() error {
		if now := files(); now > before+8 {
			return fmt.Errorf("%d files, %d before", now, before)
		}
		return nil
	})
}

func openFiles(pid int) int {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is good
	return len(links)
}
