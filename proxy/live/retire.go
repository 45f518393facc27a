package live

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// sweeps looks for what is unused, twice per Config.Retire, until Close.
func (l *Live) sweeps() {
	defer l.ended.Done()
	t := time.NewTicker(l.cfg.Retire / 2)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
			l.sweep()
		}
	}
}

// idleSweeps without any use retire a subscription: so it was unused for Config.Retire at least.
const idleSweeps = 3

// sweep retires ports that nobody used, then services that nobody used and no port needs.
func (l *Live) sweep() {
	l.mu.Lock()
	for _, p := range l.ports {
		if !p.asked {
			continue
		}
		if p.idle++; p.used.Swap(false) {
			p.idle = 0
		}
		if p.idle >= idleSweeps {
			l.retire(p)
		} else {
			l.shed(p)
		}
	}
	for _, e := range l.clusters {
		if e.cluster != nil {
			e.cluster.Sweep() // addresses that programs have looked up themselves
		}
	}
	inUse := map[model.ServiceName]bool{}
	for n, p := range l.ports {
		if p.asked {
			inUse[n.Service] = true
		}
	}
	for name, r := range l.services {
		if r.idle++; r.used || r.model != nil && inUse[r.model.Name] {
			r.idle = 0
		}
		r.used = false
		if r.idle >= idleSweeps {
			delete(l.services, name)
			l.unsubscribe(KindService, name)
		}
	}
	l.reindex()
	l.mu.Unlock()
	l.flush()
}

// retire ends a port's subscriptions. The Port and what it last knew stay for connections that still hold it.
func (l *Live) retire(p *Port) {
	p.asked, p.complete, p.next = false, false, nil
	p.retired.Store(true)
	l.unsubscribeTable(p.name.For(p.caller))
	for _, e := range p.needs {
		l.release(p, e)
	}
	p.needs, p.spare = nil, nil
}

// revive subscribes to a retired port again.
func (l *Live) revive(p *Port) {
	l.mu.Lock()
	if p.retired.Load() {
		l.resolveService(p.name.Service.String())
		l.enlist(p)
	}
	l.mu.Unlock()
	l.flush()
}
