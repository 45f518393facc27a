package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
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

// run is one seed.
type run struct {
	world    *sim.World
	rnd      *rand.Rand
	faults   Faults
	requests []*request
	clients  *sim.Loop
	callers  []*client
	vip      netip.AddrPort
	out      *proxy
	in       []*proxy
	routes   *router.Table
	cluster  *cluster.Cluster
	places   []model.Endpoint

	err    error
	events []string // the last ones
	tell   func(format string, args ...any)
}

var echo = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "echo"}, Port: 80}

const kept = 60 // events of a trace

// Result says what a run was.
type Result struct {
	Requests, Answered, Refused, Cut int
	Virtual                          time.Duration
	Steps                            int
}

// Error is a run that went wrong.
type Error struct {
	Seed  uint64
	Err   error
	Trace []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("seed %d: %v\nlast events:\n  %s", e.Seed, e.Err, strings.Join(e.Trace, "\n  "))
}

func (e *Error) Unwrap() error { return e.Err }

// Run runs one seed and answers what came of it; the error, if there is one, is an *Error.
func Run(o Options) (Result, error) {
	rnd := rand.New(rand.NewPCG(o.Seed, 0x656e67696e65))
	f := Faults{Resets: rnd.IntN(3) == 0, Programs: rnd.IntN(3) == 0, Clients: rnd.IntN(3) == 0, Changes: rnd.IntN(3) == 0}
	if o.Faults != nil {
		f = *o.Faults
	}
	cfg := sim.Config{Seed: o.Seed, Window: []int{64 << 10, 64 << 10, 8 << 10, 1 << 10}[rnd.IntN(3)]}
	if f.Resets {
		cfg.Resets = []float64{0.001, 0.01}[rnd.IntN(2)]
	}
	r := &run{world: sim.New(cfg), rnd: rnd, faults: f, tell: o.Trace}
	r.build(o.Requests)
	steps, err := r.play()
	if err == nil {
		err = r.settled()
	}
	res := Result{Requests: len(r.requests), Virtual: r.world.Now(), Steps: steps}
	for _, q := range r.requests {
		switch q.outcome {
		case answered:
			res.Answered++
		case refused:
			res.Refused++
		case cut:
			res.Cut++
		}
	}
	if err != nil {
		return res, &Error{Seed: o.Seed, Err: err, Trace: r.events}
	}
	return res, nil
}

func (r *run) trace(format string, args ...any) {
	s := fmt.Sprintf("%-12s ", r.world.Now()) + fmt.Sprintf(format, args...)
	if len(r.events) == kept {
		r.events = r.events[1:]
	}
	r.events = append(r.events, s)
	if r.tell != nil {
		r.tell("%s", s)
	}
}

// fail notes what is wrong; the first counts.
func (r *run) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
		r.trace("WRONG: %v", r.err)
	}
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// build makes the world and plans what happens in it.
func (r *run) build(most int) {
	w := r.world
	r.vip = at("198.18.0.7:80")
	table := &model.RouteTable{Name: echo, Routes: []model.Route{{Name: "Service/default/echo", Match: model.Match{Path: "/"},
		Backends: []model.Backend{{Cluster: echo, Weight: 1}}}}}
	var err error
	if r.routes, err = router.Compile(table); err != nil {
		panic(err) // written above
	}
	r.cluster = cluster.New(&model.Cluster{Name: echo, ConnectTimeout: 2 * time.Second})
	for i := range 1 + r.rnd.IntN(3) {
		host := fmt.Sprintf("10.0.1.%d", i+1)
		p := newProxy(r, fmt.Sprintf("in%d", i), host, at(host+":8080"))
		r.in = append(r.in, p)
		mesh := &listener.Mesh{Workload: fmt.Sprintf("echo-%d", i), Namespace: "default", Workers: []*listener.Worker{p.listener},
			Handshake: func(raw loop.Conn, h loop.Handler) listener.Secure {
				raw.SetHandler(h)
				return proven{raw, listener.ServerName(8080, fmt.Sprintf("echo-%d", i), "default")}
			}}
		w.Listen(p.loop, at(host+":15006"), mesh.Accept)
		g := &program{run: r, rnd: rand.New(rand.NewPCG(r.rnd.Uint64(), 4)), name: fmt.Sprint(i)}
		l := w.NewLoop(at(host + ":0").Addr())
		w.Listen(l, at(host+":8080"), func(in loop.Incoming) { in.Adopt(l, g.serve) })
		r.places = append(r.places, model.Endpoint{Workload: fmt.Sprintf("echo-%d", i), Namespace: "default", Address: at(host + ":15006"),
			Port: 8080, Identity: server.String(), Weight: 1})
	}
	r.announce(r.places)
	r.out = newProxy(r, "out", "10.0.0.1", netip.AddrPort{})
	w.Listen(r.out.loop, at("10.0.0.1:15001"), r.out.listener.Outbound)
	w.Turn(r.vip, at("10.0.0.1:15001"))
	r.clients = w.NewLoop(at("10.0.0.9:0").Addr())
	r.ask(most)
	if r.faults.Changes {
		r.change()
	}
}

