package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/watch"
)

// attend looks after the endpoints of a cluster that the workload calls: live.Config.Attend.
func (p *Proxy) attend(c *cluster.Cluster) (stop func()) {
	return watch.Start(watch.Config{Cluster: c, Log: p.cfg.Log, Group: &p.tasks, Part: p.part, Mesh: p.dialMesh}).Stop
}

// part ends the connections to an endpoint that has become unfit: those of requests when they are idle, relays at once if
// the cluster says so.
func (p *Proxy) part(ep *cluster.Endpoint, relays bool) {
	m := ep.Model()
	for _, w := range p.workers {
		w.loop.Post(func() {
			w.pool.Retire(func(t *pool.Target) bool {
				return t.Kind == pool.Mesh && t.Address == m.Address && t.Namespace == m.Namespace && t.Workload == m.Workload && t.Port == m.Port
			})
			if relays {
				w.relays.Drop(ep)
			}
		})
	}
}

// dialMesh connects to the proxy in front of a workload as this workload's requests do: watch.Config.Mesh.
func (p *Proxy) dialMesh(ctx context.Context, to *model.Endpoint, relayed bool) (net.Conn, error) {
	id, err := spiffe.ParseID(to.Identity)
	if err != nil {
		return nil, err
	}
	raw, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", to.Address.String())
	if err != nil {
		return nil, err
	}
	target := pool.MeshTarget(to)
	c := tls.Client(raw, mtls.ClientConfig(identity{p.cfg.Identity}, target.ServerName(), id))
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if !relayed {
		return c, nil
	}
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetWriteDeadline(d)
	}
	if _, err := c.Write(relay.AppendOpen(nil, &relay.Open{Port: to.Port, Source: local(raw)})); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func local(c net.Conn) netip.AddrPort {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	return netip.AddrPort{}
}
