package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/dns"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/egress"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/resolve"
	"github.com/tulle-mesh/tulle/proxy/secret"
)

// outside is what is outside of the mesh: whom the program may talk to there, how it is found, and how connections are secured.
// listener.Egress and exchange.Egress.
type outside struct {
	p      *Proxy
	table  atomic.Pointer[egress.Table] // nil: not known yet, nothing is let out
	told   egress.Memory
	pass   listener.Passthrough
	asks   *resolve.Resolver
	denied policy.Lines // about denials
	tried  policy.Lines // about policies in dry run

	mu      sync.Mutex
	secrets *secret.Store // nil: nothing was asked for yet
}

// Bounds of looking up.
const (
	lookupTime    = 5 * time.Second // for one name
	shortestTTL   = time.Second
	mostAddresses = 64 // of one name that are used
)

// openOutside makes what is needed of it; the table comes with the policies.
func (p *Proxy) openOutside() {
	p.outside.p, p.outside.pass = p, p.passthrough()
	p.outside.asks = resolve.New(resolve.Config{Servers: dns.ParseResolvers(p.cfg.Bootstrap.ResolvConf)})
}

// compile makes the table of whom the program may talk to.
func (o *outside) compile(s *model.Security) (*egress.Table, error) {
	id := o.p.cfg.Identity.Current().ID
	c := egress.Caller{Principal: id.String(), TrustDomain: id.TrustDomain, Namespace: o.p.self.Namespace, Labels: model.LabelsOf(o.p.cfg.Bootstrap.Labels)}
	if id.Namespace != "" {
		c.Namespace, c.Account = id.Namespace, id.Namespace+"/"+id.ServiceAccount
	}
	return egress.Compile(&s.Egress, c)
}

// Address implements listener.Egress.
func (o *outside) Address(to netip.AddrPort) listener.Exit {
	t := o.table.Load()
	if t == nil {
		return listener.Exit{Why: failure.Unavailable}
	}
	names := o.told.Names(to.Addr(), loop.Elapsed())
	return o.exit(to, t.Address(to, names), names, "")
}

// Named implements listener.Egress.
func (o *outside) Named(to netip.AddrPort, said string) listener.Exit {
	t := o.table.Load()
	if t == nil {
		return listener.Exit{Why: failure.Unavailable}
	}
	names := o.told.Names(to.Addr(), loop.Elapsed())
	return o.exit(to, t.Named(to, names, said, time.Now().Unix()), names, said)
}

func (o *outside) exit(to netip.AddrPort, e egress.Exit, names []string, said string) listener.Exit {
	out := listener.Exit{Why: e.Why, Peek: e.Peek, Service: e.Service, Names: names}
	now := time.Now().Unix()
	switch {
	case e.Said.Asked:
		out.Said = policy.Decided(&e.Said.Verdict)
	case e.Why != failure.None:
		out.Said.Refusal = record.Refusal{By: e.By, Cause: e.Cause}
	}
	if e.Why != failure.None || e.Said.Dry {
		if unsaid, ok := o.room(e.Why).Room(now, policy.Kind(to.Port(), to.Addr().String(), said)); ok {
			args := []any{"address", to.String()}
			if said != "" {
				args = append(args, "name", policy.Clip(said))
			}
			a := authz.Attributes{Port: to.Port(), ServerName: e.Judged.Name, Host: e.Judged.Name, Now: now}
			if !e.Judged.Service.IsZero() {
				args = append(args, "service", e.Judged.Service.String())
			}
			o.say(e.Why, unsaid, &out.Said, e.Judged.Service, &a, args)
		}
	}
	return out
}

// room answers what bounds the lines about denials, or those about policies in dry run.
func (o *outside) room(why failure.Reason) *policy.Lines {
	if why != failure.None {
		return &o.denied
	}
	return &o.tried
}

// note tells d what policies of an ExternalService said, or what refused without them.
func note(why failure.Reason, of model.PortName, said *egress.Said, d *record.Decision) {
	switch {
	case said.Asked:
		*d = policy.Decided(&said.Verdict)
	case why != failure.None:
		*d = record.Decision{Refusal: record.Refusal{By: of.String(), Cause: said.Cause}}
	}
}

// say writes a line for which there is room. of is whose policies were asked, if they were, about a; the nearest of their rules is
// looked for only here, and told to d.
func (o *outside) say(why failure.Reason, unsaid int64, d *record.Decision, of model.ServiceName, a *authz.Attributes, args []any) {
	line := "egress_dry_run"
	if why != failure.None {
		line = why.Label()
		args = append(args, o.because(d, of, a)...)
	}
	if d.Dry != record.Unasked {
		args = append(args, policy.Dry(d)...)
	}
	policy.Say(o.p.cfg.Log, line, unsaid, args...)
}

