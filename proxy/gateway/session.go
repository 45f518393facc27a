package gateway

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/chain"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// phase is what a session waits for.
type phase uint8

const (
	awaitProxy  phase = iota // a PROXY header
	awaitHello               // a ClientHello, or bytes that are none
	awaitTLS                 // the end of the handshake
	awaitServer              // a connection to a server; the client's bytes wait in the kernel
	served                   // somebody else is the connection's handler
)

// session is one downstream connection. It is its handler until something serves it, and lives as long as it does.
type session struct {
	w     *worker
	l     *listener
	v     *version // in force when it was accepted
	chain *filterChain
	conn  loop.Conn // raw, or TLS once that has begun
	phase phase
	seen  chain.Conn
	timer loop.Timer // of listener filters
	late  bool       // the listener filters' time is over; what was seen has to do

	about     observe.Connection
	drainer   downstream.Drainer // of HTTP; nil: none
	search    *relay.Search      // awaitServer
	breaker   *cluster.Breaker   // that counts the connection to a server; nil: none does
	entered   bool               // the chain's gate counts the connection
	turned    bool               // seen.Destination is not where we listen
	decided   bool               // no longer among the worker's pending
	draining  bool
	drainedAt time.Duration
}

// begin takes over an accepted connection; turned: the kernel has turned it to us. On the loop.
func (w *worker) begin(l *listener, v *version, c loop.Conn, wanted netip.AddrPort, turned bool) loop.Handler {
	s := &session{w: w, l: l, v: v, conn: c, turned: turned}
	c.SetHandler(s)
	w.sessions[s] = struct{}{}
	w.pending++
	w.open.Add(1)
	if w.pending > w.g.cfg.MaxPending {
		s.refuse(failure.Overload)
		return nil
	}
	remote := c.Remote()
	s.seen = chain.Conn{Destination: wanted, Direct: remote.Addr(), Source: remote}
	s.timer.Expired = s.expired
	if v.model.InspectTimeout > 0 && (v.model.ProxyProtocol != nil || v.model.Inspect) {
		w.loop.Arm(&s.timer, v.model.InspectTimeout)
	}
	switch {
	case v.model.ProxyProtocol != nil:
		s.phase = awaitProxy
	case v.model.Inspect:
		s.phase = awaitHello
	default:
		s.choose()
	}
	return nil
}

// Opened implements loop.Handler.
func (s *session) Opened() {
	if s.phase == awaitTLS {
		s.secured()
	}
}

// Data implements loop.Handler.
func (s *session) Data(p []byte) int {
	n := 0
	if s.phase == awaitProxy {
		if n = s.proxyHeader(p); s.phase == awaitProxy {
			return 0
		}
		p = p[n:]
	}
	if s.phase == awaitHello && len(p) > 0 {
		s.hello(p)
	}
	return n
}

// proxyHeader reads a PROXY header off the front of p and answers its length.
func (s *session) proxyHeader(p []byte) int {
	accept := s.v.model.ProxyProtocol
	h, n, err := proxyproto.Parse(p)
	switch {
	case errors.Is(err, proxyproto.ErrNone) && accept.AllowWithout:
	case err != nil:
		s.w.g.cfg.Log.Debug("connection refused", "listener", s.l.name, "from", s.conn.Remote(), "error", err)
		s.refuse(failure.BadRequest)
		return 0
	case n == 0:
		return 0
	case h.Version == 1 && !accept.V1, h.Version == 2 && !accept.V2:
		s.w.g.cfg.Log.Debug("connection refused: this version of the PROXY protocol is not accepted", "listener", s.l.name, "version", h.Version)
		s.refuse(failure.BadRequest)
		return 0
	case !h.Local:
		s.turned = s.turned || h.Destination != s.seen.Destination
		s.seen.Source, s.seen.Destination = h.Source, h.Destination
	}
	s.next()
	return n
}

// next goes on when the PROXY header is read.
func (s *session) next() {
	if s.v.model.Inspect && !s.late {
		s.phase = awaitHello
		return
	}
	s.choose()
}

// hello looks for a ClientHello at the start of p, which stays where it is.
func (s *session) hello(p []byte) {
	h, n, err := sniff.ReadHello(p)
	switch {
	case err != nil:
		s.seen.Transport = chain.Raw // what is no proper ClientHello is no TLS for us
	case n == 0:
		return
	default:
		s.seen.Transport, s.seen.ServerName, s.seen.ALPN = chain.TLS, strings.ToLower(h.ServerName), h.ALPN
	}
	s.choose()
}

