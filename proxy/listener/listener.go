// Package listener is what happens to a connection after accept: where did it want to go, what is known about
// that place, what does it speak; then it is handed to HTTP, to a relay, or refused with a reason. There are
// four kinds: outbound (the program calls, turned to us by capture), mesh (another proxy calls, mTLS), publish
// (the outside calls one port, in the clear), forward (the program calls one address of the machine).
//
// It never makes a server-first protocol wait, forwards no byte before it has decided, and resets a client for
// whom no connection could be made, so that the client sees a failure and not an empty answer. It parses no
// message and picks no route. A Worker and what it serves belong to one loop; Mesh is for all of them. Start
// reading at Worker.Outbound.
package listener

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// Port is one port of a service as far as a listener needs it; *live.Port is one.
type Port interface {
	Name() model.PortName
	Protocol() model.Protocol
	Cluster(name model.PortName) *cluster.Cluster // nil: does not exist
	Relays() []model.RelayRoute                   // where connections go that are not HTTP; none: to the cluster of Name
}

// Directory finds what answers at a virtual address.
type Directory interface {
	// Port is the fast path; known is false when ByAddress has to be asked.
	Port(addr netip.AddrPort) (p Port, known bool)
	// ByAddress answers on the loop, never from inside, with a port or with why there is none.
	ByAddress(on loop.Loop, addr netip.AddrPort, then func(Port, failure.Reason))
}

// Context is what is known about a connection that is handed to HTTP.
type Context struct {
	Direction record.Direction
	HTTP2     bool           // it begins with the HTTP/2 preface; otherwise HTTP/1
	Protocol  model.Protocol // known of the port: a declared one means that nothing but HTTP is accepted
	Remote    netip.AddrPort
	Wanted    netip.AddrPort

	// Refuse is what every request is answered; None: they are served.
	// Refused is what is to be recorded about why; nil: nothing.
	Refuse  failure.Reason
	Refused *record.Decision

	Port Port // outbound: where the requests go; nil with Refuse

	Own     OwnPort        // inbound: the workload's port
	Peer    Peer           // inbound over mTLS: who calls
	Caller  *policy.Caller // inbound: as policies see it
	MTLS    bool           // inbound from another proxy of the mesh
	Publish bool           // inbound from outside the mesh
	Ended   func()         // called when the connection has ended; nil: nobody
}

// OwnPort is one port of this proxy's workload.
type OwnPort struct {
	Port     uint16         // of the workload, named in the SNI and in OPEN
	Service  model.PortName // what it is known as in the mesh
	Protocol model.Protocol // declared, else learned, else unknown
}

// Peer is who proved to be at the other end.
type Peer struct {
	ID      string            // SPIFFE ID
	Service model.ServiceName // read from the ID
}

// HTTP serves connections that speak HTTP. The handler that Serve answers gets, right after SetHandler and
// without Opened, everything that the client has said, and its end if it has ended.
type HTTP interface {
	Serve(c loop.Conn, ctx Context) loop.Handler
}

// Config of a Worker. Everything is required unless it says otherwise.
type Config struct {
	Loop loop.Loop
	Log  *slog.Logger // nil: silent
	// Unproven bounds the lines about who does not prove who he is, of all workers together; nil: of this one.
	Unproven  *policy.Lines
	Observer  relay.Observer
	Directory Directory
	Blanks    relay.Blanks
	HTTP      HTTP
	Relays    *relay.Relays
	Seed      uint64 // of the loop's pseudo-random choices

	// Own workload.
	Self   model.ServiceName
	SelfID string
	// Ports answers what is known about a port of the workload; false: it has no such port. For any goroutine.
	Ports func(port uint16) (OwnPort, bool)
	// Served answers the same about a port of the service; nil: Ports is asked. For any goroutine.
	Served func(service uint16) (OwnPort, bool)
	// Program says how to reach the program's port as seen from source (which the connection is bound to, so that
	// the program sees its caller). For any goroutine.
	Program func(port uint16, source netip.Addr) (loop.Dial, bool)
	// Learn is told what a port of the workload turned out to speak. May be nil. For any goroutine.
	Learn func(port uint16, p model.Protocol)

	// Connect is asked before a connection of a caller to a port of the workload is served, and Disconnect told when it has
	// ended: exactly once, also by HTTP, whose Serve gets what was admitted. May be nil. For any goroutine.
	Connect    func(port uint16, now time.Duration) failure.Reason
	Disconnect func(port uint16)

	// Known answers whom the mesh knows a caller as who has proven id, and whether that is another mesh's identity; nil: as id, of
	// this one.
	Known func(id spiffe.ID) (known spiffe.ID, federated bool)

	// Policies are asked about connections to the workload that are not HTTP; nil: everything is allowed.
	Policies *policy.InForce

	// Mode answers what connections from outside the mesh to a port of the service must prove, and Handshake begins the server's side
	// of TLS with them (mtls.ServerOptions.Outside). Without Mode: nothing, ModeDisabled. For any goroutine.
	// ModeBy names the policy that says the mode, "": none; nil: it is not known.
	Mode      func(port uint16) model.MTLSMode
	ModeBy    func(port uint16) string
	Handshake func(raw loop.Conn, h loop.Handler) Secure

	// Tolls bounds what leaves the program and how many bytes are relayed. May be nil.
	Tolls Tolls

	// Probe serves what only the test of capture connects to, and answers whether it was that; nil: there is no such test.
	Probe func(in loop.Incoming, wanted netip.AddrPort, on loop.Loop) bool

	Passthrough Passthrough
	// Egress decides about what is outside of the mesh, and Named finds a port by its name as Directory.ByAddress does; nil:
	// everything that Passthrough does not refuse may be reached, and there are no ExternalServices.
	Egress Egress
	Named  func(on loop.Loop, name model.PortName, then func(Port, failure.Reason))
	// MaxPending is how many connections may be undecided at once; default 4096.
	MaxPending int
	// BlankIdle is how long another proxy's blank connection may stay blank; default 5 min.
	BlankIdle time.Duration
}

