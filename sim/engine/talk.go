package engine

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Relayed TCP: a client says who it is and a planned number of bytes, in pieces, the program says its own; each ends its
// direction, one of them only when the other has.

// banner is what a program that speaks first begins with.
var banner = []byte("\x8asimulated program ready\r\n")

// opening is how many bytes a client's first words have: 0x8b and the number of its request.
const opening = 5

// speech is what one end has to say and to hear.
type speech struct {
	c     loop.Conn
	rnd   *rand.Rand
	id    int
	say   int // bytes
	said  int
	salt  int
	head  []byte // before it
	heard int
	want  int
	from  int  // salt of what is heard
	first bool // ends its direction without waiting
	timer loop.Timer
	brk   int
	eof   bool // heard
	ended bool // said
	over  bool
}

// newTalker plans a TCP client.
func (r *run) newTalker(name string, rnd *rand.Rand, gateway bool) *talker {
	q := plan(rnd, len(r.requests), r.faults)
	q.turn(rnd, stream)
	t := &talker{run: r, name: name, r: q, to: r.tcp, slow: r.faults.Slow && rnd.IntN(3) == 0}
	if t.slow {
		q.body, q.answer = min(q.body, 700), min(q.answer, 700)
		q.breaks = min(q.breaks, q.answer-1)
	}
	if gateway {
		t.to = at("10.0.0.2:3306")
	}
	t.s = speech{rnd: rnd, id: q.id, say: q.body, salt: ofRequest, want: q.answer, from: ofResponse, first: !q.early, brk: -1}
	t.s.head = binary.BigEndian.AppendUint32([]byte{0x8b}, uint32(q.id))
	return t
}

// talker is a TCP client.
type talker struct {
	run     *run
	name    string
	r       *request
	to      netip.AddrPort
	slow    bool
	greeted int // bytes of the banner that have come
	nap     *nap
	s       speech
	abandon loop.Timer
}

func (t *talker) finished() bool { return t.s.over }

func (t *talker) start() {
	t.abandon.Expired = func() {
		if !t.s.over {
			t.run.trace("client %s breaks off", t.name)
			t.r.abandoned = true
			t.s.c.Reset()
		}
	}
	if t.run.faults.Clients && t.s.rnd.IntN(3) == 0 {
		t.run.clients.Arm(&t.abandon, time.Duration(t.s.rnd.Int64N(int64(300*time.Millisecond))))
	}
	t.s.timer.Expired = t.s.speak
	t.s.c = t.run.clients.Dial(loop.Dial{Address: t.to}, t)
}

// Opened implements loop.Handler.
func (t *talker) Opened() {
	t.nap = t.run.napping(t.s.rnd, t.s.c)
	if t.slow {
		t.run.slowDown(t.s.rnd, t.s.c, 1, 4)
	}
	if !t.run.banner {
		t.s.begin()
	}
}

func (t *talker) Data(p []byte) int {
	n := len(p)
	t.nap.tired()
	if t.run.banner && t.greeted < len(banner) {
		k := min(len(p), len(banner)-t.greeted)
		if string(p[:k]) != string(banner[t.greeted:t.greeted+k]) {
			t.run.fail("client %s: %q is not the banner", t.name, p[:k])
		}
		if t.greeted += k; t.greeted == len(banner) {
			t.s.begin()
		}
		p = p[k:]
	}
	if err := t.s.hear(p); err != nil {
		t.run.fail("client %s: %v: %s", t.name, err, t.r)
	}
	return n
}

func (t *talker) EOF() {
	t.s.eof = true
	if t.s.heard != t.r.answer {
		t.run.fail("client %s: ended in order behind %d bytes: %s", t.name, t.s.heard, t.r)
	}
	t.r.outcome = answered
	t.s.finish()
}
func (t *talker) Writable() { t.s.speak() }
func (t *talker) Closed(error) {
	t.s.over = true
	if t.nap != nil {
		t.nap.end()
	}
	t.run.clients.Disarm(&t.s.timer)
	t.run.clients.Disarm(&t.abandon)
	if t.r.outcome == "" {
		t.r.outcome = cut
	}
}

