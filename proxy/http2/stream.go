package http2

import "time"

// Stream is one request and its response. It belongs to its Conn; after its end calls with it do nothing,
// except that Consumed, Reset and Release still give credit back.
type Stream struct {
	User any // the owner's

	id     uint32
	closed bool // over in both directions, no longer in Conn.streams

	recvHead bool // client: the final head has come
	recvEnd  bool
	sentHead bool // server: the final head has gone
	sentEnd  bool
	known    bool // the owner has been told of it

	headMethod bool   // the request is HEAD
	connect    bool   // the request is CONNECT
	noBody     bool   // no body may come
	protocol   []byte // client: of an extended CONNECT
	extended   bool   // extended CONNECT

	remaining  int64 // bytes that content-length still promises; -1: it was not stated
	sendWindow int64
	recvWindow int64
	owed       uint32 // given back by the owner, not yet announced to the peer
	held       uint32 // given to the owner, not yet given back

	born time.Duration // by Tick

	wants      bool // Data took less than it was given
	prev, next *Stream
	queued     bool
	freed      bool
}

// ID answers the stream identifier; a Stream that was released and reused has another one.
func (s *Stream) ID() uint32 { return s.id }

// SendEnded reports whether our side is complete.
func (s *Stream) SendEnded() bool { return s.sentEnd }

// RecvEnded reports whether the peer's side is complete.
func (s *Stream) RecvEnded() bool { return s.recvEnd }

// Closed reports whether the stream is over.
func (s *Stream) Closed() bool { return s.closed }

// SendWindow answers how many body bytes Data would take now as far as the stream alone decides.
func (s *Stream) SendWindow() int { return int(max(0, s.sendWindow)) }

// streams finds open streams by id: open addressing, no tombstones. Identifiers of one connection count up, so
// they seldom collide.
type streams struct {
	slots []*Stream
	n     int
}

func (t *streams) mask() uint32 { return uint32(len(t.slots) - 1) }

func (t *streams) find(id uint32) *Stream {
	if t.n == 0 {
		return nil
	}
	for i := id >> 1 & t.mask(); t.slots[i] != nil; i = (i + 1) & t.mask() {
		if t.slots[i].id == id {
			return t.slots[i]
		}
	}
	return nil
}

func (t *streams) add(s *Stream) {
	if 4*(t.n+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]*Stream, max(8, 2*len(old)))
		for _, o := range old {
			if o != nil {
				t.put(o)
			}
		}
	}
	t.put(s)
	t.n++
}

func (t *streams) put(s *Stream) {
	i := s.id >> 1 & t.mask()
	for t.slots[i] != nil {
		i = (i + 1) & t.mask()
	}
	t.slots[i] = s
}

func (t *streams) remove(s *Stream) {
	i := s.id >> 1 & t.mask()
	for t.slots[i] != s {
		i = (i + 1) & t.mask()
	}
	t.n--
	if t.n == 0 && len(t.slots) > 1024 {
		t.slots = nil
		return
	}
	for j := i; ; { // close the gap: move back what may not stand after it
		t.slots[i] = nil
		for {
			j = (j + 1) & t.mask()
			if t.slots[j] == nil {
				return
			}
			home := t.slots[j].id >> 1 & t.mask()
			if (j-home)&t.mask() >= (j-i)&t.mask() {
				break
			}
		}
		t.slots[i] = t.slots[j]
		i = j
	}
}

