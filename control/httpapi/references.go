package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
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
		if p, ok := docs[i].Object.(*v1alpha1.InferencePool); ok {
			known.add(registry.PoolName(model.ServiceName{Namespace: p.Namespace, Name: p.Name}))
		}
	}
	var errs []decode.Error
	for i := range docs {
		d := &docs[i]
		errs = append(append(append(errs, known.route(d)...), known.policy(d)...), known.pool(d)...)
		more, err := a.missingFilters(ctx, d, docs)
		if err != nil {
			return nil, err
		}
		errs = append(errs, more...)
	}
	return errs, nil
}

// missingFilters answers an error per filter of Tulle's own that a route refers to and nobody has.
func (a *API) missingFilters(ctx context.Context, d *decode.Document, docs []decode.Document) (errs []decode.Error, err error) {
	for i, rule := range v1alpha1.Rules(d.Object) {
		for j, f := range rule.Filters {
			if f.ExtensionRef == nil {
				continue
			}
			key := store.Key{Kind: string(f.ExtensionRef.Kind), Namespace: d.Object.GetNamespace(), Name: string(f.ExtensionRef.Name)}
			given := slices.ContainsFunc(docs, func(o decode.Document) bool {
				return o.Kind.Name == key.Kind && o.Object.GetNamespace() == key.Namespace && o.Object.GetName() == key.Name
			})
			if given {
				continue
			}
			if _, err := a.cfg.Store.Get(ctx, key); errors.Is(err, store.ErrNotFound) {
				errs = append(errs, d.Errorf(fmt.Sprintf("spec.rules[%d].filters[%d].extensionRef.name", i, j),
					"there is no %s %s in namespace %s: apply it in the same file, or use --allow-unresolved", key.Kind, key.Name, key.Namespace))
			} else if err != nil {
				return nil, err
			}
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

// route checks the Services of a route's parents, backends and mirrors; of another kind of object there is nothing to check.
func (s services) route(d *decode.Document) (errs []decode.Error) {
	check := func(path string, external bool, namespace *v1alpha1.Namespace, name string, port *int32) {
		if external {
			return // it may come later; the status says so until it does
		}
		ns := d.Object.GetNamespace()
		if namespace != nil {
			ns = string(*namespace)
		}
		if field, message := s.missing(model.ServiceName{Namespace: ns, Name: name}, port); message != "" {
			errs = append(errs, d.Errorf(path+field, "%s", message))
		}
	}
	for i, p := range v1alpha1.Parents(d.Object) {
		check(fmt.Sprintf("spec.parentRefs[%d]", i), v1alpha1.IsExternal(p.Group, p.Kind), p.Namespace, string(p.Name), (*int32)(p.Port))
	}
	for i, rule := range v1alpha1.Rules(d.Object) {
		for j, b := range rule.Backends {
			if v1alpha1.IsPool(&b.BackendObjectReference) {
				pool := registry.PoolName(model.ServiceName{Namespace: d.Object.GetNamespace(), Name: string(b.Name)})
				if field, message := s.missing(pool, nil); message != "" {
					errs = append(errs, d.Errorf(fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j)+field, "%s", message))
				}
				continue
			}
			check(fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j), v1alpha1.IsExternal(b.Group, b.Kind), b.Namespace, string(b.Name), (*int32)(b.Port))
		}
		for j, f := range rule.Filters {
			if m := f.RequestMirror; m != nil {
				check(fmt.Sprintf("spec.rules[%d].filters[%d].requestMirror.backendRef", i, j), v1alpha1.IsExternal(m.BackendRef.Group, m.BackendRef.Kind), m.BackendRef.Namespace, string(m.BackendRef.Name), (*int32)(m.BackendRef.Port))
			}
		}
	}
	return errs
}

// pool checks the Service of an endpoint picker.
func (s services) pool(d *decode.Document) (errs []decode.Error) {
	p, ok := d.Object.(*v1alpha1.InferencePool)
	if !ok {
		return nil
	}
	ref := &p.Spec.EndpointPickerRef
	var port *int32
	if ref.Port != nil {
		port = &ref.Port.Number
	}
	if field, message := s.missing(model.ServiceName{Namespace: p.Namespace, Name: ref.Name}, port); message != "" {
		errs = append(errs, d.Errorf("spec.endpointPickerRef"+field, "%s", message))
	}
	return errs
}

// policy checks the Services that a policy is about or names.
func (s services) policy(d *decode.Document) (errs []decode.Error) {
	p, ok := d.Object.(*v1alpha1.TrafficPolicy)
	if !ok {
		return nil
	}
	check := func(path, name string, port int32) {
		number := &port
		if port == 0 {
			number = nil
		}
		if field, message := s.missing(model.ServiceName{Namespace: p.Namespace, Name: name}, number); message != "" {
			errs = append(errs, d.Errorf(path+field, "%s", message))
		}
	}
	for i, t := range p.Spec.TargetRefs {
		if t.Kind == "Service" { // one that is outside may come later, and its status says so
			check(fmt.Sprintf("spec.targetRefs[%d]", i), t.Name, 0)
		}
	}
	if f := p.Spec.Fallback; f != nil {
		check("spec.fallback", f.Name, f.Port)
	}
	for i := range p.Spec.RateLimits {
		if g := p.Spec.RateLimits[i].Global; g != nil && g.Service != "" {
			check(fmt.Sprintf("spec.rateLimits[%d].global", i), g.Service, g.Port)
		}
	}
	return errs
}

// missing answers what about a reference is not known.
func (s services) missing(name model.ServiceName, port *int32) (field, message string) {
	ports, ok := s.ports[name]
	switch {
	case !ok && registry.IsPool(name):
		return ".name", fmt.Sprintf("there is no InferencePool %s in namespace %s: apply it in the same file, or use --allow-unresolved", registry.PoolOf(name), name.Namespace)
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
