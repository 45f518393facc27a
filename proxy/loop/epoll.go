package loop

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/proxy/buffer"
)

// Config configures an Epoll.
type Config struct {
	Name   string       // in log lines, for example "loop 0"
	Logger *slog.Logger // nil: nothing is logged
}

// Ender is implemented by loops that can tell when a turn ends. Whoever collects output during a turn asks for
// one call of Flush with AtEnd, and writes then; connections are flushed after that. Epoll and sim.Loop are Enders.
type Ender interface {
	// AtEnd calls f.Flush once at the end of this turn. f asks at most once a turn. Called on the loop.
	AtEnd(f Flusher)
	// Buffers answers the loop's pool. Called and used on the loop.
	Buffers() *buffer.Pool
}

// Flusher is called at the end of a turn; see Ender.
type Flusher interface{ Flush() }

// Epoll is the real Loop.
type Epoll struct{ wheel Wheel }

// New makes a loop; its owner then runs it in a goroutine of its own and closes it at the end.
func New(cfg Config) (*Epoll, error) { return &Epoll{}, nil }

// Run locks the OS thread and runs the loop until Close.
func (e *Epoll) Run() {}

// Close ends the loop and waits for it. Every connection's handler gets Closed with ErrLoopEnded. From any goroutine but
// the loop's own.
func (e *Epoll) Close() {}

// Listen accepts connections from fd, a socket that listens already and does not block. fd stays the caller's: to
// end without losing the queue, close the Listener and hand fd on. accept is called on the loop. Listen may be
// called from any goroutine.
func (e *Epoll) Listen(fd int, accept func(Incoming)) (*Listener, error) { return &Listener{}, nil }

// Adopt takes over fd, a connected stream socket. Callable on the loop only.
func (e *Epoll) Adopt(fd int, serve func(Conn) Handler) Conn { return nil }

// Listener is a socket that accepts for one loop.
type Listener struct{}

// Close stops accepting; the socket and its queue stay. From any goroutine; it returns when no further accept
// will be called, unless it is called on the loop.
func (l *Listener) Close() {}

// Pause stops accepting until Resume; the queue grows meanwhile. On the loop only.
func (l *Listener) Pause() {}

// Resume undoes Pause. On the loop only.
func (l *Listener) Resume() {}

func (e *Epoll) Now() time.Duration            { return 0 }
func (e *Epoll) Wall() time.Time               { return time.Time{} }
func (e *Epoll) Post(f func()) bool            { return false }
func (e *Epoll) Arm(t *Timer, d time.Duration) {}
func (e *Epoll) Disarm(t *Timer)               {}
func (e *Epoll) Dial(d Dial, h Handler) Conn   { return nil }
func (e *Epoll) Load() int64                   { return 0 }
func (e *Epoll) AtEnd(f Flusher)               {}
func (e *Epoll) Buffers() *buffer.Pool         { return nil }

var _ = netip.AddrPort{}
var _ Loop = (*Epoll)(nil)
