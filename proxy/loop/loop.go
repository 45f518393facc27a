// Package loop is the event loop: one goroutine, one epoll, one timer wheel, and the connections that belong
// to it. Everything that happens on a connection happens on its loop's goroutine, so the code above needs no
// locks. Loop and Conn are interfaces because the simulator has twins of them with virtual time and network
// (package sim); Epoll is the real one.
//
// A turn: take the events that are ready, give each to its handler, run expired timers and posted functions,
// then flush every connection that was written to, once. Start reading at Handler.
package loop

import (
	"net/netip"
	"time"
)

// Watermarks of a connection's output, in bytes. Above HighWater whoever feeds the connection must stop;
// Handler.Writable is called once the output has fallen below LowWater after it had been above HighWater.
const (
	HighWater = 180 << 10 // with what is written last, a scratch full and its frame, it fits into a buffer of 256 KB
	LowWater  = 64 << 10
)

// ScratchSize is the loop's read buffer, and the most that Data is ever given at once, in bytes. A handler that is
// given that much, consumes nothing and does not pause gets its connection reset with ErrNotConsumed.
const ScratchSize = 64 << 10

// Loop is one event loop. Every method but Post, Load and the package's documentation says otherwise must be
// called on the loop itself.
type Loop interface {
	// Now answers the time of this turn on a monotonic clock that starts at an arbitrary point, the same for all loops
	// of a process.
	Now() time.Duration
	// Wall answers the wall-clock time of this turn.
	Wall() time.Time
	// Post runs f on the loop, in order of the calls. It may be called from any goroutine and never blocks.
	// It reports false, and f never runs, once the loop has ended.
	Post(f func()) bool
	// Arm makes t expire after d (resolution 1 ms, never early). Arming an armed timer moves it.
	Arm(t *Timer, d time.Duration)
	// Disarm stops t. Disarming an idle timer does nothing.
	Disarm(t *Timer)
	// Dial starts a connection. h.Opened is called when it stands, h.Closed when it fails, never inside Dial.
	Dial(d Dial, h Handler) Conn
	// Load answers how many connections the loop has. It may be called from any goroutine.
	Load() int64
}

// Dial says where to connect.
type Dial struct {
	Address netip.AddrPort
	Also    []netip.Addr                      // tried in turn, on the same port, when the one before refuses (not when it is silent)
	Source  netip.Addr                        // bound before the connect; zero: the kernel's choice. Failing to bind it is no error
	Socket  func(v6 bool) (fd int, err error) // makes the socket, for example inside a network namespace; nil: an ordinary one
	Timeout time.Duration                     // until Opened; 0: 10 s. Expired: Closed with ErrConnectTimeout
}

// Timer is armed on a loop. It is embedded in its owner; Expired is called on the loop.
type Timer struct {
	Expired func()
	state   timerState
}

// Armed reports whether t will expire.
func (t *Timer) Armed() bool { return t.state.armed }

// Handler is told what happens to a connection, on its loop, one call at a time.
type Handler interface {
	// Opened: a dialed connection stands, or a TLS handshake is done. For a plain accepted connection it is
	// called once before the first Data.
	Opened()
	// Data gives what has arrived and was not consumed before, in one piece, and takes back how many bytes
	// were consumed. The rest is given again together with what arrives next, after Resume, and at once to the
	// new handler after SetHandler. p is valid only during the call.
	Data(p []byte) (consumed int)
	// EOF: the peer has ended its direction; what was not consumed before stays so. A new handler is told again.
	// Once both directions have ended the connection closes by itself.
	EOF()
	// Writable: see LowWater.
	Writable()
	// Closed: the connection is gone; nothing is called after it. err is nil after our own Close. It is called
	// exactly once, never from inside a method of Conn.
	Closed(err error)
}

// Conn is a byte stream that belongs to one loop. Its methods never block and never call the handler back
// from inside.
type Conn interface {
	// Write takes a copy of p for output. It never fails: a connection that breaks says so by Closed.
	Write(p []byte)
	// Buffered answers how many bytes the kernel has not yet taken.
	Buffered() int
	// Pause stops Data and EOF until Resume. The kernel's buffers then hold up the peer.
	Pause()
	// Resume undoes Pause; what is waiting is delivered in this or the next turn.
	Resume()
	// CloseWrite ends our direction after everything written has gone out (FIN, or close_notify and FIN).
	CloseWrite()
	// Close ends the connection after everything written has gone out and the peer has ended too, or nothing has moved
	// for a while: 30 s while there is more to go out, five minutes altogether, then 2 s. Of the handler only Closed is called after it.
	Close()
	// Reset ends the connection at once; the peer gets RST.
	Reset()
	// SetHandler puts another handler in charge.
	SetHandler(h Handler)
	// Loop answers where the connection lives.
	Loop() Loop
	Local() netip.AddrPort
	Remote() netip.AddrPort
}

// Incoming is an accepted connection that nobody serves yet. Exactly one of Adopt and Refuse must be called.
type Incoming interface {
	Remote() netip.AddrPort
	Local() netip.AddrPort
	// Wanted answers the destination the client asked for before the kernel turned the connection to us, or
	// Local if it was not turned.
	Wanted() netip.AddrPort
	// Adopt gives the connection to l, which may be another loop than the one that accepted it. serve is called
	// on l and answers the handler, or nil after it has called SetHandler. What has arrived by then is delivered
	// right after Opened, in the same turn.
	Adopt(l Loop, serve func(Conn) Handler)
	// Refuse ends the connection with RST.
	Refuse()
}