// ask plans clients and their requests.
func (r *run) ask(most int) {
	n := 1 + r.rnd.IntN(5)
	for i := range n {
		c := &client{run: r, name: fmt.Sprint(i), rnd: rand.New(rand.NewPCG(r.rnd.Uint64(), 5)), two: r.rnd.IntN(2) == 0}
		// Some connections carry more than their window, in bodies that nobody waits for: what is lost of it is missed.
		many, heavy := 1+r.rnd.IntN(12), c.two && r.rnd.IntN(10) == 0
		if heavy {
			many = 40
		}
		for range many {
			q := plan(r.rnd, len(r.requests), r.faults)
			if heavy {
				q.method, q.body, q.early, q.trailers = "PUT", 70000, true, false
			}
			if c.two {
				q.expects = false
			}
			if most > 0 && len(r.requests) >= most {
				continue
			}
			q.behind = !c.two && len(c.list) > 0 && (c.list[len(c.list)-1].early || c.list[len(c.list)-1].behind)
			r.requests = append(r.requests, q)
			c.list = append(c.list, q)
		}
		if len(c.list) == 0 {
			continue
		}
		r.callers = append(r.callers, c)
		t := &loop.Timer{Expired: c.start}
		wait := time.Duration(r.rnd.Int64N(int64(100 * time.Millisecond)))
		r.clients.Post(func() { r.clients.Arm(t, wait) })
	}
}

func (r *run) announce(list []model.Endpoint) {
	r.cluster.SetEndpoints(&model.Endpoints{Cluster: echo, Endpoints: append([]model.Endpoint(nil), list...)})
}

// change has endpoints go and come back, and one proxy say goodbye for good when there is another.
func (r *run) change() {
	drained := -1
	if len(r.in) > 1 && r.rnd.IntN(2) == 0 {
		drained = r.rnd.IntN(len(r.in))
	}
	for range 1 + r.rnd.IntN(4) {
		var list []model.Endpoint
		for i, p := range r.places {
			if i != drained && (r.rnd.IntN(2) == 0 || i == (drained+1)%len(r.places)) {
				list = append(list, p)
			}
		}
		t := &loop.Timer{Expired: func() { r.trace("%d endpoints", len(list)); r.announce(list) }}
		wait := time.Duration(r.rnd.Int64N(int64(300 * time.Millisecond)))
		r.clients.Post(func() { r.clients.Arm(t, wait) })
	}
	if drained < 0 {
		return
	}
	p := r.in[drained]
	t := &loop.Timer{Expired: func() { r.trace("%s drains", p.name); p.drain() }}
	wait := time.Duration(r.rnd.Int64N(int64(300 * time.Millisecond)))
	p.loop.Post(func() { p.loop.Arm(t, wait) })
}

// play steps until everything is over.
func (r *run) play() (steps int, err error) {
	for r.world.Now() < most {
		if r.err != nil {
			return steps, r.err
		}
		if r.over() {
			return steps, nil
		}
		if !r.world.Step() {
			break
		}
		if steps++; steps%16 == 0 {
			r.bounds()
		}
	}
	if r.over() {
		return steps, nil
	}
	var open []string
	for _, q := range r.requests {
		if q.outcome == "" {
			open = append(open, q.String())
		}
	}
	return steps, fmt.Errorf("not over after %s: %s; exchanges %d out", r.world.Now(), strings.Join(open, "; "), r.out.exchange.Open())
}

// over reports whether every client is gone and nothing is under way.
func (r *run) over() bool {
	for _, c := range r.callers {
		if !c.over {
			return false
		}
	}
	if r.out.exchange.Open() > 0 || r.out.serving > 0 {
		return false
	}
	for _, p := range r.in {
		if p.exchange.Open() > 0 {
			return false
		}
	}
	return true
}

