package downstream_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// plain starts a proxy with one foreign route to a program that is not in the mesh and speaks HTTP/1.1.
func plain(t testing.TB, m model.HTTP, program netip.AddrPort) *hop {
	t.Helper()
	table, err := router.Compile(&model.RouteTable{Name: model.Free("t"), Hosts: []model.VirtualHost{{Domains: []string{"*"}, Routes: []model.Route{{
		Name: "all", Match: model.Match{Path: "/", PathPrefixText: true}, Backends: []model.Backend{{Cluster: model.Free("c"), Weight: 1}}},
		{Name: "connect", Match: model.Match{Connect: true}, Backends: []model.Backend{{Cluster: model.Free("c"), Weight: 1}}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.New(&model.Cluster{Name: model.Free("c"), ConnectTimeout: 2 * time.Second})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Address: program, Weight: 1}}})
	d := &services{table: table, clusters: map[model.PortName]*cluster.Cluster{model.Free("c"): c}}
	return newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d, HTTP: &m}})
}

// echoSocket is a program that accepts WebSocket on /ws with the key's answer (/bad: with a wrong one), declines it on /no, and
// then sends back what it gets.
func echoSocket(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				key := req.Header.Get("Sec-WebSocket-Key")
				if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 16 || req.Header.Get("Upgrade") != "websocket" {
					fmt.Fprintf(c, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
					return
				}
				sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
				accept := base64.StdEncoding.EncodeToString(sum[:])
				switch req.URL.Path {
				case "/no":
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
					return
				case "/refused":
					fmt.Fprintf(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
					return
				case "/bad":
					accept = "wrong"
				}
				fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept)
				_, _ = io.Copy(c, r)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// A WebSocket client that speaks HTTP/2 (RFC 8441) reaches a program that speaks HTTP/1.1 (RFC 6455): the key and its answer
// are ours.
func TestWebSocketDown(t *testing.T) {
	m := model.HTTP{Upgrades: []string{"websocket"}, HTTP2: model.HTTP2Options{AllowConnect: true}}
	p := plain(t, m, echoSocket(t))
	open := func(path string) (*frames, *http2.MetaHeadersFrame) {
		f := newFrames(t, p)
		f.request(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", path, ":authority", "a", "sec-websocket-version", "13")
		return f, f.response(1)
	}
	f, h := open("/ws")
	if field(h, ":status") != "200" || field(h, "sec-websocket-accept") != "" || h.StreamEnded() {
		t.Fatalf("%v", h.Fields)
	}
	_ = f.WriteData(1, false, []byte("hello"))
	d := f.until("the echo", func(fr http2.Frame) bool { _, ok := fr.(*http2.DataFrame); return ok }).(*http2.DataFrame)
	if string(d.Data()) != "hello" {
		t.Errorf("%q", d.Data())
	}
	for path, status := range map[string]string{"/no": "502", "/bad": "502", "/refused": "404"} {
		if _, h := open(path); field(h, ":status") != status {
			t.Errorf("%s: %v", path, h.Fields)
		}
	}
}

// Between HTTP/1.1 and HTTP/1.1 nothing is invented.
func TestWebSocketOld(t *testing.T) {
	p := plain(t, model.HTTP{Upgrades: []string{"websocket"}}, echoSocket(t))
	w := raw(t, p)
	w.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nhello")
	res, err := http.ReadResponse(w.r, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v %v", res, err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(w.r, b); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	w = raw(t, p)
	w.send("GET /no HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if res, body := w.response("GET"); res.StatusCode != 200 || body != "no" {
		t.Errorf("declined: %v %q", res, body)
	}
}

// CONNECT goes to the cluster of its route and becomes a tunnel.
func TestConnectTunnel(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil || req.Method != "CONNECT" || req.Host != "db.test:5432" {
					fmt.Fprintf(c, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n")
				_, _ = io.Copy(c, r)
			}()
		}
	}()
	p := plain(t, model.HTTP{Upgrades: []string{"connect"}}, ln.Addr().(*net.TCPAddr).AddrPort())
	w := raw(t, p)
	w.send("CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\n")
	for line := w.line(); line != ""; line = w.line() {
		if strings.HasPrefix(line, "HTTP/1.1") && !strings.Contains(line, "200") {
			t.Fatal(line)
		}
	}
	w.send("ping")
	b := make([]byte, 4)
	if _, err := io.ReadFull(w.r, b); err != nil || string(b) != "ping" {
		t.Errorf("%q %v", b, err)
	}
	f := newFrames(t, p)
	f.request(1, false, ":method", "CONNECT", ":authority", "db.test:5432")
	if h := f.response(1); field(h, ":status") != "200" {
		t.Fatalf("%v", h.Fields)
	}
	_ = f.WriteData(1, true, []byte("pong"))
	d := f.until("the echo", func(fr http2.Frame) bool { _, ok := fr.(*http2.DataFrame); return ok }).(*http2.DataFrame)
	if string(d.Data()) != "pong" {
		t.Errorf("%q", d.Data())
	}
}

// What HTTP/2 clients can say and HTTP/1.1 cannot carry is refused or made harmless, never passed on.
func TestTranslation(t *testing.T) {
	p := plain(t, model.HTTP{}, mirror(t))
	usual := []string{":method", "GET", ":scheme", "http", ":path", "/x", ":authority", "a"}
	with := func(kv ...string) []string { return append(append([]string{}, usual...), kv...) }
	ask := func(end bool, kv []string) (status, body string) {
		f := newFrames(t, p)
		f.request(1, end, kv...)
		fr := f.until("an answer", func(fr http2.Frame) bool {
			switch fr.(type) {
			case *http2.MetaHeadersFrame, *http2.RSTStreamFrame, *http2.GoAwayFrame:
				return true
			}
			return false
		})
		h, ok := fr.(*http2.MetaHeadersFrame)
		if !ok {
			return "reset", ""
		}
		for !h.StreamEnded() {
			d, ok := f.until("the body", func(fr http2.Frame) bool { _, ok := fr.(*http2.DataFrame); return ok }).(*http2.DataFrame)
			if !ok || len(d.Data()) == 0 && d.StreamEnded() {
				break
			}
			body += string(d.Data())
			if d.StreamEnded() {
				break
			}
		}
		return field(h, ":status"), body
	}
	for _, c := range []struct {
		name   string
		kv     []string
		status string
		want   string
		absent string
	}{
		{"plain", usual, "200", "GET /x HTTP/1.1\r\nHost: a\r\n", "tulle-"},
		{"crumbs", with("cookie", "a=b", "x", "y", "cookie", "c=d"), "200", "cookie: a=b; c=d\r\n", ""},
		{"host agrees", with("host", "a"), "200", "Host: a\r\n", "host: a\r\n"},
		{"host differs", with("host", "b"), "reset", "", ""},
		{"te", with("te", "trailers"), "200", "TE: trailers\r\n", ""},
		{"te gzip", with("te", "gzip"), "reset", "", ""},
		{"connection", with("connection", "x"), "reset", "", ""},
		{"transfer-encoding", with("transfer-encoding", "chunked"), "reset", "", ""},
		{"upgrade", with("upgrade", "websocket"), "reset", "", ""},
		{"two lengths", with("content-length", "0", "content-length", "1"), "reset", "", ""},
		{"length without body", with("content-length", "5"), "reset", "", ""},
		{"line end in a value", with("x", "a\r\nevil: 1"), "reset", "", ""},
		{"NUL in a value", with("x", "a\x00b"), "reset", "", ""},
		{"space before a value", with("x", " a"), "reset", "", ""},
		{"colon in a name", with("x:y", "a"), "reset", "", ""},
		{"capital in a name", with("X", "a"), "reset", "", ""},
		{"space in the path", []string{":method", "GET", ":scheme", "http", ":path", "/a HTTP/1.1\r\nx: y", ":authority", "a"}, "reset", "", ""},
		{"line end in the method", []string{":method", "GET / HTTP/1.1\r\nx:", ":scheme", "http", ":path", "/", ":authority", "a"}, "reset", "", ""},
		{"line end in the authority", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a\r\nx: y"}, "reset", "", ""},
		{"http2-settings", with("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"), "200", "GET /x", "ettings"},
		{"not allowed upgrade", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a"}, "reset", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := ask(true, c.kv)
			if status != c.status || !strings.Contains(body, c.want) || c.absent != "" && strings.Contains(body, c.absent) {
				t.Errorf("%s %q, want %s %q without %q", status, body, c.status, c.want, c.absent)
			}
		})
	}
}

// A WebSocket client that speaks HTTP/1.1 reaches a server that speaks HTTP/2 (here: another proxy, which has a program of
// HTTP/1.1 behind it): the answer to its key is ours.
func TestWebSocketUp(t *testing.T) {
	m := model.HTTP{Upgrades: []string{"websocket"}, HTTP2: model.HTTP2Options{AllowConnect: true}}
	server := plain(t, m, echoSocket(t))
	o := inbound(netip.MustParseAddrPort(server.addr))
	o.Mesh = true // so that the client can say which version goes on
	p := newHop(t, setup{origin: o})
	open := func(path string) (*wire, *http.Response) {
		w := raw(t, p)
		w.send("GET " + path + " HTTP/1.1\r\nHost: a\r\nTulle-HTTP: 2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		res, err := http.ReadResponse(w.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return w, res
	}
	w, res := open("/ws")
	if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v", res)
	}
	w.send("hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(w.r, b); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	if _, res := open("/refused"); res.StatusCode != 404 {
		t.Errorf("%v", res)
	}
}
