package listener_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// talker is a program that says something and listens, each at its own pace. It ends its direction when it has
// said everything, and the connection ends when both have.
type talker struct {
	rng    *rand.Rand
	c      loop.Conn
	say    []byte // not yet said
	got    []byte
	timer  loop.Timer
	pause  loop.Timer
	slow   time.Duration // longest pause of its reading
	opened bool
	eof    bool
	closed bool
	err    error
}

func newTalker(w *sim.World, say []byte, slow time.Duration) *talker {
	t := &talker{rng: rand.New(rand.NewPCG(w.Rand().Uint64(), 1)), say: say, slow: slow}
	t.timer.Expired = t.speak
	t.pause.Expired = func() { t.c.Resume() }
	return t
}

func (t *talker) Opened() {
	t.opened = true
	t.c.Loop().Arm(&t.timer, time.Duration(t.rng.Int64N(int64(300*time.Millisecond))))
}

func (t *talker) speak() {
	if t.closed {
		return
	}
	if t.c.Buffered() < loop.HighWater {
		n := min(len(t.say), 1+t.rng.IntN(1+t.rng.IntN(200<<10)))
		t.c.Write(t.say[:n])
		t.say = t.say[n:]
	}
	if len(t.say) == 0 {
		t.c.CloseWrite()
		return
	}
	t.c.Loop().Arm(&t.timer, time.Duration(t.rng.Int64N(int64(20*time.Millisecond))))
}

func (t *talker) Data(p []byte) int {
	t.got = append(t.got, p...)
	if t.slow > 0 && t.rng.IntN(4) == 0 {
		t.c.Pause()
		t.c.Loop().Arm(&t.pause, time.Duration(t.rng.Int64N(int64(t.slow))))
	}
	return len(p)
}

func (t *talker) EOF()      { t.eof = true }
func (t *talker) Writable() {}
func (t *talker) Closed(err error) {
	t.closed, t.err = true, err
	t.c.Loop().Disarm(&t.timer)
	t.c.Loop().Disarm(&t.pause)
}

// network is a caller's proxy, a server's proxy and a program, in a simulated world.
type network struct {
	*sim.World
	client, proxy, server *sim.Loop
	relays                *relay.Relays
	worker                *listener.Worker
	port                  *port
	records               []record.Record
	vip                   netip.AddrPort
	served                int
}

func (n *network) Serve(c loop.Conn, _ listener.Context) loop.Handler {
	n.served++
	c.Close()
	return &web{c: c}
}

type counted struct {
	n *network
	*observe.Recorder
}

func (c counted) Done(r *record.Record)                    { c.n.records = append(c.n.records, *r) }
func (c counted) Closed(r *record.Record, f *observe.Flow) { c.Recorder.Closed(r, f); c.Done(r) }

type static struct{ p *port }

func (s static) Port(netip.AddrPort) (listener.Port, bool)                              { return s.p, true }
func (static) ByAddress(loop.Loop, netip.AddrPort, func(listener.Port, failure.Reason)) {}

func newNetwork(cfg sim.Config, known model.Protocol, program func(c loop.Conn) loop.Handler) *network {
	n := &network{World: sim.New(cfg), vip: netip.MustParseAddrPort("198.18.0.7:3306")}
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	n.client, n.proxy, n.server = n.NewLoop(at("10.0.0.1:0").Addr()), n.NewLoop(at("10.0.0.2:0").Addr()), n.NewLoop(at("10.0.0.3:0").Addr())
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "db"}, Port: 3306}
	p := &port{name: name, protocol: known, cluster: cluster.New(&model.Cluster{Name: name, ConnectTimeout: time.Second})}
	n.port = p
	p.cluster.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "db-1", Namespace: "default", Port: 8080, Identity: "spiffe://tulle.local/ns/default/sa/db", Address: at("10.0.0.2:15006"), Weight: 1}}})
	observer := counted{n, observe.New(observe.Config{}).Recorder()}
	n.relays = relay.New(relay.Config{Loop: n.proxy, Observer: observer})
	blanks := pool.New(pool.Config{Loop: n.proxy, Mesh: func(t *pool.Target, d time.Duration, h loop.Handler) loop.Conn {
		return n.proxy.Dial(loop.Dial{Address: t.Address, Timeout: d}, h)
	}})
	n.worker = listener.New(listener.Config{
		Loop: n.proxy, Observer: observer, Directory: static{p}, Blanks: blanks, HTTP: n, Relays: n.relays, Seed: cfg.Seed,
		Ports:       func(p uint16) (listener.OwnPort, bool) { return listener.OwnPort{Port: p, Service: name}, true },
		Program:     func(uint16, netip.Addr) (loop.Dial, bool) { return loop.Dial{Address: at("10.0.0.3:8080")}, true },
		Passthrough: listener.Passthrough{VIPs: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}},
	})
	mesh := &listener.Mesh{Workload: "db-1", Namespace: "default", Workers: []*listener.Worker{n.worker},
		Handshake: func(raw loop.Conn, h loop.Handler) listener.Secure {
			raw.SetHandler(h)
			return secure{raw, listener.ServerName(8080, "db-1", "default")}
		}}
	n.Turn(n.vip, at("10.0.0.1:15001"))
	n.Listen(n.proxy, at("10.0.0.1:15001"), n.worker.Outbound)
	n.Listen(n.proxy, at("10.0.0.2:15006"), mesh.Accept)
	n.Listen(n.server, at("10.0.0.3:8080"), func(in loop.Incoming) { in.Adopt(n.server, program) })
	return n
}

