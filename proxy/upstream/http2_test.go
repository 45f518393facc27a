package upstream_test

import (
	"bytes"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// wire is a connection whose kernel takes everything at once, or nothing.
type wire struct {
	loop.Conn
	still         // its loop
	takes    bool // everything
	buffered int
	written  int
}

func (w *wire) Loop() loop.Loop { return &w.still }
func (w *wire) Buffered() int   { return w.buffered }
func (w *wire) Write(p []byte) {
	w.written += len(p)
	if !w.takes {
		w.buffered += len(p)
	}
}

// still is a loop whose clock stands still.
type still struct{ loop.Loop }

func (still) Now() time.Duration             { return 0 }
func (still) Arm(*loop.Timer, time.Duration) {}

// owner ignores the life of a connection.
type owner struct{}

func (owner) Up(upstream.Conn)                     {}
func (owner) Freed(upstream.Conn)                  {}
func (owner) Ending(upstream.Conn)                 {}
func (owner) Down(upstream.Conn, *failure.Failure) {}

// body sends one request body as fast as it is taken.
type body struct {
	s    upstream.Stream
	left []byte
}

func (b *body) send() {
	if len(b.left) > 0 {
		b.left = b.left[b.s.Data(b.left, true):]
	}
}

func (b *body) Head(*message.Head, bool)     {}
func (b *body) Data([]byte, bool)            {}
func (b *body) Trailers(*message.Head)       {}
func (b *body) Failed(failure.Reason, error) {}
func (b *body) Writable()                    { b.send() }

// blocked is a connection with 16 requests of 64 KB each, and what the server says next opens all windows at once.
func blocked(t *testing.T, w *wire) (u *upstream.HTTP2, open []byte, bodies []*body) {
	t.Helper()
	u = upstream.NewHTTP2(&upstream.Shared{}, owner{})
	u.Attach(w)
	u.Opened()
	var in bytes.Buffer
	fr := xhttp2.NewFramer(&in, nil)
	if err := fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	u.Data(in.Bytes())
	for range 16 {
		b := &body{left: make([]byte, 64<<10)}
		h := &message.Head{Method: []byte("POST"), Scheme: []byte("http"), Target: []byte("/"), Authority: []byte("x"), ContentLength: -1}
		s, err := u.Open(h, false, b)
		if err != nil {
			t.Fatal(err)
		}
		b.s = s
		b.send()
		bodies = append(bodies, b)
	}
	in.Reset()
	if err := fr.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return u, in.Bytes(), bodies
}

// TestStalledInFeed: who stops at the watermark while bytes are read goes on when these have gone out at once, although
// the connection, which never held much, does not call Writable.
func TestStalledInFeed(t *testing.T) {
	w := &wire{takes: true}
	u, open, bodies := blocked(t, w)
	u.Data(open)
	for i, b := range bodies {
		if len(b.left) > 0 {
			t.Errorf("%d bytes of body %d wait, and nobody will ask for them", len(b.left), i)
		}
	}
}

// TestWatermarkInFeed: what many streams produce while bytes are read stops at the watermark as well.
func TestWatermarkInFeed(t *testing.T) {
	w := &wire{}
	u, open, _ := blocked(t, w)
	u.Data(open)
	if most := loop.HighWater + 64<<10 + 1<<10; w.buffered > most || w.buffered < loop.HighWater {
		t.Errorf("%d bytes wait in the connection; the watermark and one body are %d", w.buffered, most)
	}
	w.takes, w.buffered = true, 0
	u.Writable()
	if w.written < 16*64<<10 {
		t.Errorf("%d bytes written after all went out", w.written)
	}
}
