package listener_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/sim"
)

// TestDrainAtEveryStep: a proxy that drains ends the blank connections of others. One of them may just have been taken
// for a client; that client is served, or sees a failure: never an answer that is empty and ends in order.
func TestDrainAtEveryStep(t *testing.T) {
	for step := range 60 {
		var server *talker
		var n *network
		n = newNetwork(sim.Config{Seed: uint64(step)}, model.ProtocolTCP, func(c loop.Conn) loop.Handler {
			server = newTalker(n.World, []byte("\x80answer"), 0)
			server.c = c
			return server
		})
		client := newTalker(n.World, []byte("\x80question"), 0)
		n.client.Post(func() { client.c = n.client.Dial(loop.Dial{Address: n.vip}, client) })
		for range step {
			n.Step()
		}
		n.proxy.Post(n.worker.Drain)
		if !n.Until(time.Hour, func() bool { return client.closed }) {
			t.Fatalf("step %d: not over", step)
		}
		if client.eof && client.err == nil && len(client.got) == 0 {
			t.Errorf("step %d: an empty answer", step)
		}
	}
}
