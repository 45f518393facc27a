package gateway

import (
	"cmp"
	"math"
	"slices"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// priorities names the priorities, in the order of the model's values.
var priorities = [...]string{model.PriorityDefault: "default", model.PriorityHigh: "high"}

var bounds = [...]cluster.Bound{cluster.Connections, cluster.Pending, cluster.Requests, cluster.Retries}

// overflows tells the observer how often circuit breakers were full, in the order of the clusters' names.
func (g *Gateway) overflows(tell func(cluster, priority, bound string, n uint64)) {
	held := *g.held.Load()
	all := make([]*cluster.Cluster, 0, len(held))
	for _, c := range held {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *cluster.Cluster) int { return cmp.Compare(a.Name().String(), b.Name().String()) })
	for _, c := range all {
		for p, name := range priorities {
			b := c.Breaker(model.Priority(p))
			if b == nil {
				continue
			}
			for _, what := range bounds {
				tell(c.Name().String(), name, what.String(), b.Refused(what))
			}
		}
	}
}

// retries tells the observer what became of further attempts: observe.Config.Retries.
func (g *Gateway) retries() (out []observe.Retries) {
	for _, s := range cluster.Spendings(*g.held.Load(), loop.Elapsed()) {
		out = append(out, observe.Retries(s))
	}
	return out
}

// breakersOf answers the circuit breakers of a cluster for the admin server.
func breakersOf(c *cluster.Cluster) (out []admin.Breaker) {
	m := c.Model()
	for p, name := range priorities {
		b := c.Breaker(model.Priority(p))
		if b == nil {
			continue
		}
		l := &m.Breakers[p]
		out = append(out, admin.Breaker{Priority: name,
			MaxConnections: bound(l.Connections), MaxPending: bound(l.Pending), MaxRequests: bound(l.Requests), MaxRetries: bound(l.Retries),
			Connections: b.Now(cluster.Connections), Pending: b.Now(cluster.Pending), Requests: b.Now(cluster.Requests), Retries: b.Now(cluster.Retries)})
	}
	return out
}

// bound answers a limit as Envoy's files say it, who have no word for none.
func bound(n uint32) uint32 {
	if n == 0 {
		return math.MaxUint32
	}
	return n
}
