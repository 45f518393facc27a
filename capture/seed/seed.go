// Package seed makes sockets inside a network namespace from outside it, without any capability and without a
// process inside. A listener and one unconnected socket (the seed) were made in the namespace; connecting one to
// the other gives an accepted socket that lives there too and has the seed listener's mark, and connect(AF_UNSPEC)
// takes both ends back to the unconnected state. What is minted can connect, or bind first to the address of
// whoever is being served: every address is local in that namespace. It never starts a process and never blocks
// for longer than a loopback connect. All methods may be called from any goroutine. Start reading at Seed.Mint.
package seed

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// tries bounds how often one Mint starts again after a foreign or broken connection.
const tries = 8

// patience bounds one wait for the loopback connection, in milliseconds.
const patience = 1000

// Seed mints sockets of one address family in one namespace.
type Seed struct {
	mu       sync.Mutex
	v6       bool
	seed     int
	listener int
}

// New takes over the two descriptors of a seed: an unconnected TCP socket, and a listening one of the same family
// and namespace. Both come from the namespace's shim by way of the bootstrap.
func New(seed, listener int, v6 bool) *Seed { return &Seed{v6: v6, seed: seed, listener: listener} }

// Pair mints in either address family. A nil V6 means that the machine has no IPv6.
type Pair struct{ V4, V6 *Seed }

// Mint makes a socket of the family asked for; it has the shape of loop.Dial.Socket.
func (p *Pair) Mint(v6 bool) (int, error) {
	s := p.V4
	if v6 {
		s = p.V6
	}
	if s == nil {
		return -1, fmt.Errorf("mint: %w", unix.EAFNOSUPPORT)
	}
	return s.Mint()
}

// Close gives up both seeds.
func (p *Pair) Close() {
	for _, s := range []*Seed{p.V4, p.V6} {
		if s != nil {
			s.Close()
		}
	}
}

// Close gives up the two descriptors. What was minted lives on.
func (s *Seed) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	unix.Close(s.seed)
	unix.Close(s.listener)
	s.seed, s.listener = -1, -1
}

var errForeign = errors.New("connection of somebody else")

// Mint answers a fresh, unconnected, unbound TCP socket inside the namespace: non-blocking, close-on-exec, with
// TCP_NODELAY, marked as the namespace's rules want it, and allowed to bind any address. The caller owns it. Cost: some 50 µs.
func (s *Seed) Mint() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seed < 0 {
		return -1, errors.New("mint: seed is closed")
	}
	var err error
	for range tries {
		var fd int
		if fd, err = s.once(); err == nil {
			return fd, nil
		}
	}
	return -1, fmt.Errorf("mint a socket in the program's namespace: %w", err)
}

func (s *Seed) once() (fd int, err error) {
	defer func() {
		if e := Disconnect(s.seed); err == nil && e != nil {
			unix.Close(fd)
			err = fmt.Errorf("unconnect the seed: %w", e)
		}
	}()
	to, err := unix.Getsockname(s.listener)
	if err != nil {
		return -1, err
	}
	if err = unix.Connect(s.seed, loopback(to)); err == unix.EINPROGRESS || err == unix.EINTR {
		err = s.await(s.seed, unix.POLLOUT)
	}
	if err != nil {
		return -1, fmt.Errorf("connect: %w", err)
	}
	return s.accept()
}

// accept takes our own connection off the queue and anybody else's with it. (The namespace's rules refuse other
// connections to the seed listener; this holds where they have been there before the rules.)
func (s *Seed) accept() (int, error) {
	want, err := unix.Getsockname(s.seed)
	if err != nil {
		return -1, err
	}
	for range tries {
		fd, peer, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN || err == unix.EINTR {
			if err = s.await(s.listener, unix.POLLIN); err != nil {
				return -1, err
			}
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("accept: %w", err)
		}
		if !same(peer, want) {
			unix.Close(fd)
			continue
		}
		if err := s.prepare(fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	return -1, errForeign
}

// prepare makes an accepted socket a fresh one. A socket cloned by accept keeps neither port nor address here,
// because the listener is bound to the wildcard address.
func (s *Seed) prepare(fd int) error {
	if err := Disconnect(fd); err != nil {
		return fmt.Errorf("unconnect: %w", err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	level, opt := unix.IPPROTO_IP, unix.IP_FREEBIND
	if s.v6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	return unix.SetsockoptInt(fd, level, opt, 1)
}

// await blocks until fd is ready, at most for patience.
func (s *Seed) await(fd int, events int16) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(p, patience)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ETIMEDOUT
		}
		break
	}
	if events&unix.POLLOUT != 0 {
		e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && e != 0 {
			err = unix.Errno(e)
		}
		return err
	}
	return nil
}

// disconnect is connect(AF_UNSPEC): a TCP socket goes back to the state it was made in, from any other.
func Disconnect(fd int) error {
	var raw unix.RawSockaddr // Family is AF_UNSPEC
	return connectRaw(fd, &raw)
}

func loopback(to unix.Sockaddr) unix.Sockaddr {
	switch a := to.(type) {
	case *unix.SockaddrInet4:
		return &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte{127, 0, 0, 1}}
	case *unix.SockaddrInet6:
		return &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte{15: 1}}
	}
	return to
}

func same(a, b unix.Sockaddr) bool {
	switch x := a.(type) {
	case *unix.SockaddrInet4:
		y, ok := b.(*unix.SockaddrInet4)
		return ok && x.Port == y.Port && x.Addr == y.Addr
	case *unix.SockaddrInet6:
		y, ok := b.(*unix.SockaddrInet6)
		return ok && x.Port == y.Port && x.Addr == y.Addr
	}
	return false
}
