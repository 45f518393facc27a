package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/sim"
)

// run is one seed.
type run struct {
	seed     uint64
	world    *sim.World
	faults   Faults
	calm     bool // nothing may go wrong
	severed  bool // one connection is cut
	naps     bool // ends read nothing now and then
	payments bool // all requests are POSTs
	eager    bool // the mesh tries again whatever it may, and hedges
	careless bool // whatever it may not as well
	requests []*request
	clients  *sim.Loop
	callers  []oracle
	vip, tcp netip.AddrPort // what clients in the mesh call
	out      *proxy
	in       []*proxy
	gateway  *proxy
	front    map[*sim.Loop]*proxy // all of them

	routes, foreign *router.Table
	clusters        map[model.PortName]*cluster.Cluster
	places          map[model.PortName][]model.Endpoint
	here            []bool // of places
	spoken          model.Protocol
	banner          bool // the TCP program speaks first
	generation      int  // of what was replaced
	doors           []*door
	jumps           []jump
	most            time.Duration

	err    error
	events []string // the last ones
	tell   func(format string, args ...any)
}

// oracle is a client.
type oracle interface {
	start()
	finished() bool
}

func port(service string, n uint16) model.PortName {
	return model.PortName{Service: model.ServiceName{Namespace: "default", Name: service}, Port: n}
}

// Services: in the mesh, and the gateway's clusters.
var (
	echo  = port("echo", 80)
	db    = port("db", 3306)
	site  = port("site", 80)
	store = port("store", 3306)
)

// Ports of programs.
const (
	webPort = 8080
	dbPort  = 3306
)

const kept = 60 // events of a trace

// Result says what a run was.
type Result struct {
	Requests, Answered, Refused, Cut int
	Virtual                          time.Duration
	Steps                            int
	Faults                           Faults
	Sent                             [][2]int // bytes of every connection, there and back
	Again                            int      // further attempts that the caller's proxy has made
}

// Error is a run that went wrong.
type Error struct {
	Seed   uint64
	Faults Faults
	Err    error
	Trace  []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("seed %d (faults %s): %v\nlast events:\n  %s", e.Seed, e.Faults, e.Err, strings.Join(e.Trace, "\n  "))
}

func (e *Error) Unwrap() error { return e.Err }

