package listener

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// Egress decides about what the program wants outside of the mesh. For any goroutine; it must be quick.
type Egress interface {
	// Address decides about an address that is no virtual one, and Named decides again where that has asked for what the program
	// says first: its SNI or the Host of its first request, in lower case without a port, "" for none.
	Address(to netip.AddrPort) Exit
	Named(to netip.AddrPort, said string) Exit
	// Connection decides about a connection that is not HTTP, to a port of an ExternalService; called is the port that the program
	// asked for, sni what its ClientHello said. What policies say, or what else refuses, is written to d; else d stays as it is.
	Connection(called, to model.PortName, sni string, wanted netip.Addr, now time.Time, d *record.Decision) failure.Reason
	// Again decides anew about a connection that was let out and is open; why it may not stay is written to d.
	Again(w *Way, now time.Time, d *record.Decision) failure.Reason
}

// Way is how a connection was let out of the mesh.
type Way struct {
	// Called is the port that the program asked for, To the one that it was led to, an ExternalService's; both are zero where the
	// address itself was called, whose Names DNS had told.
	Called, To model.PortName
	Wanted     netip.AddrPort
	Said       string // SNI or Host, as far as it was looked at
	Names      []string
}

// Exit is what Egress decides.
type Exit struct {
	Why     failure.Reason  // not None: it is refused
	Peek    bool            // Named decides
	Service model.PortName  // not zero: it is a connection to this port
	Names   []string        // that DNS has told for the address
	Said    record.Decision // of the policies of an ExternalService, or what else refuses
}

// Bounds of looking at what the program says first.
const (
	peekSilence = 100 * time.Millisecond // then it waits for the server, and has said no name
	peekBytes   = 16 << 10               // of a request's head
)

// Mesh reports whether a is a virtual address.
func (p *Passthrough) Mesh(a netip.Addr) bool { return p.mesh(a) }

// external reports whether a port is one of an ExternalService.
func external(n model.PortName) bool {
	_, ok := n.Service.External()
	return ok
}

// depart goes on with a connection to an address outside of the mesh.
func (s *session) depart(e Exit) {
	s.way.Names = e.Names
	switch {
	case e.Why != failure.None, e.Peek:
		s.denied, s.peeking, s.rec.Decision = e.Why, true, e.Said // what is HTTP hears why
		s.w.cfg.Loop.Arm(&s.timer, peekSilence)
	case !e.Service.Service.IsZero():
		s.rec.Passthrough = false
		s.conn.Pause()
		s.w.cfg.Named(s.w.cfg.Loop, e.Service, func(p Port, why failure.Reason) {
			switch {
			case s.over:
			case p == nil:
				s.refuse(why)
			default:
				s.found(p)
				s.conn.Resume()
			}
		})
	default:
		d := loop.Dial{Address: s.rec.Wanted}
		if s.w.cfg.Passthrough.Dial != nil {
			s.w.cfg.Passthrough.Dial(&d)
		}
		s.direct(d)
	}
}

// peek looks at what the program says first, which stays where it is.
func (s *session) peek(p []byte) {
	said, http, http2, done := first(p)
	if !done {
		if len(p) > 0 && !s.partly {
			s.partly = true
			s.w.cfg.Loop.Disarm(&s.timer)
			s.w.cfg.Loop.Arm(&s.timer, helloWait)
		}
		return
	}
	s.named(said, http, http2)
}

// named decides with what was said.
func (s *session) named(said string, http, http2 bool) {
	s.peeking = false
	s.w.cfg.Loop.Disarm(&s.timer)
	why := s.denied
	if why == failure.None {
		e := s.w.cfg.Egress.Named(s.rec.Wanted, said)
		s.rec.Decision = e.Said
		s.way.Said = said
		if why = e.Why; why == failure.None {
			e.Peek = false
			s.depart(e)
			return
		}
	}
	if !http {
		s.refuse(why)
		return
	}
	s.leave()
	s.conn.SetHandler(s.w.cfg.HTTP.Serve(s.conn, Context{Direction: s.rec.Direction, HTTP2: http2, Protocol: model.LearnedHTTP, Remote: s.conn.Remote(), Wanted: s.rec.Wanted, Refuse: why, Refused: &s.rec.Decision}))
	s.conn.Resume()
}

// first answers the name in what a client says first: the SNI of a ClientHello, or the Host of a request; done is false while
// that is not complete.
func first(p []byte) (said string, http, http2, done bool) {
	const preface = "PRI * HTTP/2.0\r\n"
	switch {
	case len(p) == 0:
		return "", false, false, false
	case p[0] == 0x16:
		h, n, err := sniff.ReadHello(p)
		return strings.ToLower(h.ServerName), false, false, n > 0 || err != nil
	case len(p) < len(preface) && strings.HasPrefix(preface, string(p)):
		return "", true, true, false
	case bytes.HasPrefix(p, []byte(preface)):
		return "", true, true, true
	}
	line, _, whole := bytes.Cut(p, []byte("\r\n"))
	method, _, _ := bytes.Cut(line, []byte(" "))
	if len(method) == 0 || len(method) > 16 || bytes.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' }) || whole && !bytes.Contains(line, []byte(" HTTP/1.")) {
		return "", false, false, true
	}
	head, _, whole := bytes.Cut(p, []byte("\r\n\r\n"))
	if !whole && len(p) < peekBytes {
		return "", true, false, false
	}
	n := 0
	for field := range bytes.SplitSeq(head, []byte("\r\n")) {
		if name, value, ok := bytes.Cut(field, []byte(":")); ok && bytes.EqualFold(name, []byte("host")) {
			host, _, _ := bytes.Cut(bytes.TrimSpace(value), []byte(":"))
			said = strings.ToLower(string(host))
			n++
		}
	}
	if n != 1 {
		said = ""
	}
	return said, true, false, true
}

// quiet: the program has said nothing in time, or not all of it.
func (s *session) quiet() {
	if s.partly {
		s.refuse(failure.RequestIncomplete)
		return
	}
	s.named("", false, false)
}

// leaving decides whether the connection may go to its cluster, where that is outside of the mesh, and says by whom it is made.
func (s *session) leaving() (relay.Blanks, failure.Reason) {
	s.far = farMesh
	if !external(s.to) {
		return s.w.cfg.Blanks, failure.None
	}
	s.far = farOutside
	why := failure.None
	if s.w.cfg.Egress != nil {
		why = s.w.cfg.Egress.Connection(s.port.Name(), s.to, s.sni, s.rec.Wanted.Addr(), s.w.cfg.Loop.Wall(), &s.rec.Decision)
	}
	return relay.Fresh{Loop: s.w.cfg.Loop}, why
}

// again answers what is asked again about a relay that leads out of the mesh; nil: it does not.
func (s *session) again() func(*record.Decision) failure.Reason {
	e, l := s.w.cfg.Egress, s.w.cfg.Loop
	switch {
	case e == nil:
		return nil
	case s.far == farOutside:
		s.way.Called, s.way.To, s.way.Said = s.port.Name(), s.to, s.sni
	case !s.rec.Passthrough:
		return nil
	}
	w := s.way
	w.Wanted = s.rec.Wanted
	return func(d *record.Decision) failure.Reason { return e.Again(&w, l.Wall(), d) }
}
