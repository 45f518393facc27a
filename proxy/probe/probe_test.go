package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
	"github.com/tulle-mesh/tulle/proxy/probe"
)

func addressOf(l net.Listener) netip.AddrPort { return netip.MustParseAddrPort(l.Addr().String()) }

// server answers with h, in either version of HTTP, over TLS if secure; it counts its connections.
func server(t *testing.T, secure bool, h http.HandlerFunc) (s *httptest.Server, conns *atomic.Int64) {
	s, conns = httptest.NewUnstartedServer(h), &atomic.Int64{}
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.ConnState = func(_ net.Conn, to http.ConnState) {
		if to == http.StateNew {
			conns.Add(1)
		}
	}
	if s.EnableHTTP2 = secure; secure {
		s.Config.Protocols.SetHTTP2(true)
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, conns
}

func ask(t *testing.T, p *probe.Probe, timeout time.Duration) (health.Result, error) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return p.Ask(ctx)
}

// TestVersions: the version that is wanted is spoken, over TLS as in the clear, on one connection or on a new one.
func TestVersions(t *testing.T) {
	for _, secure := range []bool{false, true} {
		var proto atomic.Pointer[string]
		s, conns := server(t, secure, func(w http.ResponseWriter, r *http.Request) { proto.Store(&r.Proto) })
		for _, two := range []bool{false, true} {
			for _, reuse := range []bool{false, true} {
				c := &probe.Config{Check: &model.HealthCheck{Path: "/", HTTP2: two, ReuseConnection: reuse}, Cluster: "one"}
				if secure {
					c.TLS = func(host string) *tls.Config {
						if host != "one" {
							t.Errorf("host %q", host)
						}
						pool := x509.NewCertPool()
						pool.AddCert(s.Certificate())
						return &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"h2", "http/1.1"}}
					}
				}
				p := probe.New(c, addressOf(s.Listener))
				before := conns.Load()
				for range 3 {
					if r, err := ask(t, p, 5*time.Second); r != health.Passed || err != nil {
						t.Errorf("TLS %v, HTTP/2 %v: %v, %v", secure, two, r, err)
					}
				}
				p.Close()
				want := int64(3)
				if reuse {
					want = 1
				}
				if n := conns.Load() - before; n != want || strings.HasPrefix(*proto.Load(), "HTTP/2") != two {
					t.Errorf("TLS %v, HTTP/2 %v, reuse %v: %d connections, %s", secure, two, reuse, n, *proto.Load())
				}
			}
		}
	}
}

// TestResults: what is believed at once, and what might have been the network.
func TestResults(t *testing.T) {
	s, _ := server(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		case "/reset":
			panic(http.ErrAbortHandler)
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/half":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "half")
		}
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name  string
		check model.HealthCheck
		at    netip.AddrPort
		want  health.Result
	}{
		{"well", model.HealthCheck{Path: "/"}, addressOf(s.Listener), health.Passed},
		{"a redirection is not followed", model.HealthCheck{Path: "/moved"}, addressOf(s.Listener), health.Failed},
		{"but can be what is expected", model.HealthCheck{Path: "/moved", Statuses: []model.StatusRange{{From: 300, To: 400}}}, addressOf(s.Listener), health.Passed},
		{"200 is not, then", model.HealthCheck{Path: "/", Statuses: []model.StatusRange{{From: 300, To: 400}}}, addressOf(s.Listener), health.Failed},
		{"too slow", model.HealthCheck{Path: "/slow"}, addressOf(s.Listener), health.Unreachable},
		{"cut off", model.HealthCheck{Path: "/reset"}, addressOf(s.Listener), health.Unreachable},
		{"half an answer", model.HealthCheck{Path: "/half"}, addressOf(s.Listener), health.Unreachable},
		{"nobody there", model.HealthCheck{Path: "/"}, addressOf(closed), health.Unreachable},
		{"no gRPC", model.HealthCheck{Kind: model.CheckGRPC}, addressOf(s.Listener), health.Failed},
		{"nobody there, TCP", model.HealthCheck{Kind: model.CheckTCP}, addressOf(closed), health.Unreachable},
		{"TCP", model.HealthCheck{Kind: model.CheckTCP}, addressOf(s.Listener), health.Passed},
		{"TCP, silent", model.HealthCheck{Kind: model.CheckTCP, Receive: [][]byte{[]byte("x")}}, addressOf(s.Listener), health.Unreachable},
	} {
		p := probe.New(&probe.Config{Check: &c.check, Cluster: "one"}, c.at)
		timeout := 5 * time.Second
		if strings.Contains(c.name, "slow") || strings.Contains(c.name, "silent") {
			timeout = 50 * time.Millisecond
		}
		r, err := ask(t, p, timeout)
		if r != c.want || (err == nil) != (r == health.Passed) || err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v; want %v", c.name, r, err, c.want)
		}
		p.Close()
	}
}

// TestTalk: TCP answers in pieces, of which not all is wanted; a connection that the server has ended is made anew.
func TestTalk(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer c.Close()
				for range 2 { // then the server has had enough
					if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
						return
					}
					for _, b := range []byte(strings.Repeat("-", 100) + "redo red green") {
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	p := probe.New(&probe.Config{Check: &model.HealthCheck{Kind: model.CheckTCP, ReuseConnection: true, Send: []byte("tell\n"),
		Receive: [][]byte{[]byte("red"), []byte("red"), []byte("green")}}}, addressOf(l))
	defer p.Close()
	for i := range 6 {
		if r, err := ask(t, p, 5*time.Second); r != health.Passed {
			t.Fatalf("question %d: %v, %v", i, r, err)
		}
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections for 6 questions, 2 on each", n)
	}
}

// TestCanceled: who asks can be stopped.
func TestCanceled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, k := range []model.HealthCheckKind{model.CheckHTTP, model.CheckTCP, model.CheckGRPC} {
		p := probe.New(&probe.Config{Check: &model.HealthCheck{Kind: k, Path: "/", Receive: [][]byte{[]byte("x")}}}, addressOf(l))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("enough")) })
		if r, err := p.Ask(ctx); r != health.Unreachable || err == nil {
			t.Errorf("kind %d: %v, %v", k, r, err)
		}
		p.Close()
	}
}
