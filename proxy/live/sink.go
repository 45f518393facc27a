package live

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// The methods of this file are the sink that package xds/client delivers to, from one goroutine.

// Service takes the answer to a subscription of a service, by name or by virtual address; nil: there is none.
func (l *Live) Service(name string, s *model.Service) {
	l.mu.Lock()
	if r := l.services[name]; r != nil {
		old := r.model
		r.model, r.known = s, true
		for _, m := range []*model.Service{old, s} {
			if m != nil {
				l.renewService(m.Name, s)
			}
		}
		l.reindex()
		l.answer()
	}
	l.mu.Unlock()
	l.flush()
}

// RouteTable takes a route table; nil: there is none, and nothing matches.
func (l *Live) RouteTable(name string, t *model.RouteTable) {
	n, caller, err := model.ParsePortNameFor(name)
	if err != nil {
		l.cfg.Log.Error("route table ignored: the control plane sent a name that is none", "name", name, "error", err)
		return
	}
	if t == nil {
		t = &model.RouteTable{Name: n, Caller: caller}
	}
	table, err := router.Compile(t)
	if err != nil {
		l.cfg.Log.Error("route table refused, the one before stays in force", "table", name, "error", err)
		return
	}
	l.mu.Lock()
	if o := l.own[name]; o != nil {
		o.table.Store(table)
	}
	if p := l.ports[n]; p != nil && p.asked && p.caller == caller {
		p.next = table
		l.need(p)
		l.warm(p)
		l.answer()
	}
	l.mu.Unlock()
	l.flush()
}

// Cluster takes the settings of a cluster; nil: there is none.
func (l *Live) Cluster(name string, c *model.Cluster) {
	l.change(name, func(e *entry) (refresh bool) {
		first := !e.known
		e.known = true
		switch c = l.prepare(e, c); {
		case c == nil:
			if refresh = e.cluster != nil; refresh {
				e.former, e.cluster = e.cluster, nil
			}
			l.hold()
		case e.cluster == nil:
			refresh = true
			if e.cluster, e.former = e.former, nil; e.cluster == nil {
				e.cluster = cluster.New(c)
				e.cluster.SetLocality(l.cfg.Locality, l.cfg.Labels)
			}
			if !l.secured(e.cluster, c) {
				e.cluster = nil
				return first
			}
			e.cluster.Set(c)
			e.cluster.SetEndpoints(e.endpoints)
			l.attend(e, c)
			l.hold()
		default:
			if !l.secured(e.cluster, c) {
				e.former, e.cluster = e.cluster, nil
				l.hold()
				return true
			}
			e.cluster.Set(c)
			l.attend(e, c)
		}
		return refresh || first
	})
}

// Endpoints takes the endpoints of a cluster; nil: there are none.
func (l *Live) Endpoints(name string, eps *model.Endpoints) {
	l.change(name, func(e *entry) (refresh bool) {
		if e.named != nil || e.cluster != nil && e.cluster.Model().Discovery == model.DiscoveryOriginal {
			return false // they are found otherwise
		}
		if _, external := e.name.Service.External(); external && eps != nil && l.cfg.Sieve != nil {
			eps = l.cfg.Sieve(eps)
		}
		return l.endpoints(e, eps)
	})
}

// SetLocality says where the workload is, "region/zone/sub_zone"; "": not known. Requests are balanced accordingly from now on.
func (l *Live) SetLocality(own string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Locality = own
	for _, e := range l.clusters {
		for _, c := range []*cluster.Cluster{e.cluster, e.former} {
			if c != nil {
				c.SetLocality(own, l.cfg.Labels)
			}
		}
	}
}

// Connected takes whether the control plane is reachable. What is known stays.
func (l *Live) Connected(up bool) {
	l.mu.Lock()
	l.up = up
	l.mu.Unlock()
}

// change applies f to a cluster's entry and, if f says so, brings its ports up to date.
func (l *Live) change(name string, f func(*entry) bool) {
	n, err := model.ParsePortName(name)
	if err != nil {
		l.cfg.Log.Error("cluster ignored: the control plane sent a name that is none", "name", name, "error", err)
		return
	}
	l.mu.Lock()
	if e := l.clusters[n]; e != nil && f(e) {
		for p := range e.users {
			l.warm(p)
		}
		l.answer()
	}
	l.mu.Unlock()
	l.flush()
}