// Run runs one seed and answers what came of it; the error, if there is one, is an *Error.
func Run(o Options) (Result, error) {
	f := FaultsOf(o.Seed)
	if o.Scenario != "" {
		f = Faults{}
	}
	if o.Faults != nil {
		f = *o.Faults
	}
	rnd := chance(o.Seed, 2)
	cfg := sim.Config{Seed: o.Seed, Window: []int{64 << 10, 64 << 10, 8 << 10, 1 << 10}[rnd.IntN(4)], Narrow: rnd.IntN(2) == 0, Cut: o.Cut}
	if resets := []float64{0.001, 0.01}[rnd.IntN(2)]; f.Resets {
		cfg.Resets = resets
	}
	r := &run{seed: o.Seed, world: sim.New(cfg), faults: f, calm: f == Faults{} && o.Cut == nil && !o.Payments, severed: o.Cut != nil, most: most, tell: o.Trace}
	r.naps = rnd.IntN(2) == 0 && o.Scenario == ""
	r.payments, r.careless = o.Payments, o.Careless
	r.eager = o.Payments || !r.calm && o.Scenario == "" && chance(o.Seed, 14).IntN(3) == 0
	r.build(o)
	steps, err := r.play()
	if err == nil {
		err = r.settled()
	}
	res := Result{Requests: len(r.requests), Virtual: r.world.Now(), Steps: steps, Faults: f, Sent: r.world.Sent()}
	for i := range r.out.records {
		res.Again += max(r.out.records[i].NAttempts-1, 0)
	}
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
		return res, &Error{Seed: o.Seed, Faults: f, Err: err, Trace: r.events}
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
func (r *run) build(o Options) {
	rnd, w := chance(r.seed, 3), r.world
	r.vip, r.tcp = at("198.18.0.7:80"), at("198.18.0.8:3306")
	r.front = map[*sim.Loop]*proxy{}
	r.clusters, r.places = map[model.PortName]*cluster.Cluster{}, map[model.PortName][]model.Endpoint{}
	r.spoken, r.banner = []model.Protocol{model.ProtocolTCP, model.ProtocolUnknown, model.LearnedServerFirst}[rnd.IntN(3)], rnd.IntN(2) == 0
	r.routes, r.foreign = r.table(), r.compile(site)
	for _, name := range []model.PortName{echo, db, site, store} {
		r.makeCluster(name)
	}
	programs := 1 + rnd.IntN(3)
	if o.Scenario != "" {
		programs = 1
	}
	for i := range programs {
		r.settle(i, rnd)
	}
	r.out = newProxy(r, "out", "10.0.0.1", false, rnd)
	r.front[r.out.loop] = r.out
	w.Listen(r.out.loop, at("10.0.0.1:15001"), r.out.listener.Outbound)
	w.Turn(r.vip, at("10.0.0.1:15001"))
	w.Turn(r.tcp, at("10.0.0.1:15001"))
	r.gateway = newProxy(r, "gateway", "10.0.0.2", false, rnd)
	r.front[r.gateway.loop] = r.gateway
	w.Listen(r.gateway.loop, at("10.0.0.2:80"), r.gateway.accept(chain(rnd)))
	w.Listen(r.gateway.loop, at("10.0.0.2:3306"), r.gateway.pass)
	r.clients = w.NewLoop(at("10.0.0.9:0").Addr())
	here := make([]bool, programs)
	for i := range here {
		here[i] = true
	}
	r.announce(here)
	if o.Scenario != "" {
		scenarios[o.Scenario](r)
		return
	}
	r.ask(o.Requests)
	if r.faults.Changes {
		r.change()
	}
	if r.faults.Connects {
		r.unreachable()
	}
	if r.faults.Clock {
		r.planJumps()
	}
}

// settle makes a machine with a proxy of the mesh and two programs, one for HTTP and one for TCP.
func (r *run) settle(i int, rnd *rand.Rand) {
	host, workload := fmt.Sprintf("10.0.1.%d", i+1), fmt.Sprintf("echo-%d", i)
	p := newProxy(r, fmt.Sprintf("in%d", i), host, true, rnd)
	r.in = append(r.in, p)
	r.front[p.loop] = p
	mesh := &listener.Mesh{Workload: workload, Namespace: "default", Workers: []*listener.Worker{p.listener},
		Handshake: func(raw loop.Conn, h loop.Handler) listener.Secure {
			raw.SetHandler(h)
			return proven{raw, listener.ServerName(r.portOf(raw.Local()), workload, "default")}
		}}
	r.listen(p.loop, at(host+":15006"), mesh.Accept)
	r.listen(p.loop, at(host+":15007"), mesh.Accept)
	g := &program{run: r, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 4)), name: fmt.Sprint(i)}
	l := r.world.NewLoop(at(host + ":0").Addr())
	r.listen(l, at(host+":8080"), func(in loop.Incoming) { in.Adopt(l, g.serve) })
	r.listen(l, at(host+":3306"), func(in loop.Incoming) { in.Adopt(l, g.talk) })
	end := func(name model.PortName, m model.Endpoint, addr string) {
		m.Workload, m.Namespace, m.Address, m.Weight = workload, "default", at(host+addr), 1
		r.places[name] = append(r.places[name], m)
	}
	end(echo, model.Endpoint{Port: webPort, Identity: server.String()}, ":15006")
	end(db, model.Endpoint{Port: dbPort, Identity: server.String()}, ":15007")
	end(site, model.Endpoint{}, ":8080")
	end(store, model.Endpoint{}, ":3306")
}

// portOf answers which port a proxy of the mesh is asked for: here two addresses stand for what TLS tells otherwise.
func (r *run) portOf(local netip.AddrPort) uint16 {
	if local.Port() == 15007 {
		return dbPort
	}
	return webPort
}

// makeCluster makes a cluster, or a new one in place of the old.
func (r *run) makeCluster(name model.PortName) {
	rnd := chance(r.seed, 4)
	m := &model.Cluster{Name: name, ConnectTimeout: 2 * time.Second}
	if name == site {
		m.Upstream.Version = []model.UpstreamVersion{model.UpstreamHTTP1, model.UpstreamHTTP2, model.UpstreamDownstream}[rnd.IntN(3)]
		m.Upstream.HTTP1.AllowTrailers = true
		m.Upstream.HTTP2 = model.HTTP2Options{AllowConnect: true, Window: 65535, ConnectionWindow: []uint32{0, 65535, 200_000}[rnd.IntN(3)]}
	}
	r.clusters[name] = cluster.New(m)
}

// table answers the routes of the mesh; every generation has other timeouts, which nothing here reaches.
func (r *run) table() *router.Table { return r.compile(echo) }

