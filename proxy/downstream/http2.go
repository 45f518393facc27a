package downstream

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// conn2 is an HTTP/2 connection, from a program or from another proxy.
type conn2 struct {
	c       loop.Conn
	ctx     Context
	cfg     Config
	h2      *http2.Conn
	free    *stream2
	stalled []*stream2 // wait for the connection's output to drain
	timer   loop.Timer
	life    loop.Timer // of the connection; armed only where it is bounded
	leaving loop.Timer // from GOAWAY to the final one
	alive   loop.Timer // for PINGs; armed only where they are wanted
	asked   bool       // a PING waits for an answer
	heard   bool       // something has come since
	full    bool       // output waits to be read: nothing is read until then
	served  uint32
	active  time.Duration // when the last stream ended
	feeding bool          // Output is written once, at the end of Feed
	eof     bool
	wrote   bool // something has gone out since then
	closed  bool
}

// stream2 is one request on a conn2, and its exchange's Client. It is recycled by its connection.
type stream2 struct {
	conn    *conn2
	s       *http2.Stream
	x       *exchange.Exchange
	begun   bool // inside Worker.Begin
	over    bool // the exchange ended inside Worker.Begin
	broken  bool // the stream is: nothing can be sent
	waiting bool // in conn.stalled
	next    *stream2
}

// Windows of a whole connection, in bytes.
const (
	// boundless is never filled by its streams: a request whose body is read slowly must not hold up the others.
	boundless = 1 << 30
	// published is for strangers, who share a connection with nobody else.
	published = 4 << 20
)

// unread is how many bytes may wait to be read by a client before nothing more is taken from it. Bodies stop at
// loop.HighWater; what is above are heads and answers to frames.
const unread = loop.HighWater + 128<<10

// meshBudget is how many frames another proxy may send in vain: those are the resets of all its program's requests.
const meshBudget = 100_000

func newConn2(c loop.Conn, ctx Context, cfg Config) *conn2 {
	u := &conn2{c: c, ctx: ctx, cfg: cfg}
	var window, budget uint32 = boundless, 0
	switch o := ctx.Origin; {
	case o.Publish:
		window = published
	case o.HTTP != nil:
		window = cfg.ConnWindow
	case o.Mesh:
		budget = meshBudget
	}
	u.h2 = http2.New(http2.Config{
		Server:        true,
		MaxConcurrent: cfg.MaxStreams,
		InitialWindow: uint32(max(cfg.Window, 64<<10-1)),
		ConnWindow:    window,
		Budget:        budget,
		MaxHead:       uint32(cfg.Limits.Head),
		HeaderTable:   cfg.HeaderTable,
		EnableConnect: !cfg.NoConnect,
		Events:        (*events2)(u),
	})
	u.timer.Expired = u.expired
	u.active = c.Loop().Now()
	c.Loop().Arm(&u.timer, cfg.IdleTimeout)
	u.leaving.Expired = u.leave
	if cfg.MaxDuration < never {
		u.life.Expired = u.Drain
		c.Loop().Arm(&u.life, cfg.MaxDuration)
	}
	if cfg.KeepAlive < never {
		u.alive.Expired = u.ping
		c.Loop().Arm(&u.alive, cfg.KeepAlive)
	}
	u.flush()
	return u
}

// flush gives what HTTP/2 has produced to the connection, which writes it once at the end of the turn.
func (u *conn2) flush() {
	if u.feeding || u.closed {
		return
	}
	if out := u.h2.Output(); len(out) > 0 {
		u.wrote = true
		u.c.Write(out)
		u.h2.Flushed()
	}
}

// Opened implements loop.Handler.
func (u *conn2) Opened() {}

// Data implements loop.Handler.
func (u *conn2) Data(p []byte) int {
	if u.closed {
		return len(p)
	}
	if u.c.Buffered() > unread { // answers to its own frames and requests, which it does not read
		u.full = true
		u.c.Pause()
		return 0
	}
	u.h2.Tick(u.c.Loop().Now())
	u.feeding, u.heard = true, true
	n, err := u.h2.Feed(p)
	u.feeding = false
	u.flush()
	if err != nil {
		u.close()
		u.h2.End(http2.ProtocolError)
		return len(p)
	}
	// Who stopped because of what Feed has produced is woken here if it has gone out at once: the connection calls Writable
	// only after it has held more than the watermark itself.
	if len(u.stalled) > 0 && u.c.Buffered() <= loop.HighWater {
		u.Writable()
	}
	u.closeIfDrained()
	return n
}

