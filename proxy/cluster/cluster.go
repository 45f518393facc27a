// Package cluster is one port of a service as the place that requests are sent to: its endpoints and which of
// them takes the next request. A Cluster is shared by all loops: the set of endpoints is immutable and swapped
// atomically, what changes per endpoint is atomic, so Pick takes no lock and allocates nothing. Updates (Set,
// SetEndpoints) come from one goroutine at a time. It opens no connection. Start reading at Pick.
package cluster

import (
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// CoolDown is how long an endpoint to which no connection could be made is not picked while there are others.
const CoolDown = time.Second

// Cluster is the endpoints of one port of a service.
type Cluster struct {
	name  model.PortName
	model atomic.Pointer[model.Cluster]
	set   atomic.Pointer[set]
	mu    sync.Mutex            // for who makes a plan: the last one made has seen every change; and a subset
	own   atomic.Pointer[place] // of the caller; nil: not known
	tls   atomic.Pointer[TLS]
	half  atomic.Int32 // endpoints that wait for a request that decides about them (probe.go)

	breakers *[model.PriorityHigh + 1]Breaker // apart from what is only read: all loops write them
	attempts *attempts                        // likewise

	originals atomic.Pointer[originals] // nil: endpoints do not come from what downstreams wanted

	watch atomic.Pointer[chan struct{}] // nil: nobody watches (outlier.go)

	recovery Recovery

	contradicted atomic.Uint32 // how often the learned protocol was proven wrong
	doubted      atomic.Uint32 // the learned value that was proven wrong last, plus 1
}

// set is one immutable generation of endpoints.
type set struct {
	all           []*Endpoint // as given, draining ones too
	whole         *view       // of all that are not draining
	parts         atomic.Pointer[map[string]*view]
	learned       model.Protocol
	overprovision uint32 // percent; 0: the cluster's
	localities    []model.LocalityWeight

	names  atomic.Pointer[map[uint64]*Endpoint] // made when first asked for (named.go)
	places atomic.Pointer[places]               // likewise (placed.go)
}

// New makes a Cluster without endpoints.
func New(m *model.Cluster) *Cluster {
	c := &Cluster{name: m.Name}
	c.model.Store(m)
	c.set.Store(&set{whole: &view{}})
	c.set.Load().whole.plan.Store(&plan{})
	c.breakers, c.attempts = newBreakers(c), &attempts{}
	c.setOriginal(m)
	c.recovery.share(m.Recovery)
	return c
}

// Name answers the name of the cluster.
func (c *Cluster) Name() model.PortName { return c.name }

// Model answers the settings in force.
func (c *Cluster) Model() *model.Cluster { return c.model.Load() }

// Set puts other settings in force. Endpoints and their state stay.
func (c *Cluster) Set(m *model.Cluster) {
	was := c.model.Swap(m)
	c.recovery.share(m.Recovery)
	c.setOriginal(m)
	if !reflect.DeepEqual(was.Balancing, m.Balancing) {
		c.remake()
	}
	keepTally(c.set.Load().all, m)
	c.Replan()
	c.nudge()
}

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
	if e != nil {
		next.overprovision, next.localities = e.Overprovision, e.Localities
		for i := range e.Endpoints {
			m := &e.Endpoints[i]
			ep := byKey[keyOf(m)]
			if ep == nil {
				ep = newEndpoint(m)
				ep.cluster = c
				// Until it has passed a check; but a workload of the mesh is there because its own proxy has found it ready.
				ep.unhealthy.Store(len(c.model.Load().HealthChecks) > 0 && m.Identity == "")
			} else {
				ep.model.Store(m)
				delete(byKey, keyOf(m))
			}
			next.all = append(next.all, ep)
		}
	}
	keepTally(next.all, c.model.Load())
	next.learned = agreed(next.all)
	if next.learned == model.ProtocolUnknown {
		c.doubted.Store(0) // nothing is learned about the new generation: what was doubted is forgotten
	}
	c.make(next, old)
	c.set.Store(next)
	c.Replan()
	for _, ep := range byKey {
		ep.gone.Store(true)
		ep.turn(shut)
	}
	c.nudge()
}

// make makes the views of next, which nobody knows yet and which follows old.
func (c *Cluster) make(next, old *set) {
	next.whole = c.view(next, nil)
	c.inherit(next, old)
}

// remake makes the views of the set in force anew, for other settings.
func (c *Cluster) remake() {
	old := c.set.Load()
	next := &set{all: old.all, learned: old.learned, overprovision: old.overprovision, localities: old.localities}
	c.make(next, old)
	c.set.Store(next)
	c.Replan() // what has changed meanwhile
}

// Endpoints answers the endpoints in force, draining ones too. The slice must not be changed.
func (c *Cluster) Endpoints() []*Endpoint {
	if o := c.originals.Load(); o != nil {
		return o.all()
	}
	return c.set.Load().all
}
