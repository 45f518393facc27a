package listener_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/sim"
)

// TestShare accepts every connection on one loop, as the kernel may do; both loops serve about as many.
func TestShare(t *testing.T) {
	w := sim.New(sim.Config{Seed: 1})
	at := netip.MustParseAddrPort
	client, server := w.NewLoop(at("10.0.0.1:0").Addr()), w.NewLoop(at("10.0.0.3:0").Addr())
	own := listener.OwnPort{Port: 8080, Protocol: model.ProtocolTCP}
	var loops []*sim.Loop
	var workers []*listener.Worker
	for range 2 {
		l, observer := w.NewLoop(at("10.0.0.2:0").Addr()), observe.New(observe.Config{}).Recorder()
		loops = append(loops, l)
		workers = append(workers, listener.New(listener.Config{
			Loop: l, Observer: observer, Relays: relay.New(relay.Config{Loop: l, Observer: observer}),
			Ports:   func(uint16) (listener.OwnPort, bool) { return own, true },
			Program: func(uint16, netip.Addr) (loop.Dial, bool) { return loop.Dial{Address: at("10.0.0.3:8080")}, true },
		}))
	}
	listener.Share(workers)
	w.Listen(loops[0], at("10.0.0.2:80"), workers[0].Publish(8080, 0))
	w.Listen(server, at("10.0.0.3:8080"), func(in loop.Incoming) {
		in.Adopt(server, func(c loop.Conn) loop.Handler { return &web{c: c} })
	})
	const connections = 64
	for range connections {
		client.Post(func() { client.Dial(loop.Dial{Address: at("10.0.0.2:80")}, &web{}) })
	}
	w.Run(time.Second)
	for i, l := range loops {
		if n := l.Accepted(); n < connections/2-1 || n > connections/2+1 {
			t.Errorf("loop %d has %d connections", i, n)
		}
	}
}
