// Package sim is the twin of the world that the proxy lives in: loops, sockets and time, all in one goroutine and
// all decided by one seed. World has virtual time and a virtual network with short reads, random delays, turns in
// random order, small buffers, half-close and resets; Loop implements loop.Loop on it. The same seed gives the
// same run. Nothing here is safe for concurrent use; Post is no exception. Start reading at World.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Config of a World. The zero value is a hostile but faultless network.
type Config struct {
	Seed     uint64
	MaxDelay time.Duration // of one segment, and of the time from an event to the turn that sees it; 0: 5 ms
	Window   int           // bytes in flight and unread per direction; 0: 64 KiB
	Narrow   bool          // some directions of some connections have down to a 64th of Window
	Resets   float64       // chance that a segment resets its connection instead of arriving; 0: none
	Whole    bool          // reads and writes are not cut short
	Cut      *Cut          // breaks one connection; nil: none
}

// World holds virtual time and the network.
type World struct {
	cfg       Config
	now       time.Duration
	rng       *rand.Rand
	queue     agenda
	count     uint64 // of events ever put on the agenda: the order among those of the same time
	loops     []*Loop
	listeners map[netip.AddrPort]*Listener
	turned    map[netip.AddrPort]netip.AddrPort
	holes     map[netip.AddrPort]bool
	port      uint16 // last one given
	links     []link
	born      int           // ends of connections
	wall      time.Duration // what the calendar is ahead of the loops' time
	ran       *Loop         // in the latest step
}

// epoch is the wall-clock time at virtual time 0.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes a world at time 0.
func New(cfg Config) *World {
	if cfg.MaxDelay <= 0 {
		cfg.MaxDelay = 5 * time.Millisecond
	}
	if cfg.Window <= 0 {
		cfg.Window = 64 << 10
	}
	return &World{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x7475_6c6c_65)), port: 32768,
		listeners: map[netip.AddrPort]*Listener{}, turned: map[netip.AddrPort]netip.AddrPort{}, holes: map[netip.AddrPort]bool{},
	}
}

// Now answers the virtual time.
func (w *World) Now() time.Duration { return w.now }

// Rand answers the world's source of chance, for whoever makes load.
func (w *World) Rand() *rand.Rand { return w.rng }

// NewLoop makes a loop. address is where its connections come from when a Dial names no source.
func (w *World) NewLoop(address netip.Addr) *Loop {
	l := &Loop{world: w, address: address, now: w.now}
	w.loops = append(w.loops, l)
	return l
}

// Listen makes accept be called on l for every connection to addr. Port 0 takes a free one. Listening twice on
// one address is a mistake of the test and panics.
func (w *World) Listen(l *Loop, addr netip.AddrPort, accept func(loop.Incoming)) *Listener {
	if addr.Port() == 0 {
		addr = netip.AddrPortFrom(addr.Addr(), w.freePort())
	}
	if w.listeners[addr] != nil {
		panic(fmt.Sprintf("sim: somebody listens on %v already", addr))
	}
	ln := &Listener{world: w, loop: l, addr: addr, accept: accept}
	w.listeners[addr] = ln
	return ln
}

// Turn makes connections to wanted arrive at addr, as capture does; Incoming.Wanted then answers wanted.
func (w *World) Turn(wanted, addr netip.AddrPort) { w.turned[wanted] = addr }

// Blackhole makes connections to addr get no answer.
func (w *World) Blackhole(addr netip.AddrPort) { w.holes[addr] = true }

// Step does the next thing and reports false when nothing is left to do.
func (w *World) Step() bool {
	if len(w.queue) == 0 {
		return false
	}
	e := heap.Pop(&w.queue).(event)
	w.now, w.ran = max(w.now, e.at), nil
	e.do()
	return true
}

// Run steps until virtual time d from now has passed.
func (w *World) Run(d time.Duration) {
	w.Until(d, func() bool { return false })
}

// Until steps until cond holds, and reports false if virtual time d passes or nothing is left to do before.
func (w *World) Until(d time.Duration, cond func() bool) bool {
	for end := w.now + d; !cond(); {
		if len(w.queue) == 0 || w.queue[0].at > end {
			w.now = max(w.now, end)
			return cond()
		}
		w.Step()
	}
	return true
}

// after has f done d from now.
func (w *World) after(d time.Duration, f func()) {
	w.count++
	heap.Push(&w.queue, event{at: w.now + d, order: w.count, do: f})
}

// delay answers a random time up to the world's bound; most are short.
func (w *World) delay() time.Duration {
	return time.Duration(w.rng.Float64() * w.rng.Float64() * float64(w.cfg.MaxDelay))
}

// some answers a random part of n, at least 1: how much of n bytes moves at once.
func (w *World) some(n int) int {
	if n <= 1 || w.cfg.Whole {
		return n
	}
	switch w.rng.IntN(8) {
	case 0:
		return 1
	case 1, 2, 3:
		return 1 + w.rng.IntN(n)
	}
	return n
}

func (w *World) freePort() uint16 {
	w.port = max(w.port+1, 32768)
	return w.port
}

// Listener is one listening address.
type Listener struct {
	world  *World
	loop   *Loop
	addr   netip.AddrPort
	accept func(loop.Incoming)
}

// Addr answers where it listens.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Close stops accepting; connections to the address are refused from now on.
func (l *Listener) Close() { delete(l.world.listeners, l.addr) }

// event is one entry of the agenda.
type event struct {
	at    time.Duration
	order uint64
	do    func()
}

// agenda is what is to be done, the earliest first.
type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = event{}
	*a = (*a)[:last]
	return e
}
