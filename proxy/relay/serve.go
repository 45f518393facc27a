package relay

import (
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// openTimeout is how long the rest of an OPEN frame may take.
const openTimeout = 5 * time.Second

// Server is the server's side of relays between proxies: it reads OPEN and connects to the program. One per loop.
type Server struct {
	Relays *Relays
	// Dial says how to reach the program's port. False: there is no such port.
	Dial func(port uint16, o *Open) (loop.Dial, bool)
	// Learn is told what a connection to the port turned out to be (sniff.Learner.Saw). May be nil.
	Learn func(port uint16, p model.Protocol)
	// Meter bounds the bytes of a connection to a port; rec says who calls. May be nil, and answer nil.
	Meter func(port uint16, rec *record.Record, o *Open) Meter
	// ServerNames reports whether policies look at the server names of a port: then what the client says first is awaited and
	// looked at. May be nil.
	ServerNames func(c *policy.Caller) bool
	// Ended is told of every connection that Serve has taken when it is over. May be nil.
	Ended func(port uint16)
}

// Serve answers the handler for c, a mesh connection whose first byte is OpenByte. port is the workload's port that
// the connection was authorized for, and no other is opened. rec has what is known of the peer and is copied.
// caller is who the workload's policies are asked about, nil: they are not.
func (s *Server) Serve(c loop.Conn, port uint16, caller *policy.Caller, rec *record.Record) loop.Handler {
	o := &opening{server: s, down: c, port: port, caller: caller, rec: *rec}
	o.rec.Start, o.rec.Wall = c.Loop().Now(), c.Loop().Wall()
	o.timer.Expired = o.expired
	c.Loop().Arm(&o.timer, openTimeout)
	return o
}

// opening is a mesh connection between its first byte and the connection to the program.
type opening struct {
	server *Server
	down   loop.Conn
	up     loop.Conn
	port   uint16
	rec    record.Record
	timer  loop.Timer
	silent bool
	over   bool
	meter  Meter

	caller *policy.Caller
	named  bool   // what the client says first is awaited, for its server name
	open   Open   // while it is
	name   string // the server name
}

// Opened implements loop.Handler.
func (o *opening) Opened() {}

// Data implements loop.Handler.
func (o *opening) Data(p []byte) int {
	if o.up != nil || o.over {
		return 0
	}
	if o.named {
		o.hello(p)
		return 0
	}
	f, n, err := ParseOpen(p)
	switch {
	case err != nil || n > 0 && f.Port != o.port:
		o.fail(failure.BadRequest)
	case n > 0 && o.caller != nil && o.server.ServerNames != nil && o.server.ServerNames(o.caller):
		o.named, o.open = true, f
		o.open.RequestID = nil // a part of p
		if len(p) > n {        // the rest is given again
			o.hello(p[n:])
		}
	case n > 0:
		o.ask(&f)
	}
	return n
}

// hello looks for the server name in what the client says first, which stays unread.
func (o *opening) hello(p []byte) {
	if o.open.Silent {
		if p[0] != GoByte {
			o.ask(&o.open) // it was taken back: the relay sees to it
			return
		}
		p = p[1:]
	}
	h, n, err := sniff.ReadHello(p)
	if n > 0 || err != nil {
		o.name = h.ServerName
		o.ask(&o.open)
	}
}

// expired: the frame, or what a client says first, does not come. Who says nothing has no name.
func (o *opening) expired() {
	if o.named {
		o.ask(&o.open)
		return
	}
	o.fail(failure.BadRequest)
}

// ask asks the workload's policies, and then connects.
func (o *opening) ask(f *Open) {
	rs := o.server.Relays
	if why := Ask(rs.cfg.Policies, rs.cfg.Loop, o.caller, o.name, &o.rec); why != failure.None {
		o.fail(why)
		return
	}
	o.dial(f)
}

func (o *opening) dial(f *Open) {
	l := o.down.Loop()
	l.Disarm(&o.timer)
	o.silent, o.rec.Wanted = f.Silent, f.Wanted
	if o.server.Meter != nil {
		o.meter = o.server.Meter(f.Port, &o.rec, f)
	}
	d, ok := o.server.Dial(f.Port, f)
	switch {
	case !ok:
		o.fail(failure.UnknownPort)
	case o.server.Relays.Full():
		o.fail(failure.Overload)
	default:
		o.down.Pause()
		o.up = l.Dial(d, (*program)(o))
	}
}

// EOF implements loop.Handler: the frame will not be complete any more. (While the program is dialed the
// connection is paused, and tells its end to the relay.)
func (o *opening) EOF() {
	if o.up == nil {
		o.fail(failure.BadRequest)
	}
}

// Writable implements loop.Handler.
func (o *opening) Writable() {}

// Closed implements loop.Handler.
func (o *opening) Closed(error) {
	if o.up != nil {
		o.up.Reset()
	}
	o.end(failure.DownstreamGone)
}

// fail resets the caller: it was never connected.
func (o *opening) fail(why failure.Reason) {
	o.end(why)
	o.down.Reset()
}

func (o *opening) end(why failure.Reason) {
	if o.over {
		return
	}
	o.over = true
	l := o.down.Loop()
	l.Disarm(&o.timer)
	o.rec.TCP, o.rec.Reason, o.rec.End = true, why.Label(), l.Now()
	o.server.Relays.cfg.Observer.Done(&o.rec)
	o.ended(nil)
}

// ended: the connection is over, relayed or not.
func (o *opening) ended(*record.Record) {
	if o.server.Ended != nil {
		o.server.Ended(o.port)
	}
}

func (o *opening) first(server bool) {
	if o.server.Learn == nil {
		return
	}
	p := model.LearnedClientFirst
	if server {
		p = model.LearnedServerFirst
	}
	o.server.Learn(o.port, p)
}

// program is the handler of the connection to the program until it stands.
type program opening

// Opened implements loop.Handler.
func (p *program) Opened() {
	o := (*opening)(p)
	if o.over {
		return
	}
	o.over = true
	o.server.Relays.Start(o.down, o.up, &o.rec, Options{First: o.first, Silent: o.silent, Ended: o.ended, Meter: o.meter,
		Caller: o.caller, ServerName: o.name})
}

// Data implements loop.Handler.
func (p *program) Data([]byte) int { return 0 }

// EOF implements loop.Handler.
func (p *program) EOF() {}

// Writable implements loop.Handler.
func (p *program) Writable() {}

// Closed implements loop.Handler.
func (p *program) Closed(err error) {
	o := (*opening)(p)
	if o.over {
		return
	}
	o.up = nil
	why := failure.ConnectFailed
	if errors.Is(err, loop.ErrConnectTimeout) {
		why = failure.ConnectTimeout
	}
	o.fail(why)
}
