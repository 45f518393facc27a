package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

const (
	storeTimeout = 2 * time.Second
	storeRetry   = 500 * time.Millisecond
)

// restore reads workloads and addresses. What cannot be read is left out and said: nothing of it is worth not
// starting for.
func (r *Registry) restore(ctx context.Context, now time.Time) error {
	objects, _, err := r.cfg.Store.List(ctx, KindAddress, "")
	if err != nil {
		return fmt.Errorf("registry: reading the virtual addresses: %w", err)
	}
	for _, o := range objects {
		var rec record
		if err := json.Unmarshal(o.Value, &rec); err != nil {
			r.cfg.Log.Error("stored address cannot be read; it is left out", "key", o.Key.String(), "error", err)
			continue
		}
		r.book.restore(model.ServiceName{Namespace: o.Namespace, Name: o.Name}, rec)
		r.core.dirty[o.Namespace] = true
	}
	if objects, _, err = r.cfg.Store.List(ctx, KindWorkload, ""); err != nil {
		return fmt.Errorf("registry: reading the workloads: %w", err)
	}
	for _, o := range objects {
		var w Workload
		if err := json.Unmarshal(o.Value, &w); err != nil || w.Key() != o.Namespace+"/"+o.Name {
			r.cfg.Log.Error("stored workload cannot be read; it is left out", "key", o.Key.String(), "error", err)
			continue
		}
		r.core.restore(w, now)
	}
	if len(objects) == 0 {
		r.core.hold = now // nobody was known, so nobody can be forgotten
	}
	return nil
}

// keeper writes what changed, behind the inputs: what a crash loses the sessions say again.
func (r *Registry) keeper(ctx context.Context) {
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			defer cancel()
			if err := r.write(last); err != nil {
				r.cfg.Log.Error("what changed last was not stored", "error", err)
			}
			return
		case <-r.keep:
		case <-retry:
		}
		if retry = nil; r.writeLogged(ctx) != nil {
			retry = time.After(storeRetry)
		}
	}
}

func (r *Registry) writeLogged(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := r.write(ctx)
	if err != nil && ctx.Err() != context.Canceled {
		r.cfg.Log.Warn("registry not stored; it is tried again", "error", err)
	}
	return err
}

// write stores what is marked, in parts; what fails stays marked.
func (r *Registry) write(ctx context.Context) error {
	rest, err := r.applyAll(ctx, r.takeMarks())
	r.markAgain(rest)
	return err
}

// applyAll stores in parts; it answers what it did not come to.
func (r *Registry) applyAll(ctx context.Context, changes []store.Change) (rest []store.Change, err error) {
	for len(changes) > 0 {
		n := min(len(changes), store.MaxChanges)
		if err := r.apply(ctx, changes[:n]); err != nil {
			return changes, err
		}
		changes = changes[n:]
	}
	return nil, nil
}

// takeFresh answers the addresses that have just been given, to be stored before anybody is told. The caller holds mu.
func (r *Registry) takeFresh() []store.Change {
	var out []store.Change
	for _, name := range slices.SortedFunc(maps.Keys(r.book.fresh), compareService) {
		if rec := r.book.records[name]; rec != nil {
			out = append(out, store.Change{Key: store.Key{Kind: KindAddress, Namespace: name.Namespace, Name: name.Name}, Value: encode(rec)})
		}
	}
	clear(r.book.fresh)
	return out
}

