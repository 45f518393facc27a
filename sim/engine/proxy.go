package engine

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/sim"
)

// proxy is one data plane: what package proxy, or proxy/gateway, puts together, on a loop of the simulator.
type proxy struct {
	run      *run
	name     string
	rnd      *rand.Rand
	loop     *sim.Loop
	pool     *pool.Pool
	relays   *relay.Relays
	exchange *exchange.Worker
	listener *listener.Worker
	served   []*served // connections that carry requests, oldest first
	searches int       // of a gateway: connections that wait for a server
	records  []record.Record
	host     netip.Addr // of the program, for a proxy beside one
	ids      uint64
}

// served is a connection of clients or other proxies that carries requests.
type served struct{ h loop.Handler }

// observer counts relays as observe's does and remembers them.
type observer struct {
	*observe.Recorder
	p *proxy
}

func (o observer) Done(r *record.Record) { o.p.records = append(o.p.records, *r) }
func (o observer) Closed(r *record.Record, f *observe.Flow) {
	o.Recorder.Closed(r, f)
	o.Done(r)
}

// newProxy makes one at host; beside says that it has a program.
func newProxy(r *run, name, host string, beside bool, seed *rand.Rand) *proxy {
	l := r.world.NewLoop(at(host + ":0").Addr())
	p := &proxy{run: r, name: name, loop: l, rnd: rand.New(rand.NewPCG(seed.Uint64(), 6))}
	if beside {
		p.host = at(host + ":0").Addr()
	}
	p.pool = pool.New(pool.Config{Loop: l, Mesh: func(t *pool.Target, d time.Duration, h loop.Handler) loop.Conn {
		return l.Dial(loop.Dial{Address: t.Address, Timeout: d}, h)
	}})
	recorder := observer{observe.New(observe.Config{}).Recorder(), p}
	p.relays = relay.New(relay.Config{Loop: l, Observer: recorder})
	p.exchange = exchange.NewWorker(exchange.Config{Loop: l, Pool: p.pool, Observer: recorder, Seed: seed.Uint64()})
	p.listener = listener.New(listener.Config{Loop: l, Observer: recorder, Directory: r, Blanks: p.pool, HTTP: p, Relays: p.relays, Seed: seed.Uint64(),
		Ports: r.own, Program: func(port uint16, _ netip.Addr) (loop.Dial, bool) {
			return loop.Dial{Address: netip.AddrPortFrom(p.host, port)}, true
		},
		Passthrough: listener.Passthrough{VIPs: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}}})
	return p
}

// Serve implements listener.HTTP.
func (p *proxy) Serve(c loop.Conn, ctx listener.Context) loop.Handler {
	o := &exchange.Origin{Direction: ctx.Direction, Remote: ctx.Remote, Wanted: ctx.Wanted, Protocol: ctx.Protocol, Service: echo}
	if ctx.Direction == record.Outbound {
		o.Destination = p.run
	} else {
		o.MTLS, o.Mesh, o.Program, o.From = ctx.MTLS, ctx.MTLS, netip.AddrPortFrom(p.host, webPort), ctx.Remote.Addr()
	}
	s := &served{}
	s.h = downstream.Serve(c, downstream.Context{Worker: p.exchange, Origin: o, HTTP2: ctx.HTTP2, Ended: func() { p.ended(s) }})
	p.served = append(p.served, s)
	return s.h
}

func (p *proxy) ended(s *served) {
	for i := range p.served {
		if p.served[i] == s {
			p.served = append(p.served[:i], p.served[i+1:]...)
			return
		}
	}
	p.run.fail("proxy %s: a connection ended twice", p.name)
}

func (p *proxy) drain() {
	p.listener.Drain()
	p.pool.Drain()
	for _, s := range append([]*served(nil), p.served...) {
		if d, ok := s.h.(downstream.Drainer); ok {
			d.Drain()
		}
	}
}

// A gateway: what package proxy/gateway does with a connection that needs no TLS and no listener filters.

