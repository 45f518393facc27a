package gateway

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/health"
	"github.com/tulle-mesh/tulle/proxy/watch"
	"github.com/tulle-mesh/tulle/telemetry"
)

// flagsOf answers what is wrong with an endpoint as Envoy's /clusters says it; "healthy" for nothing.
func flagsOf(ep *cluster.Endpoint) string {
	var flags string
	for _, f := range []struct {
		on   bool
		flag string
	}{
		{ep.Unhealthy(), "/failed_active_hc"}, {ep.Ejected(), "/failed_outlier_check"}, {ep.Model().Health == model.Unhealthy, "/failed_eds_health"},
		{ep.Model().Health == model.Degraded, "/degraded_eds_health"}, {ep.Model().Health == model.Draining, "/eds_status_draining"},
	} {
		if f.on {
			flags += f.flag
		}
	}
	return cmp.Or(flags, "healthy")
}

// fitness tells the observer the metrics about the health of clusters' endpoints, in the order of the clusters' names.
func (g *Gateway) fitness(metric string, tell func(cluster, value string, n uint64)) {
	g.mu.Lock()
	watches := make([]*watch.Watch, 0, len(g.clusters))
	for _, e := range g.clusters {
		if e.watch != nil {
			watches = append(watches, e.watch)
		}
	}
	g.mu.Unlock()
	slices.SortFunc(watches, func(a, b *watch.Watch) int {
		return cmp.Compare(a.Cluster().Name().String(), b.Cluster().Name().String())
	})
	for _, w := range watches {
		name := w.Cluster().Name().String()
		switch metric {
		case telemetry.ClusterEndpoints:
			states := map[string]uint64{"healthy": 0}
			for _, ep := range w.Cluster().Endpoints() {
				states[strings.TrimPrefix(flagsOf(ep), "/")]++
			}
			for _, s := range slices.Sorted(maps.Keys(states)) {
				tell(name, s, states[s])
			}
		case telemetry.HealthChecks:
			for r := range health.Unreachable + 1 {
				if n := w.Checks(r); n > 0 {
					tell(name, r.String(), n)
				}
			}
		case telemetry.Ejections:
			for why := range health.Whys {
				if n := w.Ejections(why); n > 0 {
					tell(name, why.String(), n)
				}
			}
		}
	}
}