// because answers what a line says about why something is denied.
func (o *outside) because(d *record.Decision, of model.ServiceName, a *authz.Attributes) []any {
	switch {
	case d.Verdict == record.Unasked:
		return []any{"policy", d.Refusal.By, "why", d.Refusal.Cause}
	case !d.Absent:
		return []any{"policy", d.Policy, "rule", d.Rule}
	}
	if t := o.table.Load(); t != nil {
		if set := t.Nearest(of, a); set != nil {
			d.Nearest = policy.Nearest(set, a, a.HTTP)
		}
	}
	return []any{"why", "no policy allows it", "nearest", d.Nearest}
}

// Connection implements listener.Egress.
func (o *outside) Connection(called, to model.PortName, sni string, wanted netip.Addr, now time.Time, d *record.Decision) failure.Reason {
	t := o.table.Load()
	if t == nil {
		return failure.Unavailable
	}
	return o.connection(t, called, to, sni, wanted, now, d)
}

func (o *outside) connection(t *egress.Table, called, to model.PortName, sni string, wanted netip.Addr, now time.Time, d *record.Decision) failure.Reason {
	named := false
	if c := o.p.live.Held(to); c != nil {
		named = c.Model().Protocol == model.ProtocolTLS && called == to
	}
	sni = strings.ToLower(sni)
	why, said := t.Connection(to, sni, named, o.pass.Mesh(wanted), now.Unix())
	if note(why, to, &said, d); why != failure.None || said.Dry {
		if unsaid, ok := o.room(why).Room(now.Unix(), policy.Kind(to.Port, to.Service.Namespace, to.Service.Name, sni)); ok {
			a := authz.Attributes{Port: to.Port, ServerName: sni, Now: now.Unix()}
			o.say(why, unsaid, d, to.Service, &a, []any{"address", wanted.String(), "service", to.String(), "name", policy.Clip(sni)})
		}
	}
	return why
}

// Again implements listener.Egress. A connection to an ExternalService that is none any more is one to its address.
func (o *outside) Again(w *listener.Way, now time.Time, d *record.Decision) failure.Reason {
	t := o.table.Load()
	if t == nil {
		return failure.Unavailable
	}
	if !w.To.Service.IsZero() && (t.Knows(w.To.Service) || o.pass.Mesh(w.Wanted.Addr())) {
		return o.connection(t, w.Called, w.To, w.Said, w.Wanted.Addr(), now, d)
	}
	said := strings.ToLower(w.Said)
	e := t.Address(w.Wanted, w.Names)
	if e.Why == failure.None && e.Peek {
		e = t.Named(w.Wanted, w.Names, said, now.Unix())
	}
	if e.Why == failure.None && !e.Service.Service.IsZero() {
		return o.connection(t, model.PortName{}, e.Service, said, w.Wanted.Addr(), now, d)
	}
	out := o.exit(w.Wanted, e, nil, said)
	*d = out.Said
	return out.Why
}

// useless reports whether connections of requests to a target outside of the mesh are ended when they are idle, because what is
// decided about it has changed: those over which not everything may go. Requests that may make new ones.
func (o *outside) useless(t *pool.Target) bool {
	if t.Kind == pool.Mesh || t.Cluster == nil {
		return false
	}
	if _, external := t.Cluster.Name.Service.External(); !external {
		return false
	}
	table := o.table.Load()
	if table == nil {
		return false
	}
	why, _ := table.Connection(t.Cluster.Name, "", false, false, time.Now().Unix())
	return why != failure.None
}

// Paths implements exchange.Egress.
func (o *outside) Paths(to model.PortName) bool {
	t := o.table.Load()
	return t != nil && t.Paths(to)
}

// Request implements exchange.Egress.
func (o *outside) Request(called, to model.PortName, a *authz.Attributes, d *record.Decision, id []byte) failure.Reason {
	t := o.table.Load()
	if t == nil {
		return failure.Unavailable
	}
	why, said := t.Request(to, a, called == to)
	if note(why, to, &said, d); why != failure.None || said.Dry {
		if unsaid, ok := o.room(why).Room(a.Now, policy.Kind(to.Port, to.Service.Namespace, to.Service.Name, a.Host, a.Method)); ok { // what a says is the request's memory
			o.say(why, unsaid, d, to.Service, a, []any{"service", to.String(), "name", policy.Clip(a.Host), "method", strings.Clone(a.Method), "path", policy.Clip(a.Path), "request_id", string(id)})
		}
	}
	return why
}

// Host implements dns.Outside.
func (o *outside) Host(name string) (service model.ServiceName, virtual, known bool) {
	if t := o.table.Load(); t != nil {
		return t.Host(name)
	}
	return model.ServiceName{}, false, false
}

