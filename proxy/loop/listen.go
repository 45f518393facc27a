package loop

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/origdst"
)

// acceptPause is how long a listener rests when there are no descriptors or memory left.
const acceptPause = 100 * time.Millisecond

// Listener is a socket that accepts for one loop.
type Listener struct {
	e       *Epoll
	fd      int
	accept  func(Incoming)
	slot    int32
	added   bool // registered with epoll
	paused  bool
	rest    Timer
	closed  atomic.Bool
	removed chan struct{}
}

// Listen accepts connections from fd, a socket that listens already and does not block. fd stays the caller's: to
// end without losing the queue, close the Listener and hand fd on; it must stay open until the Listener is closed.
// Several loops may listen on the same fd. accept is called on the loop. From any goroutine.
func (e *Epoll) Listen(fd int, accept func(Incoming)) (*Listener, error) {
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, fmt.Errorf("%s: descriptor %d does not listen; call listen(2) before handing it over", e.cfg.Name, fd)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("%s: descriptor %d: %w", e.cfg.Name, fd, err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // accepted sockets inherit it, and
	keepAlive(fd)                                                     // this
	l := &Listener{e: e, fd: fd, accept: accept, removed: make(chan struct{})}
	l.rest.Expired = l.add
	if !e.Post(l.add) {
		return nil, fmt.Errorf("%s: %w; listen before closing it", e.cfg.Name, ErrLoopEnded)
	}
	return l, nil
}

// Close stops accepting; the socket and its queue stay. From any goroutine but the loop's own, which has Pause. When it
// returns accept will not be called any more.
func (l *Listener) Close() {
	if l.closed.Swap(true) {
		return
	}
	posted := l.e.Post(func() { l.remove(); close(l.removed) })
	if posted && l.e.state.Load() != stateNew {
		<-l.removed
	}
}

// Pause stops accepting until Resume; the queue grows meanwhile. On the loop only.
func (l *Listener) Pause() {
	l.paused = true
	l.remove()
}

// Resume undoes Pause. On the loop only.
func (l *Listener) Resume() {
	l.paused = false
	l.add()
}

// add registers with epoll: by level, so that what is not accepted in one turn is told again, and exclusively,
// so that a connection wakes one of the loops that share the socket.
func (l *Listener) add() {
	if l.added || l.paused || l.closed.Load() || l.rest.Armed() {
		return
	}
	slot, gen := l.e.claim(nil, l)
	if err := control(l.e.epfd, unix.EPOLL_CTL_ADD, l.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, slot, gen); err != nil {
		l.e.release(slot)
		l.e.cfg.Logger.Error("cannot accept", "loop", l.e.cfg.Name, "error", err)
		return
	}
	l.slot, l.added = slot, true
}

func (l *Listener) remove() {
	l.e.Disarm(&l.rest)
	if l.added {
		l.added = false
		_ = control(l.e.epfd, unix.EPOLL_CTL_DEL, l.fd, 0, 0, 0)
		l.e.release(l.slot)
	}
}

func (l *Listener) acceptSome() {
	for range acceptsPerTurn {
		if !l.added {
			return
		}
		fd, remote, errno := accept4(l.fd)
		switch errno {
		case 0:
			l.accept(&incoming{e: l.e, fd: fd, remote: remote})
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			l.e.cfg.Logger.Warn("not accepting for a moment; raise the limit of open files", "loop", l.e.cfg.Name, "error", errno)
			l.remove()
			l.e.Arm(&l.rest, acceptPause)
			return
		}
	}
}

// incoming is Epoll's Incoming.
type incoming struct {
	e      *Epoll
	fd     int
	remote netip.AddrPort
	local  netip.AddrPort
}

func (in *incoming) Remote() netip.AddrPort { return in.remote }

func (in *incoming) Local() netip.AddrPort {
	if !in.local.IsValid() {
		in.local = sockName(unix.SYS_GETSOCKNAME, in.fd)
	}
	return in.local
}

func (in *incoming) Wanted() netip.AddrPort {
	family, err := unix.GetsockoptInt(in.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil && in.remote.IsValid() {
		if a, err := origdst.Get(in.fd, family == unix.AF_INET6); err == nil {
			return a
		}
	}
	return in.Local()
}

func (in *incoming) Refuse() { resetFD(in.fd) }

func (in *incoming) Adopt(l Loop, serve func(Conn) Handler) {
	e, ok := l.(*Epoll)
	if !ok {
		panic("loop: an accepted connection can go to an Epoll only")
	}
	e.load.Add(1)
	e.accepted.Add(1) // now, so that whoever compares loops sees it at once
	if e == in.e {
		e.adopt(in.fd, true, in.remote, in.local, serve)
		return
	}
	if !e.Post(func() { e.adopt(in.fd, true, in.remote, in.local, serve) }) {
		e.load.Add(-1)
		e.accepted.Add(-1)
		resetFD(in.fd)
	}
}

// Adopt takes over fd, a connected stream socket; it is the loop's to close. serve answers the handler, or nil if
// it has called SetHandler. On the loop only. Opened, and what has arrived already, come in this or the next turn.
func (e *Epoll) Adopt(fd int, serve func(Conn) Handler) Conn {
	_ = unix.SetNonblock(fd, true)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	e.load.Add(1)
	return e.adopt(fd, false, netip.AddrPort{}, netip.AddrPort{}, serve)
}

func (e *Epoll) adopt(fd int, accepted bool, remote, local netip.AddrPort, serve func(Conn) Handler) Conn {
	c := &conn{e: e, fd: -1, accepted: accepted, remote: remote, local: local, opening: true, more: true}
	c.timer.Expired = c.expire
	err := c.register(fd)
	if h := serve(c); h != nil {
		c.h = h
	}
	if err != nil {
		c.drop(err)
		return c
	}
	c.wake()
	return c
}
