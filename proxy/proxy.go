package proxy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/seed"
	"github.com/tulle-mesh/tulle/dns"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/workload"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/kin"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/xds/client"
)

// How often the edges are reported to the control plane: when something has changed, and when nothing has. An idle
// mesh is quiet.
const (
	reportEvery = time.Second
	reportIdle  = 10 * time.Second
	// decisionsEvery is how often what was let in and what not is reported, if anything was; maxDecisions is how many different
	// decisions each loop counts until then.
	decisionsEvery = 2 * time.Second
	maxDecisions   = 256
	// maxFlight is how many of its last exchanges each loop remembers for tulle explain.
	maxFlight = 128
	// maxRecovered bounds of how many destinations a report tells how long their failures last; the others wait for the next.
	maxRecovered = 64
)

// Config of a proxy; all fields but AccessLog, Locality, KeepSecurity and Another are needed.
type Config struct {
	Bootstrap *bootstrap.Bootstrap
	Identity  svid.Source // this workload's
	Control   string      // host:port of the control plane's gRPC port
	Server    spiffe.ID   // the identity that the control plane must prove
	Address   netip.Addr  // that other proxies reach this one at
	AccessLog io.Writer   // nil: nowhere
	Locality  string      // of the workload, "region/zone/sub_zone"; "": what its labels say (model.LocalityOf)
	Version   string      // of this program
	Log       *slog.Logger
	// KeepSecurity is told what the proxy that replaces this one begins with (Bootstrap.Security); nil: nobody is.
	KeepSecurity func([]byte) error
	// Another obtains an identity for the program, with a key of its own, where the bootstrap has a socket for the SPIFFE Workload
	// API (RoleWorkload); nil: that is not served.
	Another func(ctx context.Context) (*svid.Rotator, error)
}

// Proxy is a running data plane. Its methods are safe for concurrent use.
type Proxy struct {
	cfg      Config
	self     model.ServiceName
	workers  []*worker
	seeds    seed.Pair
	ports    []listener.OwnPort // of the workload, as declared
	learning listener.Learning
	gates    map[uint16]*admission.Gate // by port of the workload; immutable
	proofs   proofs
	tolls    tolls // likewise
	asking   askers
	outside  outside
	machine  machine
	capture  captured
	health   health

	observer *observe.Observer
	live     *live.Live
	client   *client.Client
	dns      *dns.Server
	admin    *admin.Server
	workload *workload.Server // nil: nobody has asked for it
	shake    mtls.Handshakes  // of both sides
	kin      *kin.Table
	spent    cluster.Spent
	routes   cluster.RouteBreakers
	policies *policy.InForce
	rekeyed  chan struct{} // holds one: an issuer has other keys than when followTime has looked
	unproven policy.Lines  // of the log about who proves nothing
	moved    chan struct{} // holds one: other policies are in force than when followTime has looked

	stop  context.CancelFunc
	ended <-chan struct{} // closed by stop
	tasks sync.WaitGroup
	life
}

