package gateway

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/health"
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

// tell adds what was found of an endpoint.
func (w *watch) tell(ep *cluster.Endpoint, to *admin.Endpoint) {
	if w == nil {
		return
	}
	if e := (*w.shown.Load())[ep]; e != nil {
		to.Checks, to.CheckFailures, to.Ejections = e.checks.Load(), e.failures.Load(), e.ejections.Load()
	}
}

// fitness tells the observer the metrics about the health of clusters' endpoints, in the order of the clusters' names.
func (g *Gateway) fitness(metric string, tell func(cluster, value string, n uint64)) {
	g.mu.Lock()
	watches := make([]*watch, 0, len(g.clusters))
	for _, e := range g.clusters {
		if e.watch != nil {
			watches = append(watches, e.watch)
		}
	}
	g.mu.Unlock()
	slices.SortFunc(watches, func(a, b *watch) int { return cmp.Compare(a.c.Name().String(), b.c.Name().String()) })
	for _, w := range watches {
		name := w.c.Name().String()
		switch metric {
		case telemetry.ClusterEndpoints:
			states := map[string]uint64{"healthy": 0}
			for _, ep := range w.c.Endpoints() {
				states[strings.TrimPrefix(flagsOf(ep), "/")]++
			}
			for _, s := range slices.Sorted(maps.Keys(states)) {
				tell(name, s, states[s])
			}
		case telemetry.HealthChecks:
			for r := range w.checks {
				if n := w.checks[r].Load(); n > 0 {
					tell(name, health.Result(r).String(), n)
				}
			}
		case telemetry.Ejections:
			for why := range w.ejections {
				if n := w.ejections[why].Load(); n > 0 {
					tell(name, health.Why(why).String(), n)
				}
			}
		}
	}
}