// Tolls bounds connections and the bytes of those that are relayed. A Port that is nil stands for what is outside the mesh. Its
// methods are called on loops, and must be quick.
type Tolls interface {
	// Leave is asked before a connection of the program is served.
	Leave(to Port, now time.Duration) failure.Reason
	// Outgoing and Incoming answer what a relayed connection pays from, nil: it does not.
	Outgoing(l loop.Loop, to Port) relay.Meter
	Incoming(l loop.Loop, port uint16, caller model.ServiceName, from netip.Addr) relay.Meter
}

// Worker serves the connections of one loop; its accept functions (Outbound, Publish, Forward) may give one to the
// worker of another loop, see Share.
type Worker struct {
	cfg      Config
	rnd      *rand.Rand
	server   relay.Server
	peers    []*Worker // of the other loops
	pending  map[*session]struct{}
	blanks   map[*inbound]struct{}
	visitors map[*visitor]struct{}            // that are open
	probed   map[model.PortName]time.Duration // when a learned-http port was last tested for silence
	scratch  []byte
}

// caller answers who has proven id on a connection to a port of the service, as policies see him.
func (w *Worker) caller(id spiffe.ID, c loop.Conn, port uint16) (spiffe.ID, *policy.Caller) {
	federated := false
	if w.cfg.Known != nil && !id.IsZero() {
		id, federated = w.cfg.Known(id)
	}
	from := policy.NewCaller(id, c.Remote().Addr(), port)
	from.Federated = federated
	return id, from
}

// New makes a Worker.
func New(cfg Config) *Worker {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Unproven == nil {
		cfg.Unproven = &policy.Lines{}
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = 4096
	}
	if cfg.BlankIdle <= 0 {
		cfg.BlankIdle = 5 * time.Minute
	}
	w := &Worker{
		cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0x74756c6c65)),
		pending: map[*session]struct{}{}, blanks: map[*inbound]struct{}{}, visitors: map[*visitor]struct{}{}, probed: map[model.PortName]time.Duration{},
	}
	if w.cfg.Connect == nil {
		w.cfg.Connect, w.cfg.Disconnect = func(uint16, time.Duration) failure.Reason { return failure.None }, func(uint16) {}
	}
	w.server = relay.Server{Relays: cfg.Relays, Learn: cfg.Learn, Ended: w.cfg.Disconnect, Dial: func(port uint16, o *relay.Open) (loop.Dial, bool) {
		return cfg.Program(port, o.Source.Addr())
	}}
	if cfg.Policies != nil {
		w.server.ServerNames = func(c *policy.Caller) bool { return cfg.Policies.Rules().ServerNames(c.Port) }
	}
	if cfg.Tolls != nil {
		w.server.Meter = func(port uint16, rec *record.Record, o *relay.Open) relay.Meter {
			return cfg.Tolls.Incoming(cfg.Loop, port, rec.Source, o.Source.Addr())
		}
	}
	return w
}

// Share lets the workers of all loops of a process give each other connections. Before any of them accepts.
func Share(workers []*Worker) {
	for _, w := range workers {
		w.peers = workers
	}
}

// Loop answers the worker's loop.
func (w *Worker) Loop() loop.Loop { return w.cfg.Loop }

// Pending answers how many connections are undecided, blank ones from other proxies not counted.
func (w *Worker) Pending() int { return len(w.pending) }

// Drain ends what is still blank; other proxies then open new connections elsewhere. Undecided connections go on.
func (w *Worker) Drain() {
	for b := range w.blanks {
		b.end()
	}
}

// Close resets everything that has not been handed on yet.
func (w *Worker) Close() {
	for s := range w.pending {
		s.refuse(failure.Draining)
	}
	for b := range w.blanks {
		b.conn.Reset()
	}
	for v := range w.visitors {
		v.refuse(failure.Draining) // those whose first bytes have not come
	}
}

// probe reports whether a learned-http port may be tested for silence now: once a minute.
func (w *Worker) probe(name model.PortName) bool {
	now := w.cfg.Loop.Now()
	if at, ok := w.probed[name]; ok && now-at < time.Minute {
		return false
	}
	if len(w.probed) > 1024 {
		clear(w.probed)
	}
	w.probed[name] = now
	return true
}
