// Package routes follows the routes in the store, and the policies about them (policies.go), and keeps them as an index to
// compile from. The index is swapped whole; readers never wait. One goroutine, which Close ends. Start reading at Start.
package routes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

// routeKinds decide about requests and connections; besideKinds are what they refer to.
func routeKinds() []string { return []string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"} }
func besideKinds() []string {
	return []string{"ReferenceGrant", "FaultInjection", "DirectResponse", "ExternalService"}
}

// retryWait is how long a broken watch waits before it is begun again.
const retryWait = 200 * time.Millisecond

// Config of a Routes; all fields are needed.
type Config struct {
	Store store.Store
	// Changed is called after the index was swapped, with the services whose route tables may be different now
	// (none, when the change was of another kind) and the revision of the change; from one goroutine, one call at a
	// time.
	Changed func(services []model.ServiceName, revision int64)
	// Services answers every service that there is: what the mesh's defaults bear on.
	Services func() []model.ServiceName
	Log      *slog.Logger
}

// Routes is the index in force.
type Routes struct {
	cfg   Config
	index atomic.Pointer[compile.Index]
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu    sync.Mutex
	seen  int64         // revision of the store that the index shows
	moved chan struct{} // closed and replaced when seen does

	// Of the goroutine, after Start.
	routes   map[store.Key]compile.Route
	beside   map[store.Key]v1alpha1.Object
	policies map[store.Key]compile.Policy
	security map[store.Key]compile.SecurityPolicy
	mesh     *v1alpha1.MeshConfigSpec
	rolling  map[compile.PolicyKey]rollout.State
}

// Start reads what is stored and follows it until Close.
func Start(ctx context.Context, cfg Config) (*Routes, error) {
	r := &Routes{cfg: cfg, moved: make(chan struct{})}
	revision, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.done.Go(func() { r.follow(ctx, revision) })
	return r, nil
}

// Index answers the routes in force. It is never nil.
func (r *Routes) Index() *compile.Index { return r.index.Load() }

// Reach waits until the index shows a revision of the store, or ctx ends.
func (r *Routes) Reach(ctx context.Context, revision int64) {
	for {
		r.mu.Lock()
		seen, moved := r.seen, r.moved
		r.mu.Unlock()
		if seen >= revision {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-moved:
		}
	}
}

// tell says what has changed as of a revision.
func (r *Routes) tell(services []model.ServiceName, revision int64) {
	r.cfg.Changed(services, revision)
	r.mu.Lock()
	r.seen = revision
	close(r.moved)
	r.moved = make(chan struct{})
	r.mu.Unlock()
}

// Close ends following and waits for it.
func (r *Routes) Close() {
	r.stop()
	r.done.Wait()
}

func (r *Routes) load(ctx context.Context) (int64, error) {
	r.routes, r.beside = map[store.Key]compile.Route{}, map[store.Key]v1alpha1.Object{}
	var revision int64
	for i, kind := range slices.Concat(routeKinds(), besideKinds()) {
		objects, at, err := r.cfg.Store.List(ctx, kind, "")
		if err != nil {
			return 0, fmt.Errorf("reading every %s: %w", kind, err)
		}
		for _, o := range objects {
			r.put(o)
		}
		// What comes between two readings is heard again, which does no harm.
		if i == 0 {
			revision = at
		}
		revision = min(revision, at)
	}
	revision, err := r.loadPolicies(ctx, revision)
	if err != nil {
		return 0, err
	}
	r.swap()
	return revision, nil
}

// put takes an object over. One that cannot be read is left out: only an older or newer control plane on the same
// store can have written it, and the others must keep working.
func (r *Routes) put(o store.Object) {
	r.forget(o.Key)
	kind, ok := v1alpha1.FindKind(o.Kind)
	if !ok {
		return
	}
	object := kind.New()
	if err := json.Unmarshal(o.Value, object); err != nil {
		r.cfg.Log.Error("stored route cannot be read; it is left out", "route", o.Key.String(), "error", err)
		return
	}
	m := v1alpha1.Meta(object)
	m.Namespace, m.Name = o.Namespace, o.Name
	if v1alpha1.IsRoute(object) {
		r.routes[o.Key] = compile.Route{Object: object, Created: o.Created}
		return
	}
	if external, ok := object.(*v1alpha1.ExternalService); ok {
		v1alpha1.Default(external)
	}
	r.beside[o.Key] = object
}

func (r *Routes) forget(k store.Key) {
	delete(r.routes, k)
	delete(r.beside, k)
}

func (r *Routes) swap() {
	var defaults *v1alpha1.TrafficParts
	if r.mesh != nil {
		defaults = r.mesh.Defaults
	}
	ix := r.indexed().With(slices.Collect(maps.Values(r.policies)), defaults).Rolling(r.rolling)
	r.index.Store(ix.Secured(slices.Collect(maps.Values(r.security)), r.mesh))
}

// indexed makes an index of the routes and what they refer to.
func (r *Routes) indexed() *compile.Index {
	var beside compile.Beside
	for _, o := range r.beside {
		switch o := o.(type) {
		case *v1alpha1.ReferenceGrant:
			beside.Grants = append(beside.Grants, o)
		case *v1alpha1.FaultInjection:
			beside.Faults = append(beside.Faults, o)
		case *v1alpha1.ExternalService:
			beside.Externals = append(beside.Externals, o)
		case *v1alpha1.DirectResponse:
			beside.Responses = append(beside.Responses, o)
		}
	}
	return compile.NewIndex(slices.Collect(maps.Values(r.routes))).Referred(beside)
}

// follow applies changes until ctx ends; when the watch breaks, everything is read again.
func (r *Routes) follow(ctx context.Context, revision int64) {
	r.tell(nil, revision)
	for ctx.Err() == nil {
		err := r.watch(ctx, &revision)
		if ctx.Err() != nil {
			return
		}
		r.cfg.Log.Warn("watching the routes broke off; they are read again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryWait):
		}
		if now, err := r.load(ctx); err == nil {
			revision = now
			r.tell(r.cfg.Services(), revision)
		}
	}
}

func (r *Routes) watch(ctx context.Context, revision *int64) error {
	// All kinds: what is no route only tells how far the store has come.
	w, err := r.cfg.Store.Watch(ctx, "", *revision)
	if err != nil {
		return err
	}
	defer w.Close()
	for events := range w.Events() {
		var touched []model.ServiceName
		changed := false
		for _, e := range events {
			*revision = e.Revision
			if services, ours := r.policyEvent(e); ours {
				touched, changed = union(touched, services), true
				continue
			}
			if !slices.Contains(routeKinds(), e.Kind) && !slices.Contains(besideKinds(), e.Kind) {
				continue
			}
			changed = true
			touched = union(touched, r.concerned(e.Key))
			if e.Deleted {
				r.forget(e.Key)
			} else {
				r.put(e.Object)
			}
			touched = union(touched, r.concerned(e.Key))
		}
		if changed {
			r.swap()
		}
		r.tell(touched, *revision)
	}
	if err := w.Err(); err != nil {
		return err
	}
	return errors.New("the watch ended")
}

// concerned answers the services whose route tables an object bears on.
func (r *Routes) concerned(k store.Key) []model.ServiceName {
	if route, ok := r.routes[k]; ok {
		return compile.Parents(route.Object)
	}
	if k.Kind == v1alpha1.ExternalKind {
		return r.cfg.Services() // each may call it
	}
	if o, ok := r.beside[k]; ok {
		return r.indexed().Referring(o)
	}
	return nil
}

func union(a, b []model.ServiceName) []model.ServiceName {
	for _, n := range b {
		if !slices.Contains(a, n) {
			a = append(a, n)
		}
	}
	return a
}
