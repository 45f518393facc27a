package listener_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/sim"
)

// refusals counts what is refused before anything is known of it.
type refusals struct {
	*observe.Recorder
	why []failure.Reason
}

func (r *refusals) Refused(why failure.Reason) { r.why = append(r.why, why) }

// silent is a client that says nothing.
type silent struct{ closed bool }

func (s *silent) Opened()           {}
func (s *silent) Data(p []byte) int { return len(p) }
func (s *silent) EOF()              {}
func (s *silent) Writable()         {}
func (s *silent) Closed(error)      { s.closed = true }

// TestStrictSilent: who calls a strict port and says nothing is cut off after ten seconds, and counted.
func TestStrictSilent(t *testing.T) {
	w := sim.New(sim.Config{Seed: 1})
	server, client := w.NewLoop(netip.MustParseAddr("10.0.0.1")), w.NewLoop(netip.MustParseAddr("10.0.0.2"))
	seen := &refusals{Recorder: observe.New(observe.Config{}).Recorder()}
	own := listener.OwnPort{Port: 8080, Service: model.PortName{Service: model.ServiceName{Namespace: "default", Name: "db"}, Port: 3306}, Protocol: model.ProtocolTCP}
	worker := listener.New(listener.Config{Loop: server, Observer: seen, Relays: relay.New(relay.Config{Loop: server, Observer: seen}),
		Ports:   func(uint16) (listener.OwnPort, bool) { return own, true },
		Program: func(uint16, netip.Addr) (loop.Dial, bool) { return loop.Dial{}, true },
		Mode:    func(uint16) model.MTLSMode { return model.ModeStrict }})
	listener.Share([]*listener.Worker{worker})
	at := w.Listen(server, netip.MustParseAddrPort("10.0.0.1:0"), worker.Publish(8080, 0)).Addr()
	s := &silent{}
	client.Dial(loop.Dial{Address: at, Timeout: time.Second}, s)
	if w.Run(9 * time.Second); s.closed || len(seen.why) != 0 {
		t.Fatalf("cut off after nine seconds: %v", seen.why)
	}
	if w.Run(3 * time.Second); !s.closed || len(seen.why) != 1 || seen.why[0] != failure.RequestIncomplete {
		t.Errorf("closed: %v, counted: %v", s.closed, seen.why)
	}
}