// Start brings up a proxy on the sockets of its bootstrap. When it returns, everything is served.
func Start(cfg Config) (p *Proxy, err error) {
	b := cfg.Bootstrap
	ctx, stop := context.WithCancel(context.Background())
	p = &Proxy{cfg: cfg, self: model.ServiceName{Namespace: b.Namespace, Name: b.Service}, kin: kin.New(), stop: stop, ended: ctx.Done()}
	begun := p // what is returned is nil where it fails
	defer func() {
		if err != nil {
			begun.Close()
		}
	}()
	if p.ports, err = ownPorts(b); err != nil {
		return nil, err
	}
	p.openSeeds()
	p.openCapture(b)
	p.openOutside()
	if err := p.connect(); err != nil {
		return nil, err
	}
	p.guard()
	p.enforced()
	p.observer = observe.New(observe.Config{AccessLog: cfg.AccessLog, LogOn: b.AccessLog, Connected: p.live.Up, Limits: p.limits,
		Handshakes: p.shaking, Identity: p.proof, Capture: p.capturing, Retries: p.retries, Decisions: maxDecisions, Flight: maxFlight})
	if err := p.startWorkers(); err != nil {
		return nil, err
	}
	p.live.FollowTrust(p.believe)
	p.live.FollowSecurity(p.self, p.enforce)
	if b.Announced && !b.Withdrawn {
		p.announced.Store(true)
		p.client.SetReady(true)
	}
	p.client.Start(p.live)
	if b.Overlap {
		if err := p.awaitControl(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.awaitPolicies(ctx); err != nil {
		return nil, err
	}
	if err := p.listen(); err != nil {
		return nil, err
	}
	p.show(new(time.Time), time.Now())
	p.tasks.Go(func() { p.report(ctx) })
	p.tasks.Go(func() { p.machine.follow(ctx) })
	p.tasks.Go(func() { p.followTime(ctx) })
	if p.capture.sockets != nil {
		p.tasks.Go(func() { p.testCapture(ctx) })
	}
	return p, nil
}

// connect makes what is known of the mesh, and the connection that it comes over.
func (p *Proxy) connect() error {
	b := p.cfg.Bootstrap
	w := client.Workload{Name: b.Workload, Namespace: b.Namespace, Service: b.Service, Version: b.Version,
		ServiceAccount: b.ServiceAccount, Labels: b.Labels, PID: b.Supervisor, Starts: b.Starts, Proxy: p.cfg.Version}
	for i, port := range b.Ports {
		w.Ports = append(w.Ports, client.Port{Name: port.Name, Port: port.Port, Target: port.Target, Protocol: p.ports[i].Protocol})
	}
	if addr, ok := p.socketAddress(bootstrap.RoleMesh); ok && len(b.Ports) > 0 {
		w.Address = netip.AddrPortFrom(p.cfg.Address, addr.Port())
	}
	if addr, ok := p.socketAddress(bootstrap.RoleMetrics); ok {
		if w.Metrics = addr; addr.Addr().IsUnspecified() {
			w.Metrics = netip.AddrPortFrom(p.cfg.Address, addr.Port())
		}
	}
	cfg := client.Config{Address: p.cfg.Control, Identity: p.cfg.Identity, Server: p.cfg.Server, Workload: w, Log: p.cfg.Log, Explain: p.tell}
	if b, ok := p.cfg.Identity.(believer); ok {
		cfg.Clock = b.Clock()
	}
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	p.client = c
	p.live = live.New(live.Config{Source: source{c}, Log: p.cfg.Log, Attend: p.attend, Resolve: p.outside.resolve, Secure: p.outside.secure, Sieve: p.outside.static, Locality: cmp.Or(p.cfg.Locality, model.LocalityOf(b.Labels)), Labels: model.LabelsOf(b.Labels), Namespace: p.self.Namespace})
	p.learning.Changed = c.Learned
	return nil
}

func (p *Proxy) startWorkers() error {
	n := p.cfg.Bootstrap.Workers
	if n <= 0 {
		n = min(2, runtime.NumCPU())
	}
	// A loop keeps its processor; the rest of the runtime needs one as well.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), n+1))
	for i := range n {
		w, err := p.newWorker(i, &p.shake)
		if err != nil {
			return err
		}
		p.workers = append(p.workers, w)
	}
	return nil
}

// report tells the control plane once a second what was seen on every edge, less often if that is what it was.
func (p *Proxy) report(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var last []byte
	var at, said, told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.show(&said, now)
			if now.Sub(told) >= decisionsEvery && p.client.State().Connected {
				p.decided()
				told = now
			}
			p.client.Recovered(p.live.Recovered(maxRecovered))
			if b := p.edges(); !bytes.Equal(b, last) || now.Sub(at) >= reportIdle {
				p.client.Report(b)
				last, at = b, now
			}
		}
	}
}

// retries tells the observer what became of further attempts: observe.Config.Retries.
func (p *Proxy) retries() (out []observe.Retries) {
	for _, s := range p.live.Spendings() {
		out = append(out, observe.Retries(s))
	}
	return out
}

func (p *Proxy) reportNow() {
	p.decided()
	p.client.Report(p.edges())
}

// decided tells what was let in and what not since it was told last, as soon as each loop gets to it.
func (p *Proxy) decided() {
	for _, w := range p.workers {
		w.loop.Post(func() { p.client.Decided(w.recorder.Decisions()) })
	}
}

// edges answers a report; an empty one, and a line in the log, should it not be possible to write it.
func (p *Proxy) edges() []byte {
	b, err := json.Marshal(p.observer.Edges())
	if err != nil {
		p.cfg.Log.Error("the statistics cannot be reported", "error", err)
		return []byte("[]")
	}
	return b
}

// Close ends everything at once; see Goodbye for the way without loss.
func (p *Proxy) Close() {
	p.stop()
	if p.admin != nil {
		p.admin.Close()
	}
	if p.dns != nil {
		p.dns.Close()
	}
	if p.workload != nil {
		p.workload.Close()
	}
	for _, w := range p.workers {
		w.close()
	}
	p.stopAsking()
	if p.client != nil {
		p.client.Close()
	}
	if p.live != nil {
		p.live.Close()
	}
	if p.proofs.ring != nil {
		p.proofs.ring.Close()
	}
	p.tasks.Wait()
	p.outside.close()
	if p.observer != nil {
		p.observer.Close()
	}
	p.seeds.Close()
}

// ownPorts reads the ports of the workload.
func ownPorts(b *bootstrap.Bootstrap) ([]listener.OwnPort, error) {
	var out []listener.OwnPort
	for _, port := range b.Ports {
		proto := model.ProtocolUnknown
		if port.Protocol != "" {
			var ok bool
			if proto, ok = model.ParseProtocol(port.Protocol); !ok || !proto.Declared() {
				return nil, fmt.Errorf("port %d: %q is not http, grpc, tcp or tls", port.Port, port.Protocol)
			}
		}
		out = append(out, listener.OwnPort{Port: port.Target, Protocol: proto,
			Service: model.PortName{Service: model.ServiceName{Namespace: b.Namespace, Name: b.Service}, Port: port.Port}})
	}
	return out, nil
}

// shaking tells of TLS handshakes: observe.Config.Handshakes.
func (p *Proxy) shaking() observe.Handshakes {
	s := p.shake.Stats()
	return observe.Handshakes{Computing: s.Computing, Open: s.Open, Waiting: s.Queued, Refused: s.Refused, Evicted: s.Evicted, Late: s.Late}
}
