package live

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// service is one subscription of a service.
type service struct {
	model *model.Service // nil: does not exist, if known
	known bool
	used  bool // since the last sweep
	idle  int
}

// ask is somebody who waits. try, called under mu, reports whether the answer was given.
type ask struct{ try func() bool }

// command is a call of Source that waits until no lock is held.
type command struct {
	kind      Kind
	name      string
	subscribe bool
}

// wait answers then on loop on as soon as resolve (called under mu) knows, or after Config.Wait.
func (l *Live) wait(on loop.Loop, resolve func() (*Port, failure.Reason, bool), then func(*Port, failure.Reason)) {
	done := false // only touched on the loop
	timer := &loop.Timer{}
	a := &ask{}
	finish := func(p *Port, why failure.Reason) {
		if !done {
			done = true
			on.Disarm(timer)
			then(p, why)
		}
	}
	a.try = func() bool {
		p, why, known := resolve()
		if known {
			on.Post(func() { finish(p, why) })
		}
		return known
	}
	timer.Expired = func() {
		l.mu.Lock()
		delete(l.asks, a)
		l.mu.Unlock()
		finish(nil, failure.Unavailable)
	}
	on.Arm(timer, l.cfg.Wait)
	l.begin(a)
}

// begin answers a at once or as soon as the answer comes.
func (l *Live) begin(a *ask) {
	l.mu.Lock()
	if !a.try() {
		l.asks[a] = struct{}{}
	}
	l.mu.Unlock()
	l.flush()
}

// answer gives everybody who waits another try.
func (l *Live) answer() {
	for a := range l.asks {
		if a.try() {
			delete(l.asks, a)
		}
	}
}

// resolveAddress finds the port at a virtual address, as far as is known, and asks for the rest.
func (l *Live) resolveAddress(addr netip.AddrPort) (*Port, failure.Reason, bool) {
	ip := addr.Addr()
	for _, r := range l.services {
		if r.model != nil && (r.model.VIP4 == ip || r.model.VIP6 == ip) {
			r.used = true
			return l.resolvePort(r.model, addr.Port())
		}
	}
	s, why, known := l.resolveService(ip.String())
	if s == nil {
		return nil, why, known
	}
	return l.resolvePort(s, addr.Port())
}

// resolveService finds a service by the name of its subscription.
func (l *Live) resolveService(name string) (s *model.Service, why failure.Reason, known bool) {
	r := l.services[name]
	if r == nil {
		if len(l.services) >= l.cfg.MaxServices {
			return nil, failure.Overload, true
		}
		r = &service{}
		l.services[name] = r
		l.subscribe(KindService, name)
	}
	r.used = true
	if r.known && r.model == nil {
		return nil, failure.UnknownService, true
	}
	return r.model, failure.None, r.known
}

// resolvePort finds one port of a service that exists.
func (l *Live) resolvePort(s *model.Service, n uint16) (*Port, failure.Reason, bool) {
	if _, ok := s.FindPort(n); !ok {
		return nil, failure.UnknownPort, true
	}
	name := model.PortName{Service: s.Name, Port: n}
	p := l.ports[name]
	if p == nil {
		p = &Port{live: l, name: name}
		p.view.Store(&view{})
		l.ports[name] = p
	}
	if p.service.Load() == nil {
		p.service.Store(s)
	}
	p.used.Store(true)
	l.enlist(p)
	return p, failure.None, p.complete
}

func (l *Live) subscribe(k Kind, name string)   { l.outbox = append(l.outbox, command{k, name, true}) }
func (l *Live) unsubscribe(k Kind, name string) { l.outbox = append(l.outbox, command{k, name, false}) }

// flush gives the outbox to Source with no lock held, in order: whoever comes while somebody else is at it
// leaves his to him, so Source may call back from inside, or hold its own lock while it calls us.
func (l *Live) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flushing {
		return
	}
	l.flushing = true
	for len(l.outbox) > 0 {
		batch := l.outbox
		l.outbox = nil
		l.mu.Unlock()
		for _, c := range batch {
			if c.subscribe {
				l.cfg.Source.Subscribe(c.kind, c.name)
			} else {
				l.cfg.Source.Unsubscribe(c.kind, c.name)
			}
		}
		l.mu.Lock()
	}
	l.flushing = false
}
