package downstream_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// simProgram is one connection of a program that answers every request with its body.
type simProgram struct {
	c      loop.Conn
	head   message.Head
	body   http1.Body
	inBody bool
	data   []byte
}

func (s *simProgram) Opened() {}

func (s *simProgram) Data(p []byte) int {
	used := 0
	for {
		if !s.inBody {
			n, f, err := http1.ParseRequest(p[used:], &s.head, http1.Limits{})
			if err != nil {
				panic(err)
			}
			if n == 0 {
				return used
			}
			used += n
			s.inBody, s.data = true, s.data[:0]
			s.body.Reset(f)
			if f.Kind == http1.BodyNone {
				s.respond()
				continue
			}
		}
		data, n, done, err := s.body.Next(p[used:])
		if err != nil {
			panic(err)
		}
		s.data = append(s.data, data...)
		used += n
		if done {
			s.respond()
		} else if n == 0 {
			return used
		}
	}
}

// respond answers with a stated length or in chunks, in turn.
func (s *simProgram) respond() {
	s.inBody = false
	h := message.Head{Version: message.HTTP11, Status: 200, ContentLength: int64(len(s.data))}
	if len(s.data)%2 == 0 {
		s.c.Write(http1.AppendResponse(nil, &h, http1.Framing{Kind: http1.BodyLength, Length: int64(len(s.data))}))
		s.c.Write(s.data)
		return
	}
	h.ContentLength = message.NoLength
	out := http1.AppendResponse(nil, &h, http1.Framing{Kind: http1.BodyChunked})
	out = http1.AppendChunk(out, s.data)
	s.c.Write(http1.AppendLastChunk(out, nil))
}

func (s *simProgram) EOF()         { s.c.Close() }
func (s *simProgram) Writable()    {}
func (s *simProgram) Closed(error) {}

// simClient sends requests one after another or ahead and checks what comes back.
type simClient struct {
	c     loop.Conn
	want  [][]byte
	next  int
	head  message.Head
	body  http1.Body
	inHd  bool
	got   []byte
	bad   string
	other int // answers other than 200
	ended bool
}

func newSimClient(r *rand.Rand, n int) *simClient {
	s := &simClient{}
	for range n {
		b := make([]byte, []int{0, 1, 100, 5000, 60000, 150000}[r.IntN(6)]+r.IntN(10))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		s.want = append(s.want, b)
	}
	return s
}

func (s *simClient) Opened() {
	for i, b := range s.want {
		method := []string{"POST", "PUT"}[i%2]
		if i%3 == 0 {
			s.c.Write(fmt.Appendf(nil, "%s /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", method, i, len(b)))
			s.c.Write(b)
			continue
		}
		s.c.Write(fmt.Appendf(nil, "%s /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", method, i))
		s.c.Write(http1.AppendLastChunk(http1.AppendChunk(nil, b), nil))
	}
}

func (s *simClient) Data(p []byte) int {
	used := 0
	for !s.ended {
		if !s.inHd {
			n, f, err := http1.ParseResponse(p[used:], []byte("POST"), &s.head, http1.Limits{})
			if err != nil {
				s.bad = err.Error()
				return len(p)
			}
			if n == 0 {
				return used
			}
			used += n
			s.inHd, s.got = true, s.got[:0]
			s.body.Reset(f)
			if f.Kind == http1.BodyNone {
				s.check()
				continue
			}
		}
		data, n, done, err := s.body.Next(p[used:])
		if err != nil {
			s.bad = err.Error()
			return len(p)
		}
		s.got = append(s.got, data...)
		used += n
		if done {
			s.check()
		} else if n == 0 {
			return used
		}
	}
	return len(p)
}

func (s *simClient) check() {
	s.inHd = false
	switch {
	case s.next >= len(s.want):
		s.bad = "more responses than requests"
	case s.head.Status != 200:
		s.other++
	case !bytes.Equal(s.got, s.want[s.next]):
		s.bad = fmt.Sprintf("response %d has %d bytes, not the %d of its request", s.next, len(s.got), len(s.want[s.next]))
	}
	if s.next++; s.next == len(s.want) {
		s.end()
	}
}