// choose finds the chain.
func (s *session) choose() {
	s.w.loop.Disarm(&s.timer)
	if s.seen.Transport == "" {
		s.seen.Transport = chain.Raw
	}
	if s.chain = s.v.find(&s.seen); s.chain == nil {
		s.refuse(failure.NoRoute)
		return
	}
	s.introduce()
	if !s.enter() {
		return
	}
	if s.chain.tls == nil {
		s.plain()
		return
	}
	s.phase = awaitTLS
	timeout := s.chain.model.HandshakeTimeout
	if timeout <= 0 {
		timeout = handshakeTimeout
	}
	s.conn = s.w.g.shake.ServerWith(s.conn, s.chain.tls.Config(), s, mtls.Options{Timeout: timeout})
}

// introduce says what is known about the connection to those who tell of it.
func (s *session) introduce() {
	s.w.ids++
	s.about = observe.Connection{ID: s.w.ids, Remote: s.seen.Source, Local: s.seen.Destination, ServerName: s.seen.ServerName}
	if d := s.conn.Remote(); d != s.about.Remote {
		s.about.Direct = d
	}
}

// handshakeTimeout is Envoy's transport_socket_connect_timeout for a chain that does not say.
const handshakeTimeout = 15 * time.Second

// secured: the handshake is done.
func (s *session) secured() {
	conn := s.conn.(*mtls.Conn)
	state := conn.State()
	s.about.TLS, s.about.ServerName, s.about.Certificate = state, state.ServerName, s.chain.tls.Shown(conn)
	if s.chain.model.HTTP != nil {
		s.serve(state.NegotiatedProtocol)
		return
	}
	s.relay()
}

// plain goes on without TLS.
func (s *session) plain() {
	if s.chain.model.HTTP != nil {
		s.serve("")
		return
	}
	s.relay()
}

// expired: the client has said too little for too long.
func (s *session) expired() {
	switch {
	case s.v.model.ContinueOnTimeout:
		s.late = true
		s.choose()
	default:
		s.refuse(failure.IdleTimeout)
	}
}

// EOF implements loop.Handler: the client has ended its direction before it was served.
func (s *session) EOF() {
	switch s.phase {
	case awaitHello:
		s.seen.Transport = chain.Raw
		s.choose()
	case awaitServer, served:
	default:
		s.conn.Close()
	}
}

// Writable implements loop.Handler.
func (s *session) Writable() {}

// Closed implements loop.Handler: the connection is gone before it was served.
func (s *session) Closed(err error) {
	if s.phase == awaitTLS && err != nil {
		s.w.g.cfg.Log.Debug("no TLS", "listener", s.l.name, "from", s.about.Remote, "error", err)
		s.w.recorder.Refused(failure.TLSFailed)
	}
	if s.search != nil {
		s.search.Cancel()
	}
	s.over()
}

// refuse resets the client before it is served.
func (s *session) refuse(why failure.Reason) {
	s.w.recorder.Refused(why)
	if logs := s.v.logs; logs != nil {
		s.log(logs, why)
	}
	s.decide()
	s.conn.Reset() // Closed follows
}

// log writes a line about a connection that nothing has served.
func (s *session) log(logs *observe.Logs, why failure.Reason) {
	var rec record.Record
	rec.Reset()
	rec.TCP, rec.Wanted, rec.Reason = true, s.seen.Destination, why.Label()
	rec.Start, rec.End, rec.Wall = s.w.loop.Now(), s.w.loop.Now(), s.w.loop.Wall()
	if s.about.ID == 0 {
		s.introduce()
	}
	logs.Put(&observe.Entry{Record: &rec, Conn: &s.about})
}

// decide says that the listener has nothing more to find out: somebody serves the connection, or it is refused.
func (s *session) decide() {
	s.w.loop.Disarm(&s.timer)
	s.phase = served
	if !s.decided {
		s.decided = true
		s.w.pending--
	}
}

// over ends the session; called once, when the connection is gone.
func (s *session) over() {
	s.decide()
	if s.breaker != nil {
		s.breaker.Give(cluster.Connections)
	}
	if s.entered {
		s.chain.gate.Disconnect()
	}
	delete(s.w.sessions, s)
	s.w.open.Add(-1)
	s.l.conns.Add(-1)
}

// drain lets what is under way end and takes nothing new; how is what is asked of HTTP.
func (s *session) drain(how func(downstream.Drainer)) {
	if s.draining {
		return
	}
	s.draining, s.drainedAt = true, s.w.loop.Now()
	switch {
	case s.drainer != nil:
		how(s.drainer)
	case s.phase == awaitProxy, s.phase == awaitHello:
		s.conn.Close()
	}
}
