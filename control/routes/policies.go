package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

const (
	policyKind  = "TrafficPolicy"
	meshKind    = "MeshConfig"
	rolloutKind = rollout.Kind
)

// loadPolicies reads the policies and the mesh's defaults. They may be newer than revision, at which the routes were read;
// what comes between is then heard again, which does no harm.
func (r *Routes) loadPolicies(ctx context.Context, revision int64) (int64, error) {
	r.policies, r.security, r.mesh = map[store.Key]compile.Policy{}, map[store.Key]compile.SecurityPolicy{}, nil
	r.rolling = map[compile.PolicyKey]rollout.State{}
	for _, k := range append([]string{policyKind, meshKind, rolloutKind}, compile.SecurityKinds()...) {
		objects, at, err := r.cfg.Store.List(ctx, k, "")
		if err != nil {
			return 0, fmt.Errorf("reading every %s: %w", k, err)
		}
		for _, o := range objects {
			switch k {
			case meshKind:
				r.putMesh(o)
			case rolloutKind:
				r.putRollout(o)
			case policyKind:
				r.putPolicy(o)
			default:
				r.putSecurity(o)
			}
		}
		revision = min(revision, at)
	}
	return revision, nil
}

// putPolicy takes a policy over. As for routes, one that cannot be read is left out.
func (r *Routes) putPolicy(o store.Object) {
	p := &v1alpha1.TrafficPolicy{}
	if err := json.Unmarshal(o.Value, p); err != nil {
		r.cfg.Log.Error("stored policy cannot be read; it is left out", "policy", o.Key.String(), "error", err)
		delete(r.policies, o.Key)
		return
	}
	p.Namespace, p.Name = o.Namespace, o.Name
	v1alpha1.Default(p)
	r.policies[o.Key] = compile.Policy{Object: p, Created: o.Created}
}

// putRollout takes over how far a rollout is. What cannot be read is as if it had not begun.
func (r *Routes) putRollout(o store.Object) {
	key := compile.PolicyKey{Namespace: o.Namespace, Name: o.Name}
	var s rollout.State
	if err := json.Unmarshal(o.Value, &s); err != nil {
		r.cfg.Log.Error("stored state of a rollout cannot be read; it begins anew", "policy", o.Key.String(), "error", err)
		delete(r.rolling, key)
		return
	}
	r.rolling[key] = s
}

func (r *Routes) putMesh(o store.Object) {
	if o.Name != v1alpha1.MeshConfigName {
		return
	}
	m := &v1alpha1.MeshConfig{}
	if err := json.Unmarshal(o.Value, m); err != nil {
		r.cfg.Log.Error("stored MeshConfig cannot be read; it is left out", "error", err)
		r.mesh = nil
		return
	}
	v1alpha1.Default(m)
	r.mesh = &m.Spec
}

// policyEvent takes a change of a policy, or of the mesh's defaults, and answers the services that it bears on; ours is false
// for a change of something else. A policy on a route that is changed with it has been looked up among the routes as they
// are by then: whichever of the two comes later knows the other.
func (r *Routes) policyEvent(e store.Event) (services []model.ServiceName, ours bool) {
	switch e.Kind {
	case policyKind:
		services = r.touchedBy(e.Key)
		if e.Deleted {
			delete(r.policies, e.Key)
		} else {
			r.putPolicy(e.Object)
		}
		return union(services, r.touchedBy(e.Key)), true
	case rolloutKind:
		if e.Deleted {
			delete(r.rolling, compile.PolicyKey{Namespace: e.Namespace, Name: e.Name})
		} else {
			r.putRollout(e.Object)
		}
		return r.touchedBy(store.Key{Kind: policyKind, Namespace: e.Namespace, Name: e.Name}), true
	case meshKind:
		if e.Deleted {
			r.mesh = nil
		} else {
			r.putMesh(e.Object)
		}
		return slices.Clone(r.cfg.Services()), true
	}
	if slices.Contains(compile.SecurityKinds(), e.Kind) {
		return r.securityEvent(e), true
	}
	return nil, false
}

// touchedBy answers the services that a policy bears on.
func (r *Routes) touchedBy(k store.Key) []model.ServiceName {
	p, ok := r.policies[k]
	if !ok {
		return nil
	}
	return r.indexed().Touched(p.Object)
}
