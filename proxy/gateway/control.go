package gateway

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/xds/ads"
)

// connect starts the stream that configuration comes over, if the bootstrap names its cluster. Who names none brings a control
// of its own (SetControl).
func (g *Gateway) connect() error {
	a := g.cfg.Bootstrap.ADS
	if a == nil || a.Cluster == (model.PortName{}) {
		return nil
	}
	g.mu.Lock()
	e := g.clusters[a.Cluster]
	g.mu.Unlock()
	if e == nil {
		return fmt.Errorf("ads: there is no static cluster %s; add it to static_resources", a.Cluster)
	}
	cfg := ads.Config{Node: g.cfg.Bootstrap.Node, Delta: a.Delta, LDS: g.cfg.Bootstrap.LDS, CDS: g.cfg.Bootstrap.CDS, Headers: a.Headers, Authority: a.Authority,
		Addresses: addresses(e), Sink: g, Log: g.cfg.Log, KeepAlive: e.model.Upstream.HTTP2.KeepAlive,
		KeepAliveTimeout: e.model.Upstream.HTTP2.KeepAliveTimeout}
	if len(cfg.Addresses) == 0 {
		return fmt.Errorf("ads: cluster %s has no endpoint", a.Cluster)
	}
	var err error
	if cfg.TLS, err = g.controlTLS(e.model); err != nil {
		return err
	}
	c, err := ads.Start(cfg)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.stream = c
	g.mu.Unlock()
	g.SetControl(c)
	return nil
}

// addresses answers where a static cluster's servers are: addresses, or names that are resolved for every attempt.
func addresses(e *entry) (out []string) {
	for _, h := range e.model.Hosts {
		out = append(out, net.JoinHostPort(h.Name, strconv.Itoa(int(h.Port))))
	}
	if len(out) > 0 {
		return out
	}
	for _, ep := range e.cluster.Endpoints() {
		out = append(out, ep.Address().String())
	}
	return out
}

func (g *Gateway) controlTLS(m *model.Cluster) (*tls.Config, error) {
	if m.TLS == nil {
		return nil, nil
	}
	c, err := mtls.NewClientContext(m.TLS, g.secrets)
	if err != nil {
		return nil, g.aboutCluster(m.Name, ".transport_socket", fmt.Errorf("cluster %s: %w", m.Name, err))
	}
	return c.Config("", "h2"), nil
}

// hear notes what kinds of resources the control plane has told. What says nothing is the answer to what was asked first.
// mu is held.
func (g *Gateway) hear(u *model.Updates) {
	g.heard[model.ResourceCluster] = g.heard[model.ResourceCluster] || len(u.Clusters) > 0
	g.heard[model.ResourceListener] = g.heard[model.ResourceListener] || len(u.Listeners) > 0
	if len(u.Clusters)+len(u.Listeners)+len(u.Endpoints)+len(u.Routes)+len(u.Secrets)+len(u.Removed) > 0 {
		return
	}
	if b := g.cfg.Bootstrap; b.CDS && !g.heard[model.ResourceCluster] {
		g.heard[model.ResourceCluster] = true
	} else {
		g.heard[model.ResourceListener] = true
	}
}
