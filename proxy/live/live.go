// Package live is the configuration in force: the services, route tables, clusters and endpoints that this
// proxy's workload really calls, subscribed to on first use and retired when unused. Loops read without
// locks: an immutable index by address, and per port an immutable pair of route table and clusters. What the
// control plane says comes in through the methods of Live that form the sink of package xds/client, and is
// put in force only when it is complete: a table waits for its clusters and their endpoints while the old one
// serves. A change of one route touches nothing of another. What is known stays known while the control
// plane is away.
//
// It opens no connection and decides nothing about requests. Start reading at Port and ByAddress.
package live

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Kind is a kind of resource; the order is that of xds/client.Kind.
type Kind uint8

// Kinds. A Service is named "reviews.default", or by one of its virtual addresses as netip.Addr.String writes
// it; the others are named "reviews.default:9080", and a
// route table for one namespace's callers "reviews.default:9080@shop".
const (
	KindService Kind = iota
	KindRouteTable
	KindCluster
	KindEndpoints
	KindSecurity // of the workload's own service
	KindTrust
)

// String answers the kind in words.
func (k Kind) String() string {
	return [...]string{"service", "route table", "cluster", "endpoints", "security", "trust"}[k]
}

// Source is where configuration is asked for (xds/client.Client behind an adapter). Its methods may be called
// from any goroutine, one at a time, and do not wait for the network. Answers come through Live's Service,
// RouteTable, Cluster and Endpoints.
type Source interface {
	Subscribe(kind Kind, name string)
	Unsubscribe(kind Kind, name string)
}

// Config of a Live. Source is required.
type Config struct {
	Source Source
	Log    *slog.Logger  // nil: silent
	Wait   time.Duration // how long an answer is waited for; default 2 s
	Retire time.Duration // how long what is unused stays subscribed; default 10 min
	// MaxServices is how many services may be subscribed at once, those that do not exist included; default
	// 4096. More are answered Overload until unused ones are retired.
	MaxServices int
	// Attend is called for a cluster whose settings want its endpoints looked after (health checks, ejection), once; what it
	// answers is called when nobody needs the cluster any more. Neither may wait. nil: nobody looks after them.
	Attend func(c *cluster.Cluster) (stop func())
	// Resolve keeps the endpoints of a cluster of DiscoveryStrictDNS what its hosts are, until stop; found may be called from any
	// goroutine, never from inside. nil: such clusters have no endpoints.
	Resolve func(c *model.Cluster, found func(*model.Endpoints)) (stop func())
	// Secure gives a cluster the TLS of its settings; an error means that it must not be called. nil: those with TLS are not.
	Secure func(c *cluster.Cluster, m *model.Cluster) error
	// Sieve takes out of the endpoints of an ExternalService those that must not be reached; nil: all may be.
	Sieve    func(*model.Endpoints) *model.Endpoints
	Locality string        // of the workload, "region/zone/sub_zone"; "": not known. See SetLocality
	Labels   []model.Label // of the workload
	// Namespace of the workload: where it has consumer routes for a service their tables are asked for (model.Service.Consumers).
	Namespace string
}

// Live is the configuration in force. All methods are safe for concurrent use.
type Live struct {
	cfg   Config
	index atomic.Pointer[map[netip.AddrPort]*Port]            // ready ports
	held  atomic.Pointer[map[model.PortName]*cluster.Cluster] // all clusters that exist

	mu       sync.Mutex
	up       bool
	closed   bool
	services map[string]*service // by name of subscription
	ports    map[model.PortName]*Port
	clusters map[model.PortName]*entry
	own      map[string]*Own // by name of the table
	security single[model.Security]
	trust    single[model.Trust]
	asks     map[*ask]struct{}
	outbox   []command
	flushing bool

	stop  chan struct{}
	ended sync.WaitGroup
}

// New makes a Live that knows nothing. Close ends it.
func New(cfg Config) *Live {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 2 * time.Second
	}
	if cfg.Retire <= 0 {
		cfg.Retire = 10 * time.Minute
	}
	if cfg.MaxServices <= 0 {
		cfg.MaxServices = 4096
	}
	l := &Live{
		cfg: cfg, stop: make(chan struct{}),
		services: map[string]*service{}, ports: map[model.PortName]*Port{},
		clusters: map[model.PortName]*entry{}, asks: map[*ask]struct{}{},
	}
	l.index.Store(&map[netip.AddrPort]*Port{})
	l.held.Store(&map[model.PortName]*cluster.Cluster{})
	l.ended.Add(1)
	go l.sweeps()
	return l
}

// Close ends the retiring of what is unused, and looking after endpoints. What is known stays readable.
func (l *Live) Close() {
	close(l.stop)
	l.ended.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, e := range l.clusters {
		e.leave()
	}
}

// Port answers the port at a virtual address if it is ready: the fast path, lock-free, for any goroutine. If
// known is false, ask ByAddress.
func (l *Live) Port(addr netip.AddrPort) (p *Port, known bool) {
	p, known = (*l.index.Load())[addr]
	if known {
		p.touch()
	}
	return p, known
}

// ByAddress finds the port at a virtual address, subscribing to what is needed. It is called on the loop on;
// then is called there, later, never from inside: with the port, or with nil and UnknownService, UnknownPort,
// Unavailable (no answer within Config.Wait) or Overload.
func (l *Live) ByAddress(on loop.Loop, addr netip.AddrPort, then func(*Port, failure.Reason)) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
	l.wait(on, func() (*Port, failure.Reason, bool) { return l.resolveAddress(addr) }, then)
}

// ByName finds a port by its name, otherwise like ByAddress.
func (l *Live) ByName(on loop.Loop, name model.PortName, then func(*Port, failure.Reason)) {
	l.wait(on, func() (*Port, failure.Reason, bool) {
		s, why, known := l.resolveService(name.Service.String())
		if s == nil {
			return nil, why, known
		}
		return l.resolvePort(s, name.Port)
	}, then)
}

// Find answers the service of that name, subscribing to it if need be: nil and None if it surely does not
// exist, Unavailable if there is no answer within Config.Wait or before ctx ends, Overload beyond
// Config.MaxServices. It blocks, so it is not for loops.
func (l *Live) Find(ctx context.Context, name model.ServiceName) (*model.Service, failure.Reason) {
	type answer struct {
		s   *model.Service
		why failure.Reason
	}
	got := make(chan answer, 1)
	a := &ask{try: func() bool {
		s, why, known := l.resolveService(name.String())
		if known {
			if why == failure.UnknownService {
				why = failure.None
			}
			got <- answer{s, why}
		}
		return known
	}}
	l.begin(a)
	t := time.NewTimer(l.cfg.Wait)
	defer t.Stop()
	select {
	case r := <-got:
		return r.s, r.why
	case <-ctx.Done():
	case <-t.C:
	}
	l.mu.Lock()
	delete(l.asks, a)
	l.mu.Unlock()
	select { // it may have come between
	case r := <-got:
		return r.s, r.why
	default:
		return nil, failure.Unavailable
	}
}

// Up reports whether the control plane is reachable.
func (l *Live) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}
