// Package cluster is one port of a service as the place that requests are sent to: its endpoints and which of
// them takes the next request. A Cluster is shared by all loops: the set of endpoints is immutable and swapped
// atomically, what changes per endpoint is atomic, so Pick takes no lock and allocates nothing. Updates (Set,
// SetEndpoints) come from one goroutine at a time. It opens no connection. Start reading at Pick.
package cluster

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// CoolDown is how long an endpoint to which no connection could be made is not picked while there are others.
const CoolDown = time.Second

// Cluster is the endpoints of one port of a service.
type Cluster struct {
	name  model.PortName
	model atomic.Pointer[model.Cluster]
	set   atomic.Pointer[set]
	tls   atomic.Pointer[TLS]

	contradicted atomic.Uint32 // how often the learned protocol was proven wrong
	doubted      atomic.Uint32 // the learned value that was proven wrong last, plus 1
}

// set is one immutable generation of endpoints.
type set struct {
	all     []*Endpoint // as given, draining ones too
	usable  []*Endpoint
	wheel   *balancer.Wheel // over usable
	learned model.Protocol
}

// New makes a Cluster without endpoints.
func New(m *model.Cluster) *Cluster {
	c := &Cluster{name: m.Name}
	c.model.Store(m)
	c.set.Store(&set{wheel: balancer.NewWheel(nil)})
	return c
}

// Name answers the name of the cluster.
func (c *Cluster) Name() model.PortName { return c.name }

// Model answers the settings in force.
func (c *Cluster) Model() *model.Cluster { return c.model.Load() }

// Set puts other settings in force. Endpoints and their state stay.
func (c *Cluster) Set(m *model.Cluster) { c.model.Store(m) }

// ConnectTimeout answers how long connecting to one endpoint may take, TCP and TLS together.
func (c *Cluster) ConnectTimeout() time.Duration {
	if t := c.model.Load().ConnectTimeout; t > 0 {
		return t
	}
	return 5 * time.Second
}

// SetEndpoints puts another set of endpoints in force. An endpoint that was there before, with the same
// workload, address, port and identity, keeps its *Endpoint and so its load. Endpoints that are not in e are
// told: Gone answers true from now on.
func (c *Cluster) SetEndpoints(e *model.Endpoints) {
	old := c.set.Load()
	byKey := make(map[key]*Endpoint, len(old.all))
	for _, ep := range old.all {
		byKey[keyOf(ep.Model())] = ep
	}
	next := &set{}
	var weights []uint32
	if e != nil {
		for i := range e.Endpoints {
			m := &e.Endpoints[i]
			ep := byKey[keyOf(m)]
			if ep == nil {
				ep = newEndpoint(m)
			} else {
				ep.model.Store(m)
				delete(byKey, keyOf(m))
			}
			next.all = append(next.all, ep)
			if m.Health != model.Draining {
				next.usable = append(next.usable, ep)
				weights = append(weights, m.Weight)
			}
		}
	}
	next.wheel = balancer.NewWheel(weights)
	next.learned = agreed(next.all)
	if next.learned == model.ProtocolUnknown {
		c.doubted.Store(0) // nothing is learned about the new generation: what was doubted is forgotten
	}
	c.set.Store(next)
	for _, ep := range byKey {
		ep.gone.Store(true)
	}
}

// Endpoints answers the endpoints in force, draining ones too. The slice must not be changed.
func (c *Cluster) Endpoints() []*Endpoint { return c.set.Load().all }

// Pick answers the endpoint that takes the next request, and out of how many it was picked. now is loop time
// (loops of one process share its origin; being apart by less than CoolDown does no harm), rnd is uniform
// over uint64. Endpoints in excluded, those that failed this exchange already, are not picked; nor are
// endpoints that are cooling down, unless there is no other. When nothing can be picked the endpoint is nil
// and the reason NoEndpoint: from is then 0 if the cluster has no usable endpoint at all, and more than 0 if
// all of them are excluded, so that the caller keeps the reason of its last attempt.
func (c *Cluster) Pick(now time.Duration, rnd uint64, excluded []*Endpoint) (ep *Endpoint, from int, why failure.Reason) {
	s := c.set.Load()
	i := s.wheel.Pick(rnd, func(i int) (int64, bool) {
		e := s.usable[i]
		return e.inflight.Load(), !e.cooling(now) && !slices.Contains(excluded, e)
	})
	if i < 0 {
		i = s.wheel.Pick(rnd, func(i int) (int64, bool) {
			e := s.usable[i]
			return e.inflight.Load(), !slices.Contains(excluded, e)
		})
	}
	if i < 0 {
		return nil, len(s.usable), failure.NoEndpoint
	}
	return s.usable[i], len(s.usable), failure.None
}
