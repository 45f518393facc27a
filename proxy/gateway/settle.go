package gateway

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// What has been told waits here until it can serve: a route table for its clusters' endpoints and their first health
// checks, a listener for its route tables and secrets. Nothing waits longer than Gateway.fetch; then it is put in force as it is.

func newListener(g *Gateway, name string, static bool) *listener {
	return &listener{g: g, name: name, static: static, sockets: map[netip.AddrPort]*socket{}}
}

// settle puts in force what has become ready; nobody is there to be told what is wrong.
func (g *Gateway) settle() {
	if err := g.settleNow(); err != nil {
		g.cfg.Log.Error("not put in force", "error", err)
	}
	g.tellWants()
}

func (g *Gateway) settleNow() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.started || g.closed {
		return nil
	}
	now := time.Now()
	waits := g.settleTables(now)
	var wrong []error
	for _, l := range g.listeners {
		if l.next == nil {
			continue
		}
		if what := l.next.needs(g); what != "" && now.Sub(l.since) < g.fetch() {
			waits = sooner(waits, l.since)
			continue
		}
		if err := l.promote(); err != nil {
			wrong = append(wrong, err)
		}
	}
	g.wakeAt(waits)
	return join(wrong...)
}

// settleTables answers since when the table that has waited longest waits; zero: none does.
func (g *Gateway) settleTables(now time.Time) (waits time.Time) {
	for _, t := range g.tables {
		if t.next == nil {
			continue
		}
		if !g.warm(t.next) && now.Sub(t.since) < g.fetch() {
			waits = sooner(waits, t.since)
			continue
		}
		t.now.Store(t.next)
		t.next = nil
	}
	return waits
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// wakeAt sees to it that what waits is looked at when its time is over.
func (g *Gateway) wakeAt(since time.Time) {
	if g.wake != nil {
		g.wake.Stop()
		g.wake = nil
	}
	if !since.IsZero() {
		g.wake = time.AfterFunc(time.Until(since.Add(g.fetch()))+time.Millisecond, g.settle)
	}
}

// warm reports whether the clusters that a table names have their endpoints, if they exist.
func (g *Gateway) warm(t *router.Table) bool {
	for _, name := range named(t.Model) {
		if e := g.clusters[name]; e != nil && !e.warm() {
			return false
		}
	}
	return true
}

// warm reports whether requests can be sent.
func (e *entry) warm() bool {
	switch e.model.Discovery {
	case model.DiscoveryEDS, model.DiscoveryStrictDNS, model.DiscoveryLogicalDNS:
		if !e.known {
			return false
		}
	}
	return e.watch.Warm()
}

// named answers the clusters that a table names.
func named(t *model.RouteTable) (out []model.PortName) {
	routes := func(all []model.Route) {
		for i := range all {
			for _, b := range all[i].Backends {
				out = append(out, b.Cluster)
			}
		}
	}
	routes(t.Routes)
	for i := range t.Hosts {
		routes(t.Hosts[i].Routes)
	}
	return out
}

// needs answers what v waits for, "" for nothing.
func (v *version) needs(g *Gateway) string {
	if b := g.cfg.Bootstrap; b.CDS && !g.heard[model.ResourceCluster] {
		return "the control plane's clusters"
	}
	for _, c := range v.all {
		if c.tls != nil && !c.tls.Ready() {
			return "its secrets"
		}
		if c.model.HTTP != nil {
			t := c.to.table.now.Load()
			if t == nil {
				return "route table " + c.model.HTTP.RDS
			}
			if !g.warm(t) {
				return "the endpoints of its clusters"
			}
			continue
		}
		for _, w := range c.model.TCP.Clusters {
			if e := g.clusters[w.Cluster]; e != nil && !e.warm() {
				return "the endpoints of cluster " + w.Cluster.String()
			}
		}
	}
	return ""
}

// waitsFor says what a listener without a version in force waits for.
func (l *listener) waitsFor(g *Gateway) string {
	if l.next == nil {
		return "nothing: it could not be opened"
	}
	return l.next.needs(g)
}

// promote puts the next version in force: sockets first, so that a listener that cannot be opened changes nothing.
func (l *listener) promote() error {
	next, before := l.next, l.now.Load()
	l.next = nil
	opened, err := l.open(next)
	if err != nil {
		return err
	}
	for _, s := range next.swaps {
		s.to.now.Store(s.new)
	}
	l.now.Store(next)
	if l.g.draining.Load() {
		return nil
	}
	if err := l.accept(opened); err != nil {
		return err
	}
	keep := map[netip.AddrPort]bool{}
	for _, at := range next.model.Addresses {
		keep[at] = true
	}
	for at, s := range l.sockets {
		if !keep[at] {
			s.close()
			delete(l.sockets, at)
		}
	}
	if before != nil {
		l.g.retire(before, next)
	}
	return nil
}

// retire drains the connections of chains that only the version before has.
func (g *Gateway) retire(before, now *version) {
	keep := map[*filterChain]bool{}
	if now != nil {
		for _, c := range now.all {
			keep[c] = true
		}
	}
	gone := false
	for _, c := range before.all {
		if !keep[c] {
			c.retired.Store(true)
			gone = true
		}
	}
	if gone {
		for _, w := range g.workers {
			w.loop.Post(w.retire)
		}
	}
}
