package upstream

import (
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// A response that nobody wants, because its request is sent again, is read as far as it is here already: then the
// connection, or the stream's number, is used as if it had been wanted. What would have to be waited for is broken off.

// waste1 is the receiver of such a response on an HTTP/1.1 connection.
type waste1 HTTP1

// Discard implements Stream.
func (t *stream1) Discard() {
	if t.down || t.state != inBody || !t.sent || t.close || t.retire {
		t.Done()
		return
	}
	t.r = (*waste1)(t)
}

func (w *waste1) Head(*message.Head, bool) {}
func (w *waste1) Data(p []byte, end bool) {
	if w.unread -= len(p); end {
		(*stream1)(w).Done()
	}
}
func (w *waste1) Trailers(*message.Head)       { (*stream1)(w).Done() }
func (w *waste1) Failed(failure.Reason, error) { (*stream1)(w).Done() }
func (w *waste1) Writable()                    {}

// tidy breaks off a response that nobody wants and that is not complete.
func (u *HTTP1) tidy() {
	if _, ok := u.r.(*waste1); ok {
		(*stream1)(u).Done()
	}
}

// waste2 is the receiver of such a response on a stream of HTTP/2.
type waste2 stream2

// Discard implements Stream.
func (t *stream2) Discard() {
	if t.conn.down || t.over || !t.conn.feeding || !t.s.SendEnded() {
		t.Done()
		return
	}
	t.r = (*waste2)(t)
	t.conn.wasted = append(t.conn.wasted, t)
}

func (w *waste2) Head(*message.Head, bool) {}
func (w *waste2) Data(p []byte, end bool) {
	if (*stream2)(w).Consumed(len(p)); end {
		(*stream2)(w).Done()
	}
}
func (w *waste2) Trailers(*message.Head)       { (*stream2)(w).Done() }
func (w *waste2) Failed(failure.Reason, error) { (*stream2)(w).Done() }
func (w *waste2) Writable()                    {}

// tidy breaks off the responses that nobody wants and that are not complete.
func (u *HTTP2) tidy() {
	for i, t := range u.wasted {
		u.wasted[i] = nil
		if _, ok := t.r.(*waste2); ok {
			t.Done()
		}
	}
	u.wasted = u.wasted[:0]
}