// storeFresh stores them. While the store is away a new service waits once for storeTimeout and is published all the
// same: the keeper tries again, and after a crash before that it most likely gets the same address (see book.take).
func (r *Registry) storeFresh(changes []store.Change) {
	if len(changes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if _, err := r.applyAll(ctx, changes); err != nil {
		r.cfg.Log.Warn("a new service's address is not stored yet", "service", changes[0].Key.String(), "error", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		name := model.ServiceName{Namespace: c.Namespace, Name: c.Name}
		if rec := r.book.records[name]; rec != nil && bytes.Equal(encode(rec), c.Value) {
			delete(r.book.changed, name)
		}
	}
}

// apply stores one part. A deletion of what is not there spoils the whole part, so then it goes one by one.
func (r *Registry) apply(ctx context.Context, part []store.Change) error {
	_, err := r.cfg.Store.Apply(ctx, part)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	for _, c := range part {
		if _, err := r.cfg.Store.Apply(ctx, []store.Change{c}); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// takeMarks answers the changes that are due, in order of their keys, and clears the marks.
func (r *Registry) takeMarks() []store.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []store.Change
	for _, key := range slices.Sorted(maps.Keys(r.core.touched)) {
		ns, name, _ := strings.Cut(key, "/")
		c := store.Change{Key: store.Key{Kind: KindWorkload, Namespace: ns, Name: name}, Delete: true}
		if e := r.core.workloads[key]; e != nil {
			c.Delete, c.Value = false, encode(e.w)
		}
		out = append(out, c)
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.book.changed), compareService) {
		c := store.Change{Key: store.Key{Kind: KindAddress, Namespace: name.Namespace, Name: name.Name}, Delete: true}
		if rec := r.book.records[name]; rec != nil {
			c.Delete, c.Value = false, encode(rec)
		}
		out = append(out, c)
	}
	clear(r.core.touched)
	clear(r.book.changed)
	return out
}

func (r *Registry) markAgain(changes []store.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if c.Kind == KindWorkload {
			r.core.touched[c.Namespace+"/"+c.Name] = true
		} else {
			r.book.changed[model.ServiceName{Namespace: c.Namespace, Name: c.Name}] = true
		}
	}
}

// encode makes the stored form; our own types always have one.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("registry: " + err.Error())
	}
	return b
}

// definedBy answers the kinds of objects that define services.
func definedBy() []string { return []string{kindService, kindExternal, kindPool} }

// readDefinitions reads all objects that define services and answers the revision that they are as of.
func (r *Registry) readDefinitions(ctx context.Context) (int64, error) {
	var objects []store.Object
	revision := int64(math.MaxInt64)
	for _, kind := range definedBy() {
		some, at, err := r.cfg.Store.List(ctx, kind, "")
		if err != nil {
			return 0, err
		}
		objects, revision = append(objects, some...), min(revision, at) // what comes between is heard again, which does no harm
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.defs {
		r.core.dirty[name.Namespace] = true
	}
	clear(r.defs)
	for _, o := range objects {
		r.define(o)
	}
	return revision, nil
}

func (r *Registry) define(o store.Object) {
	name := nameOf(o.Key)
	r.core.dirty[o.Namespace] = true
	parse := ParseService
	switch o.Kind {
	case kindExternal:
		parse = parseExternal
	case kindPool:
		parse = ParsePool
	}
	d, err := parse(name, o.Value)
	if err != nil {
		r.cfg.Log.Error("stored object cannot be read; it is left out", "kind", o.Kind, "service", name.String(), "error", err)
		delete(r.defs, name)
		return
	}
	r.defs[name] = d
}

// nameOf answers the service that an object defines.
func nameOf(k store.Key) model.ServiceName {
	name := model.ServiceName{Namespace: k.Namespace, Name: k.Name}
	switch k.Kind {
	case kindExternal:
		return model.External(k.Namespace, k.Name)
	case kindPool:
		return PoolName(name)
	}
	return name
}

// follow takes over what users change; when the watch breaks, everything is read again.
func (r *Registry) follow(ctx context.Context, after int64) {
	for ctx.Err() == nil {
		err := r.watchDefinitions(ctx, &after)
		if ctx.Err() != nil {
			return
		}
		r.cfg.Log.Warn("watching the Services broke off; they are read again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(storeRetry):
		}
		if now, err := r.readDefinitions(ctx); err == nil {
			after = now
			r.publish()
		}
	}
}

func (r *Registry) watchDefinitions(ctx context.Context, after *int64) error {
	w, err := r.cfg.Store.Watch(ctx, "", *after)
	if err != nil {
		return err
	}
	defer w.Close()
	for events := range w.Events() {
		r.mu.Lock()
		ours := false
		for _, e := range events {
			if *after = e.Revision; !slices.Contains(definedBy(), e.Kind) {
				continue
			}
			ours = true
			if e.Deleted {
				delete(r.defs, nameOf(e.Key))
				r.core.dirty[e.Namespace] = true
			} else {
				r.define(e.Object)
			}
		}
		r.mu.Unlock()
		if ours {
			r.publish()
		}
	}
	if err := w.Err(); err != nil {
		return err
	}
	return errors.New("the watch ended")
}
