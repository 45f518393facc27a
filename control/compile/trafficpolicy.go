package compile

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// Policy is a stored TrafficPolicy and when it was made.
type Policy struct {
	Object  *v1alpha1.TrafficPolicy
	Created int64 // as Route's
}

// name answers "TrafficPolicy/default/reviews".
func (p Policy) name() string { return "TrafficPolicy/" + p.Object.Namespace + "/" + p.Object.Name }

// place is what a policy attaches to. The section of a Service is written as the user wrote it.
type place struct{ kind, namespace, name, section string }

// policies are all policies by where they attach.
type policies struct {
	all  []Policy // oldest first
	at   map[place][]Policy
	mesh *v1alpha1.TrafficParts // nil: MeshConfig says nothing
}

// With answers an index of the same routes and other policies; mesh is what MeshConfig has as defaults, nil for nothing.
func (ix *Index) With(list []Policy, mesh *v1alpha1.TrafficParts) *Index {
	out := *ix
	out.policies = policies{all: slices.SortedFunc(slices.Values(list), olderPolicy), at: map[place][]Policy{}, mesh: mesh}
	for _, p := range out.policies.all {
		for _, t := range p.Object.Spec.TargetRefs {
			at := place{t.Kind, p.Object.Namespace, t.Name, t.SectionName}
			if t.Kind == v1alpha1.ExternalKind {
				at.kind, at.name = "Service", refersTo(t.Kind, at.namespace, t.Name).Name
			}
			out.policies.at[at] = append(out.policies.at[at], p)
		}
	}
	return &out
}

// withoutMesh answers an index in which the mesh has no defaults.
func (ix *Index) withoutMesh() *Index {
	out := *ix
	out.policies.mesh = nil
	return &out
}

// Policies answers all policies, oldest first.
func (ix *Index) Policies() []Policy { return ix.policies.all }

// Treatment is what is said about one thing by all that bears on it, and by whom.
type Treatment struct {
	v1alpha1.TrafficParts
	From []Source
}

// Source says where the value of a field comes from.
type Source struct {
	Field string `json:"field"`        // "retries", "timeouts.request"
	From  string `json:"from"`         // "TrafficPolicy/default/reviews", "HTTPRoute/default/cart", "MeshConfig/mesh"
	On    string `json:"on,omitempty"` // what the policy is attached to: "Service/reviews#http"
}

// partial are the parts that are taken value by value.
func partial(name string) bool { return name == "timeouts" || name == "connections" }

// add takes what parts say that nobody nearer has said.
func (t *Treatment) add(parts *v1alpha1.TrafficParts, from Source) {
	to, of := reflect.ValueOf(&t.TrafficParts).Elem(), reflect.ValueOf(parts).Elem()
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Type().Field(i).Tag.Get("json"), ",")
		src, dst := of.Field(i), to.Field(i)
		switch {
		case src.IsNil(), t.has(name):
		case partial(name):
			t.merge(dst, src.Elem(), name, from)
		case dst.IsNil():
			dst.Set(src)
			t.source(name, from)
		}
	}
}

// merge fills in what is not there yet of one part, a structure.
func (t *Treatment) merge(dst, src reflect.Value, part string, from Source) {
	next := reflect.New(src.Type()).Elem() // what is in dst may be an object's own
	if !dst.IsNil() {
		next.Set(dst.Elem())
	}
	for i := range src.NumField() {
		if f := src.Field(i); !f.IsZero() && next.Field(i).IsZero() {
			next.Field(i).Set(f)
			name, _, _ := strings.Cut(src.Type().Field(i).Tag.Get("json"), ",")
			t.source(part+"."+name, from)
		}
	}
	dst.Set(next.Addr())
}

// has reports whether somebody nearer has said all of a part.
func (t *Treatment) has(part string) bool {
	return slices.ContainsFunc(t.From, func(s Source) bool { return s.Field == part })
}

func (t *Treatment) source(field string, from Source) {
	from.Field = field
	t.From = append(t.From, from)
}

// attachedPolicy is a policy on one of its places.
type attachedPolicy struct {
	Policy
	at place
}

// attached answers the policies on what several places are names of, oldest first.
func (p *policies) attached(places ...place) (out []attachedPolicy) {
	for _, at := range places {
		for _, one := range p.at[at] {
			out = append(out, attachedPolicy{one, at})
		}
	}
	slices.SortStableFunc(out, func(a, b attachedPolicy) int { return olderPolicy(a.Policy, b.Policy) })
	return out
}

// layer adds the policies on one place, the oldest first: it wins.
func (t *Treatment) layer(list []attachedPolicy) {
	for _, p := range list {
		t.add(&p.Object.Spec.TrafficParts, Source{From: p.name(), On: p.at.target().String()})
	}
}

// service adds what is said about a port of a service: on the port, on the service; for a version that exists by itself then
// likewise on the service that it is a version of; last for the whole mesh.
func (t *Treatment) service(c Compiler, name model.PortName) {
	for {
		s, ok := c.Services.Service(name.Service)
		t.layer(c.Index.policies.attached(portPlaces(s, name)...))
		t.layer(c.Index.policies.attached(servicePlace(name.Service)))
		if !ok || !s.Implicit || s.Selector["version"] == "" {
			break
		}
		name.Service.Name = s.Selector["service"]
	}
	if c.Index.policies.mesh != nil {
		t.add(c.Index.policies.mesh, Source{From: "MeshConfig/" + v1alpha1.MeshConfigName})
	}
}

