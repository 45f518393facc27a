package gateway

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/proxy/handover"
)

// Offer answers duplicates of every listening socket, the admin's too, for the proxy after this one: handover.Config.Offer.
func (g *Gateway) Offer() (handover.Offer, error) {
	var out handover.Offer
	add := func(at netip.AddrPort, fd int) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			out.Listeners = append(out.Listeners, handover.Listener{Address: at.String(), FD: dup})
		}
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out.Tickets = g.tickets.Bytes()
	var err error
	for _, l := range g.listeners {
		for _, s := range l.sockets {
			if err == nil {
				err = add(s.bound, s.fd)
			}
		}
	}
	if at, raw, ok := g.adminSocket(); ok && err == nil {
		if err2 := raw.Control(func(fd uintptr) { err = add(at, int(fd)) }); err == nil {
			err = err2
		}
	}
	if err != nil {
		for _, l := range out.Listeners {
			_ = unix.Close(l.FD)
		}
	}
	return out, err
}

func (g *Gateway) adminSocket() (at netip.AddrPort, raw syscall.RawConn, ok bool) {
	l, ok := g.adminListener.(*net.TCPListener)
	if !ok {
		return at, nil, false
	}
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return at, nil, false
	}
	raw, err = l.SyscallConn()
	return at, raw, err == nil
}

// Yield is handover.Config.Yield: the proxy after this one accepts on the addresses in took. Nothing is accepted here when
// it returns; drain then.
func (g *Gateway) Yield(took map[string]bool) {
	g.draining.Store(true)
	g.mu.Lock()
	questions := g.admin
	g.admin = nil
	g.mu.Unlock()
	if questions != nil {
		questions.Close() // the next one answers
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	until := time.Now().Add(queueTime)
	for _, l := range g.listeners {
		for at, s := range l.sockets {
			if !took[s.bound.String()] {
				s.empty(until)
			}
			s.close()
			delete(l.sockets, at)
		}
	}
}
