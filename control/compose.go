package control

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/control/federate"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/meter"
	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/control/push"
	"github.com/tulle-mesh/tulle/control/ratelimit"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/rollout/drive"
	"github.com/tulle-mesh/tulle/control/routes"
	"github.com/tulle-mesh/tulle/control/snapshot"
	"github.com/tulle-mesh/tulle/control/stats"
	"github.com/tulle-mesh/tulle/control/status"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/telemetry"
	wire "github.com/tulle-mesh/tulle/xds/ratelimit"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/server"
)

// compose starts the parts in the order of their needs and plugs them together. The API comes last: when it
// answers, everything does.
func (p *Plane) compose(ctx context.Context) error {
	reg, err := registry.Start(ctx, registry.Config{Store: p.store, Log: p.log})
	if err != nil {
		return err
	}
	p.onClose(reg.Close)
	lasts := &outage.Memory{}
	keep := &outage.Keeper{Memory: lasts, Store: p.store}
	if err := keep.Load(ctx, time.Now()); err != nil {
		return err
	}
	var rt *routes.Routes
	started := make(chan struct{}) // closed when rt is set: nobody asks for a snapshot before
	snap := func() snapshot.Snapshot {
		<-started
		return snapshot.Snapshot{Index: rt.Index(), View: reg, Recovery: lasts.Learned, Trust: p.trustModel}
	}
	p.federated = federate.New(federate.Config{Store: p.store, Own: p.believed.Load, Log: p.log})
	p.onClose(p.federated.Close)
	tokens := token.New(p.store, func() []byte { return p.ca.RootsDER()[0] })
	out := push.New(push.Config{Snapshot: snap, Serves: p.serves(tokens), Log: p.log})
	rt, err = routes.Start(ctx, routes.Config{Store: p.store, Log: p.log, Services: func() []model.ServiceName { return everyone(reg) }, Changed: func(services []model.ServiceName, revision int64) {
		<-started
		p.federated.Configure(rt.Index().Mesh())
		out.Changed(uint64(revision), services, nil)
	}})
	close(started)
	if err != nil {
		return err
	}
	p.federated.Configure(rt.Index().Mesh())
	p.onClose(rt.Close)
	p.onClose(reg.Watch(func(c registry.Change) { out.Changed(0, c.Services, c.Endpoints) }))
	seen := &stats.Stats{}
	p.spread(keep, out)
	decided := p.remember()
	p.every(drive.Every, "rollouts are not moved, it is tried again", (&drive.Driver{Store: p.store, Seen: seen, Here: here(reg),
		Compiler: func() compile.Compiler { return compile.Compiler{Index: rt.Index(), Services: reg} }}).Tick)
	if err := p.believe(ctx, reg, out); err != nil {
		return err
	}
	if err := p.serveProxies(reg, out, seen, lasts, decided, tokens); err != nil {
		return err
	}
	return p.serveAPI(reg, rt, out, seen, lasts, decided, tokens)
}

// every calls do again and again until Close.
func (p *Plane) every(pause time.Duration, failed string, do func(context.Context, time.Time) error) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if err := do(ctx, now); err != nil && ctx.Err() == nil {
					p.log.Warn(failed, "error", err)
				}
			}
		}
	}()
	p.onClose(func() {
		stop()
		<-ended
	})
}

// here reports whether a workload, named as its proxy reports, is one that the registry knows.
func here(reg *registry.Registry) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(reg.Workloads(), func(w *registry.Workload) bool { return reportsAs(*w) == name })
	}
}

// reportsAs is the name of a proxy's counts. Each proxy of a workload counts from zero, and two may count at the same time.
func reportsAs(w registry.Workload) string { return fmt.Sprintf("%s#%d", w.Key(), w.Starts) }

// serviceNames answers every service.
// everyone answers the services, and what pure clients are called, who have policies too.
func everyone(reg *registry.Registry) []model.ServiceName {
	out := serviceNames(reg)
	known := map[model.ServiceName]bool{}
	for _, n := range out {
		known[n] = true
	}
	for _, w := range reg.Workloads() {
		if n := (model.ServiceName{Namespace: w.Namespace, Name: w.Service}); !known[n] {
			known[n] = true
			out = append(out, n)
		}
	}
	return out
}