func (s *simClient) end() {
	if !s.ended {
		s.ended = true
		s.c.Close()
	}
}

func (s *simClient) EOF()         { s.end() }
func (s *simClient) Writable()    {}
func (s *simClient) Closed(error) { s.ended = true }

// simHop is one proxy in the simulated world.
type simHop struct {
	worker *exchange.Worker
	pool   *pool.Pool
	log    records
	conns  int
}

func newSimHop(w *sim.World, ip string, o exchange.Origin, http2 bool) (*simHop, netip.AddrPort) {
	l := w.NewLoop(netip.MustParseAddr(ip))
	h := &simHop{}
	h.pool = pool.New(pool.Config{Loop: l, Mesh: func(d *pool.Target, timeout time.Duration, hd loop.Handler) loop.Conn {
		return l.Dial(loop.Dial{Address: d.Address, Timeout: timeout}, hd)
	}})
	h.worker = exchange.NewWorker(exchange.Config{Loop: l, Pool: h.pool, Observer: &h.log, Seed: 1})
	ln := w.Listen(l, netip.AddrPortFrom(netip.MustParseAddr(ip), 0), func(in loop.Incoming) {
		in.Adopt(l, func(c loop.Conn) loop.Handler {
			h.conns++
			return downstream.Serve(c, downstream.Context{Worker: h.worker, Origin: &o, HTTP2: http2, Ended: func() { h.conns-- }})
		})
	})
	return h, ln.Addr()
}

// run is one seed: clients, two proxies with HTTP/2 between them, a program, on a hostile network.
func run(t *testing.T, seed uint64, resets float64) {
	w := sim.New(sim.Config{Seed: seed, Resets: resets})
	r := rand.New(rand.NewPCG(seed, 1))
	pl := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
	program := w.Listen(pl, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
		in.Adopt(pl, func(c loop.Conn) loop.Handler { return &simProgram{c: c} })
	})
	o := inbound(program.Addr())
	o.Mesh = true
	in, meshAddr := newSimHop(w, "10.0.0.2", o, true)
	out, addr := newSimHop(w, "10.0.0.3", exchange.Origin{
		Direction: record.Outbound, Destination: to(t, model.Timeouts{}, meshAddr), Service: cart,
	}, false)
	cl := w.NewLoop(netip.MustParseAddr("10.0.0.4"))
	clients := make([]*simClient, 1+r.IntN(4))
	for i := range clients {
		clients[i] = newSimClient(r, 1+r.IntN(12))
		cl.Post(func() { clients[i].c = cl.Dial(loop.Dial{Address: addr}, clients[i]) })
	}
	done := func() bool {
		for _, c := range clients {
			if !c.ended {
				return false
			}
		}
		return out.worker.Open() == 0 && in.worker.Open() == 0 && out.conns == 0
	}
	if !w.Until(2*time.Minute, done) {
		t.Fatalf("not over: %d and %d exchanges, %d connections", out.worker.Open(), in.worker.Open(), out.conns)
	}
	for i, c := range clients {
		if c.bad != "" {
			t.Fatalf("client %d: %s", i, c.bad)
		}
		if resets == 0 && (c.next != len(c.want) || c.other > 0) {
			t.Fatalf("client %d: %d of %d answered, %d not 200", i, c.next, len(c.want), c.other)
		}
	}
}

// TestSimulated: whatever the network does to order, sizes and times, every request gets its own response; where
// connections are reset as well, everything that began ends.
func TestSimulated(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 20
	}
	t.Run("faultless", func(t *testing.T) {
		simtest.Each(t, seeds, func(t *testing.T, seed uint64) { run(t, seed, 0) })
	})
	t.Run("resets", func(t *testing.T) {
		simtest.Each(t, seeds, func(t *testing.T, seed uint64) { run(t, seed, 0.002) })
	})
}
