package compile

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// Edit is an object that is about to be stored, or deleted.
type Edit struct {
	Object v1alpha1.Object // defaulted and valid
	Delete bool
}

// unborn is when an object was made that is not stored yet: after all others.
const unborn = math.MaxInt64

// Edited answers the index as it would be after edits.
func (ix *Index) Edited(edits []Edit) *Index {
	routes, policies, mesh, beside := slices.Clone(ix.all), slices.Clone(ix.policies.all), ix.policies.mesh, ix.beside
	guards, guarding := ix.security.all, ix.security.mesh
	for _, e := range edits {
		same := func(o v1alpha1.Object) bool {
			return v1alpha1.KindOf(o).Name == v1alpha1.KindOf(e.Object).Name && o.GetNamespace() == e.Object.GetNamespace() && o.GetName() == e.Object.GetName()
		}
		switch o := e.Object.(type) {
		case *v1alpha1.TrafficPolicy:
			policies = replace(policies, e.Delete, func(p Policy) bool { return same(p.Object) }, func(p Policy) int64 { return p.Created },
				func(created int64) Policy { return Policy{Object: o, Created: created} })
		case *v1alpha1.MeshConfig:
			if mesh, guarding = o.Spec.Defaults, &o.Spec; e.Delete {
				mesh, guarding = nil, nil
			}
		case *v1alpha1.ReferenceGrant:
			beside.Grants = swap(beside.Grants, o, e.Delete, same)
		case *v1alpha1.FaultInjection:
			beside.Faults = swap(beside.Faults, o, e.Delete, same)
		case *v1alpha1.ExternalService:
			beside.Externals = swap(beside.Externals, o, e.Delete, same)
		case *v1alpha1.DirectResponse:
			beside.Responses = swap(beside.Responses, o, e.Delete, same)
		default:
			if slices.Contains(SecurityKinds(), v1alpha1.KindOf(o).Name) {
				guards = replace(guards, e.Delete, func(p SecurityPolicy) bool { return same(p.Object) }, func(p SecurityPolicy) int64 { return p.Created },
					func(created int64) SecurityPolicy { return SecurityPolicy{Object: o, Created: created} })
			}
			if v1alpha1.IsRoute(o) {
				routes = replace(routes, e.Delete, func(r Route) bool { return same(r.Object) }, func(r Route) int64 { return r.Created },
					func(created int64) Route { return Route{Object: o, Created: created} })
			}
		}
	}
	return NewIndex(routes).Referred(beside).With(policies, mesh).Rolling(ix.rolling).Secured(guards, guarding)
}

// replace puts what make answers in the place of what is the same, with the same age, or takes that out.
func replace[T any](list []T, remove bool, same func(T) bool, age func(T) int64, make func(created int64) T) []T {
	created := int64(unborn)
	list = slices.DeleteFunc(slices.Clone(list), func(x T) bool {
		if !same(x) {
			return false
		}
		created = age(x)
		return true
	})
	if remove {
		return list
	}
	return append(list, make(created))
}

// swap is replace for what has no age.
func swap[T v1alpha1.Object](list []T, o T, remove bool, same func(v1alpha1.Object) bool) []T {
	return replace(list, remove, func(x T) bool { return same(x) }, func(T) int64 { return 0 }, func(int64) T { return o })
}

// overlay is services with some of them edited. A Service that is deleted is gone, though one that exists by its workloads may
// take its place.
type overlay struct {
	base   Services
	edited map[model.ServiceName]*registry.Service // nil: deleted
}

func (o overlay) Service(n model.ServiceName) (*registry.Service, bool) {
	if s, ok := o.edited[n]; ok {
		return s, s != nil
	}
	return o.base.Service(n)
}

