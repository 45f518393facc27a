// Package probe asks an endpoint whether it is well: over HTTP/1.1 or HTTP/2, gRPC's health protocol, or TCP. It answers
// what package health is to make of it, within the time that its context has, and holds one connection per endpoint at
// most. It never decides anything and never asks by itself.
//
// A Probe belongs to one goroutine at a time. It is not on the path of any request, so it uses the standard library's
// client. Start reading at Probe.Ask.
package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
)

// Config is what all probes of a cluster share. Check is required.
type Config struct {
	Check   *model.HealthCheck
	Cluster string // its name: what HTTP and gRPC call the server where Check does not say
	// TLS answers what connections are made with, for the name that the server is called by; nil: they are plain.
	TLS       func(host string) *tls.Config
	SendProxy uint8 // version of the PROXY header that connections begin with; 0: none
	// Mesh makes connections to the proxy in front of a workload of the mesh, instead of TLS and SendProxy: for HTTP/2, over
	// which the program's own version of HTTP is asked for, or for the bytes of a relay. nil: the endpoint is dialed.
	Mesh func(ctx context.Context, relay bool) (net.Conn, error)
}

// Probe asks one endpoint.
type Probe struct {
	cfg  *Config
	at   netip.AddrPort
	host string
	http *http.Transport // HTTP and gRPC
	tcp  net.Conn        // TCP: kept for the next question; nil: none
}

// New makes a probe of the endpoint at an address.
func New(cfg *Config, at netip.AddrPort) *Probe {
	p := &Probe{cfg: cfg, at: at, host: cfg.Check.Host}
	if p.host == "" {
		p.host = cfg.Cluster
	}
	if cfg.Check.Kind != model.CheckTCP {
		p.http = p.transport()
	}
	return p
}

// Address answers where the checks of an endpoint go: Envoy's health_check_config.port_value, else the check's own port,
// else where requests go.
func Address(c *model.HealthCheck, e *model.Endpoint) netip.AddrPort {
	port := e.CheckPort
	if port == 0 {
		port = c.Port
	}
	if port == 0 {
		return e.Address
	}
	return netip.AddrPortFrom(e.Address.Addr(), port)
}

// Address answers where the probe asks.
func (p *Probe) Address() netip.AddrPort { return p.at }

// Ask asks once. What is wrong with anything but Passed is said in one line. ctx ends the question, which is then
// Unreachable.
func (p *Probe) Ask(ctx context.Context) (health.Result, error) {
	switch p.cfg.Check.Kind {
	case model.CheckTCP:
		return p.askTCP(ctx)
	case model.CheckGRPC:
		return p.askGRPC(ctx)
	}
	return p.askHTTP(ctx)
}

// Close ends the connection that is kept. Nothing may be asked any more.
func (p *Probe) Close() {
	if p.http != nil {
		p.http.CloseIdleConnections()
	}
	if p.tcp != nil {
		p.tcp.Close()
		p.tcp = nil
	}
}

// dial connects, and says the PROXY header, of ourselves.
func (p *Probe) dial(ctx context.Context) (net.Conn, error) {
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", p.at.String())
	if err != nil || p.cfg.SendProxy == 0 {
		return c, err
	}
	var from, to netip.AddrPort // version 2 has a word for what nobody else has asked for
	if p.cfg.SendProxy == 1 {
		from, to = addressOf(c.LocalAddr()), p.at
	}
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetWriteDeadline(d)
	}
	if _, err := c.Write([]byte(proxyproto.Out(p.cfg.SendProxy, from, to))); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func addressOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// secure makes TLS of a connection. protocols are what is offered, none: what the cluster offers.
func (p *Probe) secure(ctx context.Context, c net.Conn, protocols ...string) (net.Conn, error) {
	cfg := p.cfg.TLS(p.host)
	if len(protocols) > 0 {
		cfg = cfg.Clone()
		cfg.NextProtos = protocols
	}
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}
