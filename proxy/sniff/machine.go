package sniff

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Times of the machine.
const (
	Wait    = 100 * time.Millisecond // for the rest of an incomplete HTTP prefix
	Silence = time.Second            // of a client on a port that was learned to be HTTP
)

// State of a Machine.
type State uint8

// States; docs/design/sniff.md draws them.
const (
	Accepted  State = iota
	Expecting       // HTTP is known: declared, or learned and the client still silent
	Opening         // a connection to the server's side is being made; nobody has spoken
	Sniffing        // an incomplete but possible HTTP prefix
	Silent          // the relay stands open, and nobody has spoken
	HTTP            // decided; nothing changes any more
	Relay           // likewise
	Ended           // likewise: refused
)

// String answers the state in lower case.
func (s State) String() string {
	return [...]string{"accepted", "expecting", "opening", "sniffing", "silent", "http", "relay", "ended"}[min(int(s), 7)]
}

// Action is a set of things to do, in the order of the constants.
type Action uint16

// Actions.
const (
	Disarm   Action = 1 << iota // stop the timer
	Doubt                       // what was learned about the port is contradicted: Known is not to be believed next time
	Connect                     // get a connection to the server's side (between proxies: a blank one); then Ready or Failed
	GiveBack                    // that connection is not needed, or no more; nothing was sent on it
	Open                        // it stands: open the relay on it, silently (nothing of the client follows yet)
	Cancel                      // take the opened relay back; no byte passed on it
	Arm                         // start the timer with Wait; then Expired
	ArmLong                     // start the timer with Silence; then Expired
	Serve                       // hand the client's connection to HTTP, version by Verdict
	Forward                     // relay: as soon as the connection stands, all bytes and ends both ways
	Refuse                      // reset the client
)

// Machine decides what one connection is. Every method takes an event and answers what to do. After Serve,
// Forward or Refuse nothing more comes out of it. Bytes given to Accepted and Data are all that the client has
// said so far; they stay with the connection until the decision.
type Machine struct {
	Known   model.Protocol // what is known about the port; set before Accepted
	Probe   bool           // a learned-http port may be tested for silence (when its timer expires the owner may arm it again instead)
	Verdict Verdict        // of the client's first bytes

	state State
	asked bool // Connect was answered
	ready bool // Ready came
	lost  bool // Failed came
	open  bool // Open was answered
	armed bool
}

// State answers where the machine is.
func (m *Machine) State() State { return m.state }

// Opened reports whether the relay was opened silently before the decision.
func (m *Machine) Opened() bool { return m.open }

// Accepted starts: p is what the client has said already, maybe nothing.
func (m *Machine) Accepted(p []byte) Action {
	switch k := m.Known; {
	case k == model.ProtocolHTTP || k == model.ProtocolGRPC:
		m.state = Expecting
		return m.version(p)
	case k.Declared():
		return m.connect() | m.forward()
	case k == model.LearnedClientFirst || k == model.LearnedServerFirst:
		m.Verdict = Classify(p)
		a := m.connect() | m.forward()
		if m.Verdict.HTTP() {
			a |= Doubt
		}
		return a
	case len(p) > 0:
		return m.sniff(p)
	case k == model.LearnedHTTP:
		m.state = Expecting
		if m.Probe {
			return m.arm(ArmLong)
		}
		return 0
	}
	m.state = Opening
	return m.connect()
}

// Data: the client has spoken.
func (m *Machine) Data(p []byte) Action {
	switch m.state {
	case Expecting:
		if m.Known == model.LearnedHTTP {
			return m.disarm() | m.sniff(p)
		}
		return m.version(p)
	case Opening, Sniffing, Silent:
		return m.sniff(p)
	}
	return 0
}

// EOF: the client has ended its direction.
func (m *Machine) EOF() Action {
	switch m.state {
	case Expecting:
		if m.Known == model.LearnedHTTP {
			return m.disarm() | m.connect() | m.forward()
		}
		return m.serve(HTTP1)
	case Opening, Sniffing, Silent:
		return m.disarm() | m.connect() | m.forward()
	}
	return 0
}

// Ready: the connection that Connect asked for stands.
func (m *Machine) Ready() Action {
	m.ready = true
	if m.state == Opening {
		m.state, m.open = Silent, true
		return Open
	}
	return 0
}

// Failed: there is no such connection, or it is gone before a byte passed.
func (m *Machine) Failed() Action {
	m.lost = true
	switch m.state {
	case Opening, Silent, Relay:
		a := m.disarm()
		m.state = Ended
		return a | Refuse
	}
	return 0
}

// Spoke: the server has spoken, or ended, first. (Between proxies it can only once the relay is open.)
func (m *Machine) Spoke() Action {
	if m.state != Silent && (m.state != Sniffing || !m.ready) {
		return 0
	}
	a := m.disarm() | m.forward()
	if m.Known == model.LearnedHTTP {
		a |= Doubt
	}
	return a
}

// Expired: the timer has.
func (m *Machine) Expired() Action {
	if !m.armed {
		return 0
	}
	m.armed = false
	switch m.state {
	case Expecting:
		m.state = Opening
		return m.connect()
	case Sniffing, Silent:
		return m.connect() | m.forward()
	}
	return 0
}

// sniff looks at the client's bytes where anything may come.
func (m *Machine) sniff(p []byte) Action {
	m.Verdict = Classify(p)
	switch m.Verdict {
	case HTTP1, HTTP2:
		return m.serve(m.Verdict)
	case Incomplete:
		if m.state != Silent {
			m.state = Sniffing
		}
		if m.armed {
			return 0
		}
		return m.arm(Arm)
	}
	a := m.disarm() | m.connect() | m.forward()
	if m.Known == model.LearnedHTTP {
		a |= Doubt
	}
	return a
}

// version looks at the client's bytes where only HTTP may come.
func (m *Machine) version(p []byte) Action {
	if m.Verdict = Version(p); len(p) == 0 || m.Verdict == Incomplete {
		return 0
	}
	return m.serve(m.Verdict)
}

// serve decides for HTTP. What was opened for a relay goes back.
func (m *Machine) serve(v Verdict) Action {
	a := m.disarm() | Serve
	m.state, m.Verdict = HTTP, v
	switch {
	case m.open:
		a |= Cancel
	case m.asked && !m.lost:
		a |= GiveBack
	}
	return a
}

// forward decides for a relay.
func (m *Machine) forward() Action {
	if m.lost {
		m.state = Ended
		return Refuse
	}
	m.state = Relay
	return Forward
}

func (m *Machine) connect() Action {
	if m.asked {
		return 0
	}
	m.asked = true
	return Connect
}

func (m *Machine) arm(a Action) Action {
	m.armed = true
	return a
}

func (m *Machine) disarm() Action {
	if !m.armed {
		return 0
	}
	m.armed = false
	return Disarm
}
