package live

import (
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Own is a port of this proxy's own workload. Of it only the route table is asked for, the one that callers without consumer
// routes get: it says what the workload takes (docs/design/traffic.md). It stays subscribed for the life of the process.
type Own struct{ table atomic.Pointer[router.Table] }

// Table answers the table in force; nil: it is not known yet. Lock-free, for any goroutine.
func (o *Own) Table() *router.Table { return o.table.Load() }

// Own answers a port of the workload, subscribing to its table.
func (l *Live) Own(name model.PortName) *Own {
	l.mu.Lock()
	o := l.own[name.String()]
	if o == nil {
		o = &Own{}
		if l.own == nil {
			l.own = map[string]*Own{}
		}
		l.own[name.String()] = o
		if p := l.ports[name]; p != nil && p.asked && p.caller == "" { // the workload calls itself
			if p.next != nil {
				o.table.Store(p.next)
			} else {
				o.table.Store(p.view.Load().table)
			}
		} else {
			l.subscribe(KindRouteTable, name.String())
		}
	}
	l.mu.Unlock()
	l.flush()
	return o
}

// subscribeTable asks for the table of a port, unless the workload's own port has it asked for already.
func (l *Live) subscribeTable(p *Port, name string) {
	o := l.own[name]
	if o == nil {
		l.subscribe(KindRouteTable, name)
		return
	}
	if t := o.table.Load(); t != nil {
		p.next = t
	}
}

// unsubscribeTable undoes subscribeTable.
func (l *Live) unsubscribeTable(name string) {
	if l.own[name] == nil {
		l.unsubscribe(KindRouteTable, name)
	}
}
