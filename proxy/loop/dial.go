package loop

import (
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const connectTimeout = 10 * time.Second

// Dial starts a connection; see Loop.
func (e *Epoll) Dial(d Dial, h Handler) Conn {
	c := &conn{e: e, h: h, fd: -1, remote: d.Address, connecting: true}
	c.timer.Expired = c.expire
	e.load.Add(1)
	if len(d.Also) > 0 {
		c.others = &d
	}
	if err := c.connect(d); err != nil && !c.another() {
		c.drop(err)
		return c
	}
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = connectTimeout
	}
	e.Arm(&c.timer, timeout)
	return c
}

// another connects to the next address of the dial, and reports whether there was one.
func (c *conn) another() bool {
	for c.others != nil && len(c.others.Also) > 0 {
		if c.fd >= 0 {
			closeFD(c.fd)
			c.fd = -1
			c.e.release(c.slot)
		}
		d := c.others
		d.Address = netip.AddrPortFrom(d.Also[0], d.Address.Port())
		d.Also = d.Also[1:]
		c.remote = d.Address
		if c.connect(*d) == nil {
			return true
		}
	}
	return false
}

func (c *conn) connect(d Dial) error {
	if c.e.state.Load() == stateEnded {
		return ErrLoopEnded
	}
	if !d.Address.IsValid() {
		return syscall.EADDRNOTAVAIL
	}
	addr := netip.AddrPortFrom(d.Address.Addr().Unmap(), d.Address.Port())
	v6 := addr.Addr().Is6()
	fd, err := newSocket(d, v6)
	if err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	keepAlive(fd)
	if source := d.Source.Unmap(); source.IsValid() && source.Is6() == v6 {
		// The port is then chosen at the connect, when the whole tuple is known: no shortage of ports.
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		_ = unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0), v6))
	}
	if err := unix.Connect(fd, sockaddr(addr, v6)); err != nil && err != unix.EINPROGRESS {
		closeFD(fd)
		return err
	}
	return c.register(fd)
}

func newSocket(d Dial, v6 bool) (int, error) {
	if d.Socket != nil {
		fd, err := d.Socket(v6)
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		return fd, err
	}
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// register gives fd to epoll; on failure it is closed.
func (c *conn) register(fd int) error {
	var gen int32
	c.slot, gen = c.e.claim(c, nil)
	if err := control(c.e.epfd, unix.EPOLL_CTL_ADD, fd, connEvents, c.slot, gen); err != nil {
		c.e.release(c.slot)
		closeFD(fd)
		return err
	}
	c.fd = fd
	return nil
}

// connected looks at how a connect ended, and reports whether the connection stands.
func (c *conn) connected(ev uint32) bool {
	if ev&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return false
	}
	if ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		err := pendingError(c.fd)
		if err == nil {
			if ev&unix.EPOLLOUT == 0 || sockName(unix.SYS_GETPEERNAME, c.fd) == (netip.AddrPort{}) {
				err = syscall.ECONNREFUSED
			}
		}
		if err != nil {
			if !c.another() {
				c.fail(err)
			}
			return false
		}
	}
	c.connecting, c.others = false, nil
	c.e.Disarm(&c.timer)
	if !c.closing {
		c.opening = true
	}
	if len(c.out) > 0 || c.shut || c.closing {
		c.touch()
	}
	return true
}
