package http2_test

import (
	"errors"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/proxy/http2"
)

// A peer that opens its windows byte by byte makes us write a frame for each; one that consumes small messages does not.
func TestSmallWindowUpdates(t *testing.T) {
	p := newScript(t, http2.Config{Server: true})
	p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	p.frames()
	p.headers(1, true, get...)
	p.frames()
	s := p.last
	p.c.Head(s, response(200), false)
	body := make([]byte, 1<<20)
	p.own.writable = func(s *http2.Stream) { body = body[p.c.Data(s, body, true):] }
	p.c.Data(s, body, true)
	for i := 0; i < 1200 && p.err == nil; i++ {
		p.WriteWindowUpdate(1, 1)
		p.frames()
	}
	var ce *http2.ConnError
	if !errors.As(p.err, &ce) || ce.Code != http2.EnhanceYourCalm {
		t.Errorf("a byte at a time: %v", p.err)
	}

	p = newScript(t, http2.Config{Server: true}).hello()
	p.headers(1, false, post...)
	p.frames()
	s = p.last
	p.c.Head(s, response(200), false)
	for range 5000 {
		if n := p.c.Data(s, []byte("hello"), false); n != 5 {
			t.Fatal("no window")
		}
		p.frames()
		p.WriteWindowUpdate(0, 5)
		p.WriteWindowUpdate(1, 5)
		if p.frames(); p.err != nil {
			t.Fatal(p.err)
		}
	}
}

// TestHeaderListSize: a peer is sent no head that is larger than it says it takes (RFC 9113 section 6.5.2).
func TestHeaderListSize(t *testing.T) {
	limit := xhttp2.Setting{ID: xhttp2.SettingMaxHeaderListSize, Val: 5000}
	long := strings.Repeat("x", 6000)
	client := newScript(t, http2.Config{})
	client.WriteSettings(limit)
	client.frames()
	if _, err := client.c.Open(request("GET", "/", "x-long", long), true); !errors.Is(err, http2.ErrTooLarge) {
		t.Errorf("client: %v", err)
	}
	if _, err := client.c.Open(request("GET", "/", "x-short", "y"), true); err != nil {
		t.Errorf("client: %v", err)
	}
	server := newScript(t, http2.Config{Server: true})
	server.WriteSettings(limit)
	server.frames()
	server.headers(1, true, get...)
	server.frames()
	server.c.Head(server.last, response(103, "x-long", long), false)
	server.expect()
	server.c.Head(server.last, response(200, "x-long", long), false)
	if n := server.c.Data(server.last, []byte("body"), true); n != 4 {
		t.Error("the body waits for something")
	}
	server.expect("HEADERS 1 :status=502 content-length=0 true")
}

// TestHeaderTable: a larger table is announced, and used once the peer says so.
func TestHeaderTable(t *testing.T) {
	p := newScript(t, http2.Config{Server: true, HeaderTable: 16 << 10}).hello()
	p.enc.SetMaxDynamicTableSizeLimit(16 << 10)
	p.enc.SetMaxDynamicTableSize(16 << 10)
	values := make([]string, 10)
	for i := range values {
		values[i] = strings.Repeat(string(rune('a'+i)), 1000)
	}
	for id := uint32(1); id < 40; id += 2 {
		p.headers(id, true, with(get, "x", values[int(id/2)%len(values)])...)
		p.frames()
		if p.err != nil {
			t.Fatal(p.err)
		}
		p.c.Head(p.last, response(204), true)
	}
}
