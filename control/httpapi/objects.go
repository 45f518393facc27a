package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/store"
)

func (a *API) serveList(r *http.Request) (any, error) {
	key, kind, err := objectKey(r.PathValue("kind"), r.URL.Query().Get("namespace"), "-")
	if err != nil {
		return nil, err
	}
	objects, rev, err := a.cfg.Store.List(r.Context(), key.Kind, key.Namespace)
	if err != nil {
		return nil, err
	}
	list := ObjectList{Items: make([]json.RawMessage, 0, len(objects)), Revision: rev}
	for _, o := range objects {
		text, err := a.shown(kind, o)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, text)
	}
	return list, nil
}

func (a *API) serveGet(r *http.Request) (any, error) {
	key, kind, err := objectKey(r.PathValue("kind"), r.PathValue("namespace"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	o, err := a.cfg.Store.Get(r.Context(), key)
	if err != nil {
		return nil, err
	}
	return a.shown(kind, o)
}

func (a *API) serveDelete(r *http.Request) (any, error) {
	key, kind, err := objectKey(r.PathValue("kind"), r.PathValue("namespace"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	var lost []Reference
	if a.cfg.Compiler != nil {
		a.catchUp(r.Context())
		object := kind.New()
		m := v1alpha1.Meta(object)
		m.Namespace, m.Name = key.Namespace, key.Name
		before := a.cfg.Compiler()
		lost = broken(before, before.Edited(a.final([]compile.Edit{{Object: object, Delete: true}})), func(string) bool { return false })
	}
	dry := false
	if text := r.URL.Query().Get("dryRun"); text != "" {
		if dry, err = strconv.ParseBool(text); err != nil {
			return nil, bad("dryRun %.20q is neither true nor false", text)
		}
	}
	var rev int64
	if dry {
		_, err = a.cfg.Store.Get(r.Context(), key)
	} else {
		rev, err = a.cfg.Store.Delete(r.Context(), key, store.Any)
	}
	if err != nil {
		return nil, err
	}
	return ApplyResult{Revision: rev, Broken: lost, Objects: []Applied{{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, Action: "deleted"}}}, nil
}

// shown answers an object as users see it: with its revision and its status of this moment.
func (a *API) shown(kind v1alpha1.Kind, o store.Object) (json.RawMessage, error) {
	object := kind.New()
	if err := json.Unmarshal(o.Value, object); err != nil {
		return nil, err
	}
	v1alpha1.Meta(object).ResourceVersion = strconv.FormatInt(o.Revision, 10)
	if v1alpha1.IsRoute(object) && a.cfg.RouteStatus != nil {
		v1alpha1.SetRouteStatus(object, a.cfg.RouteStatus(object))
	}
	if p, ok := object.(*v1alpha1.TrafficPolicy); ok && a.cfg.PolicyStatus != nil {
		p.Status = a.cfg.PolicyStatus(p)
	}
	if a.cfg.SecurityStatus != nil {
		switch p := object.(type) {
		case *v1alpha1.AuthorizationPolicy:
			p.Status = a.cfg.SecurityStatus(p)
		case *v1alpha1.AuthenticationPolicy:
			p.Status = a.cfg.SecurityStatus(p)
		}
	}
	if o, ok := object.(*v1alpha1.ExternalService); ok && a.cfg.ExternalStatus != nil {
		o.Status = a.cfg.ExternalStatus(o)
	}
	if p, ok := object.(*v1alpha1.InferencePool); ok && a.cfg.PoolStatus != nil {
		p.Status = a.cfg.PoolStatus(p)
	}
	if a.cfg.UsedStatus != nil {
		switch o := object.(type) {
		case *v1alpha1.FaultInjection:
			o.Status = a.cfg.UsedStatus(o)
		case *v1alpha1.DirectResponse:
			o.Status = a.cfg.UsedStatus(o)
		}
	}
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	if s := string(m["status"]); s == `{}` || s == `{"parents":null}` {
		delete(m, "status")
	}
	return json.Marshal(m)
}
