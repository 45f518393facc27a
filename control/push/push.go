// Package push decides when a resource goes to whom: it keeps what was compiled, knows who asked for what, and when
// something changes forgets the compiled form and touches the streams that get it. A resource that nobody asked for
// is never compiled; one that many asked for is compiled and encoded once. What changes while a response is on its way
// is gathered by the stream and goes with the next one in its newest state, so a burst of changes costs each proxy
// few messages. It knows which proxies enforce what. Safe for concurrent use; no goroutines. Start reading at Changed.
package push

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/control/snapshot"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/server"
)

// Config of a Push; Snapshot and Log are needed.
type Config struct {
	// Snapshot answers what is in force now. It is called concurrently and must be cheap.
	Snapshot func() snapshot.Snapshot
	// Serves says why a service account may not serve a service, and so may not see its policies; nil: as Sessions.Serves. It is
	// not asked about the service of the account's own name.
	Serves func(namespace, account, service string) error
	Log    *slog.Logger
}

// standing is what is known about a stream.
type standing struct {
	since time.Time
	asks  int  // how many resources it asked for
	alien bool // it has asked for what it may not see, and the log knows
}

// key names a resource of any type.
type key struct{ typ, name string }

// Push implements server.Source.
type Push struct {
	cfg Config

	mu        sync.Mutex
	compiled  map[key]*server.Resource // nil value: it does not exist
	asked     map[key]map[*server.Stream]bool
	byService map[model.ServiceName]map[key]bool // of asked; names of virtual addresses under the zero name
	streams   map[*server.Stream]*standing
	revision  uint64
	changes   uint64        // how often something was forgotten: a compilation that began before is not kept
	progress  chan struct{} // closed and replaced when a stream acknowledged something or ended
}

var _ server.Source = (*Push)(nil)

// New makes a Push without streams.
func New(cfg Config) *Push {
	return &Push{
		cfg: cfg, compiled: map[key]*server.Resource{}, asked: map[key]map[*server.Stream]bool{},
		byService: map[model.ServiceName]map[key]bool{}, streams: map[*server.Stream]*standing{}, progress: make(chan struct{}),
	}
}

// Changed says what is different as of a revision: services (their ports, addresses or the routes about them) and the
// endpoints behind ports.
func (p *Push) Changed(revision uint64, services []model.ServiceName, endpoints []model.PortName) {
	snap := p.cfg.Snapshot()
	var touched []key
	p.mu.Lock()
	p.revision = max(p.revision, revision)
	for _, n := range endpoints {
		touched = append(touched, key{resource.TypeEndpoints, n.String()})
	}
	if len(services) > 0 {
		touched = p.collect(touched, model.ServiceName{})
	}
	for _, s := range services {
		for _, dependent := range snap.Dependents(s) {
			touched = p.collect(touched, dependent)
		}
	}
	p.changes++
	who := map[*server.Stream][]key{}
	for _, k := range touched {
		delete(p.compiled, k)
		for s := range p.asked[k] {
			who[s] = append(who[s], k)
		}
	}
	p.mu.Unlock()
	for s, keys := range who {
		for _, k := range keys {
			s.Touch(k.typ, k.name)
		}
	}
}

// Renew says that resources of one type are different, for a reason that is no revision of the store.
func (p *Push) Renew(typ string, names []model.PortName) {
	who := map[*server.Stream][]string{}
	p.mu.Lock()
	p.changes++
	for _, n := range names {
		k := key{typ, n.String()}
		delete(p.compiled, k)
		for s := range p.asked[k] {
			who[s] = append(who[s], k.name)
		}
	}
	p.mu.Unlock()
	for s, list := range who {
		for _, name := range list {
			s.Touch(typ, name)
		}
	}
}

// Touch says that resources of one type are different, whatever their names look like.
func (p *Push) Touch(typ string, names ...string) {
	who := map[*server.Stream][]string{}
	p.mu.Lock()
	p.changes++
	for _, n := range names {
		k := key{typ, n}
		delete(p.compiled, k)
		for s := range p.asked[k] {
			who[s] = append(who[s], n)
		}
	}
	p.mu.Unlock()
	for s, list := range who {
		s.Touch(typ, list...)
	}
}

// Unheld answers the connected proxies that have not acknowledged the newest form of a resource, those that did not ask for it
// among them, and all that are connected.
func (p *Push) Unheld(typ, name string) (behind, connected []string) {
	p.mu.Lock()
	streams := make([]*server.Stream, 0, len(p.streams))
	for s := range p.streams {
		streams = append(streams, s)
	}
	p.mu.Unlock()
	for _, s := range streams {
		who := s.Node()
		if who == "" {
			who = s.Peer().String() // it has said nothing yet
		}
		connected = append(connected, who)
		if wants, holds := s.Holds(typ, name); !wants || !holds {
			behind = append(behind, who)
		}
	}
	return behind, connected
}

