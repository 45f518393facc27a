package gateway

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/handover"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// listener is one listener by its name, whatever version of it is in force.
type listener struct {
	g     *Gateway
	name  string
	now   atomic.Pointer[version] // nil: none yet
	conns atomic.Int64

	// Under Gateway.mu.
	next    *version // waits for what it needs
	since   time.Time
	static  bool                       // of the bootstrap
	sockets map[netip.AddrPort]*socket // by the address asked for
}

// socket is one open file description that all loops accept from.
type socket struct {
	fd     int
	bound  netip.AddrPort
	accept []*loop.Listener
}

// open opens what v needs and l does not have yet.
func (l *listener) open(v *version) (opened []netip.AddrPort, err error) {
	for _, at := range v.model.Addresses {
		if l.sockets[at] != nil {
			continue
		}
		s, err := l.g.openSocket(at, int(v.model.Backlog))
		if err != nil {
			for _, a := range opened {
				l.sockets[a].close()
				delete(l.sockets, a)
			}
			return nil, fmt.Errorf("listener %s: %w", l.name, err)
		}
		l.sockets[at] = s
		opened = append(opened, at)
	}
	return opened, nil
}

// accept has the loops accept from the sockets at some addresses.
func (l *listener) accept(at []netip.AddrPort) error {
	for _, a := range at {
		s := l.sockets[a]
		for _, w := range l.g.workers {
			al, err := w.loop.Listen(s.fd, func(in loop.Incoming) { w.accept(l, in) })
			if err != nil {
				return fmt.Errorf("listener %s: %w", l.name, err)
			}
			s.accept = append(s.accept, al)
		}
	}
	return nil
}

// queueTime bounds how long a listener that is to be closed accepts what waits in its queue.
const queueTime = 200 * time.Millisecond

// empty waits until nothing waits in the sockets' queues, which the loops empty.
func (l *listener) empty(until time.Time) {
	for _, s := range l.sockets {
		s.empty(until)
	}
}

func (s *socket) empty(until time.Time) {
	for handover.Queued(s.fd) && time.Now().Before(until) {
		time.Sleep(time.Millisecond)
	}
}

// close ends accepting and closes the sockets.
func (l *listener) close() {
	for at, s := range l.sockets {
		s.close()
		delete(l.sockets, at)
	}
}

func (s *socket) stop() {
	for _, a := range s.accept {
		a.Close()
	}
	s.accept = nil
}

func (s *socket) close() {
	s.stop()
	_ = unix.Close(s.fd)
}

// Listening answers the addresses that a listener is bound to, for a port of 0 the one that was chosen.
func (g *Gateway) Listening(name string) (out []netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.listeners[name]
	if l == nil {
		return nil
	}
	if v := l.now.Load(); v != nil {
		for _, at := range v.model.Addresses {
			if s := l.sockets[at]; s != nil {
				out = append(out, s.bound)
			}
		}
	}
	return out
}

// openSocket takes over what was handed over for an address, or opens a socket there.
func (g *Gateway) openSocket(at netip.AddrPort, backlog int) (*socket, error) {
	if g.cfg.Inherited != nil {
		if fd, ok := g.cfg.Inherited(at); ok {
			return &socket{fd: fd, bound: boundTo(fd, at)}, nil
		}
	}
	family, v6 := unix.AF_INET, at.Addr().Is6() && !at.Addr().Is4In6()
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: socket: %w", at, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().Unmap().As4()}
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	if backlog <= 0 {
		backlog = unix.SOMAXCONN
	}
	if err = unix.Bind(fd, sa); err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, whyNot(at, err)
	}
	return &socket{fd: fd, bound: boundTo(fd, at)}, nil
}

// whyNot says what to do about an address that cannot be listened on.
func whyNot(at netip.AddrPort, err error) error {
	switch err {
	case syscall.EADDRINUSE:
		return fmt.Errorf("address %s is in use; stop whoever listens there, or choose another port", at)
	case syscall.EACCES:
		return fmt.Errorf("address %s: %w; ports below 1024 need CAP_NET_BIND_SERVICE", at, err)
	case syscall.EADDRNOTAVAIL:
		return fmt.Errorf("address %s is none of this machine; choose one that is, or 0.0.0.0", at)
	}
	return fmt.Errorf("address %s: %w", at, err)
}

func boundTo(fd int, at netip.AddrPort) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return at
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return at
}

// version is one version of a listener, ready to serve. Immutable but for its chains' retired.
type version struct {
	model *model.Listener
	chains
}