func serviceNames(reg *registry.Registry) (out []model.ServiceName) {
	for _, s := range reg.Services() {
		out = append(out, s.Name)
	}
	return out
}

// serveProxies opens what proxies connect to: attestation on the unix socket, everything else with mTLS on TCP.
func (p *Plane) serveProxies(reg *registry.Registry, out *push.Push, seen *stats.Stats, lasts *outage.Memory, decided *decisions.Keeper, tokens *token.Tokens) error {
	ids := attest.New(attest.Config{Authority: p.issuing, Tokens: tokens, Address: dialable(p.GRPCAddress()), Server: attest.ServerID(p.ca.TrustDomain()), TTL: p.ca.Leaf(), Log: p.log,
		Refuses: func(id spiffe.ID) error { return p.trust.Refuses(id, nil) }})
	sessions := &push.Sessions{Registry: reg, Push: out, Log: p.log, Shown: p.shown, Left: p.left, Serves: p.serves(tokens), Recovered: func(list []recovery.Report) { lasts.Report(list, time.Now()) }, Stats: func(w registry.Workload, text []byte) {
		if err := seen.Report(reportsAs(w), text, time.Now()); err != nil {
			p.log.Warn("statistics refused", "error", err)
		}
	}}
	sessions.Decided = func(w registry.Workload, r decision.Report) {
		decided.Report(model.ServiceName{Namespace: w.Namespace, Name: w.Service}, model.LabelsOf(w.Labels), r, time.Now())
	}
	sessions.Captured = p.captures.note
	remote := grpc.NewServer(p.open.Options()...)
	ids.Register(remote)
	p.streams = server.New(server.Config{Source: out, Sessions: sessions, Recall: &p.recall, Log: p.log,
		Known: func(id spiffe.ID) spiffe.ID { return p.trust.Trust().Canonical(id) }})
	p.streams.Register(remote)
	begun := time.Now()
	wire.Serve(remote, ratelimit.New(func() time.Duration { return time.Since(begun) }).Decide)
	p.serveGRPC(remote, p.grpc)
	l, err := p.listenUnix(ProxySocket(p.cfg.DataDir))
	if err != nil {
		return err
	}
	p.serveGRPC(ids.LocalServer(), l)
	return nil
}

// dialable answers where processes of this machine connect to a listener.
func dialable(address string) string {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().IsUnspecified() {
		return address
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port()).String() // also one on :: takes IPv4
}

