package upstream

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// HTTP1 is a connection that carries one exchange at a time. It is its own Stream.
type HTTP1 struct {
	shared *Shared
	owner  Owner
	c      loop.Conn
	head   message.Head // of responses, reused
	body   http1.Body
	method []byte // of the request; belongs to the receiver until Done
	r      Receiver
	served uint64
	rested time.Duration // since when it has no request
	rest   time.Duration // how long it had had none when the present one came

	state   state1
	chunked bool // the request's body
	sent    bool // the request is complete
	close   bool // not to be used again
	retire  bool
	offer   bool // the request offers to switch, so its body is what goes through the tunnel
	up      bool
	down    bool
	quit    bool // the server has ended it while it had no request, or had said nothing to one
	paused  bool
	stalled bool  // Data took nothing
	unread  int   // response bytes given and not consumed
	left    int64 // request body bytes that the stated length still promises; -1: none was stated
	line    [20]byte
	hint    []byte // Keep-Alive of the first response
}

// state1 is what the next bytes are.
type state1 uint8

const (
	idle    state1 = iota // nothing is expected
	waiting               // a response head
	inBody
	inTunnel
	complete // the response is; Done has not been called
)

// NewHTTP1 makes a connection; give it to loop.Dial and call Attach with what that answers.
func NewHTTP1(shared *Shared, owner Owner) *HTTP1 { return &HTTP1{shared: shared, owner: owner} }

// Attach says which connection carries u.
func (u *HTTP1) Attach(c loop.Conn) { u.c = c }

// Open implements Conn.
func (u *HTTP1) Open(h *message.Head, end bool, r Receiver) (Stream, error) {
	if !u.Free() {
		return nil, ErrFull
	}
	u.served++
	u.rest = u.c.Loop().Now() - u.rested
	u.r, u.method, u.state = r, h.Method, waiting
	u.sent, u.chunked, u.offer, u.stalled, u.unread = end, false, false, false, 0
	u.left = -1
	f := http1.Framing{Kind: http1.BodyNone}
	upgrade := h.Upgrade != nil || bytes.Equal(h.Method, connect)
	switch {
	case end:
	case upgrade && h.ContentLength <= 0:
		u.close, u.offer = true, true // what follows goes through only after the switch
	case h.ContentLength > 0:
		f = http1.Framing{Kind: http1.BodyLength, Length: h.ContentLength}
		u.left = h.ContentLength
	default: // also where a length of 0 was stated and the end has yet to come: HTTP/2 data that contradicts it may follow
		f = http1.Framing{Kind: http1.BodyChunked}
		u.chunked, u.left = true, h.ContentLength
	}
	s := http1.AppendRequest(u.shared.scratch[:0], h, f)
	u.shared.scratch = s
	if len(s) == 0 {
		u.sent, u.state, u.r = true, idle, nil
		return nil, &failure.Failure{Reason: failure.BadRequest, Cause: errUnwritable}
	}
	u.c.Write(s)
	return (*stream1)(u), nil
}

var connect = []byte("CONNECT")

// Free implements Conn.
func (u *HTTP1) Free() bool {
	return u.up && !u.down && !u.close && !u.retire && u.r == nil && u.state == idle
}

// Ended reports whether the server of a connection without a request has ended it, or said something, that its loop has
// not seen yet. A program that closes idle connections may have done so in this very turn, so the kernel is asked.
func (u *HTTP1) Ended() bool {
	if u.Rest() < atRest {
		return false
	}
	e, ok := u.c.(interface{ Ended() bool })
	return ok && e.Ended()
}

// Rest answers for how long the connection has had no request.
func (u *HTTP1) Rest() time.Duration {
	if u.r != nil {
		return 0
	}
	return u.c.Loop().Now() - u.rested
}

// Rested answers for how long it had had no request when the present, or last, one came.
func (u *HTTP1) Rested() time.Duration { return u.rest }

// Hint answers what the server has said in Keep-Alive with its first response, nil if nothing.
func (u *HTTP1) Hint() []byte { return u.hint }

// Quit reports whether the server has ended the connection while it had no request, or without a word to the request
// that came after a rest; that rest is told.
func (u *HTTP1) Quit() (rest time.Duration, yes bool) { return u.rest, u.quit }

// atRest is from when on Ended asks the kernel.
const atRest = 10 * time.Millisecond

// Idle implements Conn.
func (u *HTTP1) Idle() bool { return u.r == nil }

// Served implements Conn.
func (u *HTTP1) Served() uint64 { return u.served }

