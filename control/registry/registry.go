package registry

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

// Kinds under which the registry keeps what must outlive it.
const (
	KindWorkload = "Workload"
	KindAddress  = "VirtualAddress"
	kindService  = "Service" // read only: what users wrote
	kindExternal = "ExternalService"
	kindPool     = "InferencePool"
)

// Config of a Registry. Store is needed.
type Config struct {
	Store store.Store
	Hold  time.Duration // nothing expires so soon after the start; 0 is StartHold, and only tests want less
	Log   *slog.Logger
}

// Registry is the shell: a lock around core, a timer for what expires, a keeper for what is stored, a watch on
// the Service objects. It implements View. Safe for concurrent use; its inputs return when the view shows what
// they changed and every watcher has been called.
type Registry struct {
	cfg  Config
	stop context.CancelFunc
	done sync.WaitGroup
	wake chan struct{} // holds one: the next deadline may be nearer
	keep chan struct{} // holds one: there is something to store

	mu       sync.Mutex // core, defs, book, session
	core     *core
	defs     map[model.ServiceName]Definition
	book     *book
	session  SessionID
	revision uint64

	publishing sync.Mutex // one publication at a time; taken before mu
	spaces     atomic.Pointer[map[string]*space]
	watchers   map[int]func(Change) // under publishing
	watcher    int
}

var _ View = (*Registry)(nil)

// Start reads what is stored and begins. Close ends it.
func Start(ctx context.Context, cfg Config) (*Registry, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Hold == 0 {
		cfg.Hold = StartHold
	}
	now := time.Now()
	r := &Registry{
		cfg: cfg, wake: make(chan struct{}, 1), keep: make(chan struct{}, 1), core: newCore(now.Add(cfg.Hold)),
		defs: map[model.ServiceName]Definition{}, book: newBook(), watchers: map[int]func(Change){},
	}
	r.spaces.Store(&map[string]*space{})
	if err := r.restore(ctx, now); err != nil {
		return nil, err
	}
	after, err := r.readDefinitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("registry: reading the Services: %w", err)
	}
	r.publish()
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.done.Go(func() { r.expire(ctx) })
	r.done.Go(func() { r.keeper(ctx) })
	r.done.Go(func() { r.follow(ctx, after) })
	return r, nil
}

// Close stores what is not stored yet, for at most 2 s, and ends the registry's goroutines.
func (r *Registry) Close() {
	r.stop()
	r.done.Wait()
}

// Join begins a session of a workload whose proxy has proved w.Identity. The error refuses the name.
func (r *Registry) Join(w Workload, ready bool) (SessionID, error) {
	for what, name := range map[string]string{"workload": w.Name, "namespace": w.Namespace, "service": w.Service} {
		if !isLabel(name) {
			return 0, fmt.Errorf("%s %q is not a DNS label (lower case letters, digits, '-', at most 63)", what, name)
		}
	}
	w.State = Starting
	if ready {
		w.State = Live
	}
	r.mu.Lock()
	r.session++
	id := r.session
	err := r.core.join(id, w, time.Now())
	r.mu.Unlock()
	r.publish()
	return id, err
}

// Ready says whether the workload takes requests.
func (r *Registry) Ready(id SessionID, ready bool) {
	r.change(func(now time.Time) { r.core.ready(id, ready, now) })
}

// Learned says what is spoken on a port of the program.
func (r *Registry) Learned(id SessionID, port uint16, p model.Protocol) {
	r.change(func(time.Time) { r.core.learned(id, port, p) })
}

// Goodbye removes the workload at once. It answers the ports that had it as an endpoint.
func (r *Registry) Goodbye(id SessionID) []model.PortName {
	r.mu.Lock()
	key := r.core.sessions[id]
	r.mu.Unlock()
	ports := r.portsOf(key)
	r.change(func(time.Time) { r.core.goodbye(id) })
	return ports
}

// Broken says that the session has ended without a goodbye: the grace begins.
func (r *Registry) Broken(id SessionID) {
	r.change(func(now time.Time) { r.core.broken(id, now) })
}

func (r *Registry) change(f func(now time.Time)) {
	r.mu.Lock()
	f(time.Now())
	r.mu.Unlock()
	r.publish()
}

