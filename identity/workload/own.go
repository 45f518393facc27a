package workload

import (
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownOnly lets in who is in the network namespace in which the socket was made. The socket's file is hidden from others
// already; what runs as root beside the program could still reach it through /proc.
type ownOnly struct {
	net.Listener
	log    *slog.Logger
	cookie uint64 // of the namespace; 0: the kernel does not say (before 5.14), then the file's mode decides alone
	open   atomic.Int64
	said   time.Time // used by one goroutine, that of Accept
}

// sayEvery bounds how often who is refused is told of.
const sayEvery = 10 * time.Second

func own(l net.Listener, log *slog.Logger) net.Listener {
	return &ownOnly{Listener: l, log: log, cookie: namespaceOf(l)}
}

// Accept implements net.Listener.
func (o *ownOnly) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		switch {
		case o.cookie != 0 && namespaceOf(c) != o.cookie:
			o.refuse(c, "a process of another network namespace asked for the program's identity and was refused")
		case o.open.Load() >= MaxConnections:
			o.refuse(c, "the program has too many connections to the Workload API")
		default:
			o.open.Add(1)
			return &counted{Conn: c, of: o}, nil
		}
	}
}

func (o *ownOnly) refuse(c net.Conn, why string) {
	c.Close()
	if now := time.Now(); now.Sub(o.said) >= sayEvery {
		o.said = now
		o.log.Warn(why)
	}
}

// counted is a connection that is taken off the count when it is closed.
type counted struct {
	net.Conn
	of     *ownOnly
	closed atomic.Bool
}

// Close implements net.Conn.
func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.of.open.Add(-1)
	}
	return c.Conn.Close()
}

// namespaceOf answers the network namespace that a socket belongs to: a listener's is its maker's, that of an accepted
// connection is the caller's. 0: unknown.
func namespaceOf(x any) (cookie uint64) {
	s, ok := x.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		if n, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
			cookie = n
		}
	})
	if err != nil {
		return 0
	}
	return cookie
}
