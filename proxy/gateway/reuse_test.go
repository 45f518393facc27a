package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// fickle is a server that closes a connection, without having said so, after any of its answers: at once, or a little later
// while it has nothing to do.
func fickle(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for n := 0; ; n++ {
					if n > 0 && rand.IntN(2) == 0 {
						c.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(3000)) * time.Microsecond))
					}
					if _, err := r.Peek(1); err != nil {
						return
					}
					c.SetReadDeadline(time.Time{})
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					if rand.IntN(4) == 0 {
						return
					}
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// leaving is an HTTP/2 server that says GOAWAY with every eighth answer or so.
func leaving(t *testing.T) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rand.IntN(8) == 0 {
			w.Header().Set("Connection", "close")
		}
		io.WriteString(w, "ok")
	}))
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

// TestReuse: servers that end connections whenever they like cost no idempotent request.
func TestReuse(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "fickle", fickle(t))
	static(b, "leaving", leaving(t)).Upstream.Version = model.UpstreamHTTP2
	bounded := static(b, "bounded", leaving(t))
	bounded.Upstream, bounded.MaxRequests = model.UpstreamHTTP{Version: model.UpstreamHTTP2, HTTP2: model.HTTP2Options{MaxStreams: 2,
		KeepAlive: 5 * time.Millisecond, KeepAliveTimeout: 5 * time.Second}}, 3
	for i := range b.Clusters {
		b.Listeners = append(b.Listeners, listener(b.Clusters[i].Name.String(), httpChain(b.Clusters[i].Name.String())))
	}
	g := start(t, b)
	for _, name := range []string{"fickle", "leaving", "bounded"} {
		var all sync.WaitGroup
		failed := make(chan string, 8*100)
		for range 8 {
			c := client(t, g.Listening(name)[0], nil, "1")
			all.Go(func() {
				for range 100 {
					r, err := c.Get("http://a.test/")
					if err != nil {
						failed <- err.Error()
						continue
					}
					body, err := io.ReadAll(r.Body)
					r.Body.Close()
					if err != nil || r.StatusCode != 200 || string(body) != "ok" {
						failed <- fmt.Sprint(r.Status, " ", string(body), " ", err)
					}
				}
			})
		}
		all.Wait()
		if n := len(failed); n > 0 {
			t.Errorf("%s: %d of 800 requests failed, the first: %s", name, n, <-failed)
		}
	}
}
