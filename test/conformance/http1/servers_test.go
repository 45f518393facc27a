//go:build conformance

package http1

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// list is sights that have come and were not asked for.
type list struct {
	mu  sync.Mutex
	all []sight
}

func (l *list) add(s sight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.target != "/probe" {
		l.all = append(l.all, s)
	}
}

func (l *list) sights(n int) []sight {
	seen := settle(n, func() []sight {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.all
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
	return seen
}

// netHTTP is Go's own server.
type netHTTP struct {
	list
	s *httptest.Server
}

func newNetHTTP(t testing.TB) *netHTTP {
	n := &netHTTP{}
	n.s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // not understood
		}
		fields := r.Header.Clone()
		if len(r.TransferEncoding) > 0 {
			fields["Transfer-Encoding"] = r.TransferEncoding
		}
		n.add(sight{r.Method, r.RequestURI, r.Host, string(body), fields, r.Trailer})
		fmt.Fprintf(w, "seen %s %s", r.Method, r.RequestURI)
	}))
	n.s.Config.DisableGeneralOptionsHandler = true // "OPTIONS *" is to be seen too
	n.s.Start()
	t.Cleanup(n.s.Close)
	return n
}

func (n *netHTTP) port() int { return n.s.Listener.Addr().(*net.TCPAddr).Port }

// nginx writes what it understood to a log. It reads a body only to pass it on, so it passes it to itself.
type nginx struct {
	at, inner int
	log       string
	read      int
	kept      []sight
}

const nginxConfig = `daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 512; }
http {
  client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
  client_body_buffer_size 1m; client_max_body_size 10m; large_client_header_buffers 4 64k; keepalive_requests 1000000;
  underscores_in_headers on; ignore_invalid_headers off; default_type text/plain;
  log_format seen '$status "$request_method" "$request_uri" "$http_host" "$request_body"';
  access_log off;
  server { listen 127.0.0.1:%[2]d; server_name _; access_log %[1]s/seen.log seen; merge_slashes off;
    location / { proxy_pass http://127.0.0.1:%[3]d; proxy_buffers 8 64k; proxy_buffer_size 64k; proxy_http_version 1.1; } }
  server { listen 127.0.0.1:%[3]d; merge_slashes off; location / { return 200 "seen $request_method $request_uri"; } }
}
`

func newNginx(t testing.TB) *nginx {
	dir := t.TempDir()
	n := &nginx{at: subject.Port(t), inner: subject.Port(t), log: filepath.Join(dir, "seen.log")}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, dir, n.at, n.inner), 0o644); err != nil {
		t.Fatal(err)
	}
	p := subject.Run(t, "nginx", nil, subject.Installed(t, "nginx", "nginx-light"), "-c", file, "-p", dir, "-e", filepath.Join(dir, "error.log"))
	p.Wait("listens", accepts(n.at))
	p.Wait("listens inside", accepts(n.inner))
	return n
}

func accepts(port int) func() error {
	return func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err
	}
}

func (n *nginx) port() int { return n.at }

var nginxLine = regexp.MustCompile(`^(\d+) "([^"]*)" "([^"]*)" "([^"]*)" "([^"]*)"$`)

func (n *nginx) sights(count int) []sight {
	seen := settle(count, func() []sight {
		text, err := os.ReadFile(n.log)
		if err != nil {
			return nil
		}
		for {
			line, _, whole := strings.Cut(string(text[n.read:]), "\n")
			if !whole {
				return n.kept
			}
			n.read += len(line) + 1
			m := nginxLine.FindStringSubmatch(line)
			if m == nil {
				n.kept = append(n.kept, sight{method: "unreadable line", body: line})
			} else if m[1] == "200" && m[3] != "/probe" {
				n.kept = append(n.kept, sight{method: unlog(m[2]), target: unlog(m[3]), host: unlog(m[4]), body: unlog(m[5])})
			}
		}
	})
	n.kept = nil
	return seen
}

var logged = regexp.MustCompile(`\\x[0-9A-F]{2}`)

// unlog takes back what nginx does to bytes in its log.
func unlog(s string) string {
	if s == "-" {
		return ""
	}
	return logged.ReplaceAllStringFunc(s, func(e string) string {
		v, _ := strconv.ParseUint(e[2:], 16, 8) // two digits, says the expression
		return string([]byte{byte(v)})
	})
}

// haproxy passes on what it understood, to a server of Go's that sees only whole requests: HAProxy itself would answer
// one whose connection has ended inside, too.
type haproxy struct {
	*netHTTP
	at int
}

const haproxyConfig = `defaults
  mode http
  timeout client 20s
  timeout connect 5s
  timeout server 20s
frontend seen
  bind 127.0.0.1:%[1]d
  default_backend inner
backend inner
  server inner 127.0.0.1:%[2]d
`

func newHAProxy(t testing.TB) *haproxy {
	h := &haproxy{netHTTP: newNetHTTP(t), at: subject.Port(t)}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, h.at, h.netHTTP.port()), 0o644); err != nil {
		t.Fatal(err)
	}
	p := subject.Run(t, "haproxy", nil, subject.Installed(t, "haproxy", "haproxy"), "-f", file, "-db")
	p.Wait("listens", accepts(h.at))
	return h
}

func (h *haproxy) port() int { return h.at }
