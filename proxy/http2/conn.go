// Package http2 is one HTTP/2 connection (RFC 9113) as a pure state machine, in either role: bytes of the peer
// go in by Feed, what they mean comes out by Events, bytes for the peer are collected in Output.
//
// It promises: whatever Events is told has been checked (framing, pseudo-header fields, field syntax,
// content-length against DATA, flow control), every queue has a bound, the floods that are known are refused,
// and a steady state allocates nothing. It never does I/O, reads no clock, starts no goroutine and is not safe
// for concurrent use. Methods of Conn may be called from inside Events, except Feed.
//
// Start reading at Conn.Feed (feed.go), then request.go (what a head must be), stream.go (states), write.go.
package http2

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/hpack"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Config of a connection. Zero values take the default.
type Config struct {
	Server        bool   // our role
	MaxConcurrent uint32 // server: streams the client may have open at once; default 250
	InitialWindow uint32 // bytes we let the peer send on a stream before Consumed; default 65535, at most 1<<31-1
	ConnWindow    uint32 // likewise for all streams together; default 1 MB, at least 65535
	MaxFrame      uint32 // largest frame payload we take; default 16384, the protocol's minimum and what a reader's buffer must hold
	MaxHead       uint32 // largest head we take, in bytes as RFC 9113 section 6.5.2 counts; default 64 KB
	EnableConnect bool   // server: announce extended CONNECT (RFC 8441)
	Huffman       bool   // write Huffman codes: fewer bytes, more work
	Budget        uint32 // abusive frames (resets, pings, settings, empty frames) before the connection is refused; default 1000
	Events        Events // told what happens; required
}

// Events is told what the peer did. h and p are valid only during the call.
//
// If the owner also has a method Pong([8]byte), it is told of answers to Ping. If it has HeadTooLarge(*Stream)
// it is told, in place of Head, that a request's head was over MaxHead and has to answer; without it the
// connection answers 431 by itself.
type Events interface {
	// Head: server: a new request; client: a response head, after any number of 1xx heads. end: no body follows.
	// A request with :protocol (RFC 8441) comes as GET with Upgrade, its 2xx response as 101 with Upgrade, as
	// HTTP/1.1 would have them; Open and Conn.Head translate back.
	Head(s *Stream, h *message.Head, end bool)
	// Data: body bytes, to be given back with Consumed once they have gone on. p may be empty when end is set.
	Data(s *Stream, p []byte, end bool)
	// Trailers: the trailer section, which ends the peer's side.
	Trailers(s *Stream, h *message.Head)
	// Reset: the stream is over, by the peer's RST_STREAM, or because the peer broke the protocol on it, or by a
	// GOAWAY that leaves it out (code RefusedStream: the peer has not looked at it; safe to retry). Not called
	// for the owner's own Reset.
	Reset(s *Stream, code ErrCode)
	// Writable: Data, which took less than it was given, would take more now.
	Writable(s *Stream)
	// GoAway: the peer takes no more streams. Reset calls for the streams it left out follow.
	GoAway(last uint32, code ErrCode)
	// Settings: the peer's settings have arrived or changed.
	Settings()
}

// Conn is one connection.
type Conn struct {
	cfg    Config
	events Events
	pong   interface{ Pong([8]byte) }
	large  interface{ HeadTooLarge(*Stream) }

	dec hpack.Decoder
	enc hpack.Encoder
	out []byte
}

// New makes a connection; its preface and SETTINGS are in Output at once.
func New(cfg Config) *Conn { panic("not yet") }

// Feed takes bytes of the peer and answers how many it has used; the rest has to be given again together with
// what arrives next. An error is a *ConnError: GOAWAY is in Output already; flush, then close the connection.
func (c *Conn) Feed(p []byte) (n int, err error) { panic("not yet") }

// Output answers what has to be written to the peer; valid until Flushed or the next call.
func (c *Conn) Output() []byte { return c.out }

// Flushed says that Output has been copied away.
func (c *Conn) Flushed() {}

// Tick tells the time, on any monotonic clock, so that the flood bounds can be rates. Optional and cheap: call
// it before Feed where a time is at hand. Without it only useful work gives budget back.
func (c *Conn) Tick(now time.Duration) {}

// Open starts a request (client). ErrNoStreams: the peer's MAX_CONCURRENT_STREAMS or a GOAWAY forbids;
// ErrNoConnect: h has Upgrade and the peer has not announced RFC 8441. end: no body and no trailers follow.
func (c *Conn) Open(h *message.Head, end bool) (*Stream, error) { panic("not yet") }

// Head sends a response head (server), or an interim one if h.Status is 1xx (other than 101).
func (c *Conn) Head(s *Stream, h *message.Head, end bool) {}

// Data sends body bytes and answers how many were taken: as many as flow control permits. If fewer than
// len(p), give the rest again after Events.Writable. end counts once all of p has been taken.
func (c *Conn) Data(s *Stream, p []byte, end bool) (n int) { return 0 }

// Trailers sends a trailer section and ends our side; all of the body must have been taken before.
func (c *Conn) Trailers(s *Stream, h *message.Head) {}

// Reset ends s at once.
func (c *Conn) Reset(s *Stream, code ErrCode) {}

// Release gives s back for reuse: the owner keeps no reference to it and has cleared its own. A stream that is
// still open is reset (a server that has answered in full: NoError, else Cancel). A stream that is never
// released is left to the garbage collector.
func (c *Conn) Release(s *Stream) {}

// Consumed gives n bytes that Events.Data was given back to the peer as credit. After the end of s it does nothing.
func (c *Conn) Consumed(s *Stream, n int) {}

// GoAway tells the peer that no stream after the ones seen will be served; the ones that are open go on.
func (c *Conn) GoAway(code ErrCode) {}

// Drain ends the connection gracefully: a server announces it, waits one round trip, then takes no more
// streams; a client opens none. See Drained.
func (c *Conn) Drain() {}

// Drained reports whether a drain has come to its end: nothing is open and nothing new will be.
func (c *Conn) Drained() bool { return false }

// End says that the connection is gone: Events.Reset is called for every stream that is open.
func (c *Conn) End(code ErrCode) {}

// Ping asks the peer for a sign of life; see Events about Pong.
func (c *Conn) Ping(data [8]byte) {}

// Streams answers how many streams are open.
func (c *Conn) Streams() int { return 0 }

// Available answers how many more streams Open would start now.
func (c *Conn) Available() int { return 0 }

// PeerConnect reports whether the peer has announced extended CONNECT (RFC 8441).
func (c *Conn) PeerConnect() bool { return false }