// Retire implements Conn.
func (u *HTTP1) Retire() {
	if u.retire || u.down {
		return
	}
	u.retire = true
	u.owner.Ending(u)
	if u.r == nil {
		u.c.Close()
	}
}

// Close implements Conn.
func (u *HTTP1) Close() {
	if u.down {
		return
	}
	u.retire = true
	u.c.Reset()
	u.fail(failure.UpstreamReset, nil)
}

// Opened implements loop.Handler.
func (u *HTTP1) Opened() {
	u.up, u.rested = true, u.c.Loop().Now()
	u.owner.Up(u)
}

// Data implements loop.Handler.
func (u *HTTP1) Data(p []byte) int {
	used := 0
	for !u.down {
		before, state := used, u.state
		switch u.state {
		case waiting:
			used += u.readHead(p[used:])
		case inBody:
			used += u.readBody(p[used:])
		case inTunnel:
			if used < len(p) {
				used = len(p)
				u.give(p[before:], false)
			}
		default: // idle or complete: nobody asked for these bytes
			if used < len(p) {
				u.discard()
			}
			return len(p)
		}
		if used == before && u.state == state {
			break
		}
	}
	u.tidy()
	return used
}

// discard ends a connection whose bytes make no sense any more.
func (u *HTTP1) discard() {
	u.close = true
	if u.r == nil && !u.retire {
		u.hungUp()
		u.retire = true
		u.owner.Ending(u)
		u.c.Close()
	}
}

// hungUp notes that the server has ended the connection of its own accord, unless we had begun to.
func (u *HTTP1) hungUp() {
	switch {
	case u.quit || !u.up || u.retire || u.close && u.r != nil:
	case u.r == nil:
		u.quit, u.rest = true, u.c.Loop().Now()-u.rested
	case u.state == waiting && u.rest >= atRest: // it was at it when the request came
		u.quit = true
	}
}

// readHead reads one response head and answers how many bytes it had.
func (u *HTTP1) readHead(p []byte) int {
	n, f, err := http1.ParseResponse(p, u.method, &u.head, u.shared.Limits)
	if err != nil {
		u.refuse(err)
		return len(p)
	}
	if n == 0 {
		return 0
	}
	h := &u.head
	switch {
	case h.Status == 101 || h.Status/100 == 2 && bytes.Equal(u.method, connect):
		if h.Status == 101 && !u.offer { // nobody asked to switch
			u.refuse(errSwitched)
			return len(p)
		}
		u.state = inTunnel
		u.r.Head(h, false)
		return n
	case h.Status < 200:
		u.r.Head(h, false)
		return n
	}
	if u.served == 1 && h.KeepAlive != nil {
		u.hint = append(u.hint, h.KeepAlive...)
	}
	if h.Close || h.Version == message.HTTP10 || f.Kind == http1.BodyUntilClose {
		u.close = true
	}
	if f.Kind == http1.BodyNone || f.Kind == http1.BodyLength && f.Length == 0 {
		u.finish(len(p) > n)
		u.r.Head(h, true)
		return n
	}
	u.state = inBody
	u.body.Reset(f)
	u.r.Head(h, false)
	return n
}

// readBody gives one piece of the body and answers how many bytes it had on the wire.
func (u *HTTP1) readBody(p []byte) int {
	data, n, done, err := u.body.Next(p)
	if err != nil {
		u.refuse(err)
		return len(p)
	}
	if !done {
		if len(data) > 0 {
			u.give(data, false)
		}
		return n
	}
	u.finish(len(p) > n)
	if t := u.body.Trailers(); t != nil && len(t.Fields) > 0 {
		r := u.r
		if len(data) > 0 {
			u.give(data, false)
		}
		if u.r == r && r != nil {
			r.Trailers(t)
		}
		return n
	}
	u.give(data, true)
	return n
}

// give hands body bytes on and stops reading when too many are under way.
func (u *HTTP1) give(data []byte, end bool) {
	u.unread += len(data)
	u.r.Data(data, end)
	if !end && u.r != nil && u.unread >= u.shared.window()/2 && !u.paused { // another scratch full would be too much
		u.paused = true
		u.c.Pause()
	}
}

// finish notes that the response is complete; surplus says that more bytes follow, which nobody asked for.
func (u *HTTP1) finish(surplus bool) {
	u.state = complete
	if surplus {
		u.close = true
	}
}

// refuse fails the exchange because the upstream breaks HTTP.
func (u *HTTP1) refuse(err error) {
	u.c.Close()
	u.fail(failure.UpstreamProtocol, err)
}