func (u *conn2) close() {
	if !u.closed {
		u.closed = true
		u.c.Close()
	}
}

func (u *conn2) closeIfDrained() {
	if !u.feeding && u.h2.Drained() || u.eof && u.h2.Streams() == 0 {
		u.flush()
		u.close()
	}
}

// Leave implements Drainer.
func (u *conn2) Leave() { u.Drain() }

// Drain implements Drainer.
func (u *conn2) Drain() {
	u.h2.Drain()
	u.flush()
	if !u.closed && !u.leaving.Armed() {
		u.c.Loop().Arm(&u.leaving, u.cfg.DrainTimeout)
	}
	u.closeIfDrained()
}

// leave says the last word to a client that has not answered the ping of a drain.
func (u *conn2) leave() {
	if !u.closed {
		u.h2.Drain()
		u.flush()
		u.closeIfDrained()
	}
}

// ping asks a client that has said nothing for a sign of life, and gives it up if there is none.
func (u *conn2) ping() {
	l := u.c.Loop()
	switch {
	case u.closed:
	case u.asked && !u.heard:
		u.closed = true
		u.c.Reset()
		u.h2.End(http2.Cancel)
	case u.heard:
		u.asked, u.heard = false, false
		l.Arm(&u.alive, u.cfg.KeepAlive)
	default:
		u.asked = true
		u.h2.Ping([8]byte{})
		u.flush()
		l.Arm(&u.alive, u.cfg.KeepAliveEnd)
	}
}

// expired drains a connection that had no stream for too long.
func (u *conn2) expired() {
	l := u.c.Loop()
	if u.closed {
		return
	}
	if u.eof {
		u.halfOver()
		return
	}
	if u.h2.Streams() > 0 {
		u.active = l.Now()
		u.h2.Each(func(s *http2.Stream) {
			if t, _ := s.User.(*stream2); t != nil && t.x != nil {
				t.x.Still(u.cfg.StillTimeout)
			}
		})
	}
	if wait := u.active + u.cfg.IdleTimeout - l.Now(); wait > 0 {
		l.Arm(&u.timer, wait)
		return
	}
	u.h2.GoAway(http2.NoError)
	u.flush()
	u.close()
}

// EOF implements loop.Handler. Requests that are complete are still answered, if that does not take long: most clients that end
// are gone, and so are those of the other requests. Of gRPC all are: its servers expect to be told at once.
func (u *conn2) EOF() {
	u.eof = true
	u.h2.Each(func(s *http2.Stream) {
		if t, _ := s.User.(*stream2); t != nil && t.x != nil && (!s.RecvEnded() || t.x.GRPC()) {
			t.broken = true
			t.x.Gone()
		}
	})
	u.closeIfDrained()
	if !u.closed {
		u.wrote = false
		u.c.Loop().Arm(&u.timer, halfClosed)
	}
}

// halfOver ends a connection whose client has ended its direction and was sent nothing for a while.
func (u *conn2) halfOver() {
	if u.wrote {
		u.wrote = false
		u.c.Loop().Arm(&u.timer, halfClosed)
		return
	}
	u.close()
	u.h2.End(http2.Cancel)
}

// Writable implements loop.Handler.
func (u *conn2) Writable() {
	if u.full && !u.closed {
		u.full = false
		u.c.Resume()
	}
	list := u.stalled
	u.stalled = nil
	for _, t := range list {
		if t.waiting {
			t.waiting = false
			if t.x != nil {
				t.x.Writable()
			}
		}
	}
	if u.stalled == nil {
		u.stalled = list[:0]
	}
}

// Closed implements loop.Handler.
func (u *conn2) Closed(err error) {
	u.closed = true
	for _, t := range [...]*loop.Timer{&u.timer, &u.life, &u.leaving, &u.alive} {
		u.c.Loop().Disarm(t)
	}
	u.h2.End(http2.Cancel)
	if u.ctx.Ended != nil {
		u.ctx.Ended()
	}
}

// events2 is conn2 as its codec sees it.
type events2 conn2