// text makes bytes that are not HTTP.
func text(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32()) | 0x80
	}
	return b
}

// TestSeeds sends random conversations through both proxies, over a network that delays, cuts and stops. Without
// resets every byte arrives in both directions, however slow a reader is. With resets what arrived is a
// beginning of what was said, and whoever did not hear an end heard of a failure.
func TestSeeds(t *testing.T) {
	simtest.Each(t, 120, func(t *testing.T, seed uint64) {
		for _, resets := range []float64{0, 0.002} {
			known := []model.Protocol{model.ProtocolUnknown, model.ProtocolTCP, model.LearnedHTTP, model.LearnedServerFirst}[seed%4]
			if err := converse(sim.Config{Seed: seed, Resets: resets}, known); err != nil {
				t.Errorf("resets %v, known %v: %v", resets, known, err)
			}
		}
	})
}

func converse(cfg sim.Config, known model.Protocol) error {
	rng := rand.New(rand.NewPCG(cfg.Seed, 2))
	size := func() int { return rng.IntN(1 << (4 + rng.IntN(17))) }
	slow := func() time.Duration { return []time.Duration{0, time.Millisecond, 20 * time.Second}[rng.IntN(3)] }
	question, answer := text(rng, 1+size()), text(rng, size())
	var server *talker
	var n *network
	n = newNetwork(cfg, known, func(c loop.Conn) loop.Handler {
		server = newTalker(n.World, answer, slow())
		server.c = c
		return server
	})
	client := newTalker(n.World, question, slow())
	n.client.Post(func() { client.c = n.client.Dial(loop.Dial{Address: n.vip}, client) })
	over := func() bool {
		return client.closed && (server == nil || server.closed) && n.relays.Len() == 0 && n.worker.Pending() == 0
	}
	if !n.Until(2*time.Hour, over) {
		return fmt.Errorf("not over: client %+v, relays %d, pending %d", client, n.relays.Len(), n.worker.Pending())
	}
	if server != nil && (!bytes.HasPrefix(question, server.got) || !bytes.HasPrefix(answer, client.got)) {
		return fmt.Errorf("bytes were changed")
	}
	whole := server != nil && len(server.got) == len(question) && len(client.got) == len(answer)
	switch {
	case n.served != 0:
		return fmt.Errorf("served as HTTP")
	case cfg.Resets == 0 && (!whole || client.err != nil || server.err != nil || !client.eof || !server.eof):
		return fmt.Errorf("question %d of %d, answer %d of %d, ends %t %t, errors %v %v", len(server.got), len(question),
			len(client.got), len(answer), server.eof, client.eof, server.err, client.err)
	case client.eof && len(client.got) < len(answer) && client.err == nil:
		return fmt.Errorf("a cut answer of %d of %d ended in order", len(client.got), len(answer))
	case cfg.Resets == 0 && len(n.records) != 2:
		return fmt.Errorf("%d records", len(n.records))
	}
	for _, r := range n.records {
		if cfg.Resets == 0 && (r.RequestBytes != int64(len(question)) || r.ResponseBytes != int64(len(answer)) || r.Reason != "") {
			return fmt.Errorf("record %+v", r)
		}
	}
	return nil
}

// TestSilence: where HTTP was spoken a moment ago, a client that says nothing hears a server that speaks first after a
// second, and so do the next ones once that is known.
func TestSilence(t *testing.T) {
	simtest.Each(t, 10, func(t *testing.T, seed uint64) {
		var n *network
		n = newNetwork(sim.Config{Seed: seed}, model.LearnedHTTP, func(c loop.Conn) loop.Handler {
			server := newTalker(n.World, []byte("220 ready\r\n"), 0)
			server.c = c
			return server
		})
		web := newTalker(n.World, []byte("GET / HTTP/1.1\r\n"), 0)
		n.client.Post(func() { web.c = n.client.Dial(loop.Dial{Address: n.vip}, web) })
		if !n.Until(time.Minute, func() bool { return n.served == 1 }) {
			t.Fatal("HTTP was not served")
		}
		mute := &mute{}
		n.client.Post(func() { n.client.Dial(loop.Dial{Address: n.vip}, mute) })
		if !n.Until(3*time.Second, func() bool { return len(mute.got) > 0 }) {
			t.Fatal("the server was not heard within three seconds")
		}
	})
}

// mute is a client that only listens.
type mute struct{ got []byte }

func (m *mute) Opened()           {}
func (m *mute) Data(p []byte) int { m.got = append(m.got, p...); return len(p) }
func (m *mute) EOF()              {}
func (m *mute) Writable()         {}
func (m *mute) Closed(error)      {}

// TestMuteTLS: a client that never names its server is not waited for without end, where names decide.
func TestMuteTLS(t *testing.T) {
	n := newNetwork(sim.Config{Seed: 1}, model.ProtocolTLS, func(c loop.Conn) loop.Handler { return &mute{} })
	n.port.relays = []model.RelayRoute{{SNI: []string{"a.example"}, Backends: []model.Backend{{Cluster: n.port.name, Weight: 1}}}}
	n.client.Post(func() { n.client.Dial(loop.Dial{Address: n.vip}, &mute{}) })
	if n.Until(9*time.Second, func() bool { return len(n.records) > 0 }) {
		t.Fatalf("refused too early: %+v", n.records)
	}
	if !n.Until(3*time.Second, func() bool { return len(n.records) == 1 && n.worker.Pending() == 0 }) || n.records[0].Reason != "request_incomplete" {
		t.Fatalf("still waited for: %+v", n.records)
	}
}