func (o overlay) Services() (out []*registry.Service) {
	for _, s := range o.base.Services() {
		if _, ok := o.edited[s.Name]; !ok {
			out = append(out, s)
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(o.edited), func(a, b model.ServiceName) int { return cmp.Compare(a.String(), b.String()) }) {
		if s := o.edited[n]; s != nil {
			out = append(out, s)
		}
	}
	return out
}

// Edited answers a compiler of what would be after edits.
func (c Compiler) Edited(edits []Edit) Compiler {
	o := overlay{base: c.Services, edited: map[model.ServiceName]*registry.Service{}}
	for _, e := range edits {
		s, ok := e.Object.(*v1alpha1.Service)
		if !ok {
			continue
		}
		name := model.ServiceName{Namespace: s.Namespace, Name: s.Name}
		o.edited[name] = nil
		if e.Delete {
			continue
		}
		out := &registry.Service{Service: model.Service{Name: name}, Selector: s.Spec.Selector}
		for _, p := range s.Spec.Ports {
			protocol := model.ProtocolUnknown
			if p.AppProtocol != nil {
				protocol, _ = model.ParseProtocol(v1alpha1.AppProtocols()[*p.AppProtocol])
			}
			out.Ports = append(out.Ports, model.ServicePort{Name: p.Name, Port: uint16(p.Port), Protocol: protocol})
		}
		o.edited[name] = out
	}
	return Compiler{Index: c.Index.Edited(edits), Services: o}
}

// Names answers the ports of services, those of edits too, in order.
func (c Compiler) Names(services []*registry.Service, edits []Edit) (out []model.PortName) {
	for _, s := range services {
		for _, p := range s.Ports {
			out = append(out, model.PortName{Service: s.Name, Port: p.Port})
		}
	}
	for _, e := range edits {
		if s, ok := e.Object.(*v1alpha1.Service); ok {
			for _, p := range s.Spec.Ports {
				out = append(out, model.PortName{Service: model.ServiceName{Namespace: s.Namespace, Name: s.Name}, Port: uint16(p.Port)})
			}
		}
	}
	slices.SortFunc(out, func(a, b model.PortName) int {
		return cmp.Or(cmp.Compare(a.Service.Namespace, b.Service.Namespace), cmp.Compare(a.Service.Name, b.Service.Name), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(out)
}

// Change is one thing that proxies would be told.
type Change struct {
	Kind   string  `json:"kind"`   // routes, cluster or security
	Name   string  `json:"name"`   // "cart.default:80", "cart.default:80@shop" for the callers of one namespace
	Action string  `json:"action"` // created, changed or deleted
	Fields []Field `json:"fields"`
	// Callers are the proxies that have it now, "namespace/workload".
	Callers []string `json:"callers"`
}

// Field is one value before and after; "" is none.
type Field struct {
	Path   string `json:"path"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Differences answers what proxies would be told about ports if after were in force instead of before.
func Differences(before, after Compiler, names []model.PortName) (out []Change) {
	for _, n := range names {
		callers := append(append([]string{""}, before.Index.consumers(n.Service)...), after.Index.consumers(n.Service)...)
		slices.Sort(callers)
		for _, caller := range slices.Compact(callers) {
			a, hadTable := before.tableOf(n, caller)
			b, hasTable := after.tableOf(n, caller)
			out = appendChange(out, "routes", n.For(caller), hadTable, hasTable, TableValues(a), TableValues(b))
		}
		p, hadCluster := before.Cluster(n)
		q, hasCluster := after.Cluster(n)
		out = appendChange(out, "cluster", n.String(), hadCluster, hasCluster, ClusterValues(p), ClusterValues(q))
	}
	done := map[model.ServiceName]bool{}
	for _, n := range names {
		if done[n.Service] {
			continue
		}
		done[n.Service] = true
		a, had := before.Security(n.Service)
		b, has := after.Security(n.Service)
		if had || has { // a service that is new has what holds for all
			out = appendChange(out, "security", n.Service.String(), true, true, SecurityValues(a), SecurityValues(b))
		}
	}
	return out
}

// SecurityValues answers every value that is not zero of what a service's proxies enforce, by its path. Policies are named by
// themselves and not by their place.
func SecurityValues(s *model.Security) map[string]string {
	out := map[string]string{}
	if s == nil {
		return out
	}
	for _, p := range s.Policies {
		name := p.Name
		p.Name = ""
		out[name] = "in force"
		flatten(reflect.ValueOf(p), name, out)
	}
	rest := *s
	rest.Policies, rest.Name = nil, model.ServiceName{}
	flatten(reflect.ValueOf(rest), "", out)
	return out
}

// tableOf answers a table; of a namespace without routes of its own there is none.
func (c Compiler) tableOf(n model.PortName, caller string) (*model.RouteTable, bool) {
	if caller != "" && !slices.Contains(c.Index.consumers(n.Service), caller) {
		return nil, false
	}
	return c.RouteTableFor(n, caller)
}

func appendChange(out []Change, kind, name string, had, has bool, before, after map[string]string) []Change {
	c := Change{Kind: kind, Name: name, Action: "changed", Callers: []string{}}
	switch {
	case !had:
		c.Action = "created"
	case !has:
		c.Action = "deleted"
	}
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if before[p] != after[p] {
			c.Fields = append(c.Fields, Field{Path: p, Before: before[p], After: after[p]})
		}
	}
	if had == has && len(c.Fields) == 0 || !had && !has {
		return out
	}
	return append(out, c)
}

// TableValues answers every value of a table that is not zero by its path. Routes are named by where they come from and not by
// their place, so that one more moves no other.
func TableValues(t *model.RouteTable) map[string]string {
	out := map[string]string{}
	if t == nil {
		return out
	}
	seen := map[string]int{}
	for i := range t.Routes {
		r := t.Routes[i]
		key := fmt.Sprintf("%s[%d]", r.Name, r.Rule)
		if seen[key]++; seen[key] > 1 {
			key += fmt.Sprintf(".match%d", seen[key])
		}
		r.Name, r.Rule = "", 0
		flatten(reflect.ValueOf(r), key, out)
	}
	rest := *t
	rest.Routes = nil
	flatten(reflect.ValueOf(rest), "", out)
	return out
}

// ClusterValues answers every value of a cluster that is not zero by its path.
func ClusterValues(m *model.Cluster) map[string]string {
	out := map[string]string{}
	if m != nil {
		flatten(reflect.ValueOf(*m), "", out)
	}
	return out
}

// flatten writes every value that is not zero under its path.
func flatten(v reflect.Value, path string, out map[string]string) {
	switch x := v.Interface().(type) {
	case time.Duration:
		if x != 0 {
			out[path] = x.String()
		}
		return
	case model.PortName:
		if x != (model.PortName{}) {
			out[path] = x.String()
		}
		return
	case netip.Addr, netip.AddrPort, model.Protocol:
		if !v.IsZero() {
			out[path] = fmt.Sprint(x)
		}
		return
	case []byte:
		if len(x) > 0 {
			out[path] = strconv.Quote(string(x))
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out[path] = "set"
			flatten(v.Elem(), path, out)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if path != "" {
				name = path + "." + name
			}
			flatten(v.Field(i), name, out)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			flatten(v.Index(i), fmt.Sprintf("%s[%d]", path, i), out)
		}
	default:
		if !v.IsZero() {
			out[path] = fmt.Sprint(v.Interface())
		}
	}
}