func (e *events2) Head(s *http2.Stream, h *message.Head, end bool) {
	u := (*conn2)(e)
	t := u.free
	if t == nil {
		t = &stream2{conn: u}
	} else {
		u.free = t.next
	}
	*t = stream2{conn: u, s: s, begun: true}
	s.User = t
	if u.served++; u.served == u.cfg.MaxRequests {
		u.Drain()
	}
	if n := u.cfg.Limits.Fields; n > 0 && len(h.Fields) > n {
		u.ctx.Worker.Refuse(u.ctx.Origin, t, failure.HeadTooLarge)
		t.recycle()
		return
	}
	t.x = u.ctx.Worker.Begin(u.ctx.Origin, t, h, end)
	t.begun = false
	if t.over {
		t.recycle()
	}
}

func (e *events2) Data(s *http2.Stream, p []byte, end bool) {
	t, _ := s.User.(*stream2)
	if t == nil || t.x == nil {
		e.h2.Consumed(s, len(p))
		return
	}
	t.x.Data(p, end)
}

func (e *events2) Trailers(s *http2.Stream, h *message.Head) {
	if t, _ := s.User.(*stream2); t != nil && t.x != nil {
		t.x.Trailers(h)
	}
}

func (e *events2) Reset(s *http2.Stream, code http2.ErrCode) {
	if t, _ := s.User.(*stream2); t != nil && t.x != nil {
		t.broken = true
		t.x.Gone()
	}
}

func (e *events2) Writable(s *http2.Stream) {
	if t, _ := s.User.(*stream2); t != nil && t.x != nil {
		t.x.Writable()
	}
}

func (e *events2) GoAway(uint32, http2.ErrCode) {}
func (e *events2) Settings()                    {}

// HeadTooLarge answers a request whose head is over the limit.
func (e *events2) HeadTooLarge(s *http2.Stream) {
	t := &stream2{conn: (*conn2)(e), s: s, begun: true}
	s.User = t
	e.ctx.Worker.Refuse(e.ctx.Origin, t, failure.HeadTooLarge)
	t.recycle()
}

// Head implements exchange.Client.
func (t *stream2) Head(h *message.Head, end bool) {
	u := t.conn
	if t.broken || h.Status < 200 && h.Status != 101 && u.c.Buffered()+len(u.h2.Output()) > unread {
		return // who reads no interim responses is sent no more of them
	}
	u.h2.Head(t.s, h, end)
	u.flush()
}

// Data implements exchange.Client. A client may open windows wider than we want to hold, so the connection's
// watermark counts as well.
func (t *stream2) Data(p []byte, end bool) int {
	u := t.conn
	if t.broken {
		return len(p)
	}
	if len(p) > 0 && u.c.Buffered()+len(u.h2.Output()) > loop.HighWater { // in Feed nothing is flushed
		if !t.waiting {
			t.waiting = true
			u.stalled = append(u.stalled, t)
		}
		return 0
	}
	n := u.h2.Data(t.s, p, end)
	u.flush()
	return n
}

// Trailers implements exchange.Client.
func (t *stream2) Trailers(h *message.Head) {
	if t.broken {
		return
	}
	t.conn.h2.Trailers(t.s, h)
	t.conn.flush()
}

// Consumed implements exchange.Client.
func (t *stream2) Consumed(n int) {
	if t.broken {
		return
	}
	t.conn.h2.Consumed(t.s, n)
	t.conn.flush()
}

// Abort implements exchange.Client.
func (t *stream2) Abort(reason failure.Reason) {
	if t.broken {
		return
	}
	t.conn.h2.Reset(t.s, http2.InternalError)
	t.conn.flush()
}

// Finished implements exchange.Client.
func (t *stream2) Finished() {
	t.x = nil
	if t.begun {
		t.over = true
		return
	}
	t.recycle()
}

// recycle gives the stream back; one that is still open is reset by that.
func (t *stream2) recycle() {
	u := t.conn
	s := t.s
	t.s, t.x, t.waiting = nil, nil, false
	s.User = nil
	u.h2.Release(s)
	u.active = u.c.Loop().Now()
	t.next, u.free = u.free, t
	if !u.closed {
		u.flush()
		u.closeIfDrained()
	}
}
