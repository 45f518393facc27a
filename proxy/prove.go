package proxy

import (
	"crypto/tls"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// What callers must prove: connections that come through --publish (modes), and requests (tokens).

// proofs is what the workload's ports ask for, by port of its service; the map never changes.
type proofs struct {
	ring   *token.Ring
	tokens map[uint16]*token.InForce
	labels []model.Label
	door   *tls.Config                    // of published ports
	modes  atomic.Pointer[model.Security] // nil: nothing is known yet
}

// askFor makes what holds the proofs that are asked for.
func (p *Proxy) askFor() {
	p.proofs.ring = token.NewRing(token.Config{Log: p.cfg.Log, Changed: func() {
		select {
		case p.rekeyed <- struct{}{}:
		default: // it has not looked yet
		}
	}})
	source := identity{p.cfg.Identity}
	p.proofs.door = mtls.ServerConfig(source, mtls.ServerOptions{Authorize: p.authorize, Time: source.Now, Outside: true})
	p.proofs.labels = model.LabelsOf(p.cfg.Bootstrap.Labels)
	p.proofs.tokens = map[uint16]*token.InForce{}
	for _, own := range p.ports {
		p.proofs.tokens[own.Service.Port] = &token.InForce{}
	}
}

// putInForce puts all that a service enforces in force, or, with an error, nothing of it.
func (p *Proxy) putInForce(s *model.Security) error {
	f := &p.proofs
	ports := make([]uint16, 0, len(f.tokens))
	for n := range f.tokens {
		ports = append(ports, n)
	}
	guards, keep, err := f.ring.Guards(s, f.labels, ports)
	if err != nil {
		return err
	}
	out, err := p.outside.compile(s)
	if err != nil {
		return err
	}
	if err := p.policies.Set(s); err != nil {
		return err
	}
	p.outside.table.Store(out)
	for n, in := range f.tokens {
		in.Set(guards[n])
	}
	keep()
	f.modes.Store(s)
	return nil
}

// mode answers what connections from outside the mesh to a port of the service must prove: listener.Config.Mode.
func (p *Proxy) mode(port uint16) model.MTLSMode {
	s := p.proofs.modes.Load()
	if s == nil {
		return model.ModeStrict
	}
	return s.Mode(port, p.proofs.labels).Mode
}

// modeBy names the policy that says so: listener.Config.ModeBy.
func (p *Proxy) modeBy(port uint16) string {
	if s := p.proofs.modes.Load(); s != nil {
		return s.Mode(port, p.proofs.labels).Policy
	}
	return ""
}

// admit begins TLS with a caller from outside the mesh: listener.Config.Handshake.
func (p *Proxy) admit(raw loop.Conn, h loop.Handler) listener.Secure {
	return p.shake.ServerWith(raw, p.proofs.door, h, mtls.Options{Among: p.openOf(raw.Loop())})
}
