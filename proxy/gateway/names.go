package gateway

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/resolve"
)

const (
	lookupEvery = 5 * time.Second // where the cluster does not say
	lookupTime  = 5 * time.Second // for one name
	longestTTL  = time.Hour       // that is respected
	maxAnswers  = 256             // addresses of one name that are used
)

// names keeps a cluster's endpoints what its host names resolve to (STRICT_DNS, LOGICAL_DNS), from a goroutine of its own.
// Answers that do not come, or are empty, leave what was known before.
type names struct {
	g    *Gateway
	m    *model.Cluster
	stop context.CancelFunc
	ask  *resolve.Resolver // tells how long an answer may be kept; nil: the standard library's, which does not
	last map[string][]netip.Addr
	next time.Duration // after which the names are asked for again
}

// follow starts, or goes on with, following the names of a cluster, or forgetting the addresses it does not use any more;
// nothing where its endpoints come otherwise. mu is held.
func (g *Gateway) follow(e *entry, m *model.Cluster) {
	g.forget(e, m)
	byName := m.Discovery == model.DiscoveryStrictDNS || m.Discovery == model.DiscoveryLogicalDNS
	if old := e.names; old != nil {
		if byName && reflect.DeepEqual(old.m.Hosts, m.Hosts) && slices.Equal(old.m.Localities, m.Localities) && old.m.DNS == m.DNS && old.m.Discovery == m.Discovery {
			return
		}
		old.stop()
		e.names = nil
	}
	if !byName || g.checking {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &names{g: g, m: m, stop: stop, last: map[string][]netip.Addr{}}
	if m.DNS.RespectTTL {
		n.ask = resolve.New(resolve.Config{Servers: g.cfg.NameServers})
	}
	e.names = n
	g.following.Go(func() { n.run(ctx) })
}

func (n *names) run(ctx context.Context) {
	for {
		began := time.Now()
		e := n.look(ctx)
		if ctx.Err() != nil {
			return
		}
		n.g.resolved(n, e)
		wait := time.NewTimer(time.Until(began.Add(n.next)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// look answers the endpoints that the names resolve to now.
func (n *names) look(ctx context.Context) *model.Endpoints {
	e := &model.Endpoints{Cluster: n.m.Name, Localities: n.m.Localities}
	n.next = longestTTL
	if n.ask == nil {
		n.next = n.every()
	}
	for _, h := range n.m.Hosts {
		addrs := n.lookup(ctx, h.Name)
		if n.m.Discovery == model.DiscoveryLogicalDNS && len(addrs) > 1 {
			addrs = addrs[:1]
		}
		for _, a := range addrs {
			e.Endpoints = append(e.Endpoints, model.Endpoint{Workload: h.Name, Address: netip.AddrPortFrom(a, h.Port),
				Weight: max(h.Weight, 1), Priority: h.Priority, Locality: h.Locality, CheckPort: h.CheckPort, Labels: h.Labels})
		}
	}
	return e
}

func (n *names) lookup(ctx context.Context, host string) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	all, err := n.addresses(ctx, host)
	if err != nil {
		n.g.cfg.Log.Debug("name not resolved", "cluster", n.m.Name, "name", host, "error", err)
	}
	if all = family(all, n.m.DNS.Family); len(all) > 0 {
		n.last[host] = all[:min(len(all), maxAnswers)]
	}
	return n.last[host]
}

// every is how often names are asked for.
func (n *names) every() time.Duration {
	if d := n.m.DNS.Refresh; d > 0 {
		return d
	}
	return lookupEvery
}

// addresses asks for a name, with its time to live where that is respected. A name that cannot be resolved has none, nor
// has an answer with 0: they are asked for again as often as the cluster says.
func (n *names) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if n.ask == nil {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	f := n.m.DNS.Family
	a, err := n.ask.Ask(ctx, host, f != model.DNSV6Only, f != model.DNSV4Only)
	keep := a.TTL
	if err != nil || keep == 0 {
		keep = n.every()
	}
	n.next = min(n.next, keep)
	return a.Addresses, err
}

// family answers the addresses of the wanted families.
func family(all []netip.Addr, f model.DNSFamily) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	switch f {
	case model.DNSV4Only:
		return v4
	case model.DNSV6Only:
		return v6
	case model.DNSV4Preferred:
		if len(v4) > 0 {
			return v4
		}
		return v6
	case model.DNSAll:
		return slices.Concat(v6, v4)
	}
	if len(v6) > 0 {
		return v6
	}
	return v4
}

// resolved puts what n has found in force, unless it was stopped.
func (g *Gateway) resolved(n *names, found *model.Endpoints) {
	g.mu.Lock()
	e := g.clusters[n.m.Name]
	if e == nil || e.names != n {
		g.mu.Unlock()
		return
	}
	first := !e.known
	e.known = true
	if first || !reflect.DeepEqual(n.g.foundOf(e), found.Endpoints) {
		e.cluster.SetEndpoints(found)
		g.tidy()
	}
	g.mu.Unlock()
	if first {
		g.settle()
	}
}

// foundOf answers the endpoints in force as they were given. mu is held.
func (g *Gateway) foundOf(e *entry) (out []model.Endpoint) {
	for _, ep := range e.cluster.Endpoints() {
		out = append(out, *ep.Model())
	}
	return out
}