// collect adds what was asked for about a service. The caller holds mu.
func (p *Push) collect(to []key, service model.ServiceName) []key {
	for k := range p.byService[service] {
		to = append(to, k)
	}
	return to
}

// Open implements server.Source.
func (p *Push) Open(s *server.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams[s] = &standing{since: time.Now()}
}

// Close implements server.Source.
func (p *Push) Close(s *server.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, s)
	for k := range p.asked {
		p.forget(s, k)
	}
	p.moved()
}

// Subscribe implements server.Source.
func (p *Push) Subscribe(s *server.Stream, typ string, names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range names {
		k := key{typ, n}
		if p.asked[k] == nil {
			p.asked[k] = map[*server.Stream]bool{}
			svc := serviceOf(k)
			if p.byService[svc] == nil {
				p.byService[svc] = map[key]bool{}
			}
			p.byService[svc][k] = true
		}
		if !p.asked[k][s] {
			p.asked[k][s] = true
			if st := p.streams[s]; st != nil {
				st.asks++
			}
		}
	}
}

// Unsubscribe implements server.Source.
func (p *Push) Unsubscribe(s *server.Stream, typ string, names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range names {
		p.forget(s, key{typ, n})
	}
	p.moved()
}

// forget ends a stream's interest; what nobody wants any more is not kept compiled. The caller holds mu.
func (p *Push) forget(s *server.Stream, k key) {
	if !p.asked[k][s] {
		return
	}
	delete(p.asked[k], s)
	if st := p.streams[s]; st != nil {
		st.asks--
	}
	if len(p.asked[k]) > 0 {
		return
	}
	delete(p.asked, k)
	delete(p.compiled, k)
	svc := serviceOf(k)
	delete(p.byService[svc], k)
	if len(p.byService[svc]) == 0 {
		delete(p.byService, svc)
	}
}

// serviceOf answers the service that a resource is about, the zero name for one named by a virtual address.
func serviceOf(k key) model.ServiceName {
	if n, _, err := model.ParsePortNameFor(k.name); err == nil {
		return n.Service
	}
	if n, err := model.ParseServiceName(k.name); err == nil {
		return n
	}
	return model.ServiceName{}
}

// All implements server.Source.
func (p *Push) All(s *server.Stream, typ string) []string {
	names := p.cfg.Snapshot().Names(typ)
	if typ != resource.TypeSecurity {
		return names
	}
	return slices.DeleteFunc(names, func(n string) bool { return !p.mayKnow(s, n) })
}

// mayKnow reports whether the policies of a service are a stream's business: its identity may serve it. All else, services, routes
// and endpoints, is everybody's who belongs to the mesh.
func (p *Push) mayKnow(s *server.Stream, service string) bool {
	who := s.Peer()
	n, err := model.ParseServiceName(service)
	if err != nil || n.Namespace != who.Namespace {
		return false
	}
	return n.Name == who.ServiceAccount || p.cfg.Serves != nil && p.cfg.Serves(who.Namespace, who.ServiceAccount, n.Name) == nil
}

// conceal says once per stream that it has asked for what is not its business: for that there is nothing.
func (p *Push) conceal(s *server.Stream, name string) {
	p.mu.Lock()
	st := p.streams[s]
	say := st != nil && !st.alien
	if say {
		st.alien = true
	}
	p.mu.Unlock()
	if say {
		p.cfg.Log.Warn("a proxy asked for the policies of a service that its identity may not serve; it is told of none", "proxy", s.Peer().String(), "service", name)
	}
}

// Get implements server.Source. It compiles at most once per change, whoever asks.
func (p *Push) Get(s *server.Stream, typ, name string) *server.Resource {
	if typ == resource.TypeSecurity && !p.mayKnow(s, name) {
		p.conceal(s, name)
		return nil
	}
	k := key{typ, name}
	p.mu.Lock()
	r, known := p.compiled[k]
	before := p.changes
	p.mu.Unlock()
	if known {
		return r
	}
	r, err := p.compile(k)
	if err != nil {
		// A bug of ours: what was accepted has to be encodable. The proxy keeps what it has.
		p.cfg.Log.Error("resource cannot be sent", "type", typ, "name", name, "error", err)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changes == before && len(p.asked[k]) > 0 {
		p.compiled[k] = r
	}
	return r
}

func (p *Push) compile(k key) (*server.Resource, error) {
	m, err := p.cfg.Snapshot().Resource(k.typ, k.name)
	if err != nil || m == nil {
		return nil, err
	}
	body, err := resource.Pack(m)
	if err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	h := fnv.New64a()
	_, _ = h.Write(body.Value) // a hash never fails
	return &server.Resource{Version: strconv.FormatUint(h.Sum64(), 16), Body: body}, nil
}

// Acked implements server.Source.
func (p *Push) Acked(*server.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved()
}

// moved wakes whoever waits for progress. The caller holds mu.
func (p *Push) moved() {
	close(p.progress)
	p.progress = make(chan struct{})
}

// Revision implements server.Source.
func (p *Push) Revision() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revision
}

