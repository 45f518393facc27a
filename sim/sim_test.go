package sim_test

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/loop/looptest"
	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// virtual is looptest.World in the simulator.
type virtual struct {
	*sim.World
	loops [2]*sim.Loop
}

func newVirtual(cfg sim.Config) *virtual {
	w := &virtual{World: sim.New(cfg)}
	for i := range w.loops {
		w.loops[i] = w.NewLoop(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}))
	}
	return w
}

func (w *virtual) Loop(i int) loop.Loop { return w.loops[i] }

func (w *virtual) Listen(l loop.Loop, accept func(loop.Incoming)) netip.AddrPort {
	return w.World.Listen(l.(*sim.Loop), netip.MustParseAddrPort("10.0.0.9:0"), accept).Addr()
}

func (w *virtual) Nobody() netip.AddrPort { return netip.MustParseAddrPort("10.0.0.9:1") }

func (w *virtual) Do(l loop.Loop, f func()) {
	done := false
	if l.Post(func() { f(); done = true }) {
		w.World.Until(time.Minute, func() bool { return done })
	}
}

func (w *virtual) Until(cond func() bool) bool { return w.World.Until(time.Hour, cond) }

func TestContract(t *testing.T) {
	simtest.Each(t, 12, func(t *testing.T, seed uint64) {
		cfg := sim.Config{Seed: seed, Whole: seed%5 == 4}
		if seed%3 == 1 {
			cfg.Window = 20_000
		}
		looptest.Run(t, func(t *testing.T) looptest.World { return newVirtual(cfg) })
	})
}

// side notes in one hash everything that it is told, and when.
type side struct {
	l    loop.Loop
	log  func(format string, args ...any)
	name string
	conn loop.Conn
	echo bool
	n    int
}

func (s *side) note(format string, args ...any) {
	s.log("%v %s "+format+"\n", append([]any{s.l.Now(), s.name}, args...)...)
}
func (s *side) Opened() { s.note("opened") }
func (s *side) Data(p []byte) int {
	s.note("data %d %x", len(p), p[0])
	s.n += len(p)
	if s.echo {
		s.conn.Write(p)
	}
	return len(p)
}
func (s *side) EOF()             { s.note("eof"); s.conn.CloseWrite() }
func (s *side) Writable()        { s.note("writable") }
func (s *side) Closed(err error) { s.note("closed %v", err) }

// run has ten connections echo, and answers a hash of all that happened, and how many connections were reset.
func run(cfg sim.Config) (sum uint64, resets, open int) {
	w := newVirtual(cfg)
	h := fnv.New64a()
	log := func(format string, args ...any) { fmt.Fprintf(h, format, args...) }
	addr := w.Listen(w.loops[1], func(in loop.Incoming) {
		in.Adopt(w.loops[1], func(c loop.Conn) loop.Handler {
			return &side{l: w.loops[1], log: log, name: in.Remote().String(), conn: c, echo: true}
		})
	})
	var clients []*client
	for i := range 10 {
		c := &client{side: side{l: w.loops[0], log: log, name: fmt.Sprint("client ", i)}}
		clients = append(clients, c)
		w.Do(w.loops[0], func() {
			c.conn = w.loops[0].Dial(loop.Dial{Address: addr}, c)
			c.conn.Write(make([]byte, 20_000))
			c.conn.CloseWrite()
		})
	}
	w.Run(time.Minute)
	for _, c := range clients {
		switch {
		case !c.done:
			open++
		case c.err != nil:
			resets++
		}
	}
	return h.Sum64(), resets, open
}

type client struct {
	side
	done bool
	err  error
}

func (c *client) Closed(err error) { c.side.Closed(err); c.done, c.err = true, err }

// TestDeterministic: one seed, one run; another seed, another.
func TestDeterministic(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(10) {
		cfg := sim.Config{Seed: seed, Resets: 0.01}
		a, _, open := run(cfg)
		b, _, _ := run(cfg)
		if a != b {
			t.Errorf("seed %d: two runs differ", seed)
		}
		if open > 0 {
			t.Errorf("seed %d: %d connections neither ended nor were reset", seed, open)
		}
		seen[a] = true
	}
	if len(seen) < 10 {
		t.Errorf("10 seeds gave %d different runs", len(seen))
	}
}

