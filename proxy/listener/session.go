package listener

import (
	"errors"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// far is what is at the server's side of a session.
type far uint8

const (
	farMesh    far = iota // a blank connection to another proxy
	farOutside            // a connection to an endpoint of an ExternalService, over its own TLS or none
	farProgram            // a plain connection: to the program, or to an address outside
)

// session is a connection from its accept to the decision. It drives a sniff.Machine: events in, actions out.
// It leaves all bytes with the connection; whoever is handed the connection gets them.
type session struct {
	w    *Worker
	conn loop.Conn
	rec  record.Record

	far     far
	port    Port           // farMesh
	own     OwnPort        // publish
	from    *policy.Caller // likewise
	peer    Peer           // likewise, where it has proven who it is
	visitor *visitor       // likewise
	late    bool           // nobody has spoken yet: the client's first bytes may still be TLS that ends here
	held    bool           // likewise: the port counts the connection
	dial    loop.Dial      // farProgram

	by      *model.RelayRoute // that decided; nil: none
	instead *model.Backend    // its fallback, until it is tried
	machine sniff.Machine
	begun   bool // the machine has been told Accepted
	forward bool // the decision was to relay
	over    bool // handed on, or refused
	timer   loop.Timer

	peeking bool           // what the program says first decides
	partly  bool           // it has begun to
	denied  failure.Reason // and is answered so, if it is HTTP
	way     Way            // out of the mesh, as far as it is known

	to     model.PortName // the cluster, once a route has chosen it
	subset []model.Label  // of its endpoints, likewise
	sni    string         // of the ClientHello, where a route looks at it

	search   *relay.Search
	up       loop.Conn // stands, or (farProgram) is being made
	standing bool
	sent     bool // OPEN, on up
	endpoint *cluster.Endpoint
	target   pool.Target
}

// session makes one for c.
func (w *Worker) session(c loop.Conn, dir record.Direction, wanted netip.AddrPort) *session {
	s := &session{w: w, conn: c}
	s.rec.Reset()
	s.rec.Direction, s.rec.TCP, s.rec.Wanted = dir, true, wanted
	s.rec.Start, s.rec.Wall = w.cfg.Loop.Now(), w.cfg.Loop.Wall()
	if dir == record.Outbound {
		s.rec.Source, s.rec.SourceID = w.cfg.Self, w.cfg.SelfID
	} else {
		s.rec.DestinationID = w.cfg.SelfID
	}
	s.timer.Expired = s.expired
	w.pending[s] = struct{}{}
	return s
}

// find asks what is at the wanted address; meanwhile the client's bytes wait in the kernel.
func (s *session) find() {
	s.conn.Pause()
	s.w.cfg.Directory.ByAddress(s.w.cfg.Loop, s.rec.Wanted, func(p Port, why failure.Reason) {
		switch {
		case s.over:
		case p == nil:
			s.refuse(why)
		default:
			s.found(p)
			s.conn.Resume()
		}
	})
}

// found starts to decide where the service is known.
func (s *session) found(p Port) {
	s.port = p
	name := p.Name()
	s.rec.Destination, s.rec.Port = name.Service, name.Port
	if t := s.w.cfg.Tolls; t != nil {
		if why := t.Leave(p, s.w.cfg.Loop.Now()); why != failure.None {
			s.w.cfg.Loop.Post(func() { s.refuse(why) })
			return
		}
	}
	s.begin(p.Protocol())
}

// begin starts to decide. What the client has said already is there within this turn of the loop; a posted
// function comes after it, so a client that speaks first is known as such and nobody has waited.
func (s *session) begin(known model.Protocol) {
	s.rec.Protocol = known
	s.machine.Known, s.machine.Probe = known, known == model.LearnedHTTP
	s.w.cfg.Loop.Post(func() {
		switch {
		case s.over || s.begun:
		case s.byName():
			s.w.cfg.Loop.Arm(&s.timer, helloWait)
		default:
			s.accepted(nil)
		}
	})
}

// helloWait is how long a ClientHello may take.
const helloWait = 10 * time.Second

// byName reports whether the server name decides where the connection goes: its ClientHello comes first.
func (s *session) byName() bool {
	if s.from != nil && s.w.cfg.Policies.Rules().ServerNames(s.from.Port) {
		return !s.machine.Known.HTTP()
	}
	return s.port != nil && s.machine.Known == model.ProtocolTLS && (relay.ByName(s.port.Relays()) || external(s.port.Name()))
}

// hello reads the server name; false: the ClientHello is not complete. What is none has no name.
func (s *session) hello(p []byte) bool {
	h, n, err := sniff.ReadHello(p)
	s.sni = h.ServerName
	return n > 0 || err != nil
}

// expired: the timer has. Not every client that is silent on a port that was learned to be HTTP is a reason to bother
// its server: one in a minute is, and all are once the port has turned out to be something else.
func (s *session) expired() {
	if s.peeking {
		s.quiet()
		return
	}
	if !s.begun {
		s.refuse(failure.RequestIncomplete)
		return
	}
	if s.machine.State() == sniff.Expecting && s.known() == model.LearnedHTTP && !s.w.probe(s.name()) {
		s.w.cfg.Loop.Arm(&s.timer, sniff.Silence)
		return
	}
	s.do(s.machine.Expired())
}

// name answers which port of which service was called.
func (s *session) name() model.PortName {
	return model.PortName{Service: s.rec.Destination, Port: s.rec.Port}
}

// known answers what is known about the port by now.
func (s *session) known() model.Protocol {
	if s.port != nil {
		return s.port.Protocol()
	}
	if own, ok := s.w.own(s.own.Port, s.own.Service.Port); ok {
		return own.Protocol
	}
	return s.machine.Known
}

// direct relays to d without looking at anything.
func (s *session) direct(d loop.Dial) {
	s.far, s.dial = farProgram, d
	s.machine.Known = model.ProtocolTCP
	s.accepted(nil)
}

func (s *session) accepted(p []byte) {
	s.begun = true
	s.do(s.machine.Accepted(p))
}

// Opened implements loop.Handler.
func (s *session) Opened() {}

// Data implements loop.Handler. Nothing is consumed here.
func (s *session) Data(p []byte) int {
	if s.late && !s.over {
		taken, more := s.lateTLS(p)
		if taken || more {
			return 0
		}
		if s.spoken(); s.forward {
			return 0
		}
	}
	switch {
	case s.over || s.forward:
	case s.peeking:
		s.peek(p)
	case !s.begun && s.byName() && !s.hello(p):
	case !s.begun:
		s.accepted(p)
	default:
		s.do(s.machine.Data(p))
	}
	return 0
}

// EOF implements loop.Handler.
func (s *session) EOF() {
	if s.over {
		return
	}
	s.spoken()
	if s.over {
		return
	}
	if s.peeking {
		s.named("", false, false)
		return
	}
	if !s.begun {
		s.accepted(nil)
	}
	s.do(s.machine.EOF())
}

// Writable implements loop.Handler.
func (s *session) Writable() {}

// Closed implements loop.Handler: the client is gone before the decision.
func (s *session) Closed(error) {
	if s.over {
		return
	}
	s.leave()
	s.dropFar()
	if s.forward {
		s.done(failure.DownstreamGone)
	}
}

// do carries out what the machine says.
func (s *session) do(a sniff.Action) {
	l := s.w.cfg.Loop
	if a&sniff.Disarm != 0 {
		l.Disarm(&s.timer)
	}
	if a&sniff.Doubt != 0 {
		s.doubt()
	}
	if a&sniff.Connect != 0 {
		s.connect()
	}
	if a&sniff.Open != 0 && s.far == farMesh {
		s.open(true)
	}
	if a&(sniff.GiveBack|sniff.Cancel) != 0 {
		s.giveBack(a&sniff.Cancel != 0)
	}
	if a&sniff.Arm != 0 {
		l.Arm(&s.timer, sniff.Wait)
	}
	if a&sniff.ArmLong != 0 {
		l.Arm(&s.timer, sniff.Silence)
	}
	switch {
	case s.over:
	case a&sniff.Serve != 0:
		s.serve()
	case a&sniff.Forward != 0:
		s.forward = true
		s.relay()
	case a&sniff.Refuse != 0:
		s.refuse(failure.None)
	}
}

// doubt: what the endpoints' proxies have learned about the port does not hold.
func (s *session) doubt() {
	if s.port == nil {
		return
	}
	if c := s.port.Cluster(s.port.Name()); c != nil {
		c.Contradict(s.machine.Known)
	}
}

// connect starts a connection to the server's side.
func (s *session) connect() {
	if s.far == farProgram {
		s.up = s.w.cfg.Loop.Dial(s.dial, (*farSide)(s))
		return
	}
	if why := s.route(); why != failure.None {
		s.later(why)
		return
	}
	c := s.port.Cluster(s.to)
	if c == nil {
		s.later(failure.NoBackend)
		return
	}
	blanks, why := s.leaving()
	if why != failure.None {
		s.later(why)
		return
	}
	// The answer may come from inside; what follows from it waits for the end of the actions at hand.
	s.search = relay.FindAs(relay.Wish{Subset: s.subset, Source: s.conn.Remote().Addr()}, s.w.cfg.Loop, blanks, c, s.w.rnd, &s.rec, s.connected)
}

// route chooses the cluster, once: by the port's relay routes if it has any, else its own.
func (s *session) route() failure.Reason {
	if !s.to.Service.IsZero() {
		return failure.None
	}
	routes := s.port.Relays()
	if len(routes) == 0 {
		s.to = s.port.Name()
		return failure.None
	}
	r := relay.Match(routes, s.sni)
	if r == nil {
		return failure.NoRoute
	}
	s.rec.Route, s.rec.Rule, s.by, s.instead = r.Name, r.Rule, r, r.Fallback
	b := relay.Choose(r, s.w.rnd.Uint32())
	if b == nil || b.Invalid {
		return failure.NoBackend
	}
	s.to, s.subset = b.Cluster, b.Subset
	return failure.None
}

// connected is the end of the search.
func (s *session) connected(c loop.Conn, ep *cluster.Endpoint, f *failure.Failure) {
	if f != nil && s.instead != nil && !s.instead.Invalid {
		s.w.cfg.Loop.Post(s.fallBack)
		return
	}
	if f != nil {
		s.later(f.Reason)
		return
	}
	s.up, s.endpoint, s.target, s.rec.MTLS = c, ep, pool.MeshTarget(ep.Model()), s.far == farMesh
	c.SetHandler((*farSide)(s))
	s.w.cfg.Loop.Post(s.stands)
}

// fallBack tries the fallback of the route, once, in a turn of its own.
func (s *session) fallBack() {
	b := s.instead
	if s.over || b == nil {
		return // given up in the meantime
	}
	s.instead, s.to, s.subset = nil, b.Cluster, b.Subset
	s.connect()
}

// later tells the machine in a turn of its own that there is no connection.
func (s *session) later(why failure.Reason) {
	s.w.cfg.Loop.Post(func() {
		if !s.over {
			s.note(why)
			s.do(s.machine.Failed())
		}
	})
}

// stands: the connection to the server's side can be used.
func (s *session) stands() {
	if s.over || s.up == nil || s.standing {
		return
	}
	s.standing = true
	if s.machine.Opened() && s.far == farMesh {
		s.open(true) // again, to another endpoint
	} else {
		s.do(s.machine.Ready())
	}
	if !s.over && s.forward {
		s.relay()
	}
}

// open writes an OPEN frame.
func (s *session) open(silent bool) {
	s.sent = true
	s.w.scratch = relay.AppendOpen(s.w.scratch[:0], &relay.Open{
		Port: s.target.Port, Wanted: s.rec.Wanted, Source: s.conn.Remote(), RequestID: s.rec.RequestID, Silent: silent,
	})
	s.up.Write(s.w.scratch)
}

// giveBack does without the connection to the server's side.
func (s *session) giveBack(cancel bool) {
	up := s.up
	s.up, s.instead = nil, nil
	switch {
	case up == nil && s.search != nil:
		s.search.Cancel()
	case up == nil:
	case s.far == farMesh && !(cancel && s.sent):
		s.w.cfg.Blanks.Return(&s.target, up)
	case s.far == farMesh:
		up.Write([]byte{relay.CancelByte})
		up.SetHandler(nobody{up})
		up.Close()
	default:
		up.SetHandler(nobody{up})
		up.Close()
	}
}

// serve hands the connection to HTTP.
func (s *session) serve() {
	s.held = false // HTTP tells when it has ended
	s.leave()
	ctx := Context{
		Direction: s.rec.Direction, HTTP2: s.machine.Verdict == sniff.HTTP2, Protocol: s.machine.Known,
		Remote: s.conn.Remote(), Wanted: s.rec.Wanted, Port: s.port, Own: s.own, Caller: s.from, Publish: s.rec.Direction == record.Inbound,
		Peer: s.peer, MTLS: s.peer.ID != "",
	}
	if v := s.visitor; v != nil {
		ctx.Ended = v.gone
	}
	if !ctx.Protocol.HTTP() {
		ctx.Protocol = model.LearnedHTTP
	}
	s.conn.SetHandler(s.w.cfg.HTTP.Serve(s.conn, ctx))
	s.conn.Resume()
}

// relay hands both connections on, if the other one stands already; until then nothing is read.
func (s *session) relay() {
	if s.over || s.late {
		return
	}
	if !s.standing {
		s.conn.Pause()
		return
	}
	if why := relay.Ask(s.w.cfg.Policies, s.w.cfg.Loop, s.from, s.sni, &s.rec); why != failure.None {
		s.refuse(why)
		return
	}
	held := s.held
	s.held = false
	breaker, ok := s.bound()
	if !ok {
		s.refuse(failure.Overflow)
		return
	}
	s.leave()
	if s.far == farMesh {
		if s.sent {
			s.up.Write([]byte{relay.GoByte})
		} else {
			s.open(false)
		}
	}
	o := relay.Options{Endpoint: s.endpoint, Meter: s.meter(), Caller: s.from, ServerName: s.sni, Again: s.again()}
	if s.by != nil {
		o.Fault, o.Idle, o.MaxDuration = s.by.Fault, s.by.Idle, s.by.MaxDuration
	}
	if held {
		o.Ended = func(*record.Record) {
			s.visitor.gone()
			s.w.cfg.Disconnect(s.own.Port)
		}
	}
	if s.rec.Direction == record.Inbound && s.w.cfg.Learn != nil {
		o.First = s.learn
	}
	if breaker != nil {
		o.Ended = func(*record.Record) { breaker.Give(cluster.Connections) }
	}
	s.w.cfg.Relays.Start(s.conn, s.up, &s.rec, o)
}

// meter answers what the relay's bytes are paid for from; nil: nothing bounds them.
func (s *session) meter() relay.Meter {
	switch t := s.w.cfg.Tolls; {
	case t == nil:
		return nil
	case s.rec.Direction == record.Inbound:
		return t.Incoming(s.w.cfg.Loop, s.own.Port, model.ServiceName{}, s.conn.Remote().Addr())
	case s.far != farProgram:
		return t.Outgoing(s.w.cfg.Loop, s.port)
	case s.rec.Passthrough:
		return t.Outgoing(s.w.cfg.Loop, nil)
	}
	return nil
}

// bound counts the relay as a connection to its cluster, whose breaker, nil for none, must be told its end; false: there may not
// be one more. Nothing ever gives a relayed connection back to who waits, so nobody waits.
func (s *session) bound() (*cluster.Breaker, bool) {
	if s.far == farProgram || s.port == nil {
		return nil, true
	}
	c := s.port.Cluster(s.to)
	if c == nil {
		return nil, true
	}
	b := c.Breaker(model.PriorityDefault)
	return b, b == nil || b.Take(cluster.Connections)
}

func (s *session) learn(server bool) {
	p := model.LearnedClientFirst
	if server {
		p = model.LearnedServerFirst
	}
	s.w.cfg.Learn(s.own.Port, p)
}

// refuse resets the client; why None stands for what was noted before.
func (s *session) refuse(why failure.Reason) {
	if s.over {
		return
	}
	s.leave()
	s.dropFar()
	s.done(why)
	s.conn.Reset()
}

// spoken: one side has, so what was decided while nobody had goes on.
func (s *session) spoken() {
	if s.late {
		if s.late = false; s.forward && !s.over {
			s.relay()
		}
	}
}

// note keeps why there is no connection.
func (s *session) note(why failure.Reason) {
	if s.rec.Reason == "" {
		s.rec.Reason = why.Label()
	}
}

func (s *session) done(why failure.Reason) {
	s.note(why)
	s.rec.End = s.w.cfg.Loop.Now()
	s.w.cfg.Observer.Done(&s.rec)
}

// leave ends the session's own business.
func (s *session) leave() {
	s.over = true
	if s.held {
		s.held = false
		s.visitor.gone()
		s.w.cfg.Disconnect(s.own.Port)
	}
	s.w.cfg.Loop.Disarm(&s.timer)
	delete(s.w.pending, s)
}

// dropFar gives up the connection to the server's side.
func (s *session) dropFar() {
	if s.search != nil {
		s.search.Cancel()
	}
	up := s.up
	s.up = nil
	switch {
	case up == nil:
	case s.far == farMesh && !s.sent:
		s.w.cfg.Blanks.Return(&s.target, up)
	case s.far == farMesh && s.rec.Reason == "": // the client came and went without a byte
		up.SetHandler(nobody{up})
		up.Close()
	default:
		up.SetHandler(nobody{up})
		up.Reset()
	}
}

// farSide is the handler of the connection to the server's side.
type farSide session

// Opened implements loop.Handler.
func (f *farSide) Opened() { (*session)(f).stands() }

// Data implements loop.Handler. Nothing is consumed here.
func (f *farSide) Data([]byte) int {
	f.spoke()
	return 0
}

// EOF implements loop.Handler.
func (f *farSide) EOF() { f.spoke() }

// spoke: the server's side has spoken or ended. It may only where the relay is open.
func (f *farSide) spoke() {
	s := (*session)(f)
	s.spoken()
	if s.over {
		return
	}
	if s.far != farMesh || s.sent {
		s.do(s.machine.Spoke())
		return
	}
	s.up.Reset()
}

// Writable implements loop.Handler.
func (f *farSide) Writable() {}

// Closed implements loop.Handler.
func (f *farSide) Closed(err error) {
	s := (*session)(f)
	if s.over || s.up == nil {
		return
	}
	stood, sent := s.standing, s.sent
	s.up, s.standing, s.sent = nil, false, false
	switch {
	case s.far == farMesh && sent:
		// The other proxy could not connect to its program, or is gone. No byte has passed: another may serve.
		s.endpoint = nil
		s.search.Next(failure.ConnectFailed)
		return
	case s.far == farMesh && stood:
		s.connect() // a blank that was held while the client's first bytes were incomplete; it may be needed yet
		return
	case stood:
		s.note(failure.UpstreamReset)
	case errors.Is(err, loop.ErrConnectTimeout):
		s.note(failure.ConnectTimeout)
	default:
		s.note(failure.ConnectFailed)
	}
	s.do(s.machine.Failed())
}

// nobody is the handler of a connection that is on its way out.
type nobody struct{ c loop.Conn }

func (nobody) Opened()           {}
func (nobody) Data(p []byte) int { return len(p) }
func (nobody) EOF()              {}
func (nobody) Writable()         {}
func (nobody) Closed(error)      {}
