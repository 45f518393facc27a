package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// client is one connection of a program that calls. It knows what it has to get.
type client struct {
	run    *run
	name   string
	rnd    *rand.Rand
	c      loop.Conn
	list   []*request
	two    bool
	over   bool // the connection is gone
	to     netip.AddrPort
	slow   bool
	greedy bool // asks for all at once

	abandon loop.Timer
	nap     *nap

	// HTTP/1.
	m      message1
	next   int // of list, to be sent
	head0  int // of list, to be answered
	got    int
	mine   bool // the answer under way is a program's
	why    string
	wait   *request // its body waits for 100
	expect loop.Timer

	// HTTP/2.
	peer *peer2
}

func (c *client) start() {
	c.abandon.Expired, c.expect.Expired = c.breakOff, c.sendBody
	if c.run.faults.Clients && c.rnd.IntN(3) == 0 {
		c.run.clients.Arm(&c.abandon, time.Duration(c.rnd.Int64N(int64(300*time.Millisecond))))
	}
	c.c = c.run.clients.Dial(loop.Dial{Address: c.to}, c)
}

func (c *client) finished() bool { return c.over }

// breakOff ends the connection, or a stream, in the middle of something.
func (c *client) breakOff() {
	if c.over {
		return
	}
	c.run.trace("client %s breaks off", c.name)
	if c.two && c.peer != nil && c.rnd.IntN(2) == 0 {
		for _, s := range c.peer.sorted() {
			r := s.value.(*asked).r
			r.abandoned, r.outcome = true, cut
			c.peer.reset(s, http2.ErrCodeCancel)
			break
		}
		c.more2()
		c.peer.flush()
		return
	}
	for _, r := range c.list {
		r.abandoned = r.outcome == ""
	}
	c.c.Reset()
}

// Opened implements loop.Handler.
func (c *client) Opened() {
	c.nap = c.run.napping(c.rnd, c.c)
	if c.slow {
		c.run.slowDown(c.rnd, c.c, 1, 4)
	}
	if c.two {
		c.peer = newPeer2(c.rnd, c.c, false, c)
		return // settled2 goes on
	}
	c.m.response = true
	c.more()
}

func (c *client) Data(p []byte) int {
	c.nap.tired()
	var n int
	var err error
	if c.two {
		if n, err = c.peer.feed(p); err == nil {
			c.finish()
		}
	} else {
		n, err = c.m.feed(p, c)
	}
	if err != nil {
		c.run.fail("client %s: %v", c.name, err)
		return len(p)
	}
	return n
}

func (c *client) EOF() {
	c.run.trace("client %s: the end", c.name)
	if !c.two && c.m.state == inTunnel {
		c.tunnelEnd()
		return
	}
	if !c.two && c.m.state != 0 && c.head0 < len(c.list) {
		c.list[c.head0].outcome = cut
	}
	c.c.Close()
}
func (c *client) Writable() {}

// Closed implements loop.Handler: what has no answer now never gets one.
func (c *client) Closed(err error) {
	c.over = true
	c.run.trace("client %s: the connection is closed: %v", c.name, err)
	if c.nap != nil {
		c.nap.end()
	}
	c.run.clients.Disarm(&c.abandon)
	c.run.clients.Disarm(&c.expect)
	if c.peer != nil {
		c.run.clients.Disarm(&c.peer.credit)
	}
	for _, r := range c.list {
		if r.outcome == "" {
			r.outcome = cut
		}
	}
}

// finish ends the connection when everything has an answer.
func (c *client) finish() {
	for _, r := range c.list {
		if r.outcome == "" {
			return
		}
	}
	if c.two {
		for _, s := range c.peer.streams {
			if s.value.(*asked).r.kind == tunnel { // not all of it is said
				return
			}
		}
		c.peer.flush()
		for _, r := range c.list {
			if r.kind == tunnel { // the program hears us out
				c.c.CloseWrite()
				return
			}
		}
	}
	c.c.Close()
}

// HTTP/1.

