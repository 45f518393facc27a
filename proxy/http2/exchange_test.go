package http2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// side is one end of many streams at random: what it has to send, what it has received.
type side struct {
	c       *http2.Conn
	r       *rand.Rand
	streams map[*http2.Stream]*traffic
	lazy    []func() // Consumed calls put off
}

type traffic struct {
	out      []byte
	name     string
	in       []byte
	inEnd    bool
	trailers bool
}

func (d *side) send(s *http2.Stream) {
	x := d.streams[s]
	if x == nil {
		return
	}
	for len(x.out) > 0 {
		k := min(len(x.out), 1+d.r.IntN(40000))
		n := d.c.Data(s, x.out[:k], !x.trailers && k == len(x.out))
		x.out = x.out[n:]
		if n < k {
			return
		}
	}
	if x.trailers {
		d.c.Trailers(s, response(0, "x-t", x.name))
	} else if !s.SendEnded() {
		d.c.Data(s, nil, true)
	}
}

func (d *side) got(s *http2.Stream, p []byte, end bool) {
	x := d.streams[s]
	x.in = append(x.in, p...)
	x.inEnd = end
	n := len(p)
	d.lazy = append(d.lazy, func() { d.c.Consumed(s, n) })
}

func (d *side) consume() {
	for _, f := range d.lazy {
		f()
	}
	d.lazy = nil
}

// TestRandomExchanges runs many streams with bodies both ways, small windows, late credit, resets and trailers:
// every body arrives whole or as the beginning of itself, nothing gets stuck, no credit is lost.
func TestRandomExchanges(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomExchanges(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func randomExchanges(t *testing.T, r *rand.Rand) {
	p := newPair(t, func(c, s *http2.Config) {
		for _, cfg := range []*http2.Config{c, s} {
			cfg.InitialWindow = uint32(1 + r.IntN(100000))
			cfg.ConnWindow = uint32(r.IntN(300000))
			cfg.MaxConcurrent = 20
			cfg.Budget = 1 << 20
			cfg.Huffman = r.IntN(2) == 0
		}
	})
	cl := &side{c: p.client, r: r, streams: map[*http2.Stream]*traffic{}}
	sv := &side{c: p.server, r: r, streams: map[*http2.Stream]*traffic{}}
	bodies := map[string][]byte{}
	body := func(name string) []byte {
		b := make([]byte, r.IntN(3)*r.IntN(100000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		bodies[name] = b
		return b
	}
	p.s.head = func(s *http2.Stream, h *message.Head, end bool) {
		name := string(h.Target)
		x := &traffic{name: name, inEnd: end, trailers: r.IntN(3) == 0, out: body("response" + name)}
		sv.streams[s] = x
		p.server.Head(s, response(200, "x-name", name, "x-unique", fmt.Sprint(r.Uint64())), false)
		sv.send(s)
	}
	p.c.head = func(s *http2.Stream, h *message.Head, end bool) {
		if name := cl.streams[s].name; string(h.Get("x-name")) != name {
			t.Fatalf("response of %s for %s", h.Get("x-name"), name)
		}
		cl.streams[s].inEnd = end
	}
	for _, d := range []struct {
		*owner
		*side
	}{{&p.c, cl}, {&p.s, sv}} {
		d.owner.data = d.side.got
		d.owner.trailers = func(s *http2.Stream, h *message.Head) { d.side.got(s, nil, true) }
		d.owner.reset = func(s *http2.Stream, _ http2.ErrCode) { delete(d.side.streams, s) }
		d.owner.writable = d.side.send
	}
	for i := range 200 {
		if p.client.Available() > 0 && r.IntN(2) == 0 {
			name := fmt.Sprint("/", i)
			s, err := p.client.Open(request("POST", name, "x-unique", fmt.Sprint(r.Uint64())), false)
			if err != nil {
				t.Fatal(err)
			}
			cl.streams[s] = &traffic{name: name, trailers: r.IntN(3) == 0, out: body("request" + name)}
			cl.send(s)
		}
		p.pump()
		if r.IntN(3) == 0 {
			cl.consume()
		}
		if r.IntN(3) == 0 {
			sv.consume()
		}
		if d := []*side{cl, sv}[r.IntN(2)]; r.IntN(8) == 0 {
			for s := range d.streams {
				d.c.Reset(s, http2.Cancel)
				delete(d.streams, s)
				break
			}
		}
	}
	for range 10000 {
		p.pump()
		if len(cl.lazy)+len(sv.lazy) == 0 {
			break
		}
		cl.consume()
		sv.consume()
	}
	for what, d := range map[string]*side{"request": sv, "response": cl} {
		for s, x := range d.streams {
			want := bodies[what+x.name]
			if !bytes.HasPrefix(want, x.in) || x.inEnd && len(x.in) != len(want) {
				t.Fatalf("%s %s: %d bytes of %d, or others", what, x.name, len(x.in), len(want))
			}
			if !x.inEnd || !s.Closed() {
				t.Errorf("%s %s is stuck at %d of %d (send %v recv %v)", what, x.name, len(x.in), len(want), s.SendEnded(), s.RecvEnded())
			}
		}
	}
	if p.client.Streams() != 0 || p.server.Streams() != 0 {
		t.Errorf("%d and %d streams open", p.client.Streams(), p.server.Streams())
	}
}
