package live_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/live"
)

// TestByHosts: a cluster whose hosts are looked up waits for them, whatever the control plane says of endpoints, and stops
// looking when nobody needs it.
func TestByHosts(t *testing.T) {
	const name = "external~pay.shop:443"
	var found func(*model.Endpoints)
	stopped := 0
	f := start(t, live.Config{Resolve: func(_ *model.Cluster, then func(*model.Endpoints)) func() {
		found = then
		return func() { stopped++ }
	}})
	g := f.ask("198.18.0.9:443")
	f.Service("198.18.0.9", service("external~pay.shop", "198.18.0.9", 443))
	f.RouteTable(name, table(name, name))
	f.Endpoints(name, &model.Endpoints{Cluster: portName(name)})
	m := &model.Cluster{Name: portName(name), ConnectTimeout: time.Second, Discovery: model.DiscoveryStrictDNS, Hosts: []model.Host{{Name: "pay.example", Port: 443}}}
	f.Cluster(name, m)
	f.loop.turn(0)
	if g.calls != 0 {
		t.Fatal("it was answered before its hosts were known")
	}
	found(endpoints(name, 2))
	f.loop.turn(0)
	if g.port == nil || len(g.port.Cluster(portName(name)).Endpoints()) != 2 {
		t.Fatalf("got %+v", g)
	}
	f.Endpoints(name, &model.Endpoints{Cluster: portName(name)})
	if n := len(g.port.Cluster(portName(name)).Endpoints()); n != 2 {
		t.Errorf("%d endpoints after the control plane has said none", n)
	}
	other := *m
	other.Hosts = []model.Host{{Name: "other.example", Port: 443}}
	f.Cluster(name, &other)
	if stopped != 1 {
		t.Errorf("stopped %d times after the hosts have changed", stopped)
	}
	f.Cluster(name, nil)
	if stopped != 2 {
		t.Errorf("stopped %d times after the cluster has gone", stopped)
	}
}

// TestUnsecured: a cluster whose TLS cannot be made does not exist: it must never be called in the clear.
func TestUnsecured(t *testing.T) {
	const name = "reviews.default:80"
	broken := true
	f := start(t, live.Config{Secure: func(*cluster.Cluster, *model.Cluster) error {
		if broken {
			return errors.New("no such file")
		}
		return nil
	}})
	g := f.ask("198.18.0.5:80")
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 80))
	f.RouteTable(name, table(name, name))
	m := &model.Cluster{Name: portName(name), ConnectTimeout: time.Second, TLS: &model.ClientTLS{SNI: "a"}}
	f.Cluster(name, m)
	f.Endpoints(name, endpoints(name, 1))
	f.loop.turn(0)
	if g.port == nil || g.port.Cluster(portName(name)) != nil {
		t.Fatalf("got %+v", g)
	}
	broken = false
	again := *m
	f.Cluster(name, &again)
	if c := g.port.Cluster(portName(name)); c == nil || len(c.Endpoints()) != 1 {
		t.Error("it does not come back")
	}
}
