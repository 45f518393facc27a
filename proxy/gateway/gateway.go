// Package gateway is a proxy without a workload: it runs what an Envoy bootstrap describes (model.Bootstrap), and what a
// control plane then changes of it. It opens the listeners, says which chain serves a connection, and puts loops, pools,
// exchanges and relays together; it decides nothing about a request.
//
// It promises that what is replaced is replaced when its successor is ready, not before; that a connection whose chain
// has not changed never notices; that one whose chain has changed is drained, not cut; and that what cannot be run is
// refused in one sentence while everything else goes on.
//
// A connection meets the files in this order (docs/walks/gateway.md): sockets.go (it is accepted), session.go (PROXY
// header, ClientHello, which chain, TLS), http.go or tcp.go (it is served). Configuration comes in through apply.go and
// is put in force by settle.go. Gateway's methods are safe for concurrent use; workers and sessions belong to their
// loops. Start reading at Start.
package gateway

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/handover"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/secret"
	"github.com/tulle-mesh/tulle/xds/ads"
)

// Config of a Gateway. Bootstrap is required.
type Config struct {
	Bootstrap *model.Bootstrap
	Loops     int // 0: one for each processor, 8 at most
	Log       *slog.Logger
	Version   string // of this program
	// Inherited answers the descriptor of a listening socket that is bound to an address and was handed over by the proxy
	// before this one; it is the gateway's from then on. nil: every socket is opened.
	Inherited func(at netip.AddrPort) (fd int, ok bool)
	// Tickets is what the proxy before this one offered (handover.Taken.Tickets); nil: none.
	Tickets []byte
	// Drain is how long connections may go on at the end, and those of a listener or chain that is no more; default 10 min.
	Drain time.Duration
	// Level is what /logging changes; nil: it cannot be changed.
	Level *slog.LevelVar
	// NameServers are asked for the names of clusters whose answers' times to live are respected; nil: those of
	// /etc/resolv.conf.
	NameServers []netip.AddrPort
	// MaxPending is how many connections of one loop may be undecided (in front of their chain's handshake or first byte);
	// default 16384.
	MaxPending int
}

const (
	defaultDrain   = 10 * time.Minute
	defaultPending = 16 << 10
	maxLoops       = 8
	defaultFetch   = 15 * time.Second // for a first resource, as Envoy has it
)

// Gateway is a running proxy.
type Gateway struct {
	cfg      Config
	began    time.Time
	workers  []*worker
	observer *observe.Observer
	files    *observe.Files
	secrets  *secret.Store
	shake    *mtls.Handshakes
	draining atomic.Bool
	routes   cluster.RouteBreakers

	wanting sync.Mutex
	told    map[model.ResourceKind][]string // to control; under wanting

	held atomic.Pointer[map[model.PortName]*cluster.Cluster] // all clusters, for loops

	asking sync.Mutex
	askers map[model.PortName]*asker // rate-limit services; under asking

	mu            sync.Mutex
	listeners     map[string]*listener
	clusters      map[model.PortName]*entry
	tables        map[string]*table // of RDS
	started       bool              // listeners may be opened
	heard         [5]bool           // what kinds of resources the control plane has told
	admin         *admin.Server     // nil: none
	adminLogs     *observe.Logs     // nil: none
	adminListener net.Listener
	stream        *ads.Client // nil: no control plane
	tickets       handover.Tickets
	hourly        *time.Timer
	wake          *time.Timer // for the next deadline of something that waits
	control       Control     // nil: none
	closed        bool
	checking      bool           // nothing is opened or asked
	following     sync.WaitGroup // goroutines of names and sweepers
}

// Start brings up a gateway. When it returns without an error, every listener of the bootstrap that does not wait for a
// control plane, a name server or the first health checks of its clusters' endpoints accepts.
func Start(cfg Config) (g *Gateway, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Drain <= 0 {
		cfg.Drain = defaultDrain
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultPending
	}
	if cfg.Loops <= 0 {
		cfg.Loops = min(maxLoops, runtime.NumCPU())
	}
	g = &Gateway{cfg: cfg, began: time.Now(), shake: &mtls.Handshakes{}, listeners: map[string]*listener{},
		clusters: map[model.PortName]*entry{}, tables: map[string]*table{}, told: map[model.ResourceKind][]string{}}
	g.held.Store(&map[model.PortName]*cluster.Cluster{})
	defer func() {
		if err != nil {
			g.Close()
			g = nil
		}
	}()
	g.observer = observe.New(observe.Config{Overflows: g.overflows, Retries: g.retries, Limits: g.limits, Health: g.fitness, Handshakes: g.shaking, Dropped: g.dropped})
	g.files = observe.NewFiles(observe.FilesConfig{})
	g.secrets = secret.New(secret.Config{Logger: cfg.Log, Changed: g.settle})
	if err := g.startTickets(); err != nil {
		return g, err
	}
	// A loop keeps its processor; the rest of the runtime needs one as well.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), cfg.Loops+1))
	for i := range cfg.Loops {
		w, err := g.newWorker(i)
		if err != nil {
			return g, err
		}
		g.workers = append(g.workers, w)
	}
	return g, g.load()
}