// more sends the next requests: one, or some ahead.
func (c *client) more() {
	for c.next < len(c.list) && c.wait == nil && (c.next == c.head0 || c.rnd.IntN(3) == 0) {
		r := c.list[c.next]
		if r.halves && c.next > c.head0 {
			break // it ends our direction, so nothing else may be under way
		}
		c.next++
		if r.kind == tunnel {
			c.offer(r)
			return
		}
		out := fmt.Appendf(nil, "%s /%d HTTP/1.1\r\nHost: sim\r\nx-sim-id: %d\r\n", r.method, r.id, r.id)
		switch {
		case r.chunked:
			out = append(out, "Transfer-Encoding: chunked\r\n"...)
		case r.body > 0 || !r.idempotent():
			out = fmt.Appendf(out, "Content-Length: %d\r\n", r.body)
		}
		if r.expects && r.body > 0 {
			out = append(out, "Expect: 100-continue\r\n"...)
			c.wait = r
			c.run.clients.Arm(&c.expect, time.Second)
		}
		c.c.Write(append(out, "\r\n"...))
		if c.wait == nil {
			c.writeBody(r)
		}
		if r.halves && c.wait == nil {
			c.c.CloseWrite()
		}
	}
}

func (c *client) writeBody(r *request) {
	b := body(r.id, ofRequest, 0, r.body)
	switch {
	case !r.chunked:
		c.c.Write(b)
	case r.trailers:
		c.c.Write(fmt.Appendf(chunks(nil, b), "0\r\nx-sim-end: %d\r\n\r\n", r.id))
	default:
		c.c.Write(append(chunks(nil, b), "0\r\n\r\n"...))
	}
}

// sendBody sends the body that has waited.
func (c *client) sendBody() {
	r := c.wait
	if c.wait = nil; r != nil && !c.over {
		c.run.clients.Disarm(&c.expect)
		c.writeBody(r)
		if r.halves {
			c.c.CloseWrite()
		}
		c.more()
	}
}

func (c *client) head(m *message1) error {
	if m.status < 200 && m.status != 101 {
		if m.status == 100 {
			c.sendBody()
		}
		return nil
	}
	if c.head0 >= c.next {
		return fmt.Errorf("an answer to no request: %s", m.start)
	}
	r := c.list[c.head0]
	m.headOnly = r.method == "HEAD"
	c.got = 0
	if m.status == 101 {
		return c.switched(r, m)
	}
	c.mine, c.why = false, m.fields["tulle-reason"]
	if c.wait == r { // answered without asking for the body, which has to follow all the same: the framing says so
		c.sendBody()
	}
	return c.check(r, m.fields["x-sim-id"], m.status, &c.mine, c.why)
}

// check looks at a final head.
func (c *client) check(r *request, id string, status int, mine *bool, why string) error {
	switch {
	case id == "" && why != "":
		return nil
	case id != strconv.Itoa(r.id):
		return fmt.Errorf("the answer to request %q (status %d, reason %q) for %s", id, status, why, r)
	case status != r.status:
		return fmt.Errorf("status %d for %s", status, r)
	}
	*mine = true
	return nil
}

func (c *client) piece(p []byte) error {
	r := c.list[c.head0]
	if !c.mine {
		return nil
	}
	err := c.part(r, c.got, p)
	c.got += len(p)
	return err
}

// part checks a piece of a response's body.
func (c *client) part(r *request, got int, p []byte) error {
	if got+len(p) > r.answer || string(p) != string(body(r.id, ofResponse, got, got+len(p))) {
		return fmt.Errorf("%d bytes behind %d are not those of the answer to %s", len(p), got, r)
	}
	return nil
}

func (c *client) end(m *message1) error {
	r := c.list[c.head0]
	if err := c.whole(r, c.mine, c.got, m.trailers, c.why); err != nil {
		return err
	}
	c.head0++
	if m.fields["connection"] == "close" {
		c.c.Close() // what was sent ahead has no answer
		return nil
	}
	c.more()
	c.finish()
	return nil
}

// whole notes a complete answer.
func (c *client) whole(r *request, mine bool, got int, trailers map[string]string, why string) error {
	if r.outcome != "" {
		return fmt.Errorf("a second answer: %s", r)
	}
	if r.outcome, r.reason = refused, why; !mine {
		return nil
	}
	r.outcome = answered
	switch {
	case r.bodiless():
	case r.kind == tunnel && got != r.answer:
		return fmt.Errorf("a tunnel ended in order behind %d bytes: %s", got, r)
	case r.breaks >= 0:
		return fmt.Errorf("a broken answer looks whole: %d bytes, %s", got, r)
	case got != r.answer:
		return fmt.Errorf("%d bytes of the answer to %s", got, r)
	case r.answerTrails && trailers["x-sim-end"] != strconv.Itoa(r.id):
		return fmt.Errorf("trailers %v of the answer to %s", trailers, r)
	}
	return nil
}