// fail ends the exchange that is under way, if there is one that has not ended in both directions.
func (u *HTTP1) fail(reason failure.Reason, cause error) {
	u.close = true
	if u.r != nil && (u.state != complete || !u.sent) {
		u.state, u.sent = complete, true
		u.r.Failed(reason, cause)
	}
}

// EOF implements loop.Handler.
func (u *HTTP1) EOF() {
	switch {
	case u.state == inTunnel:
		u.state = complete
		u.r.Data(nil, true)
	case u.state == inBody && u.body.End() == nil:
		u.finish(false)
		u.r.Data(nil, true)
	case u.r == nil:
		u.discard()
	case u.state != complete:
		u.hungUp()
		u.c.Close()
		u.fail(failure.UpstreamReset, errClosed)
	default:
		u.close = true
	}
}

// Writable implements loop.Handler.
func (u *HTTP1) Writable() {
	if u.stalled && u.r != nil {
		u.stalled = false
		u.r.Writable()
	}
}

// Closed implements loop.Handler.
func (u *HTTP1) Closed(err error) {
	if err == nil {
		err = errClosed
	}
	u.hungUp()
	u.down = true
	u.fail(failure.UpstreamReset, err)
	var f *failure.Failure
	if !u.up {
		f = DialFailure(err)
	}
	u.owner.Down(u, f)
}

// stream1 is HTTP1 as the stream of the exchange that is on it.
type stream1 HTTP1

// Data implements Stream, of the request's body or of a tunnel.
func (t *stream1) Data(p []byte, end bool) int {
	u := (*HTTP1)(t)
	if u.sent || u.down {
		return len(p)
	}
	if len(p) > 0 && u.c.Buffered() > loop.HighWater {
		u.stalled = true
		return 0
	}
	if u.left >= 0 && !u.within(len(p), end) {
		return len(p)
	}
	if u.chunked {
		u.writeChunk(p, end)
	} else if len(p) > 0 {
		u.c.Write(p)
	}
	if end {
		u.sent = true
		if u.offer && u.state != inBody { // declined: many programs take our end for our going away
			u.c.CloseWrite()
		}
	}
	return len(p)
}

// within counts body bytes against the stated length. Codecs have checked it; should a body differ all the same,
// the connection ends here, because the next request on it would be read as part of this one or the other way round.
func (u *HTTP1) within(n int, end bool) bool {
	u.left -= int64(n)
	if u.left < 0 || end && u.left > 0 {
		u.left, u.sent, u.close = 0, true, true
		u.c.Reset()
		return false
	}
	return true
}

// writeChunk writes p as one chunk without copying it twice.
func (u *HTTP1) writeChunk(p []byte, end bool) {
	if len(p) > 0 {
		line := strconv.AppendUint(u.line[:0], uint64(len(p)), 16)
		u.c.Write(append(line, "\r\n"...))
		u.c.Write(p)
	}
	switch {
	case end && len(p) > 0:
		u.c.Write(chunkEndLast)
	case end:
		u.c.Write(chunkLast)
	case len(p) > 0:
		u.c.Write(chunkEnd)
	}
}

var (
	chunkEnd     = []byte("\r\n")
	chunkLast    = []byte("0\r\n\r\n")
	chunkEndLast = []byte("\r\n0\r\n\r\n")
)

// Trailers implements Stream. A body with a stated length has no place for them.
func (t *stream1) Trailers(h *message.Head) {
	u := (*HTTP1)(t)
	if u.sent || u.down {
		return
	}
	u.sent = true
	if u.chunked {
		u.shared.scratch = http1.AppendLastChunk(u.shared.scratch[:0], h)
		u.c.Write(u.shared.scratch)
	}
}

// Consumed implements Stream.
func (t *stream1) Consumed(n int) {
	t.unread -= n
	if t.paused && t.unread < t.shared.window()/2 {
		t.paused = false
		t.c.Resume()
	}
}

// Done implements Stream.
func (t *stream1) Done() {
	u := (*HTTP1)(t)
	whole := u.state == complete && u.sent
	u.r, u.method, u.stalled = nil, nil, false
	if u.down {
		return
	}
	if whole && !u.close && !u.retire {
		u.state, u.rested = idle, u.c.Loop().Now()
		if u.paused {
			u.paused = false
			u.c.Resume()
		}
		u.owner.Freed(u)
		return
	}
	if whole {
		u.c.Close()
	} else {
		u.c.Reset()
	}
	u.state = complete
	if !u.retire {
		u.retire = true
		u.owner.Ending(u)
	}
}

var (
	errSwitched   = errors.New("101 although no switch was offered")
	errUnwritable = errors.New("the request cannot be written as HTTP/1.1")
)
