package downstream_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/grpc"
)

// frame is one gRPC message on the wire.
func frame(flags byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(s))), s...)
}

// greeter is a gRPC program: it answers every message with "hello " before it, and its status in trailers.
func greeter(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if ct := r.Header.Get("Content-Type"); ct != "application/grpc+proto" || r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the program got %s %s %v", r.Proto, ct, r.Header)
		}
		if r.URL.Path == "/no" {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("Grpc-Status", "5")
			return
		}
		w.Header().Set("Content-Type", "application/grpc+proto")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		body := bufio.NewReader(r.Body)
		for {
			var head [5]byte
			if _, err := io.ReadFull(body, head[:]); err != nil {
				break
			}
			msg := make([]byte, binary.BigEndian.Uint32(head[1:]))
			_, _ = io.ReadFull(body, msg)
			_, _ = w.Write(frame(0, "hello "+string(msg)))
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", "fine")
	}
}

func TestGRPCWeb(t *testing.T) {
	p := chain(t, model.HTTP{GRPCWeb: true}, h2cServer(t, greeter(t)))
	request := append(frame(0, "ann"), frame(0, "bob")...)
	want := append(append(frame(0, "hello ann"), frame(0, "hello bob")...), frame(0x80, "grpc-message:fine\r\ngrpc-status:0\r\n")...)
	for name, c := range map[string]*http.Client{"HTTP/1.1": client(t), "HTTP/2": h2cClient(t)} {
		t.Run(name, func(t *testing.T) {
			for _, text := range []bool{false, true} {
				body, ct := request, "application/grpc-web+proto"
				if text { // two pieces, each padded, that do not end with a message
					ct = "application/grpc-web-text+proto"
					body = []byte(base64.StdEncoding.EncodeToString(request[:7]) + base64.StdEncoding.EncodeToString(request[7:]))
				}
				req, _ := http.NewRequest("POST", p.url("/svc/Method"), bytes.NewReader(body))
				req.Header.Set("Content-Type", ct)
				res, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != ct || len(res.Trailer) != 0 {
					t.Fatalf("%d %v %v %v", res.StatusCode, res.Header, res.Trailer, err)
				}
				if text {
					got = decodePieces(t, got)
				}
				if !sameFrames(got, want) {
					t.Errorf("text %v: got %q\nwant %q", text, got, want)
				}
			}
		})
	}
	p.until("the records", func() bool { return p.log.count() == 4 })
	if r := p.log.last(); r.GRPC != 0 || r.Protocol != model.ProtocolGRPC {
		t.Errorf("%+v", r)
	}
}

// sameFrames compares, whatever the order of the lines in the trailers.
func sameFrames(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	swapped := bytes.Replace(b, []byte("grpc-message:fine\r\ngrpc-status:0\r\n"), []byte("grpc-status:0\r\ngrpc-message:fine\r\n"), 1)
	return bytes.Equal(a, swapped)
}

// decodePieces decodes base64 whose pieces are padded each.
func decodePieces(t *testing.T, p []byte) (out []byte) {
	t.Helper()
	if len(p)%4 != 0 {
		t.Fatalf("%d characters", len(p))
	}
	for ; len(p) > 0; p = p[4:] {
		d, err := base64.StdEncoding.DecodeString(string(p[:4]))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d...)
	}
	return out
}

func TestGRPCWebFailures(t *testing.T) {
	p := chain(t, model.HTTP{GRPCWeb: true}, h2cServer(t, greeter(t)))
	down := chain(t, model.HTTP{GRPCWeb: true}, nobody(t))
	for _, c := range []struct {
		name, path, body string
		p                *hop
		status           int
		grpc             string
	}{
		{"trailers only", "/no", "", p, 200, "5"},
		{"not base64", "/x", "AAAA!!!!", p, 200, "13"},
		{"half of a group", "/x", "AAAAA", p, 200, "13"},
		{"nobody", "/x", "", down, 200, "14"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, _ := http.NewRequest("POST", c.p.url(c.path), strings.NewReader(c.body))
			req.Header.Set("Content-Type", "application/grpc-web-text+proto")
			res, err := client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.status || res.Header.Get("Grpc-Status") != c.grpc || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc-web-text") {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
		})
	}
}

// Without the filter nothing is bridged.
func TestNoGRPCWeb(t *testing.T) {
	p := chain(t, model.HTTP{}, mirror(t))
	_, got := seen(t, p, "GET / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\n\r\n")
	if !strings.Contains(got, "application/grpc-web\r\n") {
		t.Errorf("%q", got)
	}
}

