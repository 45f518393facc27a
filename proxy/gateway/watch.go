package gateway

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/watch"
)

// attend starts watching a cluster that is to be watched. mu is held.
func (g *Gateway) attend(e *entry, m *model.Cluster) {
	if e.watch != nil || g.checking || !watch.Wanted(m) {
		return
	}
	c := e.cluster
	e.watch = watch.Start(watch.Config{Cluster: c, Log: g.cfg.Log, Group: &g.following, Settled: g.settle,
		Part: func(ep *cluster.Endpoint, relays bool) { g.part(c.Name(), ep, relays) }})
}

// part ends the connections to an endpoint that has become unfit: those of requests when they are idle, relays at once if
// the cluster says so.
func (g *Gateway) part(name model.PortName, ep *cluster.Endpoint, relays bool) {
	at := ep.Address()
	for _, k := range g.workers {
		k.loop.Post(func() {
			k.pool.Retire(func(t *pool.Target) bool { return t.Address == at && t.Cluster != nil && t.Cluster.Name == name })
			if relays {
				k.relays.Drop(ep)
			}
		})
	}
}