// target answers the reference that a policy attaches by.
func (p place) target() v1alpha1.PolicyTarget {
	if name, ok := (model.ServiceName{Name: p.name}).External(); ok {
		return v1alpha1.PolicyTarget{Kind: v1alpha1.ExternalKind, Name: name, SectionName: p.section}
	}
	return v1alpha1.PolicyTarget{Kind: p.kind, Name: p.name, SectionName: p.section}
}

func servicePlace(n model.ServiceName) place {
	return place{kind: "Service", namespace: n.Namespace, name: n.Name}
}

// portPlaces answers how a port may be called by a policy: by its number, and by its name. s may be nil.
func portPlaces(s *registry.Service, name model.PortName) []place {
	at := servicePlace(name.Service)
	at.section = strconv.Itoa(int(name.Port))
	out := []place{at}
	if s != nil {
		if p, ok := s.FindPort(name.Port); ok && p.Name != "" && p.Name != at.section {
			at.section = p.Name
			out = append(out, at)
		}
	}
	return out
}

// ServiceTreatment answers what is said about a port of a service, as whoever calls it runs it.
func (c Compiler) ServiceTreatment(name model.PortName) *Treatment {
	t := &Treatment{}
	t.service(c, name)
	return t
}

// RouteTreatment answers what is said about the requests that a route of a port's table takes: by the route's own rule, by
// policies on the rule and on the route, then as about the port.
func (c Compiler) RouteTreatment(table model.PortName, r *model.Route) *Treatment {
	t := c.routeOnly(r)
	t.service(c, table)
	return t
}

// routeOnly is what is said about a route itself.
func (c Compiler) routeOnly(r *model.Route) *Treatment {
	t := &Treatment{}
	kind, rest, _ := strings.Cut(r.Name, "/")
	namespace, name, ok := strings.Cut(rest, "/")
	if !ok || kind == "Service" {
		return t
	}
	section, own := c.Index.rule(r.Name, r.Rule)
	if own.timeouts != nil {
		t.add(&v1alpha1.TrafficParts{Timeouts: own.timeouts}, Source{From: r.Name})
	}
	if own.retry {
		t.source("retries", Source{From: r.Name})
	}
	if own.session {
		t.source("session", Source{From: r.Name})
	}
	if section != "" {
		t.layer(c.Index.policies.attached(place{kind, namespace, name, section}))
	}
	t.layer(c.Index.policies.attached(place{kind: kind, namespace: namespace, name: name}))
	return t
}

// said is what a rule says itself.
type said struct {
	timeouts       *v1alpha1.Timeouts
	retry, session bool
}

// rule answers the name of a rule, "" if it has none, and what it says itself.
func (ix *Index) rule(route string, n int) (name string, own said) {
	for _, r := range ix.all {
		rules := v1alpha1.Rules(r.Object)
		if r.Name() != route || n >= len(rules) {
			continue
		}
		switch o := r.Object.(type) {
		case *v1alpha1.HTTPRoute:
			rule := &o.Spec.Rules[n]
			own = said{timeouts: ownTimeouts(rule.Timeouts), retry: rule.Retry != nil, session: rule.SessionPersistence != nil}
		case *v1alpha1.GRPCRoute:
			own.session = o.Spec.Rules[n].SessionPersistence != nil
		}
		return rules[n].Name, own
	}
	return "", own
}

func ownTimeouts(t *v1alpha1.HTTPRouteTimeouts) *v1alpha1.Timeouts {
	if t == nil {
		return nil
	}
	out := &v1alpha1.Timeouts{}
	if t.Request != nil {
		out.Request = v1alpha1.Duration(*t.Request)
	}
	if t.BackendRequest != nil {
		out.Attempt = v1alpha1.Duration(*t.BackendRequest)
	}
	return out
}

// Touched answers the services whose resources a policy bears on: its Services, and the parents of its routes.
func (ix *Index) Touched(p *v1alpha1.TrafficPolicy) (out []model.ServiceName) {
	add := func(n model.ServiceName) {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for _, t := range p.Spec.TargetRefs {
		if t.Kind == "Service" || t.Kind == v1alpha1.ExternalKind {
			add(refersTo(t.Kind, p.Namespace, t.Name))
			continue
		}
		for _, r := range ix.all {
			if t.Kind == r.Kind && r.Object.GetNamespace() == p.Namespace && r.Object.GetName() == t.Name {
				for _, n := range Parents(r.Object) {
					add(n)
				}
			}
		}
	}
	return out
}

func olderPolicy(a, b Policy) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.name(), b.name()))
}

// sameField reports whether two policies say the same about a field, "retries" or "timeouts.request", that both have.
func sameField(a, b *v1alpha1.TrafficParts, field string) bool {
	part, sub, _ := strings.Cut(field, ".")
	x, y := fieldOf(reflect.ValueOf(a).Elem(), part), fieldOf(reflect.ValueOf(b).Elem(), part)
	if sub != "" {
		x, y = fieldOf(x.Elem(), sub), fieldOf(y.Elem(), sub)
	}
	return reflect.DeepEqual(x.Interface(), y.Interface())
}

// fieldOf answers the field of a structure that has a name in JSON.
func fieldOf(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		if n, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); n == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}
