package cluster_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// TestUnchecked: where health is checked, an endpoint that was not asked yet is unhealthy, but for a workload of the mesh, which is
// announced by its own proxy: a caller's first request does not wait for its first check.
func TestUnchecked(t *testing.T) {
	never := 0.0
	for identity, want := range map[string]bool{"": false, "spiffe://a/ns/default/sa/b": true} {
		c := cluster.New(&model.Cluster{ConnectTimeout: time.Second, HealthChecks: []model.HealthCheck{{Interval: time.Second}}, Balancing: model.Balancing{Panic: &never}})
		c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "b", Address: netip.MustParseAddrPort("127.0.0.1:1"), Identity: identity, Weight: 1}}})
		if ep, _, _ := c.Choose(&cluster.Choice{}); (ep != nil) != want {
			t.Errorf("identity %q: picked %v", identity, ep)
		}
	}
}
