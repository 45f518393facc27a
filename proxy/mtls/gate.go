package mtls

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Handshakes bounds what handshakes cost, so that a flood of them neither fills the memory nor keeps the loops from
// serving connections that stand. One value is shared by all loops of a process; it is safe for concurrent use. nil
// stands for the default timeout and no bound.
//
// A server's connection holds no goroutine and no place before its whole ClientHello has come: one that says nothing
// costs its Conn alone, until Timeout. Then it waits for its turn to compute, the oldest first: Queue is short enough
// that nobody is served who has given up by then. Only Max handshakes compute at a time; one that waits for its peer's
// answer makes room meanwhile, and goes before the new ones when the answer has come, because most of its work is done.
// Above Queue a new connection is refused at once (RST, ErrBusy). Of the Open handshakes that have begun, the one whose
// client has owed its answer for longest, if that is more than Patience, gives its place to a new one (ErrBusy too): clients
// that stall cannot lock the others out. Our own connections to servers are counted apart and
// compute before new clients: a request waits for them already.
type Handshakes struct {
	Max     int           // that compute at a time; 0: GOMAXPROCS
	Open    int           // that have begun and wait for their peers, of each side; 0: 1024
	Queue   int           // clients with a ClientHello that wait for their turn; 0: 1024
	Timeout time.Duration // from start to Opened; 0: 5 s
	// Patience is how long a client may owe its answer while others wait for its place; 0: 200 ms.
	Patience time.Duration

	refused, evicted, late atomic.Uint64

	mu        sync.Mutex
	computing int
	clients   int         // our own handshakes with servers, begun and not over
	servers   int         // likewise with clients
	leaving   int         // of them: evicted, and not gone yet
	ready     []*Conn     // have a goroutine and something to compute; before fresh
	fresh     []*Conn     // have a ClientHello and no goroutine
	owing     owing       // servers' connections whose clients owe an answer
	wake      *time.Timer // when the first of them may be evicted; nil: nobody waits for that
}

// Stats is what handshakes do now, and have done.
type Stats struct {
	Computing, Open, Queued int
	Refused                 uint64 // there was no room
	Evicted                 uint64 // begun, and given up for another
	Late                    uint64 // given up at their timeout
}

// Stats answers numbers for metrics.
func (s *Handshakes) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{s.computing, s.clients + s.servers, len(s.fresh), s.refused.Load(), s.evicted.Load(), s.late.Load()}
}

const (
	defaultOpen     = 1024
	defaultQueue    = 1024
	defaultTimeout  = 5 * time.Second
	defaultPatience = 200 * time.Millisecond
)

func (s *Handshakes) timeout() time.Duration {
	if s == nil || s.Timeout <= 0 {
		return defaultTimeout
	}
	return s.Timeout
}

func orElse(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// enter has c's handshake run, now or later; false if there is no room. On c's loop.
func (s *Handshakes) enter(c *Conn) bool {
	if s == nil {
		go c.shake()
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.client:
		if s.clients >= orElse(s.Open, defaultOpen) {
			return false
		}
		s.clients++
		go c.shake() // which asks for a place to compute
	case len(s.fresh) >= orElse(s.Queue, defaultQueue):
		return false
	default:
		s.fresh = append(s.fresh, c)
		s.next()
	}
	return true
}

// next gives places to compute to who waits for one. mu is held.
func (s *Handshakes) next() {
	for limit := orElse(s.Max, runtime.GOMAXPROCS(0)); s.computing < limit; {
		if len(s.ready) > 0 {
			s.computing++
			take(&s.ready).wire.allow()
			continue
		}
		if len(s.fresh) == 0 || !s.room() {
			return
		}
		if c := take(&s.fresh); !c.wire.isDead() {
			s.computing++
			s.servers++
			c.wire.allow()
			go c.shake()
		}
	}
}

// room reports whether another client's handshake may begin; if not, it sees to it that one will. mu is held.
func (s *Handshakes) room() bool {
	open := orElse(s.Open, defaultOpen)
	for s.servers-s.leaving >= open {
		c := s.owing.first
		if c == nil {
			break // they compute; the first that pauses or leaves comes by here again
		}
		patience := s.Patience
		if patience <= 0 {
			patience = defaultPatience
		}
		if left := patience - time.Since(c.owes.since); left > 0 {
			if s.wake == nil {
				s.wake = time.AfterFunc(left, func() {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.wake = nil
					s.next()
				})
			}
			break
		}
		s.evict(c)
	}
	return s.servers < open
}

// take takes the first of a queue.
func take(q *[]*Conn) *Conn {
	c := (*q)[0]
	(*q)[0] = nil
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil
	}
	return c
}

// evict gives c up, whose client owes its answer for longest. mu is held.
func (s *Handshakes) evict(c *Conn) {
	s.owing.remove(c)
	s.evicted.Add(1)
	s.leaving++
	c.owes.evicted = true
	c.loop.Post(func() { c.giveUp(&HandshakeError{Err: ErrBusy}) })
	c.wire.kill() // its goroutine ends and leaves
}

// pause gives c's place to another while it waits for its peer. From c's goroutine.
func (s *Handshakes) pause(c *Conn) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.computing--
	c.wire.forbid()
	if !c.client && !c.wire.isDead() {
		s.owing.add(c)
	}
	s.next()
}

// proceed waits until c may compute, or is dead. From c's goroutine.
func (s *Handshakes) proceed(c *Conn) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.owing.remove(c)
	s.ready = append(s.ready, c)
	s.next()
	s.mu.Unlock()
	c.wire.awaitPlace()
}

// leave ends c's handshake. From c's goroutine, which has a place.
func (s *Handshakes) leave(c *Conn) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.computing--
	if c.client {
		s.clients--
	} else {
		s.servers--
		if c.owes.evicted {
			s.leaving--
		}
	}
	s.next()
}

// owing is a list of connections, the oldest first.
type owing struct{ first, last *Conn }

// debt is a connection's place in owing.
type debt struct {
	since      time.Time
	prev, next *Conn
	listed     bool
	evicted    bool
}

func (l *owing) add(c *Conn) {
	c.owes = debt{since: time.Now(), prev: l.last, listed: true}
	if l.last != nil {
		l.last.owes.next = c
	} else {
		l.first = c
	}
	l.last = c
}

func (l *owing) remove(c *Conn) {
	if !c.owes.listed {
		return
	}
	if d := &c.owes; d.prev != nil {
		d.prev.owes.next = d.next
	} else {
		l.first = d.next
	}
	if d := &c.owes; d.next != nil {
		d.next.owes.prev = d.prev
	} else {
		l.last = d.prev
	}
	c.owes = debt{}
}
