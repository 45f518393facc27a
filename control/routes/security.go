package routes

import (
	"encoding/json"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

// putSecurity takes a policy over. One that cannot be read changes nothing: the one before stays in force, since a policy that
// is left out may let somebody in.
func (r *Routes) putSecurity(o store.Object) {
	kind, _ := v1alpha1.FindKind(o.Kind)
	object := kind.New()
	if err := json.Unmarshal(o.Value, object); err != nil {
		r.cfg.Log.Error("stored policy cannot be read; what it said before stays in force", "policy", o.Key.String(), "error", err)
		return
	}
	m := v1alpha1.Meta(object)
	m.Namespace, m.Name = o.Namespace, o.Name
	v1alpha1.Default(object)
	r.security[o.Key] = compile.SecurityPolicy{Object: object, Created: o.Created}
}

// securityEvent takes a change and answers the services that it bears on.
func (r *Routes) securityEvent(e store.Event) []model.ServiceName {
	services := r.secures(e.Key)
	if e.Deleted {
		delete(r.security, e.Key)
	} else {
		r.putSecurity(e.Object)
	}
	return union(services, r.secures(e.Key))
}

func (r *Routes) secures(k store.Key) (out []model.ServiceName) {
	p, ok := r.security[k]
	if !ok {
		return nil
	}
	for _, name := range r.cfg.Services() {
		if _, about := p.About(name); about || p.AboutExternal() {
			out = append(out, name)
		}
	}
	return out
}
