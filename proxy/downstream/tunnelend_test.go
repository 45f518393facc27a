package downstream_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/sim"
)

// lazySocket switches protocols, says nothing and ends its direction; it reads what it gets slowly.
type lazySocket struct {
	c     loop.Conn
	timer loop.Timer
	got   int
	ended bool
	err   error
}

func (s *lazySocket) Opened() {}
func (s *lazySocket) Data(p []byte) int {
	if s.timer.Expired == nil {
		if !bytes.HasSuffix(p, []byte("\r\n\r\n")) {
			return 0
		}
		s.timer.Expired = s.c.Resume
		s.c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
		s.c.CloseWrite()
	} else {
		s.got += len(p)
	}
	s.c.Pause()
	s.c.Loop().Arm(&s.timer, 300*time.Millisecond)
	return len(p)
}
func (s *lazySocket) EOF()             { s.ended = true }
func (s *lazySocket) Writable()        {}
func (s *lazySocket) Closed(err error) { s.err = err }

// lastWord is a client that says everything when the other end has ended its direction, and ends its own.
type lastWord struct {
	c   loop.Conn
	say int
}

func (s *lastWord) Opened() {
	s.c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
}
func (s *lastWord) Data(p []byte) int { return len(p) }
func (s *lastWord) EOF() {
	s.c.Write(make([]byte, s.say))
	s.c.CloseWrite()
}
func (s *lastWord) Writable()    {}
func (s *lastWord) Closed(error) {}

// TestTunnelHearsTheClientOut: the server of a tunnel has ended its direction, the client has said everything and ended
// its own, so the client's connection is over; what the client said still goes to a server that reads slowly.
func TestTunnelHearsTheClientOut(t *testing.T) {
	for say := 180_000; say < 400_000; say += 15_000 {
		w := sim.New(sim.Config{})
		pl := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
		server := &lazySocket{}
		program := w.Listen(pl, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
			in.Adopt(pl, func(c loop.Conn) loop.Handler { server.c = c; return server })
		})
		hop, addr := newSimHop(w, "10.0.0.2", exchange.Origin{Direction: record.Inbound, Program: program.Addr(), Protocol: model.ProtocolHTTP}, false)
		cl := w.NewLoop(netip.MustParseAddr("10.0.0.3"))
		client := &lastWord{say: say}
		cl.Post(func() { client.c = cl.Dial(loop.Dial{Address: addr}, client) })
		w.Until(10*time.Minute, func() bool { return server.err != nil || server.ended && hop.worker.Open() == 0 })
		if server.got != say || !server.ended || server.err != nil {
			t.Errorf("the server got %d bytes of %d, their end: %t, error: %v", server.got, say, server.ended, server.err)
		}
		if hop.worker.Open() != 0 || hop.conns != 0 {
			t.Errorf("%d exchanges and %d connections are left", hop.worker.Open(), hop.conns)
		}
	}
}
