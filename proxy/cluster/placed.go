package cluster

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
)

// Endpoints by the addresses that an endpoint picker calls them (model.Picker). Outside the mesh that is where they are. A workload of
// the mesh is called by its own address and port, as on Kubernetes, where no other endpoint has the same; where workloads share an
// address, as on one machine, it is called by the address of its proxy, which it has alone. The latter means it everywhere.

// placed is an endpoint with what it is called.
type placed struct {
	ep   *Endpoint
	name netip.AddrPort
}

// places are the endpoints of a generation by address.
type places struct {
	by  map[netip.AddrPort]*Endpoint
	all []placed
}

// maxTold bounds how many endpoints a picker is told of. It knows those of a larger cluster itself, or picks none.
const maxTold = 1000

// At answers the endpoint that is called a, if it is in force and takes the request; else nil. An ejected one may be answered with
// Choice.Probe set, as by Choose. It allocates once per set of endpoints.
func (c *Cluster) At(a netip.AddrPort, ch *Choice) *Endpoint {
	ep := c.placesOf(c.set.Load()).by[a]
	switch {
	case ep == nil:
		return nil
	case ep.half.Load() != waiting:
		if !ep.takes() {
			return nil
		}
		return ep
	case ch.NoProbe || ep.Gone() || ep.unhealthy.Load() || !ep.mayTry(ch) || !ep.half.CompareAndSwap(waiting, trying):
		return nil
	}
	c.half.Add(-1)
	ch.Probe = true
	return ep
}

// Takes answers what the endpoints that take requests are called; some is false if there is none, and told nil if they are too many to
// be told.
func (c *Cluster) Takes() (told []string, some bool) {
	all := c.placesOf(c.set.Load()).all
	for _, p := range all {
		if !p.ep.takes() && p.ep.half.Load() != waiting {
			continue
		}
		if some = true; len(all) > maxTold {
			return nil, true
		}
		told = append(told, p.name.String())
	}
	return told, some
}

// Place answers what an endpoint is called; "" if it is not of the set in force.
func (c *Cluster) Place(ep *Endpoint) string {
	for _, p := range c.placesOf(c.set.Load()).all {
		if p.ep == ep {
			return p.name.String()
		}
	}
	return ""
}

func (e *Endpoint) takes() bool {
	return !e.Gone() && e.Model().Health != model.Draining && e.is(wellOrDegraded)
}

func (c *Cluster) placesOf(s *set) *places {
	if p := s.places.Load(); p != nil {
		return p
	}
	own := func(e *Endpoint) netip.AddrPort {
		m := e.Model()
		if m.Identity == "" {
			return plain(m.Address)
		}
		return plain(netip.AddrPortFrom(m.Address.Addr(), m.Port))
	}
	shared := map[netip.AddrPort]int{}
	for _, e := range s.all {
		shared[own(e)]++
		if at := plain(e.Address()); at != own(e) {
			shared[at]++
		}
	}
	p := &places{by: map[netip.AddrPort]*Endpoint{}}
	for _, e := range s.all {
		name := own(e)
		if shared[name] > 1 {
			name = plain(e.Address())
		}
		p.by[name], p.all = e, append(p.all, placed{e, name})
	}
	for _, e := range s.all {
		if at := plain(e.Address()); p.by[at] == nil {
			p.by[at] = e
		}
	}
	s.places.Store(p)
	return p
}

// plain answers a with no IPv4 address written as IPv6.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