func (r *run) compile(to model.PortName) *router.Table {
	hours := time.Duration(200+r.generation) * time.Hour
	route := model.Route{Name: "Service/default/echo", Match: model.Match{Path: "/"},
		Backends: []model.Backend{{Cluster: to, Weight: 1}}, Timeouts: model.Timeouts{Request: hours, Attempt: hours}}
	if r.eager && to == echo {
		route.Timeouts.Attempt = 500 * time.Millisecond
		route.Retry = &model.Retry{On: ^model.RetryOn(0), Statuses: []uint16{200, 404}, GRPC: 1 << 14, Attempts: mostAgain, Base: time.Millisecond,
			Max: 50 * time.Millisecond, OtherHosts: true, AnyMethod: r.careless}
		route.Hedge = &model.Hedge{After: 20 * time.Millisecond, Most: mostHedged}
	}
	t, err := router.Compile(&model.RouteTable{Name: to, Routes: []model.Route{route}})
	if err != nil {
		panic(err) // written above
	}
	return t
}

// What an eager mesh does with one request.
const (
	mostAgain  = 4
	mostHedged = 3
)

// ask plans clients and their requests.
func (r *run) ask(limit int) {
	rnd := chance(r.seed, 5)
	for i := range 1 + rnd.IntN(6) {
		own := rand.New(rand.NewPCG(rnd.Uint64(), 5))
		gateway, two := own.IntN(2) == 0, own.IntN(2) == 0
		if own.IntN(6) == 0 {
			r.add(r.newTalker(fmt.Sprint(i), own, gateway), limit, own)
			continue
		}
		c := &client{run: r, name: fmt.Sprint(i), rnd: own, two: two, to: r.vip}
		if gateway {
			c.to = at("10.0.0.2:80")
		}
		r.fill(c, limit)
		if len(c.list) > 0 {
			r.add(c, limit, own)
		}
	}
}

// fill plans the requests of a client.
func (r *run) fill(c *client, limit int) {
	// Some connections carry more than their window, in bodies that nobody waits for: what is lost of it is missed.
	many, heavy, slow := 1+c.rnd.IntN(12), c.two && c.rnd.IntN(10) == 0, r.faults.Slow && c.rnd.IntN(3) == 0
	down := heavy && c.rnd.IntN(2) == 0 // or many answers at once, which have to wait for windows
	if heavy {
		many = 40
	}
	for i := range many {
		q := plan(c.rnd, len(r.requests), r.faults)
		switch n := c.rnd.IntN(12); {
		case down:
			q.method, q.body, q.chunked, q.trailers, q.answer, q.status = "GET", 0, false, false, 70000, 200
		case heavy:
			q.method, q.body, q.early, q.trailers = "PUT", 70000, true, false
		case n == 0 && (c.two || i == many-1):
			q.turn(c.rnd, tunnel)
		case n < 3 && c.two:
			q.turn(c.rnd, call)
		case !c.two && i == many-1:
			q.halves = n < 6
		}
		if c.two {
			q.expects = false
		}
		if r.payments && q.kind == plain {
			q.method = "POST"
		}
		if limit > 0 && len(r.requests) >= limit {
			return
		}
		if slow && q.kind != call {
			q.body, q.answer = min(q.body, 700), min(q.answer, 700)
			q.breaks = min(q.breaks, q.answer-1)
		}
		q.behind = !c.two && len(c.list) > 0 && (c.list[len(c.list)-1].early || c.list[len(c.list)-1].behind)
		r.requests = append(r.requests, q)
		c.list = append(c.list, q)
	}
	c.slow, c.greedy = slow, down
}

// add has a client begin some time from now.
func (r *run) add(o oracle, limit int, rnd *rand.Rand) {
	if t, ok := o.(*talker); ok {
		if limit > 0 && len(r.requests) >= limit {
			return
		}
		r.requests = append(r.requests, t.r)
	}
	r.callers = append(r.callers, o)
	r.later(rnd, 100*time.Millisecond, o.start)
}

// play steps until everything is over.
func (r *run) play() (steps int, err error) {
	for r.world.Now() < r.most {
		if r.err != nil {
			return steps, r.err
		}
		if r.over() {
			return steps, nil
		}
		if !r.world.Step() {
			break
		}
		steps++
		r.look()
		r.jump(steps)
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
	return steps, fmt.Errorf("not over after %s: %s; exchanges %d out, %d gateway", r.world.Now(), strings.Join(open, "; "), r.out.exchange.Open(), r.gateway.exchange.Open())
}

// over reports whether every client is gone and nothing is under way.
func (r *run) over() bool {
	for _, c := range r.callers {
		if !c.finished() {
			return false
		}
	}
	for _, p := range r.front {
		if p.exchange.Open() > 0 || p.relays.Len() > 0 || p.listener.Pending() > 0 || p.searches > 0 {
			return false
		}
	}
	return len(r.out.served)+len(r.gateway.served) == 0
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