// Check answers why b could not be run, as far as that can be known without opening anything but the files it names.
func Check(b *model.Bootstrap) error {
	g := &Gateway{checking: true, cfg: Config{Bootstrap: b, Log: slog.New(slog.DiscardHandler)}, began: time.Now(), shake: &mtls.Handshakes{},
		listeners: map[string]*listener{}, clusters: map[model.PortName]*entry{}, tables: map[string]*table{}}
	g.held.Store(&map[model.PortName]*cluster.Cluster{})
	g.observer = observe.New(observe.Config{})
	g.files = observe.NewFiles(observe.FilesConfig{Open: func(string) (io.WriteCloser, error) { return nowhere{io.Discard}, nil }})
	g.secrets = secret.New(secret.Config{})
	defer g.Close()
	return g.read()
}

// nowhere is an access log that is not written.
type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

// read takes what the bootstrap says.
func (g *Gateway) read() error {
	b := g.cfg.Bootstrap
	if err := g.secrets.Update(b.Secrets); err != nil {
		return err
	}
	if a := b.Admin; a != nil && len(a.AccessLogs) > 0 {
		var err error
		if g.adminLogs, err = g.files.Logs(a.AccessLogs); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	u := model.Updates{Clusters: b.Clusters, Listeners: b.Listeners}
	for i := range b.Endpoints {
		u.Endpoints = append(u.Endpoints, &b.Endpoints[i])
	}
	return g.apply(u, true)
}

// WaitReady returns when every listener accepts, or has been waited for as long as a first resource may take.
func (g *Gateway) WaitReady() {
	for until := time.Now().Add(g.fetch()); g.Ready() != nil && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
}

// load puts the bootstrap in force.
func (g *Gateway) load() error {
	if err := g.read(); err != nil {
		return err
	}
	g.mu.Lock()
	g.started = true
	g.mu.Unlock()
	if err := g.settleNow(); err != nil {
		return err
	}
	if err := g.startAdmin(); err != nil {
		return err
	}
	return g.connect()
}

// fetch is how long a first resource is waited for.
func (g *Gateway) fetch() time.Duration {
	if a := g.cfg.Bootstrap.ADS; a != nil && a.InitialFetch > 0 {
		return a.InitialFetch
	}
	return defaultFetch
}

// Ready answers why this proxy does not serve, nil if it does.
func (g *Gateway) Ready() error {
	if g.draining.Load() {
		return errors.New("draining")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.cfg.Bootstrap; b.LDS && !g.heard[model.ResourceListener] && time.Since(g.began) < g.fetch() {
		return errors.New("waiting for the control plane's listeners")
	}
	for _, l := range g.listeners {
		if l.now.Load() == nil {
			return fmt.Errorf("listener %s waits for %s", l.name, l.waitsFor(g))
		}
	}
	return nil
}

// StopAccepting closes every listener after what waits in its queue has been accepted; what is served goes on.
func (g *Gateway) StopAccepting() {
	g.draining.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	until := time.Now().Add(queueTime)
	for _, l := range g.listeners {
		l.empty(until)
		l.close()
	}
}

// Drain stops accepting, lets every connection end as gracefully as its protocol can, and returns when all have ended,
// Config.Drain has passed, or end is closed. It answers how many connections are left.
func (g *Gateway) Drain(end <-chan struct{}) int64 {
	g.DrainListeners()
	return g.Wait(end)
}

// Wait returns when there are no connections, Config.Drain has passed, or end is closed. It answers how many are left.
func (g *Gateway) Wait(end <-chan struct{}) int64 {
	deadline := time.NewTimer(g.cfg.Drain)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for g.Connections() > 0 {
		select {
		case <-end:
			return g.Connections()
		case <-deadline.C:
			return g.Connections()
		case <-tick.C:
		}
	}
	return 0
}

// DrainListeners stops accepting and begins to drain every connection. It does not wait.
func (g *Gateway) DrainListeners() {
	g.StopAccepting()
	for _, w := range g.workers {
		w.loop.Post(func() { w.drain(downstream.Drainer.Drain) })
	}
}

// Leave is DrainListeners for a proxy that has yielded: another one serves what its clients open next, so there is no
// haste (downstream.Drainer).
func (g *Gateway) Leave() {
	for _, w := range g.workers {
		w.loop.Post(func() { w.drain(downstream.Drainer.Leave) })
	}
}

// Connections answers how many downstream connections there are.
func (g *Gateway) Connections() int64 {
	var n int64
	for _, w := range g.workers {
		n += w.open.Load()
	}
	return n
}

// Reload reads secrets from their files and opens access logs anew.
func (g *Gateway) Reload() {
	g.secrets.Check()
	g.files.Reopen()
}

// Close ends everything at once; see Drain for the way without loss. Closing again does nothing.
func (g *Gateway) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	for _, e := range g.clusters {
		e.unfollow()
	}
	for _, t := range []*time.Timer{g.wake, g.hourly} {
		if t != nil {
			t.Stop()
		}
	}
	g.mu.Unlock()
	g.draining.Store(true)
	g.mu.Lock()
	questions, stream := g.admin, g.stream
	g.admin = nil
	g.mu.Unlock()
	if questions != nil {
		questions.Close() // some ask under mu
	}
	if stream != nil {
		stream.Close()
	}
	g.mu.Lock()
	for _, l := range g.listeners {
		l.close()
	}
	g.mu.Unlock()
	for _, w := range g.workers {
		w.close()
	}
	g.stopAsking()
	g.following.Wait()
	if g.secrets != nil {
		g.secrets.Close()
	}
	if g.files != nil {
		g.files.Close()
	}
	if g.observer != nil {
		g.observer.Close()
	}
}
