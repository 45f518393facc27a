package gateway

import (
	"context"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// cleanEvery is after how long an address that nothing is sent to is forgotten, where the cluster does not say.
const cleanEvery = 5 * time.Second

// sweeper forgets the endpoints of a cluster of model.DiscoveryOriginal that are not used, from a goroutine of its own.
type sweeper struct {
	every time.Duration
	stop  context.CancelFunc
}

// forget starts, goes on with or ends sweeping a cluster. mu is held.
func (g *Gateway) forget(e *entry, m *model.Cluster) {
	every := m.Original.Clean
	if every <= 0 {
		every = cleanEvery
	}
	wanted := m.Discovery == model.DiscoveryOriginal
	if old := e.sweeper; old != nil {
		if wanted && old.every == every {
			return
		}
		old.stop()
		e.sweeper = nil
	}
	if !wanted || g.checking {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	e.sweeper = &sweeper{every, stop}
	g.following.Go(func() { g.sweep(ctx, e.cluster, every) })
}

func (g *Gateway) sweep(ctx context.Context, c *cluster.Cluster, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if c.Sweep() {
				g.tidy()
			}
		}
	}
}

// unfollow ends what a cluster's endpoints, and what is known of their health, come from. mu is held.
func (e *entry) unfollow() {
	if e.names != nil {
		e.names.stop()
	}
	if e.sweeper != nil {
		e.sweeper.stop()
	}
	e.watch.Stop()
}
