package downstream

import (
	"bytes"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// conn1 is an HTTP/1 connection. It carries one exchange at a time and is that exchange's Client; what the client
// sends ahead waits unread.
type conn1 struct {
	c     loop.Conn
	ctx   Context
	cfg   Config
	head  message.Head // of requests, reused
	body  http1.Body
	x     *exchange.Exchange // under way, nil if none
	out   []byte             // heads are written here before they go out
	line  [20]byte
	host  []byte // the default one, reused
	timer loop.Timer
	life  loop.Timer // of the connection; armed only where it is bounded

	state    state1
	answer   answer1
	begun    bool // inside Worker.Begin
	old      bool // the client speaks HTTP/1.0
	isHead   bool // HEAD: no body follows the response
	connect  bool
	expects  bool // 100-continue was asked for and not sent
	last     bool // the connection ends after this exchange
	eof      bool // the client has ended its direction
	paused   bool
	stalled  bool // Data took nothing
	leaving  bool // the next response that can says that it is the last
	draining bool // nothing comes after the exchange under way
	closed   bool
	spoke    bool // a request was read: the client does speak HTTP

	unread  int           // request body bytes given and not credited
	dropped int           // bytes of a body that nobody wants
	since   time.Duration // when the state that the timer watches began
	partial bool          // a head has begun
	pieces  uint64        // of request bodies that were read
	seen    uint64        // what pieces was when the timer last expired in a body; unseen: not yet in this one
	wrote   bool          // response bytes have gone out since the client's EOF
	full    bool          // responses wait to be read: no more requests until then
	served  uint32
}

// state1 is what the next bytes are.
type state1 uint8

const (
	inHead    state1 = iota
	inBody           // of the exchange under way
	inWait           // request complete: the next request, which waits
	inDiscard        // the rest of a body whose exchange is over
	inTunnel
)

// answer1 is how the response's body is framed.
type answer1 uint8

const (
	answerNone answer1 = iota // not begun
	answerLength
	answerChunked
	answerClose
	answerDone
)

const (
	maxDiscard = 256 << 10       // body bytes read for nobody before the connection is given up
	linger     = 2 * time.Second // how long the rest of a body that nobody wants may take
	unseen     = ^uint64(0)
	halfClosed = 3 * time.Second // how long a client that has ended its direction may wait without a byte
)

func newConn1(c loop.Conn, ctx Context, cfg Config) *conn1 {
	s := &conn1{c: c, ctx: ctx, cfg: cfg}
	s.timer.Expired = s.expired
	s.watch(cfg.IdleTimeout)
	if cfg.MaxDuration < never {
		s.life.Expired = s.Drain
		c.Loop().Arm(&s.life, cfg.MaxDuration)
	}
	return s
}

// Opened implements loop.Handler.
func (s *conn1) Opened() {}

// Data implements loop.Handler.
func (s *conn1) Data(p []byte) int {
	used := 0
	for !s.closed {
		before, state := used, s.state
		switch s.state {
		case inHead:
			used += s.readHead(p[used:])
		case inBody, inDiscard:
			used += s.readBody(p[used:])
		case inTunnel:
			if used < len(p) {
				s.got(len(p) - used)
				used = len(p)
				s.x.Data(p[before:], false)
			}
		case inWait:
			if used < len(p) { // sent ahead; it waits
				s.pause()
			}
			return used
		}
		if used == before && s.state == state {
			return used
		}
	}
	return len(p)
}

// readHead begins an exchange when a whole head is there, and answers how many bytes it had.
func (s *conn1) readHead(p []byte) int {
	if len(p) == 0 {
		s.partial = false
		return 0
	}
	if s.c.Buffered() > loop.HighWater { // it asks and asks, and reads no answer
		s.full = true
		s.pause()
		return 0
	}
	h := &s.head
	n, f, err := http1.ParseRequest(p, h, s.cfg.Limits)
	if err != nil {
		s.refuse(reasonOf(err, p, s.spoke))
		return len(p)
	}
	if n == 0 {
		if !s.partial {
			s.partial = true
			s.watch(s.cfg.HeaderTimeout)
		}
		return 0
	}
	s.partial, s.spoke = false, true
	s.old, s.isHead = h.Version == message.HTTP10, string(h.Method) == "HEAD"
	s.connect, s.expects = string(h.Method) == "CONNECT", h.Continue
	s.served++
	s.last = h.Close || s.draining || s.leaving || s.served == s.cfg.MaxRequests
	if why := s.unwanted(h, p); why != failure.None {
		s.refuse(why)
		return len(p)
	}
	s.answer, s.unread, s.dropped, s.stalled, s.wrote = answerNone, 0, 0, false, false
	none := f.Kind == http1.BodyNone
	if !none || s.old {
		h.Upgrade = nil // an offer that has a body may be ignored (RFC 9110 section 7.8)
	}
	s.state, s.seen = inBody, unseen
	s.body.Reset(f)
	end := none
	if none {
		s.state = inWait
		end = h.Upgrade == nil && !s.connect
	}
	s.begin(h, end)
	return n
}

// begin starts the exchange, which may be over when Begin returns.
func (s *conn1) begin(h *message.Head, end bool) {
	s.begun = true
	x := s.ctx.Worker.Begin(s.ctx.Origin, (*client1)(s), h, end)
	s.begun = false
	if x == nil {
		s.over()
		return
	}
	s.x = x
}

// unwanted says why a request that can be read is not served; it completes one of HTTP/1.0 without a host.
func (s *conn1) unwanted(h *message.Head, p []byte) failure.Reason {
	switch {
	case s.old && s.cfg.RefuseHTTP10:
		return failure.OldHTTP
	case s.old && len(h.Authority) == 0 && s.cfg.DefaultHost != "":
		h.Authority = append(s.host[:0], s.cfg.DefaultHost...)
		s.host = h.Authority
	}
	if s.cfg.OriginForm && !s.connect {
		if i := bytes.IndexByte(p, ' '); p[i+1] != '/' && p[i+1] != '*' {
			return failure.BadRequest
		}
	}
	return failure.None
}

// reasonOf answers why bytes p are not a request. What is no HTTP at all gets here only on a port that is declared HTTP:
// elsewhere it is relayed. spoke: the client has sent requests before.
func reasonOf(err error, p []byte, spoke bool) failure.Reason {
	if e, ok := err.(*http1.Error); ok {
		switch e.Reason {
		case http1.HeadTooLarge:
			return failure.HeadTooLarge
		case http1.LineTooLong:
			return failure.TargetTooLong
		}
	}
	if v := sniff.Classify(p); !spoke && (v == sniff.Opaque || v == sniff.TLS) {
		return failure.NotHTTP
	}
	return failure.BadRequest
}

// refuse answers what is not served and ends the connection.
func (s *conn1) refuse(reason failure.Reason) {
	s.last, s.old, s.isHead, s.connect, s.answer = true, false, false, false, answerNone
	s.begun = true
	s.ctx.Worker.Refuse(s.ctx.Origin, (*client1)(s), reason)
	s.begun = false
	s.closeNow()
}

// readBody gives one piece of the body on and answers how many bytes it had on the wire.
func (s *conn1) readBody(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	data, n, done, err := s.body.Next(p)
	if err != nil {
		s.broken(reasonOf(err, p, true))
		return len(p)
	}
	if s.state == inDiscard {
		s.discard(n, done)
		return n
	}
	if !done {
		if len(data) > 0 {
			s.got(len(data))
			s.x.Data(data, false)
		}
		return n
	}
	s.state = inWait
	if t := s.body.Trailers(); t != nil && len(t.Fields) > 0 {
		if len(data) > 0 {
			s.got(len(data))
			s.x.Data(data, false)
		}
		switch {
		case s.x == nil:
		case s.cfg.NoTrailers:
			s.x.Data(nil, true)
		default:
			s.x.Trailers(t)
		}
		return n
	}
	s.got(len(data))
	s.x.Data(data, true)
	return n
}

// broken ends a connection whose request body breaks HTTP, with an answer if none has begun: nobody knows where the next
// request would begin.
func (s *conn1) broken(reason failure.Reason) {
	s.last = true
	if s.x != nil {
		s.x.Break(reason)
	}
	s.closeNow()
}

// got counts bytes that were given on and stops reading when too many are.
func (s *conn1) got(n int) {
	s.pieces++
	s.unread += n
	if s.unread >= s.cfg.Window {
		s.pause()
	}
}

func (s *conn1) pause() {
	if !s.paused {
		s.paused = true
		s.c.Pause()
	}
}

func (s *conn1) resume() {
	if s.paused && !s.closed {
		s.paused = false
		s.c.Resume()
	}
}

// discard reads the rest of a body whose exchange is over, if it is short.
func (s *conn1) discard(n int, done bool) {
	s.dropped += n
	switch {
	case done:
		s.state = inHead
		s.idle()
	case s.dropped > maxDiscard:
		s.closeNow()
	}
}

// over goes on after an exchange: with the next request, or with the end of the connection.
func (s *conn1) over() {
	s.x = nil
	if s.closed {
		return
	}
	whole := s.state == inWait
	switch {
	case s.state == inTunnel || s.last || s.eof || s.draining || s.expects && !whole:
		s.closeNow()
	case !whole:
		s.state = inDiscard
		s.unread = 0
		s.watch(linger)
		s.resume()
	default:
		s.state = inHead
		s.idle()
		s.resume()
	}
}

// idle begins the wait for a request. The timer is not moved for every request: when it expires it looks at since.
func (s *conn1) idle() {
	s.since = s.c.Loop().Now()
	s.dropped = 0
}

// closeNow closes the connection; the loop sees to it that the client gets all that was written.
func (s *conn1) closeNow() {
	if !s.closed {
		s.closed = true
		s.c.Close()
	}
}

// watch makes the timer expire after d, in which the present state must have ended.
func (s *conn1) watch(d time.Duration) {
	l := s.c.Loop()
	s.since = l.Now()
	l.Arm(&s.timer, d)
}

// expired ends what has lasted too long.
func (s *conn1) expired() {
	l := s.c.Loop()
	wait := s.since + s.cfg.IdleTimeout - l.Now()
	switch {
	case s.closed:
	case s.state == inDiscard:
		s.closeNow()
	case s.state == inHead && s.partial && s.ctx.Origin.HTTP != nil:
		s.refuse(failure.RequestIncomplete)
	case s.state == inHead && (s.partial || wait <= 0):
		s.closeNow()
	case s.state == inHead:
		l.Arm(&s.timer, wait)
	case s.eof && s.state != inTunnel:
		if s.wrote {
			s.wrote = false
			l.Arm(&s.timer, halfClosed)
		} else if s.x != nil {
			s.closeNow()
			s.x.Gone()
		}
	case s.state == inBody && !s.paused && s.seen == s.pieces && s.x != nil:
		s.closeNow() // it has promised more and sent none of it
		s.x.Gone()
	default:
		s.seen = s.pieces
		l.Arm(&s.timer, s.cfg.IdleTimeout)
		if s.x != nil {
			s.x.Still(s.cfg.StillTimeout)
		}
	}
}

// Leave implements Drainer.
func (s *conn1) Leave() {
	s.leaving = true
	s.last = s.last || s.answer == answerNone // else the client has been told that it may go on
}

// Drain implements Drainer.
func (s *conn1) Drain() {
	s.draining, s.last = true, true
	if s.state == inHead && s.x == nil && !s.partial && !s.closed {
		s.closeNow()
	}
}

// EOF implements loop.Handler. A client that has sent all of its request may still wait for the response.
func (s *conn1) EOF() {
	s.eof = true
	switch {
	case s.closed:
	case s.state == inTunnel:
		s.x.Data(nil, true)
	case s.x == nil:
		s.closeNow()
	case s.state == inBody:
		s.closeNow()
		s.x.Gone()
	default:
		s.wrote = false
		s.watch(halfClosed)
	}
}

// Writable implements loop.Handler.
func (s *conn1) Writable() {
	if s.full {
		s.full = false
		s.resume()
	}
	if s.stalled && s.x != nil {
		s.stalled = false
		s.x.Writable()
	}
}

// Closed implements loop.Handler.
func (s *conn1) Closed(err error) {
	s.closed = true
	s.c.Loop().Disarm(&s.timer)
	s.c.Loop().Disarm(&s.life)
	if s.x != nil && !(err == nil && s.state == inTunnel && s.eof) { // else the upstream has to hear out what the client has said
		s.x.Gone()
	}
	if s.ctx.Ended != nil {
		s.ctx.Ended()
	}
}

// client1 is conn1 as its exchange sees it.
type client1 conn1

// Head implements exchange.Client.
func (t *client1) Head(h *message.Head, end bool) {
	s := (*conn1)(t)
	f := http1.Framing{Kind: http1.BodyNone}
	switch {
	case h.Status == 101, s.connect && h.Status/100 == 2:
		s.state = inTunnel
		s.answer = answerClose
		s.unread = 0
		s.resume()
	case h.Status < 200:
		if s.old || s.c.Buffered() > unread {
			return // HTTP/1.0 knows no interim responses; who reads none is sent no more of them
		}
		s.expects = s.expects && h.Status != 100
	default:
		s.last = s.last || s.connect // declined; what follows may be meant for the tunnel and is no request
		f = s.frame(h, end)
	}
	h.Version = message.HTTP11
	if s.old {
		h.Version = message.HTTP10
	}
	if h.Status >= 200 {
		h.Close = s.last && s.answer != answerClose
	}
	s.out = http1.AppendResponse(s.out[:0], h, f)
	s.c.Write(s.out)
	s.wrote = true
	if s.state == inTunnel && s.eof && s.x != nil {
		s.x.Data(nil, true) // it had ended before there was a tunnel
	}
}

// frame chooses how the client finds the end of the response.
func (s *conn1) frame(h *message.Head, end bool) http1.Framing {
	s.answer = answerDone
	if s.expects && s.state == inBody {
		s.last = true // the client may or may not send its body now
	}
	switch {
	case s.isHead || h.Status == 204 || h.Status == 304:
		return http1.Framing{Kind: http1.BodyNone}
	case end:
		return http1.Framing{Kind: http1.BodyLength}
	case h.ContentLength >= 0:
		s.answer = answerLength
		return http1.Framing{Kind: http1.BodyLength, Length: h.ContentLength}
	case s.old:
		s.answer, s.last = answerClose, true
		return http1.Framing{Kind: http1.BodyUntilClose}
	}
	s.answer = answerChunked
	return http1.Framing{Kind: http1.BodyChunked}
}

// Data implements exchange.Client.
func (t *client1) Data(p []byte, end bool) int {
	s := (*conn1)(t)
	if len(p) > 0 {
		if s.c.Buffered() > loop.HighWater {
			s.stalled = true
			return 0
		}
		s.wrote = true
	}
	switch s.answer {
	case answerChunked:
		s.chunk(p, end)
	case answerLength, answerClose:
		if len(p) > 0 {
			s.c.Write(p)
		}
		if end && s.state == inTunnel {
			s.c.CloseWrite()
		}
	}
	return len(p)
}

// chunk writes p as one chunk without copying it twice.
func (s *conn1) chunk(p []byte, end bool) {
	if len(p) > 0 {
		line := strconv.AppendUint(s.line[:0], uint64(len(p)), 16)
		s.c.Write(append(line, "\r\n"...))
		s.c.Write(p)
	}
	switch {
	case end && len(p) > 0:
		s.c.Write(chunkEndLast)
	case end:
		s.c.Write(chunkLast)
	case len(p) > 0:
		s.c.Write(chunkEnd)
	}
}

var (
	chunkEnd     = []byte("\r\n")
	chunkLast    = []byte("0\r\n\r\n")
	chunkEndLast = []byte("\r\n0\r\n\r\n")
)

// Trailers implements exchange.Client. Only a chunked response has a place for them.
func (t *client1) Trailers(h *message.Head) {
	if t.answer == answerChunked {
		if t.cfg.NoTrailers {
			h = nil
		}
		t.out = http1.AppendLastChunk(t.out[:0], h)
		t.c.Write(t.out)
	}
}

// Consumed implements exchange.Client.
func (t *client1) Consumed(n int) {
	t.unread -= n
	if t.unread < t.cfg.Window/2 {
		(*conn1)(t).resume()
	}
}

// Abort implements exchange.Client: the client misses the rest of a body with a stated length or the last chunk; a body
// that ends with the connection, and a tunnel, must end with a reset, as does what was to be one.
func (t *client1) Abort(reason failure.Reason) {
	s := (*conn1)(t)
	if (s.answer == answerClose || reason == failure.FaultInjected) && !s.closed {
		s.closed = true
		s.c.Reset()
		return
	}
	s.closeNow()
}

// Finished implements exchange.Client.
func (t *client1) Finished() {
	if !t.begun {
		(*conn1)(t).over()
	}
}
