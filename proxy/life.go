package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/ready"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/live"
)

// Times of a workload's end.
const (
	withdrawWait = 2 * time.Second // for the callers' proxies to know
	drainWait    = 2 * time.Second // for what is under way
	waitEvery    = 100 * time.Millisecond
)

// Times of a proxy that replaces another one, or is replaced.
const (
	controlWait = 5 * time.Second        // for the control plane's first answer
	idleWait    = 10 * time.Second       // for an idle connection's next request
	leaveMost   = 24 * time.Hour         // for everything
	leaveEvery  = 100 * time.Millisecond // a look whether everything has ended
	reportWait  = time.Second            // for the last report to be sent
)

// life is where the workload stands between its start and its end.
type life struct {
	announced atomic.Bool
	leaving   atomic.Bool
	retired   atomic.Bool // another proxy serves the sockets
	mu        sync.Mutex
	probing   context.CancelFunc // ends the probe of the program's readiness; nil while there is none
}

// Follow obeys the supervisor until it says goodbye or is gone; then the proxy has drained and can be closed.
func (p *Proxy) Follow(link *bootstrap.Link) error {
	if p.cfg.Bootstrap.Withdrawn {
		p.leaving.Store(true) // the proxy before this one has said so
	} else if p.announced.Load() {
		_ = link.Send(bootstrap.Message{Event: bootstrap.EventAnnounced}) // a supervisor that is gone is seen by Next
	} else if p.cfg.Bootstrap.Program != 0 {
		p.announceWhenReady(link)
	}
	if err := link.Send(bootstrap.Message{Event: bootstrap.EventReady, Version: p.cfg.Version}); err != nil {
		return err
	}
	for {
		m, err := link.Next()
		if err != nil {
			p.goodbye()
			return nil // the supervisor is gone, so is the program
		}
		switch m.Cmd {
		case bootstrap.CmdStarted:
			p.announceWhenReady(link)
		case bootstrap.CmdWait:
			p.tasks.Go(func() { p.answerWait(link, m.Services) })
		case bootstrap.CmdWithdraw:
			p.tasks.Go(func() {
				p.withdrawn()
				_ = link.Send(bootstrap.Message{Event: bootstrap.EventWithdrawn}) // a supervisor that is gone is seen by Next
			})
		case bootstrap.CmdGoodbye:
			p.goodbye()
			return nil
		case bootstrap.CmdRetire:
			if p.retired.Swap(true) {
				continue
			}
			within := min(time.Duration(m.Within)*time.Millisecond, leaveMost)
			p.tasks.Go(func() {
				p.retire(link, within)
				link.Close() // ends Follow
			})
		}
	}
}

// Retired reports whether another proxy has taken over; what belongs to the workload is that one's.
func (p *Proxy) Retired() bool { return p.retired.Load() }

// Ready answers why this proxy's workload takes no requests, nil if it does.
func (p *Proxy) Ready() error {
	switch {
	case p.leaving.Load():
		return errors.New("the workload is leaving")
	case len(p.ports) > 0 && !p.announced.Load():
		return errors.New("the program is not ready yet")
	case p.shut():
		return errNotCaptured
	}
	return nil
}

// announceWhenReady probes the program and then announces the workload, in the background.
func (p *Proxy) announceWhenReady(link *bootstrap.Link) {
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	if p.probing != nil {
		p.probing()
	}
	p.probing = cancel
	p.mu.Unlock()
	p.tasks.Go(func() {
		defer cancel()
		if len(p.ports) == 0 && p.cfg.Bootstrap.Ready == "" {
			p.announce(link)
			return
		}
		var port uint16
		if len(p.ports) > 0 {
			port = p.ports[0].Port
		}
		probe, err := ready.Parse(p.cfg.Bootstrap.Ready, port)
		if err != nil {
			_ = link.Send(bootstrap.Message{Event: bootstrap.EventFailed, Error: err.Error()}) // likewise
			return
		}
		if probe.Wait(ctx, p.dialProgram) == nil {
			p.announce(link)
		}
	})
}

func (p *Proxy) announce(link *bootstrap.Link) {
	if p.leaving.Load() {
		return
	}
	p.announced.Store(true)
	p.client.SetReady(!p.shut())
	_ = link.Send(bootstrap.Message{Event: bootstrap.EventAnnounced}) // likewise
}

