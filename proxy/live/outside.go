package live

import (
	"reflect"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// What is outside of the mesh: endpoints that are found by name, and TLS that is not the mesh's own.

// Held answers a cluster in force by its name; nil: there is none. Lock-free.
func (l *Live) Held(name model.PortName) *cluster.Cluster { return (*l.held.Load())[name] }

// prepare has the endpoints of a cluster outside of the mesh found by name, or ends that. It answers m, or nil where the cluster
// cannot be called as it asks. mu is held.
func (l *Live) prepare(e *entry, m *model.Cluster) *model.Cluster {
	byName := m != nil && m.Discovery == model.DiscoveryStrictDNS && l.cfg.Resolve != nil && !l.closed
	if e.stopNames != nil && (!byName || !reflect.DeepEqual(e.named.Hosts, m.Hosts) || e.named.DNS != m.DNS) {
		e.stopNames()
		e.stopNames, e.named = nil, nil
		e.endpoints, e.endpointsKnown = nil, false
	}
	if byName && e.named == nil {
		e.endpoints, e.endpointsKnown, e.named = nil, false, m
		e.stopNames = l.cfg.Resolve(m, func(found *model.Endpoints) { l.found(e, m, found) })
	}
	if m != nil && m.Discovery == model.DiscoveryOriginal {
		e.endpointsKnown = true
	}
	return m
}

// found takes what the names of a cluster are now.
func (l *Live) found(e *entry, m *model.Cluster, found *model.Endpoints) {
	l.change(m.Name.String(), func(now *entry) (refresh bool) {
		if now != e || e.named == nil || !reflect.DeepEqual(e.named.Hosts, m.Hosts) {
			return false
		}
		return l.endpoints(e, found)
	})
}

// endpoints puts the endpoints of an entry in force; it answers whether they are the first. mu is held.
func (l *Live) endpoints(e *entry, eps *model.Endpoints) (first bool) {
	first = !e.endpointsKnown
	if !first && reflect.DeepEqual(e.endpoints, eps) {
		return false
	}
	e.endpoints, e.endpointsKnown = eps, true
	for _, c := range []*cluster.Cluster{e.cluster, e.former} {
		if c != nil {
			c.SetEndpoints(eps)
		}
	}
	return first
}

// secured gives a cluster its TLS before it is used; false: it cannot be made, and the cluster must not be used.
func (l *Live) secured(c *cluster.Cluster, m *model.Cluster) bool {
	if l.cfg.Secure == nil {
		return m.TLS == nil
	}
	if now := c.Model(); now != m && c.TLS() != nil && m.TLS != nil && reflect.DeepEqual(now.TLS, m.TLS) {
		return true // and its connections stay
	}
	err := l.cfg.Secure(c, m)
	if err != nil {
		l.cfg.Log.Error("a service outside of the mesh cannot be called", "service", m.Name.String(), "error", err)
	}
	return err == nil
}
