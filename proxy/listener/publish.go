package listener

import (
	"strings"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// What comes from outside the mesh through --publish, and what it must prove (docs/design/security.md, "Modes").

// Publish answers the accept function for a port that the outside reaches a port of the workload through; service is the one of
// the service that it is published as.
func (w *Worker) Publish(port, service uint16) func(loop.Incoming) {
	return func(in loop.Incoming) {
		own, ok := w.own(port, service)
		if !ok {
			w.cfg.Observer.Refused(failure.UnknownPort)
			in.Refuse()
			return
		}
		d, ok := w.cfg.Program(port, in.Remote().Addr().Unmap())
		if !ok {
			w.cfg.Observer.Refused(failure.UnknownPort)
			in.Refuse()
			return
		}
		w := w.calmest()
		in.Adopt(w.cfg.Loop, func(c loop.Conn) loop.Handler {
			if !w.room() {
				return refused(c)
			}
			if why := w.cfg.Connect(own.Port, w.cfg.Loop.Now()); why != failure.None {
				w.cfg.Observer.Refused(why)
				return refused(c)
			}
			v := &visitor{w: w, own: own, dial: d, conn: c}
			w.visitors[v] = struct{}{}
			if w.mode(own) == model.ModeDisabled {
				return v.plain()
			}
			return v.knock()
		})
	}
}

// own answers what is known about a port of the workload as a port of its service: several of those may be one of the workload's,
// each with its own protocol, mode and policies.
func (w *Worker) own(port, service uint16) (OwnPort, bool) {
	if w.cfg.Served != nil {
		return w.cfg.Served(service)
	}
	return w.cfg.Ports(port)
}

// mode answers what connections to a port must prove.
func (w *Worker) mode(own OwnPort) model.MTLSMode {
	if w.cfg.Mode == nil {
		return model.ModeDisabled
	}
	return w.cfg.Mode(own.Service.Port)
}

// manner is how a visitor came in.
type manner uint8

const (
	undecided manner = iota
	inPlain
	inMTLS
	turnedAway // in plaintext, on a strict port: each of its requests is refused
)

// visitor is one connection from outside the mesh, from its accept to its end. While it is its connection's handler it waits for the
// first bytes, and for nothing else.
type visitor struct {
	w      *Worker
	own    OwnPort
	dial   loop.Dial
	conn   loop.Conn
	manner manner
	over   bool // it is not the handler any more
	timer  loop.Timer
}

// knock begins with a client whose first bytes decide. On a strict port they are awaited. On a permissive one nobody waits, since
// the server may speak first: a session begins, and whoever speaks first decides (session.late).
func (v *visitor) knock() loop.Handler {
	if v.w.mode(v.own) != model.ModeStrict {
		s := v.session(v.conn, spiffe.ID{})
		s.late = true
		s.begin(v.protocol())
		return s
	}
	v.timer.Expired = func() { v.refuse(failure.RequestIncomplete) }
	v.w.cfg.Loop.Arm(&v.timer, helloWait)
	return v
}

// protocol answers what is known of the port by now.
func (v *visitor) protocol() model.Protocol {
	if own, ok := v.w.own(v.own.Port, v.own.Service.Port); ok {
		return own.Protocol
	}
	return v.own.Protocol
}

// begins is what first bytes are.
type begins uint8

const (
	unclear begins = iota // more of them are needed
	toUs                  // TLS that ends here
	toProgram
)

// handshakeRecord is the first byte of TLS (RFC 8446 section 5.1).
const handshakeRecord = 22

// look tells TLS that ends here from plaintext, TLS of the program's own included: on a port that speaks HTTP, and on a strict one, all
// TLS is for us; elsewhere that which names the mesh or the service.
func (v *visitor) look(p []byte) begins {
	if p[0] != handshakeRecord {
		return toProgram
	}
	known := v.protocol()
	switch {
	case known.HTTP() || v.w.mode(v.own) == model.ModeStrict:
		return toUs
	case known == model.ProtocolTLS:
		return toProgram
	}
	h, n, err := sniff.ReadHello(p)
	switch {
	case err == nil && n == 0:
		return unclear
	case err == nil && v.named(strings.ToLower(h.ServerName)):
		return toUs
	}
	return toProgram
}

// named reports whether a server name is the workload's in the mesh.
func (v *visitor) named(sni string) bool {
	s := v.own.Service.Service
	full := s.Name + "." + s.Namespace
	return strings.HasSuffix(sni, domain) || sni == s.Name || sni == full || sni == full+".svc.cluster.local"
}

// Opened implements loop.Handler.
func (v *visitor) Opened() {}

// Data implements loop.Handler. Nothing is consumed here.
func (v *visitor) Data(p []byte) int {
	if v.over {
		return 0
	}
	switch v.look(p) {
	case toUs:
		v.handshake()
	case toProgram:
		if v.w.mode(v.own) != model.ModeStrict {
			v.conn.SetHandler(v.plain())
			break
		}
		v.turnAway(p)
	}
	return 0
}

// plain begins a session in plaintext.
func (v *visitor) plain() loop.Handler {
	s := v.session(v.conn, spiffe.ID{})
	s.begin(v.protocol())
	return s
}

// handshake begins TLS: the client's bytes are its ClientHello.
func (v *visitor) handshake() {
	v.leave()
	v.manner = inMTLS
	h := &proving{v: v}
	h.conn = v.w.cfg.Handshake(v.conn, h)
	v.conn = h.conn
}

// turnAway says 403 to plaintext that is HTTP, and resets everything else.
func (v *visitor) turnAway(p []byte) {
	switch verdict := sniff.Classify(p); {
	case verdict == sniff.Incomplete:
		return // the timer is armed
	case verdict.HTTP():
		v.leave()
		v.manner = turnedAway
		refusal := &record.Decision{Refusal: v.strict()}
		v.unproven(failure.MTLSRequired, "policy", refusal.Refusal.By, "why", refusal.Refusal.Cause)
		v.conn.SetHandler(v.w.cfg.HTTP.Serve(v.conn, Context{Direction: record.Inbound, HTTP2: verdict == sniff.HTTP2, Protocol: model.LearnedHTTP,
			Remote: v.conn.Remote(), Wanted: v.conn.Local(), Own: v.own, Publish: true, Refuse: failure.MTLSRequired, Refused: refusal, Ended: v.gone,
			Caller: policy.NewCaller(spiffe.ID{}, v.conn.Remote().Addr(), v.own.Service.Port)}))
	default:
		v.forbid()
	}
}

// strict is what refuses plaintext on a strict port.
func (v *visitor) strict() record.Refusal {
	r := record.Refusal{Cause: "plaintext, where the port's mode is Strict"}
	if by := v.w.cfg.ModeBy; by != nil {
		r.By = by(v.own.Service.Port)
	}
	return r
}

// forbid resets plaintext that is no HTTP, on a strict port: it is recorded as what came in, and there is a line in the log.
func (v *visitor) forbid() {
	now := v.w.cfg.Loop.Now()
	var r record.Record
	r.Reset()
	r.Direction, r.TCP, r.Wanted, r.Wall, r.Start, r.End = record.Inbound, true, v.conn.Local(), v.w.cfg.Loop.Wall(), now, now
	r.From, r.Published, r.Protocol, r.DestinationID = v.conn.Remote().Addr(), true, v.protocol(), v.w.cfg.SelfID
	r.Destination, r.Port, r.Reason = v.own.Service.Service, v.own.Service.Port, failure.MTLSRequired.Label()
	r.Decision.Refusal = v.strict()
	v.w.cfg.Observer.Done(&r)
	v.unproven(failure.MTLSRequired, "policy", r.Decision.Refusal.By, "why", r.Decision.Refusal.Cause)
	v.end()
	v.conn.Reset()
}

// unproven writes a line about who has not proven who he is, if there is room for it this second: one for each address and port.
func (v *visitor) unproven(why failure.Reason, args ...any) {
	w, from := v.w, v.conn.Remote()
	if unsaid, ok := w.cfg.Unproven.Room(w.cfg.Loop.Wall().Unix(), policy.Kind(v.own.Service.Port, why.Label(), from.Addr().String())); ok {
		policy.Say(w.cfg.Log, why.Label(), unsaid, append([]any{"caller", from.String(), "service", v.own.Service.String()}, args...)...)
	}
}

// session makes the session that goes on with c, on which id was proven, zero for nobody.
func (v *visitor) session(c loop.Conn, id spiffe.ID) *session {
	v.leave()
	s := v.w.session(c, record.Inbound, c.Local())
	s.far, s.dial, s.own, s.held, s.visitor = farProgram, v.dial, v.own, true, v
	id, s.from = v.w.caller(id, c, v.own.Service.Port)
	s.rec.From = c.Remote().Addr()
	s.rec.Destination, s.rec.Port = v.own.Service.Service, v.own.Service.Port
	s.rec.Published, s.rec.Federated = true, s.from.Federated
	if v.manner = inPlain; id != (spiffe.ID{}) {
		v.manner = inMTLS
		s.peer = Peer{ID: id.String(), Service: model.ServiceName{Namespace: id.Namespace, Name: id.ServiceAccount}}
		s.rec.MTLS, s.rec.Source, s.rec.SourceID = true, s.peer.Service, s.peer.ID
	}
	return s
}

// EOF implements loop.Handler: it has said nothing.
func (v *visitor) EOF() {
	if !v.over {
		v.conn.Close()
	}
}

// Writable implements loop.Handler.
func (v *visitor) Writable() {}

// Closed implements loop.Handler.
func (v *visitor) Closed(error) {
	if !v.over {
		v.end()
	}
}

func (v *visitor) refuse(why failure.Reason) {
	if v.over {
		return
	}
	v.w.cfg.Observer.Refused(why)
	v.end()
	v.conn.Reset()
}

// leave: another is the handler from now on.
func (v *visitor) leave() {
	v.over = true
	v.w.cfg.Loop.Disarm(&v.timer)
}

// end is for a visitor that nobody else has taken over: it is not counted any more.
func (v *visitor) end() {
	v.leave()
	v.gone()
	v.w.cfg.Disconnect(v.own.Port)
}

// gone: its connection is, or is about to be.
func (v *visitor) gone() {
	if v != nil {
		delete(v.w.visitors, v)
	}
}

// allowed reports whether a visitor may stay as it came in. One that was turned away has to come again.
func (v *visitor) allowed() bool {
	switch m := v.w.mode(v.own); v.manner {
	case inPlain:
		return m != model.ModeStrict
	case inMTLS:
		return m != model.ModeDisabled
	case turnedAway:
		return m == model.ModeStrict
	}
	return true
}

// proving is a visitor during its handshake.
type proving struct {
	v    *visitor
	conn Secure
	over bool
}

// Opened implements loop.Handler: the handshake is done.
func (h *proving) Opened() {
	h.over = true
	s := h.v.session(h.conn, h.conn.PeerID())
	h.conn.SetHandler(s)
	s.begin(h.v.protocol())
}

// Data implements loop.Handler.
func (h *proving) Data([]byte) int { return 0 }

// EOF implements loop.Handler.
func (h *proving) EOF() {}

// Writable implements loop.Handler.
func (h *proving) Writable() {}

// Closed implements loop.Handler.
func (h *proving) Closed(err error) {
	if h.over {
		return
	}
	h.over = true
	if err != nil {
		h.v.unproven(failure.TLSFailed, "error", err)
		h.v.w.cfg.Observer.Refused(failure.TLSFailed)
	}
	h.v.end()
}

// endedPerTurn is how many connections a change of modes ends in one turn of a loop.
const endedPerTurn = 64

// Review ends what modes do not allow any more, a bounded number of connections in each turn of the loop.
func (w *Worker) Review() {
	n := 0
	for v := range w.visitors {
		if v.allowed() {
			continue
		}
		if n++; n > endedPerTurn {
			w.cfg.Loop.Post(w.Review)
			return
		}
		v.gone()
		v.conn.Reset()
	}
}

// lateTLS reports whether a client that was silent at first begins TLS that ends here, now that it has spoken. Nobody has
// been told anything yet: the connection to the program is given up. more: that is not clear yet.
func (s *session) lateTLS(p []byte) (taken, more bool) {
	v := s.visitor
	switch v.look(p) {
	case unclear:
		return false, true
	case toProgram:
		return false, false
	}
	if up := s.up; up != nil {
		s.up = nil
		up.SetHandler(nobody{up})
		up.Reset()
	}
	s.held, s.visitor = false, nil // the visitor goes on
	s.leave()
	v.handshake()
	return true, false
}