// begin starts to speak.
func (s *speech) begin() {
	s.c.Write(s.head)
	s.speak()
}

// speak says a piece, and the next one a while later.
func (s *speech) speak() {
	if s.over || s.ended || s.timer.Armed() || s.c.Buffered() > loop.HighWater {
		return
	}
	n := min(s.say-s.said, 1+s.rnd.IntN(1+s.rnd.IntN(30000)))
	s.c.Write(body(s.id, s.salt, s.said, s.said+n))
	s.said += n
	switch {
	case s.brk >= 0 && s.said > s.brk:
		s.over = true
		s.c.Reset()
	case s.said < s.say:
		s.c.Loop().Arm(&s.timer, time.Duration(s.rnd.Int64N(int64(5*time.Millisecond))))
	default:
		s.finish()
	}
}

// finish ends our direction when it is time, and the connection when both have ended.
func (s *speech) finish() {
	if s.said == s.say && (s.first || s.eof) && !s.ended {
		s.ended = true
		s.c.CloseWrite()
	}
	if s.ended && s.eof {
		s.c.Close()
	}
}

var errNotSaid = errors.New("bytes came that nobody has said")

func (s *speech) hear(p []byte) error {
	if s.heard+len(p) > s.want || string(p) != string(body(s.id, s.from, s.heard, s.heard+len(p))) {
		return errNotSaid
	}
	s.heard += len(p)
	return nil
}

// talk takes over a connection of the TCP program's.
func (g *program) talk(c loop.Conn) loop.Handler {
	s := &listening{g: g}
	s.s = speech{c: c, rnd: rand.New(rand.NewPCG(g.rnd.Uint64(), 7)), brk: -1}
	s.s.timer.Expired = s.s.speak
	s.nap = g.run.napping(s.s.rnd, c)
	g.run.slowDown(s.s.rnd, c, 4, 200)
	return s
}

// listening is one connection of the TCP program.
type listening struct {
	g *program
	r *request
	s speech

	nap *nap
}

// Opened implements loop.Handler.
func (s *listening) Opened() {
	if s.g.run.banner {
		s.s.c.Write(banner)
	}
}

func (s *listening) Data(p []byte) int {
	n := 0
	s.nap.tired()
	if s.r == nil {
		if len(p) < opening {
			return 0
		}
		id := int(binary.BigEndian.Uint32(p[1:]))
		if p[0] != 0x8b || id >= len(s.g.run.requests) {
			s.g.run.fail("program %s: %x came", s.g.name, p[:opening])
			return len(p)
		}
		s.r = s.g.run.requests[id]
		if s.r.delivered++; s.r.delivered > 1 {
			s.g.run.fail("doubled: %s", s.r)
		}
		s.s.id, s.s.say, s.s.salt, s.s.want, s.s.from = id, s.r.answer, ofResponse, s.r.body, ofRequest
		s.s.first, s.s.brk = s.r.early, s.r.breaks
		n = opening
		if err := s.s.hear(p[n:]); err != nil {
			s.g.run.fail("program %s: %v: %s", s.g.name, err, s.r)
		}
		s.s.speak()
		return len(p)
	}
	if err := s.s.hear(p); err != nil {
		s.g.run.fail("program %s: %v: %s", s.g.name, err, s.r)
	}
	return len(p)
}

func (s *listening) EOF() {
	s.s.eof = true
	if s.r == nil { // it was not wanted after all
		s.s.c.Close()
		return
	}
	if s.s.heard != s.r.body {
		s.g.run.fail("program %s: ended in order behind %d bytes: %s", s.g.name, s.s.heard, s.r)
	}
	s.r.complete++
	s.s.finish()
}
func (s *listening) Writable() { s.s.speak() }
func (s *listening) Closed(error) {
	s.nap.end()
	s.s.over = true
	s.s.c.Loop().Disarm(&s.s.timer)
}