// dialProgram connects to a port of the program through a socket made inside its namespace, wherever it listens.
func (p *Proxy) dialProgram(ctx context.Context, port uint16) (net.Conn, error) {
	var first error
	for _, a := range listens {
		c, err := p.dialProgramAt(ctx, netip.AddrPortFrom(a, port))
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (p *Proxy) dialProgramAt(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	v6 := to.Addr().Is6()
	fd, err := p.seeds.Mint(v6)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "program")
	defer f.Close()
	var addr unix.Sockaddr
	if v6 {
		addr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		addr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if err := unix.Connect(fd, addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, fmt.Errorf("port %d: %w", to.Port(), err)
	}
	if err := awaitConnect(ctx, fd); err != nil {
		return nil, fmt.Errorf("port %d: %w", to.Port(), err)
	}
	return net.FileConn(f)
}

// awaitConnect waits until a connect under way has succeeded or failed. On the program's loopback that is at once.
func awaitConnect(ctx context.Context, fd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, 50)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && e != 0 {
				err = unix.Errno(e)
			}
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// answerWait waits until every service has a live endpoint.
func (p *Proxy) answerWait(link *bootstrap.Link, services []string) {
	for _, s := range services {
		name := model.ServiceName{Namespace: p.self.Namespace, Name: s}
		if n, err := model.ParseServiceName(s); err == nil {
			name = n
		}
		for !p.available(name) {
			if p.leaving.Load() {
				return
			}
			time.Sleep(waitEvery)
		}
	}
	_ = link.Send(bootstrap.Message{Event: bootstrap.EventWaited}) // a supervisor that is gone waits no more
}

// available reports whether a service has an endpoint that takes requests on its first port.
func (p *Proxy) available(name model.ServiceName) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, why := p.live.Find(ctx, name)
	if why != failure.None || s == nil || len(s.Ports) == 0 {
		return false
	}
	found := make(chan bool, 1)
	w := p.workers[0]
	posted := w.loop.Post(func() {
		p.live.ByName(w.loop, model.PortName{Service: name, Port: s.Ports[0].Port}, func(port *live.Port, _ failure.Reason) {
			found <- port != nil && hasEndpoint(port)
		})
	})
	return posted && <-found
}

func hasEndpoint(port *live.Port) bool {
	c := port.Cluster(port.Name())
	if c == nil {
		return false
	}
	for _, e := range c.Endpoints() {
		if e.Model().Health == model.Healthy {
			return true
		}
	}
	return false
}

// withdraw takes the workload out of its service and returns when its callers know, or after withdrawWait.
func (p *Proxy) withdraw() {
	if p.leaving.Swap(true) {
		return
	}
	p.mu.Lock()
	if p.probing != nil {
		p.probing()
	}
	p.mu.Unlock()
	p.reportNow()
	ctx, cancel := context.WithTimeout(context.Background(), withdrawWait)
	defer cancel()
	if err := p.client.Withdraw(ctx); err != nil && len(p.ports) > 0 { // a pure client has no callers
		p.cfg.Log.Warn("withdrawn without the callers' acknowledgement", "error", err)
	}
}

// withdrawn withdraws and lets the program answer what its callers have sent it by then; withdrawWait bounds both.
func (p *Proxy) withdrawn() {
	end := time.Now().Add(withdrawWait)
	p.withdraw()
	p.until(end, func(w *worker) int { return w.exchange.Served() })
	for _, w := range p.workers {
		w.loop.Post(w.pool.Unneeded)
	}
}

// goodbye withdraws, then waits for what is under way, at most drainWait.
func (p *Proxy) goodbye() {
	p.withdraw()
	for _, w := range p.workers {
		w.loop.Post(w.drain)
	}
	p.until(time.Now().Add(drainWait), (*worker).busy)
	p.reportNow()
}

// awaitControl returns when the control plane has answered: a proxy beside which another one still serves with what it
// knows must not know less.
func (p *Proxy) awaitControl(ctx context.Context) error {
	for end := time.Now().Add(controlWait); !p.client.State().Connected; {
		if time.Now().After(end) {
			return fmt.Errorf("the control plane at %s does not answer: %s", p.cfg.Control, p.client.State().LastError)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitEvery / 10):
		}
	}
	return nil
}

// retire leaves the sockets and the workload to the proxy that has taken over, and waits until everything that is open
// here has ended, for within at most.
func (p *Proxy) retire(link *bootstrap.Link, within time.Duration) {
	begun := time.Now()
	p.client.Retire()
	for _, w := range p.workers {
		w.stopAccepting()
	}
	p.dns.Retire()
	p.admin.Close()
	if p.workload != nil {
		p.workload.Close() // its streams go on with the next proxy
	}
	for _, w := range p.workers {
		w.loop.Post(w.leave)
	}
	open, idle := p.open(), begun.Add(idleWait)
	for ; open > 0 && time.Since(begun) < within; open = p.open() {
		if time.Now().After(idle) {
			idle = idle.Add(idleWait)
			for _, w := range p.workers {
				w.loop.Post(w.leaveIdle)
			}
		}
		select {
		case <-p.ended:
			return
		case <-time.After(leaveEvery):
		}
	}
	p.lastReport()
	_ = link.Send(bootstrap.Message{Event: bootstrap.EventRetired, Open: open}) // it may be gone
}

// lastReport is what this proxy has counted in all; the next one counts from zero.
func (p *Proxy) lastReport() {
	p.reportNow()
	for end := time.Now().Add(reportWait); !p.client.Reported() && time.Now().Before(end); {
		time.Sleep(leaveEvery / 10)
	}
	time.Sleep(leaveEvery) // until it is on its way
}

// open answers how many connections there are, from and to anybody.
func (p *Proxy) open() int {
	n := 0
	for _, w := range p.workers {
		n += int(w.loop.Load())
	}
	return n
}

// until waits for busy to be 0 on every loop, where it is called.
func (p *Proxy) until(end time.Time, busy func(*worker) int) {
	for time.Now().Before(end) {
		sum := 0
		for _, w := range p.workers {
			n := make(chan int, 1)
			if w.loop.Post(func() { n <- busy(w) }) {
				sum += <-n
			}
		}
		if sum == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ParseAddress reads the address that other proxies are told.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return a, fmt.Errorf("address %q: give a literal IPv4 or IPv6 address", s)
	}
	return a.Unmap(), nil
}
