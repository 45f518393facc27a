package cluster_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

func TestNamed(t *testing.T) {
	c := spread(model.Balancing{}, 3)
	all := c.Endpoints()
	name := cluster.NameOf(all[1].Model())
	if ep, from := c.Named(name); ep != all[1] || from != 3 {
		t.Errorf("%v of %d", ep, from)
	}
	all[1].SetEjected(true)
	if ep, _ := c.Named(name); ep != nil {
		t.Error("an ejected endpoint")
	}
	all[1].SetEjected(false)
	all[1].ConnectFailed(time.Second)
	if ep, _ := c.Named(name); ep != all[1] {
		t.Error("one that cools down may be well again")
	}
	// Rescaled: the endpoint stands elsewhere, among others.
	e := &model.Endpoints{Cluster: model.Free("c"), Endpoints: []model.Endpoint{{Address: netip.MustParseAddrPort("10.9.9.9:80"), Weight: 1}, *all[1].Model()}}
	c.SetEndpoints(e)
	if ep, from := c.Named(name); ep != all[1] || from != 2 {
		t.Errorf("after a change: %v of %d", ep, from)
	}
	c.Set(&model.Cluster{Name: model.Free("c"), ConnectTimeout: time.Second, Balancing: model.Balancing{Policy: model.Maglev}})
	if ep, _ := c.Named(name); ep != all[1] {
		t.Error("after other settings")
	}
	e = &model.Endpoints{Cluster: model.Free("c"), Endpoints: []model.Endpoint{*all[1].Model()}}
	e.Endpoints[0].Health = model.Draining
	c.SetEndpoints(e)
	if ep, _ := c.Named(name); ep != nil {
		t.Error("a draining endpoint")
	}
	c.SetEndpoints(nil)
	if ep, _ := c.Named(name); ep != nil {
		t.Error("one that is gone")
	}
}

// TestNameOf: a workload keeps its name where its address changes; endpoints that are no workloads have their address for one.
func TestNameOf(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	workload := model.Endpoint{Namespace: "n", Workload: "w", Identity: "spiffe://x/y", Address: a, Port: 1}
	moved, other, host := workload, workload, workload
	moved.Address, other.Workload, host.Identity = b, "w2", ""
	if cluster.NameOf(&workload) != cluster.NameOf(&moved) || cluster.NameOf(&workload) == cluster.NameOf(&other) {
		t.Error("of workloads")
	}
	elsewhere := host
	elsewhere.Address = b
	if cluster.NameOf(&host) == cluster.NameOf(&elsewhere) {
		t.Error("of addresses with one host name")
	}
}
