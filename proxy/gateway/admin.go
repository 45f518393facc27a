package gateway

import (
	"net"
	"os"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// Config implements admin.Gateway: everything that is in force or waits, without secrets.
func (g *Gateway) Config() any {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.cfg.Bootstrap
	var listeners, waiting, clusters, endpoints, tables []any
	for _, l := range g.listeners {
		if v := l.now.Load(); v != nil {
			listeners = append(listeners, dump(v.model))
		}
		if l.next != nil {
			waiting = append(waiting, map[string]any{"listener": dump(l.next.model), "waits_for": l.next.needs(g)})
		}
	}
	for _, e := range g.clusters {
		clusters = append(clusters, dump(e.model))
		for _, ep := range e.cluster.Endpoints() {
			endpoints = append(endpoints, map[string]any{"cluster": e.model.Name.String(), "endpoint": dump(ep.Model())})
		}
	}
	for _, t := range g.tables {
		if now := t.now.Load(); now != nil {
			tables = append(tables, dump(now.Model))
		}
	}
	return map[string]any{
		"node": dump(&b.Node), "ads": dump(b.ADS), "listeners": listeners, "waiting": waiting, "clusters": clusters,
		"endpoints": endpoints, "routes": tables,
	}
}

// Clusters implements admin.Gateway.
func (g *Gateway) Clusters() (out []admin.Cluster) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.clusters {
		c := admin.Cluster{Name: e.model.Name.String(), Dynamic: !e.static, Discovery: discoveries[e.model.Discovery], Policy: policies[e.model.Balancing.Policy],
			Breakers: breakersOf(e.cluster)}
		spent := e.cluster.Spending(loop.Elapsed())
		c.Made, c.Refused, c.Left = spent.Made, spent.Refused, spent.Left
		for _, ep := range e.cluster.Endpoints() {
			m := ep.Model()
			c.Endpoints = append(c.Endpoints, admin.Endpoint{Address: m.Address.String(), Hostname: m.Workload, Health: flagsOf(ep),
				Weight: m.Weight, Priority: m.Priority, Locality: m.Locality, Active: ep.InFlight(), Total: ep.Total(), ConnectFailures: ep.ConnectFailures()})
			told := &c.Endpoints[len(c.Endpoints)-1]
			told.Checks, told.CheckFailures, told.Ejections = e.watch.Found(ep)
		}
		out = append(out, c)
	}
	return out
}

// Words of the admin's answers, in the order of the model's values.
var (
	discoveries = [...]string{model.DiscoveryEDS: "EDS", model.DiscoveryStatic: "STATIC", model.DiscoveryStrictDNS: "STRICT_DNS",
		model.DiscoveryLogicalDNS: "LOGICAL_DNS", model.DiscoveryOriginal: "ORIGINAL_DST"}
	policies = [...]string{model.LeastRequest: "LEAST_REQUEST", model.RoundRobin: "ROUND_ROBIN", model.Random: "RANDOM",
		model.RingHash: "RING_HASH", model.Maglev: "MAGLEV"}
)

// Listeners implements admin.Gateway.
func (g *Gateway) Listeners() (out []admin.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.listeners {
		a := admin.Listener{Name: l.name, Dynamic: !l.static, Connections: l.conns.Load(), State: "active"}
		v := l.now.Load()
		if v == nil {
			a.State = "waits for " + l.waitsFor(g)
		} else {
			a.Chains = len(v.all)
		}
		for _, s := range l.sockets {
			a.Addresses = append(a.Addresses, s.bound.String())
		}
		out = append(out, a)
	}
	return out
}

// startAdmin serves the questions of the bootstrap's admin address.
func (g *Gateway) startAdmin() error {
	a := g.cfg.Bootstrap.Admin
	if a == nil {
		return nil
	}
	l, err := g.listenAdmin(a)
	if err != nil {
		return err
	}
	s := admin.StartGateway(admin.GatewayConfig{Listener: l, Observer: g.observer, Gateway: g, Level: g.cfg.Level,
		Info: map[string]string{"version": g.cfg.Version, "node": g.cfg.Bootstrap.Node.ID}, Began: g.began, Logs: g.adminLogs, Log: g.cfg.Log})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admin, g.adminListener = s, l
	return nil
}

// listenAdmin takes over the socket of the proxy before this one, or opens one.
func (g *Gateway) listenAdmin(a *model.Admin) (net.Listener, error) {
	if g.cfg.Inherited != nil {
		if fd, ok := g.cfg.Inherited(a.Address); ok {
			f := os.NewFile(uintptr(fd), "admin")
			defer f.Close()
			return net.FileListener(f)
		}
	}
	return admin.Listen(a.Address, a.Open)
}

// AdminAddress answers where the admin server listens, "" without one.
func (g *Gateway) AdminAddress() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.adminListener == nil {
		return ""
	}
	return g.adminListener.Addr().String()
}

// shaking tells of TLS handshakes: observe.Config.Handshakes.
func (g *Gateway) shaking() observe.Handshakes {
	s := g.shake.Stats()
	return observe.Handshakes{Computing: s.Computing, Open: s.Open, Waiting: s.Queued, Refused: s.Refused, Evicted: s.Evicted, Late: s.Late}
}

// dropped answers how many lines of access logs could not be written.
func (g *Gateway) dropped() uint64 { return g.files.Dropped() }
