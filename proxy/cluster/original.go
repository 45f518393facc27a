package cluster

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// MaxOriginals is how many addresses one cluster of model.DiscoveryOriginal knows at a time: clients say which.
const MaxOriginals = 16 << 10

// originals are the endpoints that downstreams wanted (model.DiscoveryOriginal). A known address is found without a lock;
// a new one is added to the map of its part, which is copied, so that many addresses cost no more than a part of them.
type originals struct {
	parts [64]originalPart
	n     atomic.Int64
	seen  map[*Endpoint]uint64 // Total at the last Sweep; its caller's
}

type originalPart struct {
	known atomic.Pointer[map[netip.AddrPort]*Endpoint] // nil: none
	mu    sync.Mutex                                   // for those that change known
}

// part answers where an address belongs.
func (o *originals) part(a netip.AddrPort) *originalPart {
	b, p := a.Addr().As16(), a.Port()
	return &o.parts[(uint16(b[15])^uint16(b[14])<<3^uint16(b[7])^p^p>>6)%uint16(len(o.parts))]
}

// original answers the endpoint at the address that was wanted, made if it is the first time. What is no address of a
// server is none.
func (c *Cluster) original(o *originals, ch *Choice) (ep *Endpoint, from int, why failure.Reason) {
	at := ch.Wanted
	if port := c.model.Load().Original.Port; port != 0 {
		at = netip.AddrPortFrom(at.Addr(), port)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !at.IsValid() || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return nil, 0, failure.NoEndpoint
	}
	if ep = o.part(at).all()[at]; ep == nil {
		if ep = c.newOriginal(o, at); ep == nil {
			return nil, 0, failure.Overload
		}
	}
	if slices.Contains(ch.Excluded, ep) {
		return nil, 1, failure.NoEndpoint
	}
	return ep, 1, failure.None
}

// newOriginal adds an endpoint, nil if there are too many.
func (c *Cluster) newOriginal(o *originals, at netip.AddrPort) *Endpoint {
	p := o.part(at)
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.all()
	if ep := known[at]; ep != nil {
		return ep
	}
	if o.n.Add(1) > MaxOriginals {
		o.n.Add(-1)
		return nil
	}
	ep := newEndpoint(&model.Endpoint{Address: at, Weight: 1})
	ep.cluster = c
	next := make(map[netip.AddrPort]*Endpoint, len(known)+1)
	maps.Copy(next, known)
	next[at] = ep
	p.known.Store(&next)
	return ep
}

// Sweep forgets the endpoints of a cluster of model.DiscoveryOriginal that have taken nothing since the last Sweep and
// have nothing in flight. It answers whether there were any. From one goroutine at a time.
func (c *Cluster) Sweep() (forgotten bool) {
	o := c.originals.Load()
	if o == nil {
		return false
	}
	seen := map[*Endpoint]uint64{}
	for i := range o.parts {
		p := &o.parts[i]
		p.mu.Lock()
		next := map[netip.AddrPort]*Endpoint{}
		var gone []*Endpoint
		for a, ep := range p.all() {
			if was, old := o.seen[ep]; old && was == ep.Total() && ep.InFlight() == 0 {
				gone = append(gone, ep)
				continue
			}
			next[a], seen[ep] = ep, ep.Total()
		}
		if len(gone) > 0 {
			p.known.Store(&next)
			o.n.Add(-int64(len(gone)))
			forgotten = true
		}
		p.mu.Unlock()
		for _, ep := range gone {
			ep.gone.Store(true)
		}
	}
	o.seen = seen
	return forgotten
}

// setOriginal makes, or takes away, what only a cluster of model.DiscoveryOriginal has.
func (c *Cluster) setOriginal(m *model.Cluster) {
	switch o := c.originals.Load(); {
	case m.Discovery == model.DiscoveryOriginal && o == nil:
		c.originals.Store(&originals{})
	case m.Discovery != model.DiscoveryOriginal && o != nil:
		c.originals.Store(nil)
		for _, ep := range o.all() {
			ep.gone.Store(true)
		}
	}
}

// all answers the endpoints that are known now.
func (o *originals) all() (out []*Endpoint) {
	for i := range o.parts {
		for _, ep := range o.parts[i].all() {
			out = append(out, ep)
		}
	}
	return out
}

func (p *originalPart) all() map[netip.AddrPort]*Endpoint {
	if known := p.known.Load(); known != nil {
		return *known
	}
	return nil
}
