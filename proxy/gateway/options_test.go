package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
)

// proxied is a server that wants a PROXY header and answers whom it names, and how many requests the connection has had.
func proxied(t *testing.T) netip.AddrPort {
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
			go answerProxied(c)
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func answerProxied(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 4096)
	r.Peek(1)
	var h proxyproto.Header
	for have := r.Buffered(); ; have++ {
		p, err := r.Peek(have)
		if err != nil {
			return
		}
		got, n, err := proxyproto.Parse(p)
		if err != nil {
			return
		}
		if n > 0 {
			h = got
			r.Discard(n)
			break
		}
	}
	for n := 1; ; n++ {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, q.Body)
		body := fmt.Sprintf("%v %v %d", h.Source, h.Destination, n)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

// TestSendProxy: the server is told who the client is, over HTTP and TCP, in both versions; no two clients share a
// connection.
func TestSendProxy(t *testing.T) {
	at := proxied(t)
	b := &model.Bootstrap{}
	static(b, "v1", at).SendProxy = 1
	static(b, "v2", at).SendProxy = 2
	for _, v := range []string{"v1", "v2"} {
		b.Listeners = append(b.Listeners, listener("http"+v, httpChain(v)), listener("tcp"+v, tcpChain(v)))
	}
	g := start(t, b)
	for _, name := range []string{"httpv1", "httpv2", "tcpv1", "tcpv2"} {
		to := g.Listening(name)[0]
		for range 2 { // two clients
			c := dial(t, to, nil)
			r := bufio.NewReader(c)
			for n := 1; n <= 2; n++ {
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				body, _ := io.ReadAll(resp.Body)
				if want := fmt.Sprintf("%v %v %d", c.LocalAddr(), to, n); string(body) != want {
					t.Errorf("%s: %q, want %q", name, body, want)
				}
			}
		}
	}
}

// TestMaxRequests: a connection takes no more requests than its cluster says, and lives no longer.
func TestMaxRequests(t *testing.T) {
	at := proxied(t)
	b := &model.Bootstrap{}
	few := static(b, "few", at)
	few.SendProxy, few.MaxRequests = 1, 2
	short := static(b, "short", at)
	short.SendProxy, short.MaxDuration = 1, time.Nanosecond
	b.Listeners = []model.Listener{listener("few", httpChain("few")), listener("short", httpChain("short"))}
	g := start(t, b)
	for name, want := range map[string]string{"few": "1 2 1 2 1", "short": "1 1 1 1 1"} {
		c := client(t, g.Listening(name)[0], nil, "1")
		var got []string
		for range 5 {
			body := get(t, c, "http://a.test/")
			got = append(got, body[strings.LastIndexByte(body, ' ')+1:])
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: requests per connection %q, want %q", name, s, want)
		}
	}
}

// TestKeepAlive: an HTTP/2 server that answers no PING is given up, and its requests fail.
func TestKeepAlive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS, and nothing ever after
				io.Copy(io.Discard, c)
			}()
		}
	}()
	b := &model.Bootstrap{}
	c := static(b, "silent", netip.MustParseAddrPort(l.Addr().String()))
	c.Upstream = model.UpstreamHTTP{Version: model.UpstreamHTTP2, HTTP2: model.HTTP2Options{KeepAlive: 50 * time.Millisecond, KeepAliveTimeout: 50 * time.Millisecond}}
	b.Listeners = []model.Listener{listener("l", httpChain("silent"))}
	g := start(t, b)
	r, err := client(t, g.Listening("l")[0], nil, "1").Post("http://a.test/", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 503 && r.StatusCode != 502 {
		t.Errorf("%s", r.Status)
	}
}
