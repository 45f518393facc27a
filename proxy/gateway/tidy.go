package gateway

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/pool"
)

// tidyAfter is how long connections to servers may outlive what they were made for; many changes are one then.
const tidyAfter = 200 * time.Millisecond

// tidy ends, soon, the connections to endpoints that no cluster has any more, and those that were made as another version
// of their cluster says: idle ones at once, others when their requests are done.
func (g *Gateway) tidy() {
	for _, w := range g.workers {
		w.loop.Post(func() {
			if !w.untidy.Armed() {
				w.loop.Arm(&w.untidy, tidyAfter)
			}
		})
	}
}

func (w *worker) tidy() {
	known := map[*cluster.Cluster]map[netip.AddrPort]bool{}
	w.pool.Retire(func(t *pool.Target) bool {
		if t.Cluster == nil {
			return false
		}
		c := w.g.cluster(t.Cluster.Name)
		if c == nil || c.Model() != t.Cluster {
			return true
		}
		if t.Cluster.Discovery == model.DiscoveryLogicalDNS {
			return false // an address that the name has no more is as good as before
		}
		if known[c] == nil {
			known[c] = map[netip.AddrPort]bool{}
			for _, ep := range c.Endpoints() {
				known[c][ep.Address()] = true
			}
		}
		return !known[c][t.Address]
	})
}