// all answers the open streams in a slice of its own.
func (t *streams) all() []*Stream {
	var all []*Stream
	for _, s := range t.slots {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// Each calls f for every open stream; f may end any of them.
func (c *Conn) Each(f func(s *Stream)) {
	for _, s := range c.streams.all() {
		if !s.closed {
			f(s)
		}
	}
}

// queue is streams in order of waiting, linked through themselves.
type queue struct {
	head, tail *Stream
	n          int
}

func (q *queue) push(s *Stream) {
	if s.queued {
		return
	}
	s.queued, s.prev, s.next = true, q.tail, nil
	if q.tail != nil {
		q.tail.next = s
	} else {
		q.head = s
	}
	q.tail = s
	q.n++
}

func (q *queue) remove(s *Stream) {
	if !s.queued {
		return
	}
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		q.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		q.tail = s.prev
	}
	s.queued, s.prev, s.next = false, nil, nil
	q.n--
}

// How a stream ended, as far as it is remembered (RFC 9113 section 5.1, "closed").
const (
	unknownPast = iota // long ago
	endedPast          // both sides complete
	peerPast           // the peer reset it
	wePast             // we reset it: frames may still be on their way
	skippedPast        // never used: the peer went on to a higher one
)

// past remembers the latest streams that are over, by id. The regular ends are kept apart: they are many, matter
// less, and must not push the others out.
type past struct {
	reset   [128]uint32 // half of id<<2 | how
	ended   [16]uint32  // id
	skipped [4]struct{ from, to uint32 }
	next    uint8
}

func (p *past) remember(id uint32, how uint8) {
	if how == endedPast {
		p.ended[id>>1&15] = id
	} else {
		p.reset[id>>1&127] = id>>1<<2 | uint32(how)
	}
}

func (p *past) skip(from, to uint32) {
	p.skipped[p.next&3].from, p.skipped[p.next&3].to = from, to
	p.next++
}

func (p *past) of(id uint32) uint8 {
	if v := p.reset[id>>1&127]; v&3 != 0 && v>>2 == id>>1 {
		return uint8(v & 3)
	}
	if p.ended[id>>1&15] == id {
		return endedPast
	}
	for _, r := range p.skipped {
		if id >= r.from && id < r.to {
			return skippedPast
		}
	}
	return unknownPast
}

// take answers a fresh stream that is open.
func (c *Conn) take(id uint32) *Stream {
	s := c.free
	if s != nil {
		c.free = s.next
		c.spare--
	} else {
		s = new(Stream)
	}
	*s = Stream{id: id, remaining: -1, sendWindow: int64(c.peer.window), recvWindow: int64(c.cfg.InitialWindow), born: c.budget.now}
	if !c.acked {
		s.recvWindow = max(s.recvWindow, defaultWindow) // the peer may not know better yet
	}
	c.streams.add(s)
	return s
}

// close takes s out of the open streams.
func (c *Conn) close(s *Stream, how uint8) {
	s.closed = true
	c.streams.remove(s)
	c.blocked.remove(s)
	c.past.remember(s.id, how)
	if how != endedPast {
		c.giveBack(s)
	} else {
		c.budget.earn()
	}
}

// ended closes s if both sides are complete.
func (c *Conn) ended(s *Stream) {
	if !s.closed && s.sentEnd && s.recvEnd {
		c.close(s, endedPast)
	}
}

// refuse ends a stream that the peer has broken and tells the owner, if it knows s.
func (c *Conn) refuse(s *Stream, code ErrCode) {
	c.writeReset(s.id, code)
	c.close(s, wePast)
	c.spend(1, "too many broken streams")
	if s.known {
		c.events.Reset(s, code)
	}
}

// refuseID is refuse for a stream that is not open.
func (c *Conn) refuseID(id uint32, code ErrCode) {
	c.writeReset(id, code)
	c.past.remember(id, wePast)
	c.spend(1, "too many broken streams")
}

// Reset ends s at once.
func (c *Conn) Reset(s *Stream, code ErrCode) {
	if s.closed {
		c.giveBack(s)
		return
	}
	if c.err == nil {
		c.writeReset(s.id, code)
	}
	c.close(s, wePast)
}

// Release gives s back for reuse: the owner keeps no reference to it and has cleared its own. A stream that is
// still open is reset (a server that has answered in full: NoError, else Cancel). A stream that is never
// released is left to the garbage collector.
func (c *Conn) Release(s *Stream) {
	c.ended(s)
	code := Cancel
	if c.cfg.Server && s.sentEnd {
		code = NoError
	}
	c.Reset(s, code)
	s.User, s.protocol = nil, nil
	if c.spare < 256 && !s.freed {
		s.freed = true
		s.next, c.free = c.free, s
		c.spare++
	}
}
