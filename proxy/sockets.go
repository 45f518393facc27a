package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/seed"
	"github.com/tulle-mesh/tulle/dns"
	"github.com/tulle-mesh/tulle/identity/workload"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

var (
	// listens is where a program may listen in its namespace, in the order in which it is tried: the loopbacks, and
	// the namespace's own addresses for a program that binds to what it finds on its interface.
	listens = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), bootstrap.OwnV4, bootstrap.OwnV6}
	// virtual are the ranges of virtual addresses (DESIGN 5, "Names").
	virtual = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd74:756c:6c65::/64")}
)

// openSeeds takes over what sockets in the program's namespace are made from.
func (p *Proxy) openSeeds() {
	for _, v6 := range []bool{false, true} {
		s, ok := p.cfg.Bootstrap.Find(bootstrap.RoleSeed, v6, 0)
		l, ok2 := p.cfg.Bootstrap.Find(bootstrap.RoleSeedListener, v6, 0)
		switch {
		case !ok || !ok2:
		case v6:
			p.seeds.V6 = seed.New(s.FD, l.FD, true)
		default:
			p.seeds.V4 = seed.New(s.FD, l.FD, false)
		}
	}
}

// listen serves every socket of the bootstrap.
func (p *Proxy) listen() error {
	p.machine.read() // before the first connection asks
	mesh := &listener.Mesh{Workload: p.cfg.Bootstrap.Workload, Namespace: p.cfg.Bootstrap.Namespace}
	source := identity{p.cfg.Identity}
	cfg := mtls.ServerConfig(source, mtls.ServerOptions{Known: mesh.Known, Authorize: p.authorize, Time: source.Now})
	mesh.Handshake = func(raw loop.Conn, h loop.Handler) listener.Secure {
		return p.shake.ServerWith(raw, cfg, h, mtls.Options{Among: p.openOf(raw.Loop())})
	}
	for _, w := range p.workers {
		mesh.Workers = append(mesh.Workers, w.listener)
	}
	listener.Share(mesh.Workers)
	for _, s := range p.cfg.Bootstrap.Sockets {
		for _, w := range p.workers {
			accept, err := p.acceptFor(s, w, mesh)
			if err != nil {
				return err
			}
			if accept == nil {
				continue
			}
			if err := w.listenOn(s, accept); err != nil {
				return err
			}
		}
	}
	if err := p.serveDNS(); err != nil {
		return err
	}
	if err := p.serveWorkload(); err != nil {
		return err
	}
	return p.serveAdmin()
}

// serveWorkload serves the SPIFFE Workload API to the program, if it was asked for.
func (p *Proxy) serveWorkload() error {
	s, ok := p.cfg.Bootstrap.Find(bootstrap.RoleWorkload, false, 0)
	if !ok || p.cfg.Another == nil {
		return nil
	}
	l, err := netListener(s)
	if err != nil {
		return err
	}
	p.workload = workload.Serve(l, workload.Config{Obtain: p.cfg.Another, Log: p.cfg.Log})
	return nil
}

// acceptFor answers what a loop does with the connections of a socket, nil for sockets that loops do not serve.
func (p *Proxy) acceptFor(s bootstrap.Socket, w *worker, mesh *listener.Mesh) (func(loop.Incoming), error) {
	b := p.cfg.Bootstrap
	switch s.Role {
	case bootstrap.RoleOutbound:
		return w.listener.Outbound, nil
	case bootstrap.RoleMesh:
		return mesh.Accept, nil
	case bootstrap.RolePublish:
		for _, own := range p.ports {
			if own.Service.Port == b.Publish[s.Index].Port {
				return w.listener.Publish(own.Port, own.Service.Port), nil
			}
		}
		return nil, fmt.Errorf("--publish %s: the workload has no port %d", s.Local, b.Publish[s.Index].Port)
	case bootstrap.RoleForward:
		to, err := net.ResolveTCPAddr("tcp", b.Forward[s.Index].Target)
		if err != nil {
			return nil, fmt.Errorf("--forward %d: %w", b.Forward[s.Index].Listen, err)
		}
		addr := to.AddrPort()
		return w.listener.Forward(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())), nil
	}
	return nil, nil
}

func (p *Proxy) serveDNS() error {
	cfg := dns.Config{Names: names{p.live}, Outside: &p.outside, Prove: p.capture.name, Namespace: p.self.Namespace, VIPs: virtual, Log: p.cfg.Log,
		Resolvers: dns.ParseResolvers(p.cfg.Bootstrap.ResolvConf)}
	for _, s := range p.cfg.Bootstrap.Sockets {
		switch s.Role {
		case bootstrap.RoleDNSUDP:
			c, err := packetConn(s)
			if err != nil {
				return err
			}
			cfg.Packets = append(cfg.Packets, c)
		case bootstrap.RoleDNSTCP:
			l, err := netListener(s)
			if err != nil {
				return err
			}
			cfg.Listeners = append(cfg.Listeners, l)
		}
	}
	p.dns = dns.Start(cfg)
	return nil
}

