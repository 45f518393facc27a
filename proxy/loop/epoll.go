package loop

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/proxy/buffer"
)

// Bounds of a turn.
const (
	eventsPerTurn  = 256
	readsPerTurn   = 4  // scratch fulls from one connection, then the others have their turn
	acceptsPerTurn = 32 // from one listener
	trimAfter      = 2 * time.Second
	lingerTime     = 30 * time.Second // for Close to flush, anew with every byte that moves: the kernel holds much
	lingerMost     = 5 * time.Minute  // altogether
	drainTime      = 2 * time.Second  // then for the peer to end
	longest        = wheelMax * Tick / 2

	// yieldAfter is less than the 10 ms after which the runtime takes a goroutine that has not been scheduled anew for one that
	// runs too long, and its processor away at every look, also while it sleeps in epoll.
	yieldAfter = 5 * time.Millisecond
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

// Epoll is the real Loop. Everything that is not said to be for any goroutine belongs to the goroutine in Run.
type Epoll struct {
	cfg    Config
	epfd   int
	wakefd int // eventfd, edge-triggered and never read: every write is an event

	start   time.Time
	now     time.Duration
	yielded time.Duration // when sleep has given the scheduler a turn
	wallAt  time.Duration // when wall was taken
	wall    time.Time
	wheel   Wheel
	pool    buffer.Pool
	scratch []byte
	events  [eventsPerTurn]unix.EpollEvent

	slots  []slot
	vacant []int32
	ready  []*conn // have something to deliver that epoll will not tell
	dirty  []*conn // have something to flush
	gone   []*conn // handlers are to be told
	enders []Flusher
	spare  struct { // the other halves of the lists above, swapped while one is walked
		ready, dirty, gone []*conn
		enders             []Flusher
		posts              []func()
	}

	pipes     []pipe // empty, for splice.go
	pipesMade int
	splice    func(from, to, n int) (int, syscall.Errno)

	load     atomic.Int64
	accepted atomic.Int64 // of those
	busy     atomic.Int64 // see Busy,
	gaugeAt  atomic.Int64 // which was written then
	slept    time.Duration
	bed      time.Duration // when the loop went to sleep; 0: it did not
	state    atomic.Int32  // new, running, ended
	over     bool          // Close was asked for
	done     chan struct{}

	mu     sync.Mutex
	posts  []func()
	closed bool        // Post answers false
	asleep atomic.Bool // blocked in epoll, or about to
}

// slot is one registration with epoll. The generation tells an event of a descriptor that was closed in the
// same turn from one of its successor.
type slot struct {
	conn     *conn
	listener *Listener
	gen      int32
}

const wakeSlot = -1

// wakeUp is 1 as an eventfd takes it; never changed.
var wakeUp = func() (b [8]byte) { binary.NativeEndian.PutUint64(b[:], 1); return b }()

const (
	stateNew = iota
	stateRunning
	stateEnded
)

// New makes a loop; its owner then runs it in a goroutine of its own and closes it at the end.
func New(cfg Config) (*Epoll, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%s: epoll: %w; raise the limit of open files", cfg.Name, err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = control(epfd, unix.EPOLL_CTL_ADD, wakefd, unix.EPOLLIN|unix.EPOLLET, wakeSlot, 0)
	}
	if err != nil {
		closeFD(epfd)
		return nil, fmt.Errorf("%s: eventfd: %w; raise the limit of open files", cfg.Name, err)
	}
	e := &Epoll{
		cfg: cfg, epfd: epfd, wakefd: wakefd, start: began, now: time.Since(began), wall: time.Now(),
		scratch: make([]byte, ScratchSize), done: make(chan struct{}), splice: splice,
	}
	e.gaugeAt.Store(int64(e.now))
	return e, nil
}

// Run runs the loop until Close. It may be called once. Its goroutine is not tied to a thread (docs/adr/0004).
func (e *Epoll) Run() {
	if !e.state.CompareAndSwap(stateNew, stateRunning) {
		return
	}
	for !e.over {
		e.turn()
	}
	e.end()
}

// Close ends the loop and waits for it. Every connection's handler gets Closed with ErrLoopEnded. From any
// goroutine but the loop's own.
func (e *Epoll) Close() {
	if e.state.CompareAndSwap(stateNew, stateEnded) {
		e.end()
		return
	}
	e.Post(func() { e.over = true })
	<-e.done
}

// turn is one round of the loop; see the package comment.
func (e *Epoll) turn() {
	n := poll(e.epfd, e.events[:])
	if n == 0 && len(e.ready) == 0 && len(e.dirty) == 0 && len(e.gone) == 0 && len(e.enders) == 0 {
		n = e.sleep()
	}
	e.now = time.Since(e.start)
	if e.bed > 0 {
		e.gauge(e.now - e.bed)
		e.bed = 0
	} else {
		e.gauge(0)
	}
	for i := range e.events[:n] {
		e.dispatch(&e.events[i])
	}
	e.runPosts()
	e.wheel.Advance(e.now)
	e.serveReady()
	e.finish()
}

// sleep blocks until there is an event, a post or a timer.
func (e *Epoll) sleep() int {
	e.asleep.Store(true)
	e.mu.Lock()
	posted := len(e.posts) > 0
	e.mu.Unlock()
	if posted {
		e.asleep.Store(false)
		return 0
	}
	wait := -1
	now := time.Since(e.start)
	e.bed = now
	if now-e.yielded >= yieldAfter {
		e.yielded = now
		runtime.Gosched()
	}
	if at, ok := e.wheel.Next(); ok {
		wait = int(max(0, at-now+Tick-1) / Tick)
	}
	if e.pool.Kept() > 0 && (wait < 0 || wait > int(trimAfter/Tick)) {
		wait = int(trimAfter / Tick)
	}
	n, err := unix.EpollWait(e.epfd, e.events[:], wait)
	e.asleep.Store(false)
	if n == 0 && time.Since(e.start)-now >= trimAfter {
		e.pool.Trim()
	}
	if err != nil {
		return 0
	}
	return n
}

