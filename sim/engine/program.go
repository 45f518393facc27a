package engine

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// program is a server: it does with each request what its plan says, in HTTP/1 or HTTP/2 as the connection speaks.
type program struct {
	run  *run
	rnd  *rand.Rand
	name string
}

// serve takes over a connection of the program's.
func (g *program) serve(c loop.Conn) loop.Handler {
	s := &caller{g: g, c: c, rnd: rand.New(rand.NewPCG(g.rnd.Uint64(), 3))}
	s.nap = g.run.napping(s.rnd, c)
	g.run.slowDown(s.rnd, c, 4, 200)
	return s
}

// caller is one connection of a program.
type caller struct {
	g   *program
	rnd *rand.Rand
	c   loop.Conn

	one  *message1
	two  *peer2
	now  *request // HTTP/1: under way
	got  int      // of its body
	sent bool     // its response has gone
	quit bool     // nothing is read any more
	end1 bool     // close when the response is out
	nap  *nap
}

func (s *caller) Opened() {}

func (s *caller) Data(p []byte) int {
	if s.quit {
		return len(p)
	}
	s.nap.tired()
	if s.one == nil && s.two == nil {
		if p[0] != 'P' {
			s.one = &message1{}
		} else if len(p) < 3 {
			return 0
		} else if string(p[:3]) == "PRI" {
			s.two = newPeer2(s.rnd, s.c, true, s)
			s.goodbye()
		} else {
			s.one = &message1{}
		}
	}
	var n int
	var err error
	if s.one != nil {
		n, err = s.one.feed(p, s)
	} else {
		n, err = s.two.feed(p)
	}
	if err != nil {
		s.g.run.fail("program %s: %v", s.g.name, err)
		return len(p)
	}
	if s.quit {
		return len(p)
	}
	return n
}

// goodbye has an HTTP/2 connection say goodbye some time from now.
func (s *caller) goodbye() {
	if !s.g.run.faults.Programs || s.rnd.IntN(3) > 0 {
		return
	}
	t := &loop.Timer{Expired: func() {
		if !s.quit {
			last := uint32(0)
			for _, st := range s.two.sorted() {
				last = max(last, st.id)
			}
			s.g.run.trace("program %s says goodbye above stream %d", s.g.name, last)
			s.two.bye(max(last, s.two.last))
		}
	}}
	s.c.Loop().Arm(t, time.Duration(s.rnd.Int64N(int64(200*time.Millisecond))))
}

func (s *caller) EOF() {
	if s.one != nil && s.one.state == inTunnel {
		s.tunnelEnd()
		return
	}
	s.quit = true // what is incomplete stays so
	s.c.Close()
}
func (s *caller) Writable() {}
func (s *caller) Closed(err error) {
	s.nap.end()
	s.g.run.trace("program %s: a connection is closed: %v", s.g.name, err)
	s.quit = true
	if s.two != nil {
		s.c.Loop().Disarm(&s.two.credit)
	}
}

// arrived finds the plan of a request whose head has come.
func (s *caller) arrived(id string, method string) (*request, error) {
	n, err := strconv.Atoi(id)
	if err != nil || n < 0 || n >= len(s.g.run.requests) {
		return nil, fmt.Errorf("a request with the number %q", id)
	}
	r := s.g.run.requests[n]
	if r.method != method && r.kind != tunnel {
		return nil, fmt.Errorf("request %d came as %s", n, method)
	}
	r.delivered++
	s.g.run.trace("program %s gets %s", s.g.name, r)
	switch {
	case r.delivered > 1 && !r.idempotent():
		return nil, fmt.Errorf("doubled: %s", r)
	case r.delivered > 10: // five attempts of the caller's proxy, each two of the program's (exchange: Config.Attempts, programAttempts)
		return nil, fmt.Errorf("again and again: %s", r)
	}
	return r, nil
}

// read checks a piece of a request's body.
func (s *caller) read(r *request, got int, p []byte) error {
	if got+len(p) > r.body || string(p) != string(body(r.id, ofRequest, got, got+len(p))) {
		return fmt.Errorf("%d bytes behind %d are not those of %s", len(p), got, r)
	}
	return nil
}

// HTTP/1.

