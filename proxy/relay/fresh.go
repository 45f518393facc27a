package relay

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// Fresh makes connections to endpoints that are no proxies of the mesh: Blanks of which each is for one relay. It belongs to
// its loop.
type Fresh struct {
	Loop loop.Loop
	// Header answers what a connection begins with, before a TLS handshake; nil: nothing.
	Header func(t *pool.Target) []byte
}

// Blank implements Blanks.
func (b Fresh) Blank(t *pool.Target, timeout time.Duration, ready func(c loop.Conn, f *failure.Failure)) (cancel func()) {
	f := &fresh{ready: ready}
	var header []byte
	if b.Header != nil {
		header = b.Header(t)
	}
	if d := (loop.Dial{Address: t.Address, Timeout: timeout}); t.TLS != nil {
		f.c = t.TLS.Dial(b.Loop, d, header, "", nil, f)
	} else {
		f.c = b.Loop.Dial(d, f)
		if len(header) > 0 {
			f.c.Write(header)
		}
	}
	return func() {
		if f.ready != nil {
			f.ready = nil
			f.c.Reset()
		}
	}
}

// Return implements Blanks.
func (b Fresh) Return(_ *pool.Target, c loop.Conn) { c.Close() }

// fresh is the handler of a connection that is being made.
type fresh struct {
	c     loop.Conn
	ready func(c loop.Conn, f *failure.Failure)
}

// Opened implements loop.Handler.
func (f *fresh) Opened() {
	if ready := f.ready; ready != nil {
		f.ready = nil
		ready(f.c, nil)
	}
}

// Data implements loop.Handler.
func (f *fresh) Data([]byte) int { return 0 }

// EOF implements loop.Handler.
func (f *fresh) EOF() {}

// Writable implements loop.Handler.
func (f *fresh) Writable() {}

// Closed implements loop.Handler.
func (f *fresh) Closed(err error) {
	if ready := f.ready; ready != nil {
		f.ready = nil
		ready(nil, upstream.DialFailure(err))
	}
}