func (e *Epoll) dispatch(ev *unix.EpollEvent) {
	if ev.Fd == wakeSlot {
		return
	}
	s := &e.slots[ev.Fd]
	if s.gen != ev.Pad {
		return
	}
	if s.conn != nil {
		s.conn.event(ev.Events)
	} else if s.listener != nil {
		s.listener.acceptSome()
	}
}

// serveReady gives each connection that asked for it what it has already. Those that ask again come next turn.
func (e *Epoll) serveReady() {
	list := e.ready
	e.ready = e.spare.ready[:0]
	for i, c := range list {
		list[i] = nil
		c.serve()
	}
	e.spare.ready = list
}

func (e *Epoll) runPosts() {
	e.mu.Lock()
	list := e.posts
	if len(list) == 0 {
		e.mu.Unlock()
		return
	}
	e.posts = e.spare.posts[:0]
	e.mu.Unlock()
	for i, f := range list {
		list[i] = nil
		f()
	}
	e.spare.posts = list
}

// finish ends a turn: collected output goes to the connections, from there to the kernel, and handlers are told
// what closed. What the handlers do then is finished in a second round, and what follows from that next turn.
func (e *Epoll) finish() {
	for range 2 {
		ends := e.enders
		e.enders = e.spare.enders[:0]
		for i, f := range ends {
			ends[i] = nil
			f.Flush()
		}
		e.spare.enders = ends

		dirty := e.dirty
		e.dirty = e.spare.dirty[:0]
		for i, c := range dirty {
			dirty[i] = nil
			c.flush()
		}
		e.spare.dirty = dirty

		gone := e.gone
		e.gone = e.spare.gone[:0]
		for i, c := range gone {
			gone[i] = nil
			c.tellClosed()
		}
		e.spare.gone = gone
		if len(e.enders) == 0 && len(e.dirty) == 0 && len(e.gone) == 0 {
			return
		}
	}
}

// end runs what was posted, closes everything and tells the handlers.
func (e *Epoll) end() {
	e.state.Store(stateEnded)
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.runPosts()
	e.finish()
	for i := range e.slots {
		if c := e.slots[i].conn; c != nil {
			c.fail(ErrLoopEnded)
		}
	}
	// A handler that dials now gets a connection that fails; one that dials for ever would keep us here.
	for range 1000 {
		if len(e.gone) == 0 && len(e.dirty) == 0 && len(e.enders) == 0 {
			break
		}
		e.finish()
	}
	e.closePipes()
	closeFD(e.wakefd)
	closeFD(e.epfd)
	close(e.done)
}

// claim takes a slot.
func (e *Epoll) claim(c *conn, l *Listener) (index, gen int32) {
	if n := len(e.vacant); n > 0 {
		index = e.vacant[n-1]
		e.vacant = e.vacant[:n-1]
	} else {
		index = int32(len(e.slots))
		e.slots = append(e.slots, slot{})
	}
	s := &e.slots[index]
	s.conn, s.listener = c, l
	return index, s.gen
}

func (e *Epoll) release(index int32) {
	e.slots[index] = slot{gen: e.slots[index].gen + 1}
	e.vacant = append(e.vacant, index)
}

// Elapsed answers the time of all loops as it is now, for who is on none.
func Elapsed() time.Duration { return time.Since(began) }

// began is when every loop's clock starts, so that what loops share (token buckets, for example) has one time.
var began = time.Now()

// Now answers the time of this turn on the clock that all loops of the process share.
func (e *Epoll) Now() time.Duration { return e.now }

// Wall answers the wall-clock time of this turn; a clock that is set is noticed within a second.
func (e *Epoll) Wall() time.Time {
	if e.now-e.wallAt > time.Second || e.wallAt == 0 {
		e.wall, e.wallAt = time.Now().Round(0), e.now
	}
	return e.wall.Add(e.now - e.wallAt)
}

// Post runs f on the loop; see Loop.
func (e *Epoll) Post(f func()) bool {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return false
	}
	e.posts = append(e.posts, f)
	if e.asleep.CompareAndSwap(true, false) {
		_, _ = unix.Write(e.wakefd, wakeUp[:]) // inside the lock: end closes the descriptor after it has had the lock
	}
	e.mu.Unlock()
	return true
}

// Arm makes t expire after d; see Loop.
func (e *Epoll) Arm(t *Timer, d time.Duration) { e.wheel.Arm(t, e.now+min(d, longest)) }

// Disarm stops t.
func (e *Epoll) Disarm(t *Timer) { e.wheel.Disarm(t) }

// Load answers how many connections the loop has. From any goroutine.
func (e *Epoll) Load() int64 { return e.load.Load() }

// AtEnd calls f.Flush once at the end of this turn; see Ender.
func (e *Epoll) AtEnd(f Flusher) { e.enders = append(e.enders, f) }

// Buffers answers the loop's pool.
func (e *Epoll) Buffers() *buffer.Pool { return &e.pool }

var (
	_ Loop  = (*Epoll)(nil)
	_ Ender = (*Epoll)(nil)
)
