package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

// unresolved answers an error per reference to a Service, or a port of one, that nobody knows: neither the
// same files, nor the store, nor the workloads that are there.
func (a *API) unresolved(ctx context.Context, docs []decode.Document) ([]decode.Error, error) {
	known := services{ports: map[model.ServiceName][]uint16{}}
	for _, s := range a.cfg.Registry.Services() {
		for _, p := range s.Ports {
			known.add(s.Name, p.Port)
		}
		known.add(s.Name)
	}
	objects, _, err := a.cfg.Store.List(ctx, "Service", "")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		var s v1alpha1.Service
		if json.Unmarshal(o.Value, &s) == nil {
			known.object(&s)
		}
	}
	for i := range docs {
		if s, ok := docs[i].Object.(*v1alpha1.Service); ok {
			known.object(s)
		}
	}
	var errs []decode.Error
	for i := range docs {
		if r, ok := docs[i].Object.(*v1alpha1.HTTPRoute); ok {
			errs = append(errs, known.route(&docs[i], r)...)
		}
	}
	return errs, nil
}

// services are the ports that are known, by service.
type services struct {
	ports map[model.ServiceName][]uint16
}

func (s services) add(name model.ServiceName, ports ...uint16) {
	s.ports[name] = append(s.ports[name], ports...)
}

// object: an explicit Service replaces what is there implicitly under its name.
func (s services) object(o *v1alpha1.Service) {
	name := model.ServiceName{Namespace: o.Namespace, Name: o.Name}
	s.ports[name] = nil
	for _, p := range o.Spec.Ports {
		s.add(name, uint16(p.Port))
	}
}

func (s services) route(d *decode.Document, r *v1alpha1.HTTPRoute) (errs []decode.Error) {
	check := func(path, name string, port *int32) {
		if field, message := s.missing(model.ServiceName{Namespace: r.Namespace, Name: name}, port); message != "" {
			errs = append(errs, d.Errorf(path+field, "%s", message))
		}
	}
	for i, p := range r.Spec.ParentRefs {
		check(fmt.Sprintf("spec.parentRefs[%d]", i), string(p.Name), (*int32)(p.Port))
	}
	for i, rule := range r.Spec.Rules {
		for j, b := range rule.BackendRefs {
			check(fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j), string(b.Name), (*int32)(b.Port))
		}
	}
	return errs
}

// missing answers what about a reference is not known.
func (s services) missing(name model.ServiceName, port *int32) (field, message string) {
	ports, ok := s.ports[name]
	switch {
	case !ok:
		return ".name", fmt.Sprintf("there is no Service %s in namespace %s, and no workload of it: apply it in the same file or start it, or use --allow-unresolved",
			name.Name, name.Namespace)
	case port == nil || slices.Contains(ports, uint16(*port)):
		return "", ""
	}
	var has []string
	for _, p := range ports {
		has = append(has, strconv.Itoa(int(p)))
	}
	return ".port", fmt.Sprintf("Service %s has no port %d: it has %s", name.Name, *port, strings.Join(has, ", "))
}

// objectKey is the key that a path of the API names; the namespace of kinds of the whole mesh is written "-".
func objectKey(kind, namespace, name string) (store.Key, v1alpha1.Kind, error) {
	k, ok := v1alpha1.FindKind(kind)
	if !ok {
		var names []string
		for _, k := range v1alpha1.Kinds() {
			names = append(names, k.Plural)
		}
		return store.Key{}, k, bad("there is no kind %q: write one of %s", kind, strings.Join(names, ", "))
	}
	if !k.Namespaced {
		namespace = ""
	}
	return store.Key{Kind: k.Name, Namespace: namespace, Name: name}, k, nil
}