// A call ends when its deadline has passed, and the program hears of it at once. In the mesh that is so for every call,
// elsewhere if the route says so.
func TestDeadline(t *testing.T) {
	told, gone := make(chan string, 10), make(chan struct{}, 10)
	program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("Grpc-Timeout")
		<-r.Context().Done()
		gone <- struct{}{}
	})
	mesh2 := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Service: cart,
		Destination: to(t, model.Timeouts{}, mesh(sidecar(t, program)))}, http2: true})
	foreign := routed(t, model.HTTP{}, program, model.VirtualHost{Domains: []string{"*"}, Routes: []model.Route{{
		Match: model.Match{Path: "/", PathPrefixText: true}, Backends: []model.Backend{{Cluster: model.Free("c"), Weight: 1}},
		Timeouts: model.Timeouts{GRPCTimeout: true, GRPCMax: 500 * time.Millisecond}}}})
	for _, c := range []struct {
		name, timeout string
		p             *hop
	}{
		{"mesh", "500m", mesh2},
		{"foreign", "500m", foreign},
		{"foreign, the longest", "1H", foreign},
		{"foreign, none said", "", foreign},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, _ := http.NewRequest("POST", c.p.url("/x"), http.NoBody)
			req.Header.Set("Content-Type", "application/grpc")
			if c.timeout != "" {
				req.Header.Set("Grpc-Timeout", c.timeout)
			}
			res, err := h2cClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "4" {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			v := <-told
			if d, ok := grpc.ParseTimeout([]byte(v)); !ok || d > 500*time.Millisecond || d < 20*time.Millisecond {
				t.Errorf("the program was told %q", v)
			}
			<-gone
		})
	}
}

// A call that the client gives up is given up at the program, at once.
func TestCancellation(t *testing.T) {
	started, gone := make(chan struct{}), make(chan struct{})
	program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(gone)
	})
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Service: cart,
		Destination: to(t, model.Timeouts{}, mesh(sidecar(t, program)))}, http2: true})
	f := newFrames(t, p)
	f.request(1, false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a", "content-type", "application/grpc", "te", "trailers")
	<-started
	_ = f.WriteRSTStream(1, 8)
	<-gone
}

// A server that gives a call up when its deadline has passed may be heard before our own timer, or where we keep none: the
// client learns that it was the deadline.
func TestDeadlineOfTheServer(t *testing.T) {
	program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		d, _ := grpc.ParseTimeout([]byte(r.Header.Get("Grpc-Timeout")))
		<-time.After(d)
		panic(http.ErrAbortHandler) // RST_STREAM
	})
	p := routed(t, model.HTTP{}, program, model.VirtualHost{Domains: []string{"*"}, Routes: []model.Route{{
		Match: model.Match{Path: "/", PathPrefixText: true}, Backends: []model.Backend{{Cluster: model.Free("c"), Weight: 1}}}}})
	for timeout, want := range map[string]string{"20m": "4", "": "14"} {
		req, _ := http.NewRequest("POST", p.url("/x"), http.NoBody)
		req.Header.Set("Content-Type", "application/grpc")
		if timeout != "" {
			req.Header.Set("Grpc-Timeout", timeout)
		}
		res, err := h2cClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Grpc-Status"); got != want {
			t.Errorf("grpc-timeout %q: status %s, want %s", timeout, got, want)
		}
	}
}

// An endpoint that is tried after another is told how much of the deadline is left.
func TestDeadlineAfterRetry(t *testing.T) {
	told := make(chan string, 100)
	program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) { told <- r.Header.Get("Grpc-Timeout") })
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and ends them after a while
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
			time.AfterFunc(150*time.Millisecond, func() { _ = c.Close() })
		}
	}()
	d := to(t, model.Timeouts{}, ln.Addr().(*net.TCPAddr).AddrPort(), mesh(sidecar(t, program)))
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Service: cart, Destination: d}, http2: true})
	for range 50 { // the first pick is at random
		req, _ := http.NewRequest("POST", p.url("/x"), http.NoBody)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Grpc-Timeout", "5S")
		res, err := h2cClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if s := res.Header.Get("Grpc-Status"); s == "4" {
			t.Fatal("the deadline has passed")
		}
		v := <-told
		left, ok := grpc.ParseTimeout([]byte(v))
		if !ok || left > 5*time.Second {
			t.Fatalf("the program was told %q", v)
		}
		if left <= 4900*time.Millisecond {
			return
		}
	}
	t.Error("no request was retried")
}
