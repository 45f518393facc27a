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
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

const kind = "HTTPRoute"

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

	// Of the goroutine, after Start.
	routes   map[store.Key]compile.Route
	policies map[store.Key]compile.Policy
	mesh     *v1alpha1.TrafficParts // MeshConfig's defaults
}

// Start reads what is stored and follows it until Close.
func Start(ctx context.Context, cfg Config) (*Routes, error) {
	r := &Routes{cfg: cfg}
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

// Close ends following and waits for it.
func (r *Routes) Close() {
	r.stop()
	r.done.Wait()
}

func (r *Routes) load(ctx context.Context) (int64, error) {
	objects, revision, err := r.cfg.Store.List(ctx, kind, "")
	if err != nil {
		return 0, fmt.Errorf("reading the routes: %w", err)
	}
	r.routes = map[store.Key]compile.Route{}
	for _, o := range objects {
		r.put(o)
	}
	if revision, err = r.loadPolicies(ctx, revision); err != nil {
		return 0, err
	}
	r.swap()
	return revision, nil
}

// put takes an object over. One that cannot be read is left out: only an older or newer control plane on the same
// store can have written it, and the others must keep working.
func (r *Routes) put(o store.Object) {
	route := &v1alpha1.HTTPRoute{}
	if err := json.Unmarshal(o.Value, route); err != nil {
		r.cfg.Log.Error("stored route cannot be read; it is left out", "route", o.Key.String(), "error", err)
		delete(r.routes, o.Key)
		return
	}
	route.Namespace, route.Name = o.Namespace, o.Name
	r.routes[o.Key] = compile.Route{Object: route, Created: o.Created}
}

func (r *Routes) swap() {
	r.index.Store(compile.NewIndex(slices.Collect(maps.Values(r.routes))).With(slices.Collect(maps.Values(r.policies)), r.mesh))
}

// follow applies changes until ctx ends; when the watch breaks, everything is read again.
func (r *Routes) follow(ctx context.Context, revision int64) {
	r.cfg.Changed(nil, revision)
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
			r.cfg.Changed(r.cfg.Services(), revision)
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
			if e.Kind != kind {
				continue
			}
			changed = true
			touched = union(touched, r.parentsOf(e.Key))
			if e.Deleted {
				delete(r.routes, e.Key)
			} else {
				r.put(e.Object)
			}
			touched = union(touched, r.parentsOf(e.Key))
		}
		if changed {
			r.swap()
		}
		r.cfg.Changed(touched, *revision)
	}
	if err := w.Err(); err != nil {
		return err
	}
	return errors.New("the watch ended")
}

func (r *Routes) parentsOf(k store.Key) []model.ServiceName {
	if route, ok := r.routes[k]; ok {
		return compile.Parents(route.Object)
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
