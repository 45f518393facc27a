// Package relay carries bytes between two connections: a program's and another proxy's, a program's and the
// outside's. It passes on ends of one direction (FIN) and resets, stops a writer whose reader is slow, and
// remembers how much went each way. It looks at no byte; what it relays has been decided before (package sniff).
//
// Between two proxies a relay has its own mesh connection, which begins with an OPEN frame (open.go). Everything
// belongs to one loop. Start reading at Relays.Start.
package relay

import (
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// Observer counts connections; *observe.Recorder is one. No record is kept after the call. It is called on the loop.
type Observer interface {
	// Opened and Closed frame a relay. Done stands for both where nothing was relayed.
	Opened(r *record.Record, f *observe.Flow)
	Closed(r *record.Record, f *observe.Flow)
	Done(r *record.Record)
	// Refused: a connection that was refused before anything was known of it.
	Refused(why failure.Reason)
}

// Config of the relays of one loop. Loop and Observer are required.
type Config struct {
	Loop     loop.Loop
	Observer Observer
	Policies *policy.InForce // asked again about relays with a Caller; nil: everything is allowed
	Idle     time.Duration   // without a byte either way; 0: for ever, as without a mesh
	HalfIdle time.Duration   // likewise once one direction has ended; default 1 h
	Max      int             // at once; default 16384
	// Random draws which connections get a fault, uniform over uint64; nil: as chance has it.
	Random func() uint64
}

// Relays is what the relays of one loop share.
type Relays struct {
	cfg  Config
	live map[*relay]struct{}
	let  policy.Open // relays with a Caller
	out  policy.Open // those with Again
	free *relay
}

// New makes a Relays.
func New(cfg Config) *Relays {
	if cfg.HalfIdle <= 0 {
		cfg.HalfIdle = time.Hour
	}
	if cfg.Max <= 0 {
		cfg.Max = 16384
	}
	if cfg.Random == nil {
		cfg.Random = chance
	}
	return &Relays{cfg: cfg, live: map[*relay]struct{}{}}
}

// Options of one relay. All are optional.
type Options struct {
	Endpoint *cluster.Endpoint // counted as in use until the relay ends
	// First is called once, when the first byte passes, with who spoke. It must not touch the connections.
	First func(server bool)
	// Silent: the client's bytes begin with GoByte or CancelByte (the server's side of a silent OPEN).
	Silent bool
	// Ended is called when the relay is over, after the Observer, with what is remembered of it; rec is not kept.
	Ended func(rec *record.Record)
	// Idle and MaxDuration end both directions in order (FIN) when no byte has gone either way for so long, or when the
	// relay has lasted so long. 0: Config.Idle alone, which resets; no bound.
	Idle, MaxDuration time.Duration
	// Meter bounds the bytes; nil: nothing does.
	Meter Meter
	// Caller is who the policies are asked about, with ServerName of the program's own TLS as far as it was looked at; nil: they
	// are not.
	Caller     *policy.Caller
	ServerName string
	// Again answers why the relay may not go on, which leads out of the mesh, and tells d; None: it may. It is called on the loop
	// when the relay begins and whenever Review is, and must be quick. There is no Caller then. nil: it may.
	Again func(d *record.Decision) failure.Reason
	// Fault is injected: Delay, AbortShare with Reset, and Rate, each by its share (fault.go). nil: none.
	Fault *model.Fault
}

// spliceAfter is how many bytes one direction copies before it asks the kernel to carry the rest: short conversations are
// cheaper copied, and their first bytes are looked at.
const spliceAfter = 64 << 10

// Len answers how many relays run.
func (rs *Relays) Len() int { return len(rs.live) }

// Full reports whether Start would refuse.
func (rs *Relays) Full() bool { return len(rs.live) >= rs.cfg.Max }

// Close resets every relay.
func (rs *Relays) Close() {
	for r := range rs.live {
		r.down.conn.Reset()
		r.up.conn.Reset()
	}
}

// Drop resets the relays to an endpoint that is not fit any more.
func (rs *Relays) Drop(ep *cluster.Endpoint) {
	for r := range rs.live {
		if r.opt.Endpoint == ep {
			if r.reason == failure.None {
				r.reason = failure.EndpointUnhealthy
			}
			r.down.conn.Reset()
			r.up.conn.Reset()
		}
	}
}

// Start takes over two connections that stand: down is the client's side, up the server's. Bytes that either has
// not consumed go first, and ends of a direction that were told before are told again, as SetHandler promises.
// rec has what is known already and is copied; the relay fills the rest.
func (rs *Relays) Start(down, up loop.Conn, rec *record.Record, o Options) {
	r := rs.free
	if r == nil {
		r = &relay{set: rs}
		r.down.relay, r.up.relay = r, r
		r.down.peer, r.up.peer = &r.up, &r.down
		r.timer.Expired = r.expire
		r.life.Expired = func() { r.finish(failure.MaxDuration) }
		r.fault.Expired, r.meter.Expired = r.faultExpired, r.paid
	} else {
		rs.free = r.next
		r.next = nil
	}
	rs.live[r] = struct{}{}
	r.opt, r.rec, r.moved = o, *rec, rs.cfg.Loop.Now()
	r.rec.TCP = true
	if r.rec.Start == 0 {
		r.rec.Start, r.rec.Wall = r.moved, rs.cfg.Loop.Wall()
	}
	if o.Endpoint != nil {
		o.Endpoint.Begin()
	}
	r.marker = o.Silent
	if !o.Silent {
		rs.cfg.Observer.Opened(&r.rec, &r.flow)
	}
	r.down.conn, r.up.conn = down, up
	down.SetHandler(&r.down)
	up.SetHandler(&r.up)
	if o.Fault == nil || !r.inject(o.Fault) {
		down.Resume()
		up.Resume()
	} else {
		down.Pause()
		up.Pause()
	}
	if idle := r.idle(); idle > 0 {
		rs.cfg.Loop.Arm(&r.timer, idle)
	}
	if o.MaxDuration > 0 {
		rs.cfg.Loop.Arm(&r.life, o.MaxDuration)
	}
	r.admitted()
}

// relay is one pair of connections.
type relay struct {
	set      *Relays
	down, up side
	opt      Options
	rec      record.Record
	flow     observe.Flow
	told     time.Duration // when flow was last told how far the relay is
	timer    loop.Timer
	life     loop.Timer    // MaxDuration
	moved    time.Duration // when the last byte was
	passed   bool          // a byte was
	marker   bool          // GoByte or CancelByte is awaited
	canceled bool          // nothing was relayed after all; no record
	reason   failure.Reason
	fault    loop.Timer
	meter    loop.Timer    // until what has passed is paid for,
	paidAt   time.Duration // which is then
	slow     throttle
	waits    bool // for an injected delay: nothing is read
	abort    bool // it is reset after that
	slot     int  // of Relays.let or out
	next     *relay
}

// side is the handler of one of the two connections.
type side struct {
	relay  *relay
	peer   *side
	conn   loop.Conn
	bytes  int64 // that came from conn
	owes   bool  // what has come is not paid for
	asked  bool  // the kernel was asked to carry the rest
	eof    bool
	closed bool
}

// Opened implements loop.Handler; the connection has stood before.
func (s *side) Opened() {}

// Data implements loop.Handler.
func (s *side) Data(p []byte) int {
	r, n := s.relay, len(p)
	if s == &r.down && r.marker {
		if p[0] != GoByte {
			r.cancel()
			return n
		}
		r.marker = false
		if p = p[1:]; len(p) == 0 {
			return n
		}
	}
	if s.peer.closed {
		return n
	}
	if s == &r.up && r.slow.rate > 0 {
		if n = r.allow(n); n == 0 {
			return 0
		}
		p = p[:n]
	}
	s.count(len(p))
	s.peer.conn.Write(p)
	if s.peer.conn.Buffered() > loop.HighWater {
		s.conn.Pause() // until the peer's Writable
	}
	if r.opt.Meter != nil && len(p) > 0 {
		s.pay(len(p))
		return n
	}
	if s.bytes >= spliceAfter && !s.asked && r.slow.rate == 0 {
		s.asked = true
		if c, ok := s.conn.(loop.Splicer); ok {
			c.SpliceTo(s.peer.conn)
		}
	}
	return n
}

// Moved implements loop.Mover.
func (s *side) Moved(n int) { s.count(n) }

// count notes that n bytes pass.
func (s *side) count(n int) {
	r := s.relay
	r.moved = r.set.cfg.Loop.Now()
	if !r.passed {
		r.passed = true
		if r.opt.Silent {
			r.set.cfg.Observer.Opened(&r.rec, &r.flow)
		}
		if r.opt.First != nil {
			r.opt.First(s == &r.up)
		}
	}
	s.bytes += int64(n)
	r.rec.RequestBytes, r.rec.ResponseBytes = r.down.bytes, r.up.bytes
	if r.moved-r.told >= time.Second {
		r.told = r.moved
		r.flow.Moved(r.rec.RequestBytes, r.rec.ResponseBytes)
	}
}

// cancel: the client turned out to speak HTTP; the program sees a connection that ends without a byte.
func (r *relay) cancel() {
	r.canceled = !r.passed
	r.up.conn.Close()
	r.down.conn.Close()
}

// EOF implements loop.Handler.
func (s *side) EOF() {
	r := s.relay
	s.eof = true
	r.moved = r.set.cfg.Loop.Now()
	if !s.peer.closed {
		s.peer.conn.CloseWrite()
	}
	if s.peer.eof {
		r.set.cfg.Loop.Arm(&r.timer, settleEvery)
	} else if !r.timer.Armed() {
		r.set.cfg.Loop.Arm(&r.timer, r.set.cfg.HalfIdle)
	}
}

// settle closes what has nothing more to say or to hear and has not ended by itself. What is still written to a
// slow reader keeps its time: Conn.Close would cut it off after a few seconds.
func (r *relay) settle() {
	for _, s := range [...]*side{&r.down, &r.up} {
		if !s.closed && s.conn.Buffered() == 0 {
			s.conn.Close()
		}
	}
	r.set.cfg.Loop.Arm(&r.timer, settleEvery)
}

const settleEvery = 500 * time.Millisecond

// Writable implements loop.Handler.
func (s *side) Writable() {
	if !s.peer.closed && !s.peer.owes && !s.relay.waits {
		s.peer.conn.Resume()
	}
}

// Closed implements loop.Handler. What broke one side breaks the other; what ended in order ends the other.
func (s *side) Closed(err error) {
	r := s.relay
	s.closed = true
	if s.peer.closed {
		r.end()
		return
	}
	if err == nil {
		if !s.eof || !s.peer.eof { // else it ends when a slow reader has had everything; see settle
			s.peer.conn.Close()
		}
		return
	}
	if r.reason == failure.None {
		r.reason = failure.UpstreamReset
		if s == &r.down {
			r.reason = failure.DownstreamGone
		}
		if errors.Is(err, loop.ErrLoopEnded) {
			r.reason = failure.Draining
		}
		var f *failure.Failure
		if errors.As(err, &f) { // it was ended, for this
			r.reason = f.Reason
		}
	}
	s.peer.conn.Reset()
}

// idle answers how long nothing may move while both directions are open; 0: for ever.
func (r *relay) idle() time.Duration {
	own, all := r.opt.Idle, r.set.cfg.Idle
	if own == 0 || all != 0 && all < own {
		return all
	}
	return own
}

// expire: nothing may have moved for too long.
func (r *relay) expire() {
	limit := r.idle()
	if half := r.set.cfg.HalfIdle; (r.down.eof || r.up.eof) && (limit == 0 || half < limit) {
		limit = half
	}
	if limit == 0 {
		return
	}
	if left := r.moved + limit - r.set.cfg.Loop.Now(); left > 0 {
		if r.down.eof && r.up.eof {
			r.settle()
			return
		}
		r.set.cfg.Loop.Arm(&r.timer, left)
		return
	}
	if limit == r.opt.Idle {
		r.finish(failure.IdleTimeout)
		return
	}
	r.reason = failure.IdleTimeout
	r.down.conn.Reset()
	r.up.conn.Reset()
}

// finish ends both connections in order.
func (r *relay) finish(why failure.Reason) {
	if r.reason == failure.None {
		r.reason = why
	}
	for _, s := range [...]*side{&r.down, &r.up} {
		if !s.closed {
			s.conn.Close()
		}
	}
}

// end: both connections are gone.
func (r *relay) end() {
	rs := r.set
	rs.cfg.Loop.Disarm(&r.timer)
	rs.cfg.Loop.Disarm(&r.life)
	rs.cfg.Loop.Disarm(&r.fault)
	rs.cfg.Loop.Disarm(&r.meter)
	delete(rs.live, r)
	if r.opt.Again != nil {
		rs.out.Remove(r)
	} else {
		rs.let.Remove(r)
	}
	if r.opt.Endpoint != nil {
		r.opt.Endpoint.End()
	}
	r.rec.End = rs.cfg.Loop.Now()
	if r.rec.Reason == "" {
		r.rec.Reason = r.reason.Label()
	}
	ended := r.opt.Ended
	if !r.canceled {
		rs.cfg.Observer.Closed(&r.rec, &r.flow)
	}
	r.flow, r.told = observe.Flow{}, 0
	r.opt, r.passed, r.canceled, r.reason = Options{}, false, false, failure.None
	r.slow, r.waits, r.abort, r.paidAt = throttle{}, false, false, 0
	for _, s := range [...]*side{&r.down, &r.up} {
		s.conn, s.bytes, s.asked, s.owes, s.eof, s.closed = nil, 0, false, false, false, false
	}
	r.next, rs.free = rs.free, r
	if ended != nil {
		ended(&r.rec)
	}
}
