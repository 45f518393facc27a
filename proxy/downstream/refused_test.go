package downstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/model"
)

// refuser is a peer that speaks HTTP/2 frame by frame: on every connection answer decides about each stream.
func refuser(t *testing.T, answer func(conn int, f *http2.Framer, stream uint32)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				f := http2.NewFramer(c, c)
				_ = f.WriteSettings()
				for {
					fr, err := f.ReadFrame()
					if err != nil {
						return
					}
					switch fr := fr.(type) {
					case *http2.SettingsFrame:
						if !fr.IsAck() {
							_ = f.WriteSettingsAck()
						}
					case *http2.HeadersFrame:
						answer(n, f, fr.StreamID)
					}
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func ok(f *http2.Framer, stream uint32) {
	var b bytes.Buffer
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true})
}

// What the upstream has surely not looked at is sent again, whatever the method, to the same endpoint if it is the
// only one.
func TestRefusedStream(t *testing.T) {
	refused := false
	for name, a := range map[string]netip.AddrPort{
		"RST_STREAM": refuser(t, func(conn int, f *http2.Framer, stream uint32) {
			if !refused {
				refused = true
				_ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				return
			}
			ok(f, stream)
		}),
		"GOAWAY": refuser(t, func(conn int, f *http2.Framer, stream uint32) {
			if conn == 1 {
				_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
				return
			}
			ok(f, stream)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			p := caller(t, model.Timeouts{}, a)
			if res, _ := post(t, p, "hello"); res.StatusCode != 200 {
				t.Fatalf("got %d %v", res.StatusCode, res.Header)
			}
			if r := p.log.last(); r.NAttempts != 2 || r.Attempts[0].Reason != "refused_stream" {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// A client that has ended its direction gets its response; one that is gone ends the exchange.
func TestHalfClose(t *testing.T) {
	gone := make(chan struct{}, 2)
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			gone <- struct{}{}
			return
		}
		_, _ = io.WriteString(w, "answer")
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		_ = c.c.(*net.TCPConn).CloseWrite()
		if _, body := c.response("GET"); body != "answer" {
			t.Fatalf("%q", body)
		}
		c = raw(t, p)
		c.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
		p.until("the exchange", func() bool { return p.worker.Open() == 1 })
		_ = c.c.Close()
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Fatal("the program was not told")
		}
	})
}

// A tunnel whose program has gone altogether ends although its client stays.
func TestTunnelProgramGone(t *testing.T) {
	eachPath(t, func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbye")
		_ = rw.Flush()
		_ = c.Close()
	}, func(t *testing.T, p *hop) {
		c := raw(t, p)
		c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		if b, err := io.ReadAll(c.r); string(b) != "bye" || err != nil {
			t.Fatalf("%q %v", b, err)
		}
		p.until("the end of the exchange", func() bool {
			_, _ = c.c.Write([]byte("hello?"))
			return p.worker.Open() == 0
		})
	})
}

// Requests that share a connection between proxies do not wait for each other's slow readers, nor for programs that
// read slowly.
func TestSlowNeighbours(t *testing.T) {
	const neighbours = 100
	release := make(chan struct{})
	var moved atomic.Int64
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			b := make([]byte, 64<<10)
			for {
				n, err := w.Write(b)
				if moved.Add(int64(n)); err != nil {
					return
				}
			}
		case "/up":
			<-release
		default:
			fmt.Fprint(w, "done")
		}
	})
	defer close(release)
	o := inbound(addrOf(t, srv))
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true})
	p := caller(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	for i := range neighbours {
		c := raw(t, p)
		if err := c.c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			c.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n") // and read nothing
		} else {
			go func() {
				_, _ = io.Copy(c.c, io.MultiReader(strings.NewReader("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n"), bytes.NewReader(make([]byte, 4<<20))))
			}()
		}
	}
	in.until("all of them", func() bool { return in.worker.Open() == neighbours })
	var last int64
	var since time.Duration
	in.until("all of them to be stuck", func() bool {
		now := in.loop.Now()
		if n := moved.Load(); n != last {
			last, since = n, now
		}
		return now-since > 300*time.Millisecond
	})
	for range 20 {
		c := raw(t, p)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := c.response("GET"); body != "done" {
			t.Fatalf("%q", body)
		}
	}
}