// bounds looks at what must hold after every step.
func (r *run) bounds() {
	for _, p := range append(r.in, r.out) {
		if n := p.loop.Held(); n > p.loop.Conns()*(loop.HighWater+2*loop.ScratchSize) {
			r.fail("proxy %s holds %d bytes for %d connections", p.name, n, p.loop.Conns())
		}
		if n := p.exchange.Open(); n > len(r.requests) {
			r.fail("proxy %s has %d exchanges for %d requests", p.name, n, len(r.requests))
		}
	}
}

// proven plays a connection between two proxies whose handshake is done.
type proven struct {
	loop.Conn
	name string
}

var (
	web    = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "web"}
	server = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "echo"}
)

func (proven) PeerID() spiffe.ID    { return web }
func (p proven) ServerName() string { return p.name }

// proxy is one data plane: what package proxy puts together, on a loop of the simulator.
type proxy struct {
	run      *run
	name     string
	loop     *sim.Loop
	pool     *pool.Pool
	relays   *relay.Relays
	exchange *exchange.Worker
	listener *listener.Worker
	drainers map[downstream.Drainer]struct{}
	serving  int
	records  []record.Record
	program  netip.AddrPort
}

func newProxy(r *run, name, host string, program netip.AddrPort) *proxy {
	l := r.world.NewLoop(at(host + ":0").Addr())
	p := &proxy{run: r, name: name, loop: l, drainers: map[downstream.Drainer]struct{}{}, program: program}
	p.pool = pool.New(pool.Config{Loop: l, Mesh: func(t *pool.Target, d time.Duration, h loop.Handler) loop.Conn {
		return l.Dial(loop.Dial{Address: t.Address, Timeout: d}, h)
	}})
	recorder := observe.New(observe.Config{}).Recorder()
	p.relays = relay.New(relay.Config{Loop: l, Observer: recorder})
	p.exchange = exchange.NewWorker(exchange.Config{Loop: l, Pool: p.pool, Observer: p, Seed: r.rnd.Uint64()})
	p.listener = listener.New(listener.Config{Loop: l, Observer: recorder, Directory: r, Blanks: p.pool, HTTP: p, Relays: p.relays, Seed: r.rnd.Uint64(),
		Ports:       func(port uint16) (listener.OwnPort, bool) { return listener.OwnPort{Port: port, Service: echo}, true },
		Program:     func(uint16, netip.Addr) (loop.Dial, bool) { return loop.Dial{Address: program}, true },
		Passthrough: listener.Passthrough{VIPs: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}}})
	return p
}

// Done implements exchange.Observer.
func (p *proxy) Done(r *record.Record) { p.records = append(p.records, *r) }

// Serve implements listener.HTTP.
func (p *proxy) Serve(c loop.Conn, ctx listener.Context) loop.Handler {
	o := &exchange.Origin{Direction: ctx.Direction, Remote: ctx.Remote, Wanted: ctx.Wanted, Protocol: ctx.Protocol, Service: echo}
	if ctx.Direction == record.Outbound {
		o.Destination = p.run
	} else {
		o.MTLS, o.Mesh, o.Program, o.From = ctx.MTLS, ctx.MTLS, p.program, ctx.Remote.Addr()
	}
	p.serving++
	var d downstream.Drainer
	h := downstream.Serve(c, downstream.Context{Worker: p.exchange, Origin: o, HTTP2: ctx.HTTP2, Ended: func() { p.serving--; delete(p.drainers, d) }})
	if drainer, ok := h.(downstream.Drainer); ok {
		d = drainer
		p.drainers[d] = struct{}{}
	}
	return h
}

func (p *proxy) drain() {
	p.listener.Drain()
	p.pool.Drain()
	for d := range p.drainers {
		d.Drain()
	}
}

// run is the directory and the destination of the callers' proxy.

func (r *run) Port(a netip.AddrPort) (listener.Port, bool) { return r, true }
func (r *run) ByAddress(loop.Loop, netip.AddrPort, func(listener.Port, failure.Reason)) {
}
func (r *run) Name() model.PortName                    { return echo }
func (r *run) Protocol() model.Protocol                { return r.cluster.Protocol() }
func (r *run) Cluster(model.PortName) *cluster.Cluster { return r.cluster }
func (r *run) Routes() *router.Table                   { return r.routes }