func (s *caller) head(m *message1) (err error) {
	method := m.start
	for i := range method {
		if method[i] == ' ' {
			method = method[:i]
			break
		}
	}
	if s.now, err = s.arrived(m.fields["x-sim-id"], method); err != nil {
		return err
	}
	s.got, s.sent = 0, false
	switch s.now.kind {
	case tunnel:
		s.switchTo(m)
		return nil
	case call:
		s.sent, s.end1 = true, false
		s.c.Write(fmt.Appendf(nil, "HTTP/1.1 200 Simulated\r\nx-sim-id: %d\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n", s.now.id))
		return nil
	}
	if s.now.hints {
		s.c.Write([]byte("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"))
	}
	if m.fields["expect"] == "100-continue" && s.rnd.IntN(4) > 0 {
		s.c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	if s.now.early {
		s.respond()
	}
	return nil
}

func (s *caller) piece(p []byte) error {
	err := s.read(s.now, s.got, p)
	was := s.got
	if s.got += len(p); s.now.kind == call && err == nil {
		s.echo1(was)
	}
	return err
}

func (s *caller) end(m *message1) error {
	r := s.now
	if s.got != r.body {
		return fmt.Errorf("%d bytes of %s", s.got, r)
	}
	if r.trailers && m.trailers["x-sim-end"] != strconv.Itoa(r.id) {
		return fmt.Errorf("trailers %v of %s", m.trailers, r)
	}
	r.complete++
	if r.kind == call {
		s.c.Write(fmt.Appendf(nil, "0\r\nx-sim-end: %d\r\ngrpc-status: 0\r\n\r\n", r.id))
	}
	if !s.sent {
		s.respond()
	}
	s.now = nil
	if s.end1 {
		s.quit = true
		s.c.Close()
	}
	return nil
}

func (s *caller) respond() {
	r := s.now
	s.sent, s.end1 = true, r.closes
	out := fmt.Appendf(nil, "HTTP/1.1 %d Simulated\r\nx-sim-id: %d\r\n", r.status, r.id)
	if r.closes {
		out = append(out, "Connection: close\r\n"...)
	}
	switch {
	case r.status == 204:
	case r.bodiless():
		out = fmt.Appendf(out, "Content-Length: %d\r\n", r.answer)
	case r.streamed:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	default:
		out = fmt.Appendf(out, "Content-Length: %d\r\n", r.answer)
	}
	out = append(out, "\r\n"...)
	if !r.bodiless() {
		n := r.answer
		if r.breaks >= 0 {
			n = r.breaks
		}
		b := body(r.id, ofResponse, 0, n)
		switch {
		case !r.streamed:
			out = append(out, b...)
		case r.breaks >= 0:
			out = chunks(out, b)
		case r.answerTrails:
			out = fmt.Appendf(chunks(out, b), "0\r\nx-sim-end: %d\r\n\r\n", r.id)
		default:
			out = append(chunks(out, b), "0\r\n\r\n"...)
		}
	}
	s.c.Write(out)
	if r.breaks >= 0 && !r.bodiless() {
		s.quit = true
		if s.rnd.IntN(2) == 0 {
			s.c.Reset()
		} else {
			s.c.Close()
		}
	}
}

// HTTP/2.

// served2 is the value of a stream.
type served2 struct {
	r    *request
	got  int
	sent bool
}

func (s *caller) head2(st *stream2, fields map[string]string, end bool) error {
	v, _ := st.value.(*served2)
	if v == nil {
		r, err := s.arrived(fields["x-sim-id"], fields[":method"])
		if err != nil {
			return err
		}
		v = &served2{r: r}
		st.value = v
		if r.kind != plain {
			s.accept2(st, v)
		}
		if r.hints {
			s.two.writeHead(st, false, ":status", "103", "link", "</x>")
		}
		if r.kind == plain && r.early && !end {
			s.respond2(st, v)
		}
	} else if fields["x-sim-end"] != strconv.Itoa(v.r.id) {
		return fmt.Errorf("trailers %v of %s", fields, v.r)
	}
	if end {
		return s.end2(st, v)
	}
	return nil
}

func (s *caller) piece2(st *stream2, p []byte, end bool) error {
	v := st.value.(*served2)
	if err := s.read(v.r, v.got, p); err != nil {
		return err
	}
	was := v.got
	if v.got += len(p); v.r.kind == call {
		s.echo2(st, v, was)
	}
	if end {
		return s.end2(st, v)
	}
	return nil
}

func (s *caller) end2(st *stream2, v *served2) error {
	if v.got != v.r.body {
		return fmt.Errorf("%d bytes of %s", v.got, v.r)
	}
	v.r.complete++
	s.last2(st, v)
	if !v.sent {
		s.respond2(st, v)
	}
	s.two.done(st)
	return nil
}

func (s *caller) respond2(st *stream2, v *served2) {
	r := v.r
	v.sent = true
	fields := []string{":status", strconv.Itoa(r.status), "x-sim-id", strconv.Itoa(r.id)}
	if !r.streamed && r.status != 204 {
		fields = append(fields, "content-length", strconv.Itoa(r.answer))
	}
	empty := r.bodiless() || r.answer == 0 && !r.answerTrails && r.breaks < 0
	s.two.writeHead(st, empty, fields...)
	switch {
	case empty:
	case r.breaks >= 0:
		s.two.write(st, body(r.id, ofResponse, 0, r.breaks), false)
		s.two.reset(st, http2.ErrCodeInternal)
	case r.answerTrails:
		s.two.write(st, body(r.id, ofResponse, 0, r.answer), true, hpack.HeaderField{Name: "x-sim-end", Value: strconv.Itoa(r.id)})
	default:
		s.two.write(st, body(r.id, ofResponse, 0, r.answer), true)
	}
}

func (s *caller) reset2(st *stream2, code http2.ErrCode) {
	s.g.run.trace("program %s: stream %d reset: %s", s.g.name, st.id, code)
}
func (s *caller) settled2()   {}
func (s *caller) bye2(uint32) {}