func (p *Proxy) serveAdmin() error {
	b := p.cfg.Bootstrap
	cfg := admin.Config{Observer: p.observer, Live: p.live, Ready: p.Ready, Health: p.Health, Explain: p.explain, Log: p.cfg.Log,
		Info: map[string]string{"workload": b.Workload, "namespace": b.Namespace, "service": b.Service, "version": p.cfg.Version}}
	var err error
	if s, ok := b.Find(bootstrap.RoleMetrics, false, 0); ok {
		if cfg.Metrics, err = netListener(s); err != nil {
			return err
		}
	}
	if s, ok := b.Find(bootstrap.RoleAdmin, false, 0); ok {
		if cfg.Admin, err = netListener(s); err != nil {
			return err
		}
	}
	p.admin = admin.Start(cfg)
	return nil
}

// netListener makes a listener of a handed-over socket. Closing it closes a duplicate: the socket itself stays open
// in the supervisor, with its queue.
func netListener(s bootstrap.Socket) (net.Listener, error) {
	f := os.NewFile(uintptr(s.FD), s.Local)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s socket %s: %w", s.Role, s.Local, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the supervisor's file
	}
	return l, nil
}

func packetConn(s bootstrap.Socket) (net.PacketConn, error) {
	f := os.NewFile(uintptr(s.FD), s.Local)
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s socket %s: %w", s.Role, s.Local, err)
	}
	return c, nil
}

// socketAddress answers where a socket of the machine listens.
func (p *Proxy) socketAddress(role bootstrap.Role) (netip.AddrPort, bool) {
	s, ok := p.cfg.Bootstrap.Find(role, false, 0)
	if !ok {
		return netip.AddrPort{}, false
	}
	a, err := netip.ParseAddrPort(s.Local)
	return a, err == nil
}

// ownPort answers what is known about a port of the workload, as the first port of the service that it is.
func (p *Proxy) ownPort(port uint16) (listener.OwnPort, bool) {
	for _, own := range p.ports {
		if own.Port == port {
			return p.learned(own), true
		}
	}
	return listener.OwnPort{}, false
}

// served answers what is known about a port of the service.
func (p *Proxy) served(service uint16) (listener.OwnPort, bool) {
	for _, own := range p.ports {
		if own.Service.Port == service {
			return p.learned(own), true
		}
	}
	return listener.OwnPort{}, false
}

// learned adds to what was declared of a port what policies want it to be, and what was learned.
func (p *Proxy) learned(own listener.OwnPort) listener.OwnPort {
	switch {
	case p.policies.Rules().HTTP(own.Service.Port) && !(own.Protocol.Declared() && own.Protocol.HTTP()):
		own.Protocol = model.ProtocolHTTP // a connection that is something else would get by what policies say about requests
	case !own.Protocol.Declared():
		own.Protocol = p.learning.Learned(own.Port)
	}
	return own
}

// program says how to reach a port of the program, as seen from source.
func (p *Proxy) program(port uint16, source netip.Addr) (loop.Dial, bool) {
	if _, ok := p.ownPort(port); !ok {
		return loop.Dial{}, false
	}
	d := loop.Dial{Address: netip.AddrPortFrom(listens[0], port), Also: listens[1:], Socket: p.seeds.Mint}
	if source.Is4() {
		d.Source = source
	}
	return d, true
}

// passthrough says where the program may not go outside of the mesh.
func (p *Proxy) passthrough() listener.Passthrough {
	own := map[uint16]bool{}
	for _, role := range []bootstrap.Role{bootstrap.RoleMesh, bootstrap.RoleMetrics} {
		if a, ok := p.socketAddress(role); ok {
			own[a.Port()] = true
		}
	}
	for i := range p.cfg.Bootstrap.Publish {
		if s, ok := p.cfg.Bootstrap.Find(bootstrap.RolePublish, false, i); ok {
			if a, err := netip.ParseAddrPort(s.Local); err == nil {
				own[a.Port()] = true
			}
		}
	}
	if a, err := netip.ParseAddrPort(p.cfg.Control); err == nil {
		own[a.Port()] = true
	}
	for _, port := range p.cfg.Bootstrap.Control.Ports {
		own[port] = true
	}
	return listener.Passthrough{
		VIPs:    virtual,
		Capture: []uint16{bootstrap.OutboundPort, bootstrap.DNSPort, 15006},
		Machine: p.machine.has,
		Own:     func(a netip.AddrPort) bool { return own[a.Port()] && p.machine.has(a.Addr()) },
	}
}

// machine is the addresses of this machine, which change seldom.
type machine struct {
	addrs atomic.Pointer[map[netip.Addr]bool]
}

// machineEvery is how often they are read again.
const machineEvery = 10 * time.Second

func (m *machine) has(a netip.Addr) bool {
	known := m.addrs.Load()
	return known != nil && (*known)[a.Unmap()]
}

func (m *machine) read() {
	known := map[netip.Addr]bool{}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return // what was known stays
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				known[ip.Unmap()] = true
			}
		}
	}
	m.addrs.Store(&known)
}

func (m *machine) follow(ctx context.Context) {
	tick := time.NewTicker(machineEvery)
	defer tick.Stop()
	for {
		m.read()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
