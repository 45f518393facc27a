// Package sim is the twin of the world that the proxy lives in: loops, sockets and time, all in one goroutine and
// all decided by one seed. World has virtual time and a virtual network with short reads, random delays, turns in
// random order, small buffers, half-close and resets; Loop implements loop.Loop on it. The same seed gives the
// same run. Nothing here is safe for concurrent use. Start reading at World.
package sim

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/proxy/buffer"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Config of a World. The zero value is a hostile but faultless network.
type Config struct {
	Seed     uint64
	MaxDelay time.Duration // of one segment; 0: 5 ms
	Window   int           // bytes in flight and unread per direction; 0: 64 KiB
	Resets   float64       // chance that a segment resets its connection instead of arriving; 0: none
	Whole    bool          // reads are not cut short
}

// World holds virtual time and the network.
type World struct{ cfg Config }

// New makes a world at time 0.
func New(cfg Config) *World { return &World{cfg: cfg} }

// Now answers the virtual time.
func (w *World) Now() time.Duration { return 0 }

// NewLoop makes a loop. address is where its connections come from when a Dial names no source.
func (w *World) NewLoop(address netip.Addr) *Loop { return &Loop{} }

// Listen makes accept be called on l for every connection to addr. Port 0 takes a free one; the address listened on is answered.
func (w *World) Listen(l *Loop, addr netip.AddrPort, accept func(loop.Incoming)) *Listener {
	return nil
}

// Turn makes connections to wanted arrive at addr, as capture does; Incoming.Wanted then answers wanted.
func (w *World) Turn(wanted, addr netip.AddrPort) {}

// Blackhole makes connections to addr get no answer.
func (w *World) Blackhole(addr netip.AddrPort) {}

// Step does the next thing and reports false when nothing is left to do.
func (w *World) Step() bool { return false }

// Run steps until virtual time d from now has passed.
func (w *World) Run(d time.Duration) {}

// Until steps until cond holds, and reports false if virtual time d passes or nothing is left to do before.
func (w *World) Until(d time.Duration, cond func() bool) bool { return false }

// Listener is one listening address.
type Listener struct{}

// Addr answers where it listens.
func (l *Listener) Addr() netip.AddrPort { return netip.AddrPort{} }

// Close stops accepting.
func (l *Listener) Close() {}

// Loop is a loop.Loop with virtual time.
type Loop struct{}

func (l *Loop) Now() time.Duration                         { return 0 }
func (l *Loop) Wall() time.Time                            { return time.Time{} }
func (l *Loop) Post(f func()) bool                         { return false }
func (l *Loop) Arm(t *loop.Timer, d time.Duration)         {}
func (l *Loop) Disarm(t *loop.Timer)                       {}
func (l *Loop) Dial(d loop.Dial, h loop.Handler) loop.Conn { return nil }
func (l *Loop) Load() int64                                { return 0 }
func (l *Loop) AtEnd(f loop.Flusher)                       {}
func (l *Loop) Buffers() *buffer.Pool                      { return nil }

// Close ends the loop: every handler gets Closed with loop.ErrLoopEnded.
func (l *Loop) Close() {}

var _ loop.Loop = (*Loop)(nil)