// serveAPI opens what people and the command line talk to.
func (p *Plane) serveAPI(reg *registry.Registry, rt *routes.Routes, out *push.Push, seen *stats.Stats, lasts *outage.Memory, decided *decisions.Keeper, tokens *token.Tokens) error {
	admin, err := p.token(AdminTokenFile(p.cfg.DataDir))
	if err != nil {
		return err
	}
	scrape, err := p.token(MetricsTokenFile(p.cfg.DataDir))
	if err != nil {
		return err
	}
	figures := &meter.Meter{Trust: p.trust.Report, Proxies: func() int { return len(out.Proxies()) }, Connections: p.open.Count, Streams: p.streams.Counts,
		Decisions: decided.Memory.Count, Issued: p.issuing.count, Now: time.Now, Began: p.started}
	compiler := func() compile.Compiler { return compile.Compiler{Index: rt.Index(), Services: reg} }
	api := httpapi.New(httpapi.Config{
		Metrics: figures.Write, Scrape: scrape,
		Store: p.store, Registry: reg, Tokens: tokens, Admin: admin, Log: p.log, Now: time.Now, Info: p.info(),
		RouteTable:  func(n model.PortName) (*model.RouteTable, bool) { return compiler().RouteTable(n) },
		RouteTables: func(n model.PortName) []*model.RouteTable { return compiler().RouteTables(n) },
		RouteStatus: func(r v1alpha1.Object) []v1alpha1.RouteParentStatus {
			s := status.Route(compiler(), out, r, time.Now())
			for i := range s {
				p.changed.keep(r, i, s[i].Conditions)
			}
			return s
		},
		PolicyStatus: func(o *v1alpha1.TrafficPolicy) v1alpha1.TrafficPolicyStatus {
			s := status.TrafficPolicy(compiler(), out, o, time.Now())
			for i := range s.Ancestors {
				p.changed.keep(o, i, s.Ancestors[i].Conditions)
			}
			return s
		},
		SecurityStatus: func(o v1alpha1.Object) v1alpha1.SecurityPolicyStatus {
			s := status.Security(compiler(), out, o, serviceNames(reg), time.Now())
			p.changed.keep(o, 0, s.Conditions)
			return s
		},
		ExternalStatus: func(o *v1alpha1.ExternalService) v1alpha1.ExternalServiceStatus {
			s := status.External(compiler(), out, o, time.Now())
			p.changed.keep(o, 0, s.Conditions)
			return s
		},
		PoolStatus: func(o *v1alpha1.InferencePool) v1alpha1.InferencePoolStatus {
			s := status.Pool(compiler(), o, time.Now())
			for i := range s.Parents {
				p.changed.keep(o, i, s.Parents[i].Conditions)
			}
			return s
		},
		UsedStatus: func(o v1alpha1.Object) v1alpha1.UsedStatus {
			s := status.Used(compiler(), out, o, time.Now())
			p.changed.keep(o, 0, s.Conditions)
			return s
		},
		Reach: rt.Reach, Compiler: compiler, Takes: p.cfg.Takes, Callers: out.Callers,
		Edges: func(_ context.Context, window time.Duration) ([]telemetry.Edge, error) {
			return seen.Edges(window, time.Now()), nil
		},
		Behind:  func(revision int64) []httpapi.Straggler { return behind(out, revision) },
		Proxies: func() []httpapi.Proxy { return proxies(out) },
		Outages: lasts.List, Trust: p.trust, Captures: p.captures.alarms, Decisions: decided.Memory.List, Recall: p.recall.Ask,
	})
	local, err := p.listenUnix(APISocket(p.cfg.DataDir))
	if err != nil {
		return err
	}
	p.serve(api.RemoteServer(), p.http)
	p.serve(api.LocalServer(), local)
	return nil
}

// spread tells proxies what was learned about how long failures last, and keeps it, until Close.
func (p *Plane) spread(keep *outage.Keeper, out *push.Push) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(outage.Every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if names := keep.Memory.Due(now); len(names) > 0 {
					out.Renew(resource.TypeCluster, names)
				}
				if _, err := keep.Save(ctx, now, false); err != nil && ctx.Err() == nil {
					p.log.Warn("not kept, it is tried again", "error", err)
				}
			}
		}
	}()
	p.onClose(func() {
		stop()
		<-ended
		last, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		for more := true; more && last.Err() == nil; {
			var err error
			if more, err = keep.Save(last, time.Now(), true); err != nil {
				p.log.Warn("what was learned since is lost", "error", err)
				return
			}
		}
	})
}

// behind answers the proxies that do not enforce a revision of the store yet. While the control plane itself has not
// seen the revision, that is all of them.
func behind(out *push.Push, revision int64) []httpapi.Straggler {
	late := []httpapi.Straggler{}
	seen := int64(out.Revision())
	for _, x := range out.Proxies() {
		if !x.Settled || seen < revision {
			late = append(late, httpapi.Straggler{Workload: x.Node, Revision: min(seen, revision-1), Reason: firstRefusal(x)})
		}
	}
	return late
}

func proxies(out *push.Push) []httpapi.Proxy {
	list := []httpapi.Proxy{}
	seen := int64(out.Revision())
	for _, x := range out.Proxies() {
		list = append(list, httpapi.Proxy{Workload: x.Node, Revision: seen, Connected: x.Since, Resources: x.Resources, Rejected: firstRefusal(x)})
	}
	return list
}

func firstRefusal(x push.Proxy) string {
	for what, why := range x.Refused {
		return what + ": " + why
	}
	return ""
}