// publish makes the view of every namespace that is dirty, and tells the watchers. Whoever comes second finds
// that the first has done his work.
func (r *Registry) publish() {
	r.publishing.Lock()
	defer r.publishing.Unlock()
	r.mu.Lock()
	dirty := r.core.dirty
	r.core.dirty = map[string]bool{}
	now := time.Now()
	spaces := maps.Clone(*r.spaces.Load())
	var c Change
	for ns := range dirty {
		sp := build(ns, r.core.list(ns), r.defs, r.book, now)
		compare(spaces[ns], sp, &c)
		spaces[ns] = sp
	}
	fresh := r.takeFresh()
	stored := len(r.core.touched)+len(r.book.changed) > 0
	r.revision++
	c.Revision = r.revision
	r.mu.Unlock()
	if len(dirty) == 0 {
		return
	}
	r.storeFresh(fresh)
	r.spaces.Store(&spaces)
	poke(r.wake)
	if stored {
		poke(r.keep)
	}
	if len(c.Services)+len(c.Endpoints) == 0 {
		return
	}
	slices.SortFunc(c.Services, compareService)
	slices.SortFunc(c.Endpoints, func(a, b model.PortName) int {
		return cmp.Or(compareService(a.Service, b.Service), cmp.Compare(a.Port, b.Port))
	})
	for _, i := range slices.Sorted(maps.Keys(r.watchers)) {
		r.watchers[i](c)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func compareService(a, b model.ServiceName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// expire waits for deadlines.
func (r *Registry) expire(ctx context.Context) {
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		r.mu.Lock()
		next := r.core.next()
		r.mu.Unlock()
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(max(0, time.Until(next)))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			continue
		case <-due:
		case <-hourly.C:
		}
		r.change(func(now time.Time) {
			r.core.expire(now)
			r.book.forget(now)
			for name := range r.book.changed {
				r.core.dirty[name.Namespace] = true
			}
		})
	}
}

// Services is part of View.
func (r *Registry) Services() []*Service {
	var out []*Service
	for _, sp := range *r.spaces.Load() {
		out = slices.AppendSeq(out, maps.Values(sp.services))
	}
	slices.SortFunc(out, func(a, b *Service) int { return compareService(a.Name, b.Name) })
	return out
}

// Service is part of View.
func (r *Registry) Service(name model.ServiceName) (*Service, bool) {
	sp := (*r.spaces.Load())[name.Namespace]
	if sp == nil {
		return nil, false
	}
	s, ok := sp.services[name]
	return s, ok
}

// ByAddress is part of View.
func (r *Registry) ByAddress(a netip.Addr) (*Service, bool) {
	r.mu.Lock()
	name, ok := r.book.find(a)
	r.mu.Unlock()
	if !ok {
		return nil, false
	}
	return r.Service(name)
}

// Endpoints is part of View.
func (r *Registry) Endpoints(name model.PortName) (*model.Endpoints, bool) {
	sp := (*r.spaces.Load())[name.Service.Namespace]
	if sp == nil {
		return nil, false
	}
	e, ok := sp.endpoints[name]
	return e, ok
}

// portsOf answers the ports that have a workload as an endpoint.
func (r *Registry) portsOf(key string) []model.PortName {
	var out []model.PortName
	for _, sp := range *r.spaces.Load() {
		for name, e := range sp.endpoints {
			if slices.ContainsFunc(e.Endpoints, func(ep model.Endpoint) bool { return ep.Namespace+"/"+ep.Workload == key }) {
				out = append(out, name)
			}
		}
	}
	return out
}

// Workloads is part of View.
func (r *Registry) Workloads() []*Workload {
	var out []*Workload
	for _, ns := range slices.Sorted(maps.Keys(*r.spaces.Load())) {
		out = append(out, (*r.spaces.Load())[ns].workloads...)
	}
	return out
}

// Watch is part of View.
func (r *Registry) Watch(f func(Change)) (stop func()) {
	r.publishing.Lock()
	defer r.publishing.Unlock()
	r.watcher++
	id := r.watcher
	r.watchers[id] = f
	return func() {
		r.publishing.Lock()
		delete(r.watchers, id)
		r.publishing.Unlock()
	}
}

// isLabel reports whether s is a DNS label (RFC 1123): names become parts of host names.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