// Enforced answers how many proxies use a route table, that of a caller's namespace or, with "", of everyone else, and how many
// of them have acknowledged its newest form.
func (p *Push) Enforced(table model.PortName, caller string) (acknowledged, subscribed int) {
	return p.acknowledged(resource.TypeRouteTable, table.For(caller))
}

// Secured answers how many proxies of a service's workloads enforce its policies, and how many of them the newest ones.
func (p *Push) Secured(service model.ServiceName) (acknowledged, subscribed int) {
	return p.acknowledged(resource.TypeSecurity, service.String())
}

func (p *Push) acknowledged(typ, name string) (acknowledged, subscribed int) {
	behind := p.behind(typ, []string{name})
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.asked[key{typ, name}])
	return max(0, n-behind), n
}

// Callers answers the proxies that use a port's route table, that of a caller's namespace or with "" of everyone else, or with
// "" its cluster, "namespace/workload", in order.
func (p *Push) Callers(name model.PortName, caller string) []string {
	seen := map[*server.Stream]bool{}
	keys := []key{{resource.TypeRouteTable, name.For(caller)}}
	if caller == "" {
		keys = append(keys, key{resource.TypeCluster, name.String()})
	}
	p.mu.Lock()
	for _, k := range keys {
		for s := range p.asked[k] {
			seen[s] = true
		}
	}
	p.mu.Unlock()
	out := make([]string, 0, len(seen))
	for s := range seen {
		out = append(out, s.Node())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Proxy is how one proxy stands.
type Proxy struct {
	Node      string            // "namespace/workload"
	Peer      string            // SPIFFE ID
	Since     time.Time         // of its connection
	Resources int               // how many it asked for
	Settled   bool              // it has acknowledged everything
	Refused   map[string]string // by "<type> <name>", with the reason
}

// Proxies answers every connected proxy, ordered by node.
func (p *Push) Proxies() []Proxy {
	p.mu.Lock()
	streams := make(map[*server.Stream]standing, len(p.streams))
	for s, st := range p.streams {
		streams[s] = *st
	}
	p.mu.Unlock()
	out := make([]Proxy, 0, len(streams))
	for s, st := range streams { // outside of the lock: streams have their own, and call us under it
		settled, refused := s.Standing()
		out = append(out, Proxy{Node: s.Node(), Peer: s.Peer().String(), Since: st.since, Resources: st.asks, Settled: settled, Refused: refused})
	}
	slices.SortFunc(out, func(a, b Proxy) int {
		switch {
		case a.Node < b.Node:
			return -1
		case a.Node > b.Node:
			return 1
		}
		return 0
	})
	return out
}

// WaitHeld waits until every stream that gets the endpoints of names has acknowledged their newest form, or until ctx
// ends; it answers how many streams have not.
func (p *Push) WaitHeld(ctx context.Context, names []model.PortName) (waiting int) {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = n.String()
	}
	return p.wait(ctx, func() int { return p.behind(resource.TypeEndpoints, list) })
}

// WaitSettled waits until every proxy has acknowledged everything, or until ctx ends; it answers how many have not.
func (p *Push) WaitSettled(ctx context.Context) (waiting int) {
	return p.wait(ctx, func() int {
		n := 0
		for _, x := range p.Proxies() {
			if !x.Settled {
				n++
			}
		}
		return n
	})
}

func (p *Push) wait(ctx context.Context, count func() int) int {
	for {
		p.mu.Lock()
		progress := p.progress
		p.mu.Unlock()
		n := count()
		if n == 0 {
			return 0
		}
		select {
		case <-ctx.Done():
			return n
		case <-progress:
		}
	}
}

// behind counts the streams that get one of names and have not acknowledged its newest form.
func (p *Push) behind(typ string, names []string) int {
	asked := map[*server.Stream][]string{}
	p.mu.Lock()
	for _, n := range names {
		for s := range p.asked[key{typ, n}] {
			asked[s] = append(asked[s], n)
		}
	}
	p.mu.Unlock()
	count := 0
	for s, list := range asked {
		for _, n := range list {
			if wants, holds := s.Holds(typ, n); wants && !holds {
				count++
				break
			}
		}
	}
	return count
}