// Learned implements dns.Outside. What is nobody's is remembered too: it tells which names share an address.
func (o *outside) Learned(name string, addrs []netip.Addr) { o.told.Learn(name, addrs, loop.Elapsed()) }

// sieve takes out of the endpoints of an ExternalService what no program may reach; literal: they are addresses that somebody
// has written, so the machine's own loopback may be meant.
func (o *outside) sieve(e *model.Endpoints, literal func(netip.Addr) bool) *model.Endpoints {
	out := *e
	out.Endpoints = slices.DeleteFunc(slices.Clone(e.Endpoints), func(ep model.Endpoint) bool {
		a := ep.Address
		if a.Addr().IsLoopback() && literal(a.Addr()) {
			return o.pass.Own != nil && o.pass.Own(a) || slices.Contains(o.pass.Capture, a.Port())
		}
		return o.pass.Refuse(a) != failure.None
	})
	return &out
}

// static is live.Config.Sieve.
func (o *outside) static(e *model.Endpoints) *model.Endpoints {
	return o.sieve(e, func(netip.Addr) bool { return true })
}

// resolve is live.Config.Resolve: it looks names up until it is stopped. What does not answer leaves what was known.
func (o *outside) resolve(m *model.Cluster, found func(*model.Endpoints)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	o.p.tasks.Go(func() {
		select {
		case <-ctx.Done():
		case <-o.p.ended:
			cancel()
		}
	})
	o.p.tasks.Go(func() {
		last := map[string][]netip.Addr{}
		for {
			e := &model.Endpoints{Cluster: m.Name}
			wait := m.DNS.Refresh
			for _, h := range m.Hosts {
				addrs, ttl := o.lookup(ctx, h.Name, m.Name)
				if len(addrs) > 0 {
					last[h.Name] = addrs
				}
				if ttl > 0 {
					wait = min(wait, max(ttl, shortestTTL))
				}
				for _, a := range last[h.Name] {
					e.Endpoints = append(e.Endpoints, model.Endpoint{Workload: h.Name, Address: netip.AddrPortFrom(a, h.Port), Weight: h.Weight})
				}
			}
			if ctx.Err() != nil {
				return
			}
			found(o.sieve(e, func(a netip.Addr) bool {
				return slices.ContainsFunc(m.Hosts, func(h model.Host) bool { return h.Name == a.String() })
			}))
			if len(e.Endpoints) == 0 {
				wait = shortestTTL
			}
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
		}
	})
	return cancel
}

func (o *outside) lookup(ctx context.Context, name string, of model.PortName) ([]netip.Addr, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a.Unmap()}, 0
	}
	a, err := o.asks.Ask(ctx, name, true, true)
	if err != nil {
		o.p.cfg.Log.Warn("a host outside of the mesh is not resolved; what was known stays", "service", of.String(), "host", name, "error", err)
	}
	return a.Addresses[:min(len(a.Addresses), mostAddresses)], a.TTL
}

// secured makes the connections of a cluster over TLS: cluster.TLS.
type secured struct {
	*mtls.ClientContext
	shake *mtls.Handshakes
}

// Dial implements cluster.TLS.
func (s *secured) Dial(l loop.Loop, d loop.Dial, header []byte, host string, protocols []string, h loop.Handler) loop.Conn {
	return s.shake.DialWith(l, d, s.Config(host, protocols...), h, mtls.Options{Timeout: d.Timeout, Header: header})
}

// secure is live.Config.Secure. An error means that there is no way to call the cluster as it asks; it must not be called then.
func (o *outside) secure(c *cluster.Cluster, m *model.Cluster) error {
	if m.TLS == nil {
		c.SetTLS(nil)
		return nil
	}
	x, err := mtls.NewClientContext(m.TLS, o.store())
	if err != nil {
		return fmt.Errorf("TLS of %s: %w", m.Name, err)
	}
	c.SetTLS(&secured{x, &o.p.shake})
	return nil
}

// store answers where keys and certificates are; most workloads never need it.
func (o *outside) store() *secret.Store {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.secrets == nil {
		o.secrets = secret.New(secret.Config{Logger: o.p.cfg.Log})
	}
	return o.secrets
}

// close forgets the keys. After live, which asks for them.
func (o *outside) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.secrets != nil {
		o.secrets.Close()
	}
}

// named is listener.Config.Named.
func (p *Proxy) named(on loop.Loop, name model.PortName, then func(listener.Port, failure.Reason)) {
	p.live.ByName(on, name, func(port *live.Port, why failure.Reason) {
		if port == nil {
			then(nil, why)
			return
		}
		then(port, why)
	})
}
