// Package drive moves rollouts: once a second it asks what callers' proxies have counted, has package rollout decide, and stores what
// came of it; the weights follow the store. It keeps nothing itself, so a control plane that is restarted goes on where the one before
// was. A Driver is for one goroutine. Start reading at Driver.Tick.
package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/control/stats"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Every is how often to call Tick.
const Every = time.Second

// Silent is how long a proxy that reports every second may be silent.
const Silent = 15 * time.Second

// Driver moves rollouts; all fields are needed.
type Driver struct {
	Store    store.Store
	Compiler func() compile.Compiler // as of the newest index
	Seen     *stats.Stats
	// Here reports whether a workload, "namespace/name#starts" as its proxy reports, has not said goodbye.
	Here func(workload string) bool
}

// Tick looks at every rollout once. What could not be stored is decided again at the next.
func (d *Driver) Tick(ctx context.Context, now time.Time) error {
	kept, _, err := d.Store.List(ctx, rollout.Kind, "")
	if err != nil {
		return fmt.Errorf("states of rollouts: %w", err)
	}
	stored := map[compile.PolicyKey]store.Object{}
	for _, o := range kept {
		stored[compile.PolicyKey{Namespace: o.Namespace, Name: o.Name}] = o
	}
	var errs []error
	for _, r := range d.Compiler().Rollouts() {
		o := stored[r.Policy]
		errs = append(errs, d.move(ctx, &r, o, now))
	}
	for key, o := range stored {
		if _, err := d.Store.Get(ctx, store.Key{Kind: "TrafficPolicy", Namespace: key.Namespace, Name: key.Name}); errors.Is(err, store.ErrNotFound) {
			if _, err := d.Store.Delete(ctx, o.Key, store.At(o.Revision)); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", o.Key, err))
			}
		}
	}
	return errors.Join(errs...)
}

// move decides about one rollout, whose state is stored as o (its Revision is 0 if it is not).
func (d *Driver) move(ctx context.Context, r *compile.Rollout, o store.Object, now time.Time) error {
	var s rollout.State
	cond := store.Absent
	if o.Revision > 0 {
		cond = store.At(o.Revision)
		if json.Unmarshal(o.Value, &s) != nil {
			s = rollout.State{} // begins anew, as for the routes
		}
	}
	next := rollout.Decide(r.Target, r.Spec, s, d.seen(r, s.Began, now), now)
	if next == s {
		return nil
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	key := store.Key{Kind: rollout.Kind, Namespace: r.Policy.Namespace, Name: r.Policy.Name}
	if _, err := d.Store.Put(ctx, store.Object{Key: key, Value: value}, cond); err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// seen answers what callers' proxies have counted of the two backends of a route since begin.
func (d *Driver) seen(r *compile.Rollout, begin, now time.Time) (out rollout.Seen) {
	canary, stable := r.Canary.String(), r.Stable.String()
	edges, quiet := d.Seen.Observed(begin, now, Silent, func(k *telemetry.EdgeKey) bool {
		return k.Direction == "outbound" && k.Route == r.Route && (k.Backend == canary || k.Backend == stable)
	})
	for i := range edges {
		to := &out.Stable
		if edges[i].Backend == canary {
			to = &out.Canary
		}
		to.Requests += edges[i].Requests
		to.Failures += edges[i].Failures
		to.Latency.Merge(edges[i].Latency)
	}
	for _, name := range quiet {
		if d.Here(name) {
			out.Blind, _, _ = strings.Cut(name, "#")
			break
		}
	}
	return out
}
