package upstream

import (
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// HTTP2 is a multiplexed connection.
type HTTP2 struct {
	shared *Shared
	owner  Owner
	c      loop.Conn
	h2     *http2.Conn
	free   *stream2
	open   int
	served uint64

	up, ending, down bool
	feeding          bool // Output is written once, at the end of Feed
	heard, asked     bool // since the last Probe: the peer has said something; a ping waits for its answer
	cause            error
	stalled          []*stream2 // wait for the connection's output to drain
	wasted           []*stream2 // nobody wants their responses; for one Feed

	most            int           // streams at a time, 0: as many as the peer allows
	every, patience time.Duration // of PINGs, 0: none; and of what has to come within
	ping            loop.Timer
	told            bool // since the last PING the peer has said something
	within          time.Duration
	rested          time.Duration // since when it has no request
	rest            time.Duration // how long it had had none when the last one came that found it so
	quit            bool          // the server has ended it while it had no request, and said nothing before
}

// stream2 is one request on an HTTP2. It is recycled by its connection.
type stream2 struct {
	conn *HTTP2
	s    *http2.Stream
	r    Receiver // nil once given up
	over bool     // the response has ended, or failed
	wait bool     // in conn.stalled
	next *stream2
}

// NewHTTP2 makes a connection; give it to loop.Dial, or to SetHandler of a blank connection that stands and then
// call Opened. With's the argument of both is the same: call Attach before anything else happens on c.
func NewHTTP2(shared *Shared, owner Owner) *HTTP2 {
	return NewHTTP2With(shared, owner, model.HTTP2Options{})
}

// NewHTTP2With is NewHTTP2 with the options of a cluster.
func NewHTTP2With(shared *Shared, owner Owner, o model.HTTP2Options) *HTTP2 {
	u := &HTTP2{shared: shared, owner: owner, most: int(o.MaxStreams), every: o.KeepAlive, patience: o.KeepAliveTimeout}
	cfg := http2.Config{InitialWindow: max(uint32(shared.window()), 64<<10-1), ConnWindow: boundless, Budget: resets, Events: (*events2)(u)}
	if o.Window > 0 {
		cfg.InitialWindow = min(o.Window, maxWindow)
	}
	if o.ConnectionWindow > 0 {
		cfg.ConnWindow = o.ConnectionWindow
	}
	cfg.HeaderTable = o.HeaderTable
	u.h2 = http2.New(cfg)
	return u
}

// maxWindow bounds the window of a stream that a cluster asks for, as downstream.ConfigOf does: so much of a response is held for
// a client that does not read.
const maxWindow = 1 << 20

// boundless is a window of a connection that its streams' windows never fill: who reads slowly on some of them must
// not hold up the others. What is held is bounded by the streams, which are ours.
const boundless = 1 << 30

// resets is how many frames the peer may send in vain: a program that breaks off many responses does no harm to others.
const resets = 100_000

// Within says in how long after Opened the peer's settings have to come; 0: there is no bound. Call it before.
func (u *HTTP2) Within(d time.Duration) { u.within = d }

// Attach says which connection carries u.
func (u *HTTP2) Attach(c loop.Conn) { u.c = c }

// Open implements Conn.
func (u *HTTP2) Open(h *message.Head, end bool, r Receiver) (Stream, error) {
	if !u.Free() {
		return nil, ErrFull
	}
	s, err := u.h2.Open(h, end)
	if err != nil {
		if errors.Is(err, http2.ErrNoStreams) {
			return nil, ErrFull
		}
		if errors.Is(err, http2.ErrTooLarge) {
			return nil, &failure.Failure{Reason: failure.HeadTooLarge, Cause: err}
		}
		if errors.Is(err, http2.ErrNoConnect) {
			return nil, &failure.Failure{Reason: failure.UpstreamProtocol, Cause: err}
		}
		return nil, err
	}
	t := u.free
	if t == nil {
		t = &stream2{conn: u}
	} else {
		u.free = t.next
	}
	if u.open == 0 {
		u.rest = u.c.Loop().Now() - u.rested
	}
	t.s, t.r, t.over, t.next = s, r, false, nil
	s.User = t
	u.open++
	u.served++
	u.flush()
	return t, nil
}

// Free implements Conn.
func (u *HTTP2) Free() bool {
	return u.up && !u.ending && !u.down && u.h2.Available() > 0 && (u.most == 0 || u.open < u.most)
}

// Idle implements Conn.
func (u *HTTP2) Idle() bool { return u.open == 0 }

// Served implements Conn.
func (u *HTTP2) Served() uint64 { return u.served }

// Rest answers for how long the connection has had no request.
func (u *HTTP2) Rest() time.Duration {
	if u.open > 0 || !u.up {
		return 0
	}
	return u.c.Loop().Now() - u.rested
}

// Rested answers for how long it had had no request when the last one came that found it so.
func (u *HTTP2) Rested() time.Duration { return u.rest }

// Quit reports whether the server has ended the connection while it had no request, without a GOAWAY before; its rest is
// told.
func (u *HTTP2) Quit() (rest time.Duration, yes bool) { return u.rest, u.quit }

// hungUp notes that.
func (u *HTTP2) hungUp() {
	if u.up && !u.ending && !u.down && u.open == 0 {
		u.quit, u.rest = true, u.Rest()
	}
}

// Retire implements Conn.
func (u *HTTP2) Retire() {
	if u.ending || u.down {
		return
	}
	u.ending = true
	u.h2.Drain()
	u.flush()
	u.owner.Ending(u)
	u.closeIfDone()
}

// Close implements Conn.
func (u *HTTP2) Close() {
	if u.down || u.c == nil {
		return
	}
	u.ending = true
	u.h2.GoAway(http2.NoError)
	u.flush()
	u.c.Close()
	u.h2.End(http2.Cancel)
}

// Probe is called now and then. A peer that owes responses and has said nothing since the last call is asked for a sign
// of life; if it has given none by the next call the connection is given up. A machine that is gone says nothing, and
// TCP alone would wait for a quarter of an hour.
func (u *HTTP2) Probe() {
	switch {
	case u.down || !u.up || u.open == 0 || u.heard:
		u.asked = false
	case u.asked:
		u.cause = errSilent
		u.stop()
		u.c.Reset()
	default:
		u.asked = true
		u.h2.Ping([8]byte{})
		u.flush()
	}
	u.heard = false
}

var errSilent = errors.New("the upstream's proxy gives no sign of life")

// closeIfDone closes a connection that takes no more requests and has none.
func (u *HTTP2) closeIfDone() {
	if u.ending && u.open == 0 && !u.down {
		u.flush()
		u.c.Close()
	}
}

// flush gives what HTTP/2 has produced to the connection, which writes it once at the end of the turn.
func (u *HTTP2) flush() {
	if u.feeding || u.down {
		return
	}
	if out := u.h2.Output(); len(out) > 0 {
		u.c.Write(out)
		u.h2.Flushed()
	}
}

// Opened implements loop.Handler.
func (u *HTTP2) Opened() {
	if u.within > 0 {
		u.ping.Expired = u.mute
		u.c.Loop().Arm(&u.ping, u.within)
	}
	u.flush()
}

// mute gives up a peer that has not sent its settings: a kernel accepts connections for a program that hangs.
func (u *HTTP2) mute() {
	u.cause = loop.ErrConnectTimeout
	u.stop()
	u.c.Reset()
}

// Data implements loop.Handler.
func (u *HTTP2) Data(p []byte) int {
	u.h2.Tick(u.c.Loop().Now())
	u.feeding, u.heard, u.told = true, true, true
	n, err := u.h2.Feed(p)
	u.tidy()
	u.feeding = false
	u.flush()
	if err != nil {
		u.fail(err)
		return len(p)
	}
	u.revive()
	u.closeIfDone()
	return n
}

// revive wakes those that stopped because of what Feed had produced, if it has gone out at once: the connection calls
// Writable only after it has held more than the watermark itself.
func (u *HTTP2) revive() {
	if len(u.stalled) > 0 && u.c.Buffered() <= loop.HighWater {
		u.Writable()
	}
}

// fail ends a connection on which the peer broke the protocol.
func (u *HTTP2) fail(err error) {
	if u.cause == nil {
		u.cause = &failure.Failure{Reason: failure.UpstreamProtocol, Cause: err}
	}
	u.stop()
	u.c.Close()
}

// stop takes the connection out of use.
func (u *HTTP2) stop() {
	if !u.ending {
		u.ending = true
		if u.up {
			u.owner.Ending(u)
		}
	}
}

// EOF implements loop.Handler: a peer that ends its direction will answer nothing more.
func (u *HTTP2) EOF() {
	u.hungUp()
	u.stop()
	u.c.Close()
	u.h2.End(http2.InternalError)
}

// Writable implements loop.Handler.
func (u *HTTP2) Writable() {
	list := u.stalled
	u.stalled = nil
	for _, t := range list {
		if t.wait {
			t.wait = false
			if t.r != nil {
				t.r.Writable()
			}
		}
	}
	if u.stalled == nil {
		u.stalled = list[:0]
	}
}

// Closed implements loop.Handler.
func (u *HTTP2) Closed(err error) {
	if err == nil {
		err = u.cause
	}
	if err == nil {
		err = errClosed
	}
	u.hungUp()
	u.down = true
	u.cause = err
	if u.ping.Armed() {
		u.c.Loop().Disarm(&u.ping)
	}
	u.h2.End(http2.InternalError)
	var f *failure.Failure
	if !u.up {
		f = DialFailure(err)
	}
	u.owner.Down(u, f)
}

// events2 is HTTP2 as its codec sees it.
type events2 HTTP2

func (e *events2) Head(s *http2.Stream, h *message.Head, end bool) {
	t, _ := s.User.(*stream2)
	if t == nil || t.r == nil {
		return
	}
	t.over = end
	t.r.Head(h, end)
}

func (e *events2) Data(s *http2.Stream, p []byte, end bool) {
	t, _ := s.User.(*stream2)
	if t == nil || t.r == nil {
		e.h2.Consumed(s, len(p))
		return
	}
	t.over = end
	t.r.Data(p, end)
}

func (e *events2) Trailers(s *http2.Stream, h *message.Head) {
	t, _ := s.User.(*stream2)
	if t == nil || t.r == nil {
		return
	}
	t.over = true
	t.r.Trailers(h)
}

func (e *events2) Reset(s *http2.Stream, code http2.ErrCode) {
	t, _ := s.User.(*stream2)
	if t == nil || t.r == nil || t.over && s.SendEnded() {
		return
	}
	t.over = true
	switch code {
	case http2.RefusedStream:
		t.r.Failed(failure.RefusedStream, nil)
	case http2.ProtocolError:
		t.r.Failed(failure.UpstreamProtocol, nil)
	default:
		t.r.Failed(failure.UpstreamReset, e.cause)
	}
}

func (e *events2) Writable(s *http2.Stream) {
	if t, _ := s.User.(*stream2); t != nil && t.r != nil {
		t.r.Writable()
	}
}

func (e *events2) GoAway(last uint32, code http2.ErrCode) { (*HTTP2)(e).stop() }

// Settings: the connection counts as up only now, because before it nobody knows how many streams it takes and
// whether it takes extended CONNECT.
func (e *events2) Settings() {
	u := (*HTTP2)(e)
	switch {
	case u.ending || u.down:
	case !u.up:
		u.up, u.rested = true, u.c.Loop().Now()
		if u.ping.Armed() {
			u.c.Loop().Disarm(&u.ping)
		}
		u.keepAlive()
		u.owner.Up(u)
	default:
		u.owner.Freed(u)
	}
}

// Data implements Stream. A peer may open windows wider than we want to hold, so the connection's watermark counts
// as well.
func (t *stream2) Data(p []byte, end bool) int {
	u := t.conn
	if len(p) > 0 && u.c.Buffered()+len(u.h2.Output()) > loop.HighWater { // in Feed nothing is flushed
		if !t.wait {
			t.wait = true
			u.stalled = append(u.stalled, t)
		}
		return 0
	}
	n := u.h2.Data(t.s, p, end)
	u.flush()
	return n
}

// Trailers implements Stream.
func (t *stream2) Trailers(h *message.Head) {
	t.conn.h2.Trailers(t.s, h)
	t.conn.flush()
}

// Consumed implements Stream.
func (t *stream2) Consumed(n int) {
	t.conn.h2.Consumed(t.s, n)
	t.conn.flush()
}

// Done implements Stream.
func (t *stream2) Done() {
	u := t.conn
	t.r, t.wait = nil, false
	t.s.User = nil
	u.h2.Release(t.s)
	t.s = nil
	t.next, u.free = u.free, t
	if u.open--; u.open == 0 {
		u.rested = u.c.Loop().Now()
	}
	u.flush()
	if u.down {
		return
	}
	if u.ending {
		if !u.feeding {
			u.closeIfDone()
		}
		return
	}
	u.owner.Freed(u)
}
