// Package http2 is one HTTP/2 connection (RFC 9113) as a pure state machine, in either role: bytes of the peer
// go in by Feed, what they mean comes out by Events, bytes for the peer are collected in Output.
//
// It promises: whatever Events is told has been checked (framing, pseudo-header fields, field syntax,
// content-length against DATA, flow control), every queue has a bound, the floods that are known are refused,
// and a steady state allocates nothing. It never does I/O, reads no clock, starts no goroutine and is not safe
// for concurrent use. Methods of Conn may be called from inside Events, except Feed.
//
// Start reading at Conn.Feed (feed.go); then head.go and classify.go (what a head has to be), stream.go (states),
// flow.go (credit), write.go and compose.go, budget.go (floods), drain.go.
package http2

import (
	"encoding/binary"

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
	HeaderTable   uint32 // largest HPACK table the peer may use, in bytes; default 4096, at most 64 KB
	EnableConnect bool   // server: announce extended CONNECT (RFC 8441)
	Huffman       bool   // write Huffman codes: fewer bytes, more work
	Budget        uint32 // see budget.go: what a peer may ask of us in vain, in frames; default 1000. More between proxies, whose peers' resets are their clients'
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
	// Reset: the stream is over before its end, by the peer's RST_STREAM, or because the peer broke the protocol on it, or by a
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
	err    *ConnError // it has ended

	// Reading.
	prefaced int  // bytes of the client's preface seen (server)
	settled  bool // the peer's first SETTINGS has come
	dec      hpack.Decoder
	pending  block        // a head whose CONTINUATION frames are still to come
	head     message.Head // what Events is shown
	cookie   []byte       // crumbs put together
	peer     settings
	acked    bool // the peer has acknowledged our settings

	// Writing.
	enc   hpack.Encoder
	out   []byte
	slack uint8 // flushes in a row that used little of a large out
	lower []byte
	digit [20]byte
	tail  tail

	// Flow control of the connection; see flow.go.
	sendWindow int64
	recvWindow int64
	owed       uint32
	blocked    queue

	// Streams; see stream.go.
	streams streams
	free    *Stream
	spare   int
	nextID  uint32 // client: of the next request
	lastID  uint32 // server: the highest the client has used
	past    past

	leaving leaving // see drain.go
	budget  budget
}

// settings are the peer's.
type settings struct {
	maxFrame   uint32
	window     uint32
	maxStreams uint32
	maxHead    uint32 // 0: it has not said
	connect    bool
}

// Settings of the protocol (RFC 9113 section 6.5.2, RFC 8441 section 3).
const (
	setTableSize  = 1
	setEnablePush = 2
	setMaxStreams = 3
	setWindow     = 4
	setMaxFrame   = 5
	setMaxHead    = 6
	setConnect    = 8
)

const (
	defaultWindow = 65535
	maxWindow     = 1<<31 - 1
	minFrame      = 16384
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// New makes a connection; its preface and SETTINGS are in Output at once.
func New(cfg Config) *Conn {
	cfg.fill()
	c := &Conn{cfg: cfg, events: cfg.Events, nextID: 1, sendWindow: defaultWindow, recvWindow: int64(cfg.ConnWindow)}
	c.pong, _ = cfg.Events.(interface{ Pong([8]byte) })
	c.large, _ = cfg.Events.(interface{ HeadTooLarge(*Stream) })
	c.peer = settings{maxFrame: minFrame, window: defaultWindow, maxStreams: 100} // the last until it says otherwise
	c.dec.Init(max(cfg.HeaderTable, hpack.DefaultTable), cfg.MaxHead, classify)   // a smaller one holds only once the peer knows
	c.enc.Huffman = cfg.Huffman
	c.enc.Init(hpack.DefaultTable)
	c.budget = budget{left: int64(cfg.Budget), full: int64(cfg.Budget)}
	c.start()
	return c
}

func (cfg *Config) fill() {
	def := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.MaxConcurrent, 250)
	def(&cfg.InitialWindow, defaultWindow)
	def(&cfg.ConnWindow, 1<<20)
	def(&cfg.MaxFrame, minFrame)
	def(&cfg.MaxHead, 64<<10)
	def(&cfg.Budget, 1000)
	def(&cfg.HeaderTable, hpack.DefaultTable)
	cfg.HeaderTable = min(cfg.HeaderTable, 64<<10)
	cfg.InitialWindow = min(cfg.InitialWindow, maxWindow)
	cfg.ConnWindow = min(max(cfg.ConnWindow, defaultWindow), maxWindow)
	cfg.MaxFrame = min(max(cfg.MaxFrame, minFrame), 1<<24-1)
	cfg.MaxHead = min(cfg.MaxHead, 1<<24)
}