// HTTP/2.

// asked is the value of a stream.
type asked struct {
	r        *request
	got      int
	answered int // call: bytes of messages whose answers are complete
	mine     bool
	headed   bool
	why      string
	trailers map[string]string
}

func (c *client) settled2() { c.more2() }

// more2 opens as many streams as are allowed and chance wants.
func (c *client) more2() {
	for c.next < len(c.list) && len(c.peer.streams) < int(c.peer.most) && !c.peer.goaway && (len(c.peer.streams) == 0 || c.greedy || c.rnd.IntN(4) > 0) {
		r := c.list[c.next]
		if r.kind == tunnel && !c.peer.connects {
			c.next++
			r.outcome, r.abandoned = cut, true // never sent
			continue
		}
		s := c.peer.open(c.peer.number())
		c.next++
		s.value = &asked{r: r}
		if r.kind != plain {
			c.begin2(s, r)
			continue
		}
		fields := []string{":method", r.method, ":scheme", "http", ":authority", "sim", ":path", fmt.Sprintf("/%d", r.id), "x-sim-id", strconv.Itoa(r.id)}
		if !r.chunked && r.body > 0 {
			fields = append(fields, "content-length", strconv.Itoa(r.body))
		}
		empty := r.body == 0 && !r.trailers
		c.peer.writeHead(s, empty, fields...)
		switch {
		case empty:
		case r.trailers:
			c.peer.write(s, body(r.id, ofRequest, 0, r.body), true, hpack.HeaderField{Name: "x-sim-end", Value: strconv.Itoa(r.id)})
		default:
			c.peer.write(s, body(r.id, ofRequest, 0, r.body), true)
		}
	}
	if c.peer.goaway {
		for ; c.next < len(c.list); c.next++ {
			c.list[c.next].outcome = cut // never sent
		}
	}
	c.finish()
}

func (c *client) head2(s *stream2, fields map[string]string, end bool) error {
	a := s.value.(*asked)
	if a.headed {
		a.trailers = fields
	} else {
		status, err := strconv.Atoi(fields[":status"])
		if err != nil {
			return fmt.Errorf("status %q", fields[":status"])
		}
		if status < 200 {
			return nil
		}
		a.headed, a.why = true, fields["tulle-reason"]
		if err := c.check(a.r, fields["x-sim-id"], status, &a.mine, a.why); err != nil {
			return err
		}
		if a.mine && a.r.kind == tunnel && !end {
			c.open2(s, a.r)
		}
	}
	if end {
		return c.end2(s, a)
	}
	return nil
}

func (c *client) piece2(s *stream2, p []byte, end bool) error {
	a := s.value.(*asked)
	if a.mine {
		if err := c.part(a.r, a.got, p); err != nil {
			return err
		}
	}
	if a.got += len(p); end {
		return c.end2(s, a)
	}
	if a.mine && a.r.kind == call {
		c.next2(s, a)
	}
	return nil
}

func (c *client) end2(s *stream2, a *asked) error {
	if a.r.kind == tunnel && a.mine && !s.end {
		c.peer.write(s, nil, true)
	}
	if err := c.whole(a.r, a.mine, a.got, a.trailers, a.why); err != nil {
		return err
	}
	c.peer.done(s)
	c.more2()
	return nil
}

func (c *client) reset2(s *stream2, code http2.ErrCode) {
	a := s.value.(*asked)
	c.run.trace("client %s: stream %d reset: %s", c.name, s.id, code)
	if a.r.outcome == "" { // else NO_ERROR behind an early answer
		a.r.outcome = cut
	}
	c.more2()
}

// bye2: streams above last are not looked at.
func (c *client) bye2(last uint32) {
	for _, s := range c.peer.sorted() {
		if s.id > last {
			s.value.(*asked).r.outcome = cut
			delete(c.peer.streams, s.id)
		}
	}
	c.more2()
}
