package downstream_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/token"
	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// stayer is one connection of a program that accepts WebSockets and calls and lets them stay open; what comes then, or without a
// request, it echoes.
type stayer struct {
	c    loop.Conn
	open bool
	mute bool // what comes is left alone
	head []byte
}

func (s *stayer) Opened() {}
func (s *stayer) Data(p []byte) int {
	if s.open {
		if !s.mute {
			s.c.Write(p)
		}
		return len(p)
	}
	s.head = append(s.head, p...)
	text := string(s.head)
	switch {
	case strings.HasPrefix(text, "tcp"):
		s.c.Write(s.head)
	case !strings.Contains(text, "\r\n\r\n"):
		return len(p)
	case strings.Contains(strings.ToLower(text), "upgrade: websocket"):
		key := ""
		for _, line := range strings.Split(text, "\r\n") {
			if name, v, _ := strings.Cut(line, ": "); strings.EqualFold(name, "sec-websocket-key") {
				key = v
			}
		}
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		s.c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"))
	default:
		s.c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nH\r\n"))
		s.mute = true
	}
	s.open = true
	return len(p)
}
func (s *stayer) EOF()         { s.c.Close() }
func (s *stayer) Writable()    {}
func (s *stayer) Closed(error) {}

// guest is a client of one kind that stays.
type guest struct {
	c     loop.Conn
	kind  string
	says  string // fields of its request
	got   []byte
	ended bool
}

func (g *guest) Opened() {
	g.c.Write([]byte(map[string]string{"tcp": "tcp",
		"websocket": "GET / HTTP/1.1\r\nHost: x\r\n" + g.says + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"grpc":      "POST /a/B HTTP/1.1\r\nHost: x\r\n" + g.says + "Content-Type: application/grpc\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}[g.kind]))
}
func (g *guest) Data(p []byte) int { g.got = append(g.got, p...); return len(p) }
func (g *guest) EOF()              { g.ended = true; g.c.Close() }
func (g *guest) Writable()         {}
func (g *guest) Closed(error)      { g.ended = true }

// up reports whether it has been let in.
func (g *guest) up() bool {
	return bytes.Contains(g.got, []byte(map[string]string{"tcp": "tcp", "websocket": "101 Switching", "grpc": "\r\nH\r\n"}[g.kind]))
}

// town is a program's proxy, two callers' proxies and their clients.
type town struct {
	*sim.World
	policies *policy.InForce
	tokens   token.InForce
	proxy    *sim.Loop
	worker   *exchange.Worker
	relays   *relay.Relays
	log      records
	guests   map[string][]*guest // by caller
}

// newTown has n clients of each kind for each caller; with says, which has fields of requests by caller, none but HTTP.
func newTown(t *testing.T, seed uint64, n int, says map[string]string) *town {
	w := sim.New(sim.Config{Seed: seed})
	c := &town{World: w, policies: policy.New(policy.Config{}), guests: map[string][]*guest{}}
	if err := c.policies.Set(&model.Security{}); err != nil {
		t.Fatal(err)
	}
	pl := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
	program := w.Listen(pl, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
		in.Adopt(pl, func(c loop.Conn) loop.Handler { return &stayer{c: c} })
	}).Addr()
	c.proxy = w.NewLoop(netip.MustParseAddr("10.0.0.2"))
	c.log.keep = true
	c.worker = exchange.NewWorker(exchange.Config{Loop: c.proxy, Observer: &c.log, Seed: 1, Pool: pool.New(pool.Config{Loop: c.proxy})})
	c.relays = relay.New(relay.Config{Loop: c.proxy, Observer: observe.New(observe.Config{}).Recorder(), Policies: c.policies})
	callers := map[netip.Addr]*policy.Caller{}
	mesh := w.Listen(c.proxy, netip.MustParseAddrPort("10.0.0.2:0"), func(in loop.Incoming) {
		in.Adopt(c.proxy, func(conn loop.Conn) loop.Handler {
			o := inbound(program)
			o.Mesh, o.Policies, o.Tokens, o.Caller = true, c.policies, &c.tokens, callers[conn.Remote().Addr()]
			return downstream.Serve(conn, downstream.Context{Worker: c.worker, Origin: &o, HTTP2: true})
		})
	}).Addr()
	tcp := w.Listen(c.proxy, netip.MustParseAddrPort("10.0.0.2:0"), func(in loop.Incoming) {
		in.Adopt(c.proxy, func(conn loop.Conn) loop.Handler {
			d := &dialing{town: c, down: conn, caller: callers[conn.Remote().Addr()]}
			d.up = c.proxy.Dial(loop.Dial{Address: program}, d)
			conn.Pause()
			return unread{}
		})
	}).Addr()
	kinds := []string{"tcp", "websocket", "grpc"}
	if says != nil {
		kinds = kinds[1:]
	}
	for i, who := range []string{"web", "batch"} {
		ip := netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 1)})
		callers[ip] = policy.NewCaller(account(who), ip, 80)
		_, addr := newSimHop(w, ip.String(), exchange.Origin{Direction: record.Outbound, Destination: to(t, model.Timeouts{}, mesh), Service: cart}, false)
		cl := w.NewLoop(ip)
		for j := range len(kinds) * n {
			g := &guest{kind: kinds[j%len(kinds)], says: says[who]}
			c.guests[who] = append(c.guests[who], g)
			at := addr
			if g.kind == "tcp" {
				at = tcp
			}
			cl.Post(func() { g.c = cl.Dial(loop.Dial{Address: at}, g) })
		}
	}
	return c
}

