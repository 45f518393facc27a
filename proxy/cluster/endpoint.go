package cluster

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Endpoint is one workload's port, with what all loops know of it together. Its pointer stays the same as
// long as the endpoint is in the cluster, so it can key a pool.
type Endpoint struct {
	model    atomic.Pointer[model.Endpoint] // key fields never change
	inflight atomic.Int64
	total    atomic.Uint64
	failures atomic.Uint32 // connections in a row that could not be made
	coolTill atomic.Int64  // loop time, 0: not cooling
	gone     atomic.Bool

	cluster   *Cluster // whose plan depends on the health
	unhealthy atomic.Bool
	ejected   atomic.Bool
	tally     atomic.Pointer[tally] // nil: nobody looks for outliers
	latency   atomic.Uint64         // a balancer.Latency, with PeakEWMA
	since     atomic.Int64          // loop time, plus 1, since which it is well, with SlowStart; 0: not noted yet
	half      atomic.Uint32         // a halfState
	asked     atomic.Int64          // since when a request could have decided that must not be sent twice; 0: none has come
	usage     usage
	outage    outage
}

// key is what makes an endpoint the same as one in an earlier set.
type key struct {
	namespace, workload string
	address             netip.AddrPort
	port                uint16
	identity            string
}

func keyOf(m *model.Endpoint) key {
	return key{m.Namespace, m.Workload, m.Address, m.Port, m.Identity}
}

func newEndpoint(m *model.Endpoint) *Endpoint {
	e := &Endpoint{}
	e.model.Store(m)
	return e
}

// Model answers the endpoint's description in force. Workload, Namespace, Address, Port and Identity never
// change during the life of an Endpoint.
func (e *Endpoint) Model() *model.Endpoint { return e.model.Load() }

// Address answers the mesh-inbound address of the proxy in front of the workload.
func (e *Endpoint) Address() netip.AddrPort { return e.model.Load().Address }

// Identity answers the SPIFFE ID that the proxy there has to prove.
func (e *Endpoint) Identity() string { return e.model.Load().Identity }

// Workload answers the workload's name.
func (e *Endpoint) Workload() string { return e.model.Load().Workload }

// Begin counts a request, or a relayed connection, that is sent to the endpoint. End must follow, once.
func (e *Endpoint) Begin() {
	e.inflight.Add(1)
	e.total.Add(1)
}

// End undoes Begin's count of what is in flight.
func (e *Endpoint) End() { e.inflight.Add(-1) }

// InFlight answers how many are between Begin and End.
func (e *Endpoint) InFlight() int64 { return e.inflight.Load() }

// Total answers how often Begin was called.
func (e *Endpoint) Total() uint64 { return e.total.Load() }

// ConnectFailed says that no connection could be made at loop time now (refused, timed out, handshake
// failed): for CoolDown the endpoint is picked only if there is no other.
func (e *Endpoint) ConnectFailed(now time.Duration) {
	e.failures.Add(1)
	e.coolTill.Store(int64(now + CoolDown))
}

// Connected says that a connection stands: any cool-down ends.
func (e *Endpoint) Connected() {
	if e.failures.Load() != 0 {
		e.failures.Store(0)
		e.coolTill.Store(0)
	}
}

// ConnectFailures answers how many connections in a row could not be made.
func (e *Endpoint) ConnectFailures() int { return int(e.failures.Load()) }

// Gone reports whether the endpoint has left its cluster. Its idle connections are then closed; requests that
// are on their way end as usual.
func (e *Endpoint) Gone() bool { return e.gone.Load() }

// cooling: a time further away than CoolDown is of another clock and does not count.
func (e *Endpoint) cooling(now time.Duration) bool {
	till := time.Duration(e.coolTill.Load())
	return till != 0 && now < till && till-now <= CoolDown
}
