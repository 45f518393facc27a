package live

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// entry is one cluster with its endpoints, subscribed as long as a port needs it.
type entry struct {
	name           model.PortName
	cluster        *cluster.Cluster // nil: does not exist, if known
	former         *cluster.Cluster // what it was before it ceased to exist: comes back with its endpoints' state
	known          bool
	endpoints      *model.Endpoints
	endpointsKnown bool
	users          map[*Port]struct{}
	named          *model.Cluster // whose hosts are looked up, with stopNames; nil: the control plane says the endpoints
	stopNames      func()
	attended       func() // ends looking after its endpoints; nil: nobody does
}

// warm reports whether requests can be sent to e, or surely cannot because it does not exist.
func (e *entry) warm() bool { return e.known && (e.cluster == nil || e.endpointsKnown) }

// attend has the endpoints of a cluster looked after if its settings want it. From then on somebody does until it is released:
// settings and endpoints are followed, a cluster that ceases to exist for a while is still the same.
func (l *Live) attend(e *entry, m *model.Cluster) {
	if e.attended == nil && !l.closed && l.cfg.Attend != nil && (len(m.HealthChecks) > 0 || m.Outlier != nil) {
		e.attended = l.cfg.Attend(e.cluster)
	}
}

// leave ends that, and looking its names up.
func (e *entry) leave() {
	if e.stopNames != nil {
		e.stopNames()
		e.stopNames = nil
	}
	if e.attended != nil {
		e.attended()
		e.attended = nil
	}
}

// enlist subscribes to what a port needs from the start: its route table and its own cluster.
func (l *Live) enlist(p *Port) {
	if p.asked {
		return
	}
	p.asked, p.complete, p.idle = true, false, 0
	p.retired.Store(false)
	p.caller = l.caller(p.service.Load())
	l.subscribeTable(p, p.name.For(p.caller))
	l.need(p)
	l.warm(p)
}

// caller answers whose table of a service's port is asked for.
func (l *Live) caller(s *model.Service) string {
	if s != nil && l.cfg.Namespace != "" && slices.Contains(s.Consumers, l.cfg.Namespace) {
		return l.cfg.Namespace
	}
	return ""
}

// consume asks for another table where the workload's namespace has got consumer routes, or has none any more. The one in
// force stays until that comes.
func (l *Live) consume(p *Port, s *model.Service) {
	now := l.caller(s)
	if !p.asked || now == p.caller {
		return
	}
	l.unsubscribeTable(p.name.For(p.caller))
	p.caller = now
	l.subscribeTable(p, p.name.For(now))
	if p.next != nil {
		l.need(p)
		l.warm(p)
	}
}

// need subscribes to every cluster that the port's tables name, and remembers which they are. Nothing is
// given up here.
func (l *Live) need(p *Port) {
	names := map[model.PortName]bool{p.name: true}
	if p.next != nil {
		named(p.next, names)
	}
	if t := p.view.Load().table; t != nil {
		named(t, names)
	}
	for n := range names {
		e := l.clusters[n]
		if e == nil {
			e = &entry{name: n, users: map[*Port]struct{}{}}
			l.clusters[n] = e
			l.subscribe(KindCluster, n.String())
			l.subscribe(KindEndpoints, n.String())
		}
		if _, has := e.users[p]; !has {
			e.users[p] = struct{}{}
			p.needs = append(p.needs, e)
		}
	}
}

// named adds the clusters that a table names.
func named(t *router.Table, to map[model.PortName]bool) {
	for i := range t.Model.Routes {
		for _, b := range t.Model.Routes[i].Backends {
			if !b.Invalid {
				to[b.Cluster] = true
			}
		}
		for _, m := range t.Model.Routes[i].Mirrors {
			if !m.Invalid {
				to[m.Cluster] = true
			}
		}
		if f := t.Model.Routes[i].Fallback; f != nil && !f.Invalid {
			to[f.Cluster] = true
		}
	}
	for _, r := range t.Model.Relay {
		if f := r.Fallback; f != nil && !f.Invalid {
			to[f.Cluster] = true
		}
		for _, b := range r.Backends {
			if !b.Invalid {
				to[b.Cluster] = true
			}
		}
	}
}

// warm puts the port's next table in force if its clusters are warm, or renews the clusters of the one in
// force.
func (l *Live) warm(p *Port) {
	old := p.view.Load()
	table := p.next
	if table == nil {
		if table = old.table; table == nil || !p.complete {
			return // its first table has not come
		}
	}
	names := map[model.PortName]bool{p.name: true}
	named(table, names)
	clusters := make(map[model.PortName]*cluster.Cluster, len(names))
	for n := range names {
		e := l.clusters[n]
		if e == nil || !e.warm() {
			return
		}
		if e.cluster != nil {
			clusters[n] = e.cluster
		}
	}
	p.view.Store(&view{table: table, clusters: clusters})
	p.next = nil
	if !p.complete {
		p.complete = true
		l.reindex()
	}
}

// shed gives up the clusters that no table of the port names any more, at the second sweep that finds them so.
func (l *Live) shed(p *Port) {
	keep := map[model.PortName]bool{p.name: true}
	for _, t := range []*router.Table{p.next, p.view.Load().table} {
		if t != nil {
			named(t, keep)
		}
	}
	spare := p.spare
	p.spare = nil
	p.needs = slices.DeleteFunc(p.needs, func(e *entry) bool {
		switch {
		case keep[e.name]:
			return false
		case slices.Contains(spare, e):
			l.release(p, e)
			return true
		}
		p.spare = append(p.spare, e)
		return false
	})
}

// release ends a port's need of a cluster, and the cluster with its last user.
func (l *Live) release(p *Port, e *entry) {
	delete(e.users, p)
	if len(e.users) > 0 {
		return
	}
	delete(l.clusters, e.name)
	e.leave()
	l.hold()
	l.unsubscribe(KindCluster, e.name.String())
	l.unsubscribe(KindEndpoints, e.name.String())
}

// hold publishes which clusters exist.
func (l *Live) hold() {
	held := make(map[model.PortName]*cluster.Cluster, len(l.clusters))
	for n, e := range l.clusters {
		if e.cluster != nil {
			held[n] = e.cluster
		}
	}
	l.held.Store(&held)
}

// renewService gives the ports of a service its newest description: the one just told, if it is of that
// service, else what another subscription (by name, by either address) knows.
func (l *Live) renewService(name model.ServiceName, told *model.Service) {
	s := told
	if s == nil || s.Name != name {
		s = nil
		for _, r := range l.services {
			if r.model != nil && r.model.Name == name {
				s = r.model
				break
			}
		}
	}
	for n, p := range l.ports {
		if n.Service != name {
			continue
		}
		p.service.Store(nil)
		if s != nil {
			if _, ok := s.FindPort(n.Port); ok {
				p.service.Store(s)
				l.consume(p, s)
			}
		}
	}
}

// reindex publishes the ready ports by their addresses.
func (l *Live) reindex() {
	index := map[netip.AddrPort]*Port{}
	for n, p := range l.ports {
		s := p.service.Load()
		if s == nil || !p.complete || !p.asked {
			continue
		}
		for _, ip := range []netip.Addr{s.VIP4, s.VIP6} {
			if ip.IsValid() {
				index[netip.AddrPortFrom(ip, n.Port)] = p
			}
		}
	}
	if !maps.Equal(index, *l.index.Load()) {
		l.index.Store(&index)
	}
}