// start writes what has to come first (RFC 9113 section 3.4).
func (c *Conn) start() {
	if !c.cfg.Server {
		c.out = append(c.out, preface...)
	}
	at := len(c.out)
	c.out = appendFrame(c.out, 0, frameSettings, 0, 0)
	set := func(id uint16, v uint32) {
		c.out = binary.BigEndian.AppendUint16(c.out, id)
		c.out = binary.BigEndian.AppendUint32(c.out, v)
	}
	if c.cfg.Server {
		set(setMaxStreams, c.cfg.MaxConcurrent)
		if c.cfg.EnableConnect {
			set(setConnect, 1)
		}
	} else {
		set(setEnablePush, 0)
	}
	if c.cfg.HeaderTable != hpack.DefaultTable {
		set(setTableSize, c.cfg.HeaderTable)
	}
	if c.cfg.InitialWindow != defaultWindow {
		set(setWindow, c.cfg.InitialWindow)
	}
	if c.cfg.MaxFrame != minFrame {
		set(setMaxFrame, c.cfg.MaxFrame)
	}
	set(setMaxHead, c.cfg.MaxHead)
	setLength(c.out[at:])
	if c.cfg.ConnWindow > defaultWindow {
		c.writeWindow(0, c.cfg.ConnWindow-defaultWindow)
	}
}

// Output answers what has to be written to the peer; valid until Flushed or the next call.
func (c *Conn) Output() []byte { return c.out }

// Flushed says that Output has been copied away. A buffer that has grown large and is hardly used goes.
func (c *Conn) Flushed() {
	if cap(c.out) > 32<<10 && len(c.out) < cap(c.out)/4 {
		if c.slack++; c.slack == 32 {
			c.out, c.slack = nil, 0
		}
	} else {
		c.slack = 0
	}
	c.out = c.out[:0]
	c.tail.id = 0
}

// Streams answers how many streams are open.
func (c *Conn) Streams() int { return c.streams.n }

// Available answers how many more streams Open would start now.
func (c *Conn) Available() int {
	if c.cfg.Server || c.err != nil || c.leaving.gone() || c.nextID > maxWindow {
		return 0
	}
	return int(max(0, int64(c.peer.maxStreams)-int64(c.streams.n)))
}

// PeerConnect reports whether the peer has announced extended CONNECT (RFC 8441).
func (c *Conn) PeerConnect() bool { return c.peer.connect }

// fail ends the connection because of what the peer did.
func (c *Conn) fail(code ErrCode, msg string) {
	if c.err != nil {
		return
	}
	c.writeGoAway(c.lastID, code)
	c.err = &ConnError{Code: code, Msg: msg}
}

// End says that the connection is gone: Events.Reset is called for every stream that is open.
func (c *Conn) End(code ErrCode) {
	if c.err == nil {
		c.err = &ConnError{Code: code, Msg: "the connection has ended"}
	}
	for _, s := range c.streams.all() {
		if !s.closed {
			c.close(s, wePast)
			c.events.Reset(s, code)
		}
	}
}