// dialing is a relayed connection until the program's side stands.
type dialing struct {
	*town
	down, up loop.Conn
	caller   *policy.Caller
}

func (d *dialing) Opened() {
	rec := &record.Record{}
	rec.Reset()
	d.relays.Start(d.down, d.up, rec, relay.Options{Caller: d.caller})
}
func (d *dialing) Data([]byte) int { return 0 }
func (d *dialing) EOF()            {}
func (d *dialing) Writable()       {}
func (d *dialing) Closed(error)    {}

// unread is the client's side meanwhile.
type unread struct{}

func (unread) Opened()         {}
func (unread) Data([]byte) int { return 0 }
func (unread) EOF()            {}
func (unread) Writable()       {}
func (unread) Closed(error)    {}

// TestRevokedAmongThousand: of 1,000 open streams of two callers (TCP, WebSocket, gRPC) all of the one that is not allowed any
// more end within a second of virtual time, gRPC with its status, and none of the other is touched.
func TestRevokedAmongThousand(t *testing.T) {
	simtest.Each(t, 1, func(t *testing.T, seed uint64) {
		c := newTown(t, seed, 167, nil)
		count := func(who string, is func(g *guest) bool) (n int) {
			for _, g := range c.guests[who] {
				if is(g) {
					n++
				}
			}
			return n
		}
		up, ended := (*guest).up, func(g *guest) bool { return g.ended }
		if !c.Until(time.Minute, func() bool { return count("web", up)+count("batch", up) == 1002 }) {
			for _, g := range append(c.guests["web"], c.guests["batch"]...) {
				if !g.up() {
					t.Logf("%s %v %q", g.kind, g.ended, g.got)
				}
			}
			t.Fatalf("%d and %d are up", count("web", up), count("batch", up))
		}
		if err := c.policies.Set(&model.Security{Policies: []model.Policy{only(model.ActionDeny, "no", rule("batch"))}}); err != nil {
			t.Fatal(err)
		}
		revoked := c.Now()
		c.proxy.Post(func() {
			c.worker.Review(c.policies)
			c.relays.Review()
		})
		over := func(g *guest) bool { return g.ended || bytes.Contains(g.got, []byte("grpc-status: 7")) }
		if !c.Until(time.Second, func() bool { return count("batch", over) == 501 }) {
			t.Fatalf("%d of 501 have ended within a second", count("batch", over))
		}
		took := c.Now() - revoked
		if n := count("batch", func(g *guest) bool { return g.kind == "grpc" && bytes.Contains(g.got, []byte("grpc-status: 7")) }); n != 167 {
			t.Errorf("%d of 167 calls have ended with a status", n)
		}
		for _, g := range c.guests["web"] {
			if g.kind != "grpc" {
				g.c.Write([]byte("still here"))
			}
		}
		c.Run(2 * time.Second)
		if n := count("web", ended); n != 0 {
			t.Errorf("%d streams of the other caller have ended", n)
		}
		if n := count("web", func(g *guest) bool { return bytes.HasSuffix(g.got, []byte("still here")) }); n != 334 {
			t.Errorf("%d of 334 streams of the other caller go on", n)
		}
		denied := 0
		for _, r := range c.log.all {
			if r.Decision.Verdict == record.Denied && r.Reason == "authz_denied" {
				denied++
			}
		}
		if denied != 334 || c.relays.Len() != 167 || c.worker.Open() != 334 {
			t.Errorf("%d recorded as denied, %d relays and %d exchanges are open", denied, c.relays.Len(), c.worker.Open())
		}
		if seed == 0 {
			t.Logf("the last of 501 streams ended %v after the policy", took)
		}
	})
}