// chain is how the gateway's listener serves HTTP.
func chain(rnd *rand.Rand) *model.HTTP {
	return &model.HTTP{
		IdleTimeout: time.Hour, StreamIdleTimeout: 5 * time.Minute, DrainTimeout: 5 * time.Second, MaxHead: 60 << 10, MaxFields: 100,
		HTTP1:      model.HTTP1Options{AllowTrailers: true, AbsoluteURL: true},
		HTTP2:      model.HTTP2Options{AllowConnect: true, MaxStreams: uint32(rnd.IntN(2) * 20), Window: 65536, ConnectionWindow: []uint32{0, 65535, 100_000}[rnd.IntN(3)]},
		ServerName: "sim", UseRemoteAddress: true, RequestID: true, Upgrades: []string{"websocket"},
	}
}

// accept serves the gateway's HTTP clients.
func (p *proxy) accept(m *model.HTTP) func(loop.Incoming) {
	config := downstream.ConfigOf(m)
	return func(in loop.Incoming) {
		in.Adopt(p.loop, func(c loop.Conn) loop.Handler {
			p.ids++
			conn := &observe.Connection{ID: p.ids, Remote: in.Remote(), Local: in.Local()}
			o := &exchange.Origin{Direction: record.Inbound, Remote: in.Remote(), Wanted: in.Local(), Protocol: model.ProtocolHTTP, Destination: p.run.web(), HTTP: m, Conn: conn}
			s := &served{}
			s.h = downstream.ServeChain(c, downstream.Context{Worker: p.exchange, Origin: o, Config: config, Ended: func() { p.ended(s) }}, "")
			p.served = append(p.served, s)
			return s.h
		})
	}
}

// pass relays the gateway's TCP clients.
func (p *proxy) pass(in loop.Incoming) {
	in.Adopt(p.loop, func(c loop.Conn) loop.Handler {
		s := &searching{p: p}
		p.searches++
		c.SetHandler(s)
		c.Pause()
		rec := &record.Record{}
		rec.Reset()
		rec.Direction, rec.TCP, rec.Protocol = record.Inbound, true, model.ProtocolTCP
		s.search = relay.FindAs(relay.Wish{Attempts: 3}, p.loop, relay.Fresh{Loop: p.loop}, p.run.clusters[store], p.rnd, rec, func(up loop.Conn, ep *cluster.Endpoint, f *failure.Failure) {
			s.search = nil
			if f != nil {
				c.Reset() // searching.Closed follows
				return
			}
			p.searches--
			p.relays.Start(c, up, rec, relay.Options{Endpoint: ep, Idle: 200 * time.Hour})
		})
		return nil
	})
}

// searching is the handler of a TCP client until there is a server.
type searching struct {
	p      *proxy
	search *relay.Search
}

func (s *searching) Opened()         {}
func (s *searching) Data([]byte) int { return 0 }
func (s *searching) EOF()            {}
func (s *searching) Writable()       {}
func (s *searching) Closed(error) {
	s.p.searches--
	if s.search != nil {
		s.search.Cancel()
	}
}

// Directory and destinations.

// place is one port of a service as a listener and an exchange see it.
type place struct {
	run      *run
	name     model.PortName
	protocol model.Protocol
}

func (p place) Name() model.PortName                      { return p.name }
func (p place) Protocol() model.Protocol                  { return p.protocol }
func (p place) Cluster(n model.PortName) *cluster.Cluster { return p.run.clusters[n] }
func (p place) Routes() *router.Table                     { return p.run.foreign }
func (p place) Relays() []model.RelayRoute                { return nil }

func (r *run) web() exchange.Destination { return place{run: r} }

// Port implements listener.Directory.
func (r *run) Port(a netip.AddrPort) (listener.Port, bool) {
	if a == r.vip {
		return place{r, echo, r.clusters[echo].Protocol()}, true
	}
	return place{r, db, r.spoken}, true
}

// ByAddress implements listener.Directory.
func (r *run) ByAddress(loop.Loop, netip.AddrPort, func(listener.Port, failure.Reason)) {}

// Cluster implements exchange.Destination, as Routes.
func (r *run) Cluster(n model.PortName) *cluster.Cluster { return r.clusters[n] }
func (r *run) Routes() *router.Table                     { return r.routes }

// own answers what the proxies beside programs know of their ports.
func (r *run) own(port uint16) (listener.OwnPort, bool) {
	if port == webPort {
		return listener.OwnPort{Port: port, Service: echo}, true
	}
	return listener.OwnPort{Port: port, Service: db, Protocol: r.spoken}, true
}