func TestResets(t *testing.T) {
	resets := 0
	for seed := range uint64(20) {
		_, n, _ := run(sim.Config{Seed: seed, Resets: 0.05})
		resets += n
	}
	if resets == 0 || resets == 200 {
		t.Errorf("%d of 200 connections were reset", resets)
	}
	if _, n, _ := run(sim.Config{}); n > 0 {
		t.Errorf("%d connections were reset in a faultless network", n)
	}
}

func TestTurnedAndBlackhole(t *testing.T) {
	w := newVirtual(sim.Config{})
	wanted, hole := netip.MustParseAddrPort("198.18.0.5:80"), netip.MustParseAddrPort("10.9.9.9:80")
	var got netip.AddrPort
	addr := w.Listen(w.loops[1], func(in loop.Incoming) { got = in.Wanted(); in.Refuse() })
	w.Turn(wanted, addr)
	w.Blackhole(hole)
	a, b := &client{}, &client{}
	a.l, a.log, b.l, b.log = w.loops[0], t.Logf, w.loops[0], t.Logf
	w.Do(w.loops[0], func() {
		a.conn = w.loops[0].Dial(loop.Dial{Address: wanted}, a)
		b.conn = w.loops[0].Dial(loop.Dial{Address: hole, Timeout: time.Second}, b)
	})
	w.Run(10 * time.Second)
	if got != wanted || a.err == nil || b.err != loop.ErrConnectTimeout {
		t.Errorf("wanted %v, ended with %v and %v", got, a.err, b.err)
	}
}

func TestCloseTellsEveryone(t *testing.T) {
	w := newVirtual(sim.Config{})
	s := &client{}
	s.l, s.log = w.loops[1], t.Logf
	addr := w.Listen(w.loops[1], func(in loop.Incoming) {
		in.Adopt(w.loops[1], func(c loop.Conn) loop.Handler { s.conn = c; return s })
	})
	c := &client{}
	c.l, c.log = w.loops[0], t.Logf
	w.Do(w.loops[0], func() { c.conn = w.loops[0].Dial(loop.Dial{Address: addr}, c) })
	w.Run(time.Second)
	w.loops[1].Close()
	w.Run(time.Second)
	if s.err != loop.ErrLoopEnded || c.err == nil || w.loops[1].Post(func() {}) {
		t.Errorf("ended with %v and %v", s.err, c.err)
	}
}

// sipper reads what has come, and nothing more for a while.
type sipper struct {
	conn  loop.Conn
	timer loop.Timer
	every time.Duration
	n     int
	eof   bool
	err   error
}

func (s *sipper) Opened()   {}
func (s *sipper) Writable() {}
func (s *sipper) EOF()      { s.eof = true; s.conn.Close() }
func (s *sipper) Data(p []byte) int {
	s.n += len(p)
	s.conn.Pause()
	s.timer.Expired = s.conn.Resume
	s.conn.Loop().Arm(&s.timer, s.every)
	return len(p)
}
func (s *sipper) Closed(err error) {
	s.err = err
	s.conn.Loop().Disarm(&s.timer)
}

// TestCloseWaitsForTheSlow: what was written before Close reaches who reads slowly, if it takes no more than five
// minutes; who reads nothing at all is given up.
func TestCloseWaitsForTheSlow(t *testing.T) {
	const total = 150_000
	for every, want := range map[time.Duration]bool{10 * time.Second: true, 25 * time.Second: false, 20 * time.Minute: false} {
		w := newVirtual(sim.Config{Seed: 1, Window: 8000})
		reader := &sipper{every: every}
		at := w.Listen(w.loops[1], func(in loop.Incoming) {
			in.Adopt(w.loops[1], func(c loop.Conn) loop.Handler { reader.conn = c; return reader })
		})
		w.Do(w.loops[0], func() {
			writer := &sipper{}
			writer.conn = w.loops[0].Dial(loop.Dial{Address: at}, writer)
			writer.conn.Write(make([]byte, total))
			writer.conn.Close()
		})
		if got := w.Until(func() bool { return reader.n == total && reader.eof }); got != want {
			t.Errorf("reading every %s: %d of %d bytes, end %t, %v", every, reader.n, total, reader.eof, reader.err)
		}
	}
}
