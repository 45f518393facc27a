package registry

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// space is the view of one namespace. It is immutable.
type space struct {
	services  map[model.ServiceName]*Service
	endpoints map[model.PortName]*model.Endpoints
	workloads []*Workload
}

// build makes the view of a namespace from its workloads (in order) and definitions, and keeps the book.
func build(namespace string, workloads []*Workload, defs map[model.ServiceName]Definition, b *book, now time.Time) *space {
	sp := &space{services: map[model.ServiceName]*Service{}, endpoints: map[model.PortName]*model.Endpoints{}, workloads: workloads}
	for name, d := range defs {
		if name.Namespace == namespace {
			sp.add(NewService(d), b, now)
		}
	}
	for _, implicit := range implicits(namespace, workloads) {
		if sp.services[implicit.Name] == nil {
			sp.add(implicit, b, now)
		}
	}
	sp.lingering(namespace, b, now)
	for name, r := range b.records { // whose time runs from now
		if name.Namespace == namespace && sp.services[name] == nil && r.Ended.IsZero() {
			r.Ended = now
			b.changed[name] = true
		}
	}
	c := newCandidates(workloads)
	for _, s := range sp.services {
		sp.resolve(s, c)
	}
	return sp
}

// candidate is a workload that may be an endpoint, with the labels that selectors see.
type candidate struct {
	w      *Workload
	labels map[string]string
}

// candidates are in order of their names; byService is an index of them.
type candidates struct {
	all       []candidate
	byService map[string][]candidate
}

func newCandidates(workloads []*Workload) candidates {
	c := candidates{byService: map[string][]candidate{}}
	for _, w := range workloads {
		if w.State == Starting || !w.Address.IsValid() {
			continue
		}
		x := candidate{w, labelsOf(w)}
		c.all = append(c.all, x)
		c.byService[w.Service] = append(c.byService[w.Service], x)
	}
	return c
}

// of answers those worth comparing with a selector.
func (c candidates) of(selector map[string]string) []candidate {
	if service, ok := selector[labelService]; ok {
		return c.byService[service]
	}
	return c.all
}

// serviceOf makes the model's part of a service without addresses.
func serviceOf(name model.ServiceName, ports []model.ServicePort) model.Service {
	return model.Service{Name: name, Ports: ports}
}

// add gives s its addresses. An implicit one leaves in its record what it is.
func (sp *space) add(s *Service, b *book, now time.Time) {
	r := b.take(s.Name)
	if r != nil {
		s.VIP4, s.VIP6 = r.addresses()
		was := *r
		r.Ended, r.Ports, r.Targets, r.Selector = time.Time{}, nil, nil, nil
		if s.Implicit {
			r.Ports, r.Targets, r.Selector = s.Ports, s.Targets, s.Selector
		}
		if !reflect.DeepEqual(was, *r) {
			b.changed[s.Name] = true
		}
	}
	sp.services[s.Name] = s
}

// lingering adds the implicit services that have no workload any more.
func (sp *space) lingering(namespace string, b *book, now time.Time) {
	for name, r := range b.records {
		if name.Namespace != namespace || sp.services[name] != nil || len(r.Ports) == 0 {
			continue
		}
		if r.Ended.IsZero() {
			r.Ended = now
			b.changed[name] = true
		}
		if now.Before(r.Ended.Add(ImplicitHold)) {
			s := &Service{Service: serviceOf(name, r.Ports), Implicit: true, Selector: r.Selector, Targets: r.Targets}
			s.VIP4, s.VIP6 = r.addresses()
			sp.services[name] = s
		}
	}
}

// implicits answers the services that workloads form by being there: those of their names first, then those of
// their versions.
func implicits(namespace string, workloads []*Workload) []*Service {
	var base, versions []*Service
	for _, w := range workloads {
		if len(w.Ports) == 0 {
			continue // a pure client answers to no name
		}
		base = join(base, w, model.ServiceName{Namespace: namespace, Name: w.Service}, map[string]string{labelService: w.Service})
		if isLabel(w.Service + "-" + w.Version) {
			versions = join(versions, w, model.ServiceName{Namespace: namespace, Name: w.Service + "-" + w.Version},
				map[string]string{labelService: w.Service, labelVersion: w.Version})
		}
	}
	return append(base, versions...)
}

// join adds the ports of w to the service of that name. Of two declarations for one port the first stands.
func join(list []*Service, w *Workload, name model.ServiceName, selector map[string]string) []*Service {
	i := slices.IndexFunc(list, func(s *Service) bool { return s.Name == name })
	if i < 0 {
		i = len(list)
		list = append(list, &Service{Service: serviceOf(name, nil), Implicit: true, Selector: selector})
	}
	s := list[i]
	for _, p := range w.Ports {
		at := slices.IndexFunc(s.Ports, func(q model.ServicePort) bool { return q.Port == p.Port })
		switch {
		case at < 0:
			s.Ports = append(s.Ports, model.ServicePort{Name: p.Name, Port: p.Port, Protocol: p.Protocol})
		case s.Ports[at].Protocol == model.ProtocolUnknown:
			s.Ports[at].Protocol = p.Protocol
		}
	}
	slices.SortFunc(s.Ports, func(a, b model.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	s.Targets = make([]Target, len(s.Ports)) // each workload's own
	return list
}

// resolve finds the endpoints of every port of s.
func (sp *space) resolve(s *Service, c candidates) {
	some := map[string]bool{}
	for i, p := range s.Ports {
		e := &model.Endpoints{Cluster: model.PortName{Service: s.Name, Port: p.Port}}
		for _, x := range c.of(s.Selector) {
			if !selects(s.Selector, x.labels) {
				continue
			}
			if port, ok := target(x.w, s.Targets[i], p.Port); ok {
				e.Endpoints = append(e.Endpoints, endpoint(x.w, port))
				some[x.w.Name] = true
			}
			for _, also := range s.Targets[i].Also {
				if port, ok := target(x.w, Target{Port: also}, also); ok {
					e.Endpoints = append(e.Endpoints, endpoint(x.w, port))
					some[x.w.Name] = true
				}
			}
		}
		sp.endpoints[e.Cluster] = e
	}
	s.Workloads = len(some)
}

// target answers the port of w that a port of a service leads to: the named one, the one with that number, or
// else the one that w itself announced for that port of its service.
func target(w *Workload, t Target, port uint16) (Port, bool) {
	for _, p := range w.Ports {
		if t.Name != "" && p.Name == t.Name || t.Port != 0 && p.Target == t.Port {
			return p, true
		}
	}
	for _, p := range w.Ports {
		if t.Name == "" && p.Port == port && (t.Port == 0 || t.Port == port) {
			return p, true
		}
	}
	return Port{}, false
}

func endpoint(w *Workload, p Port) model.Endpoint {
	e := model.Endpoint{
		Workload: w.Name, Namespace: w.Namespace, Address: w.Address, Port: p.Target, Identity: w.Identity,
		Version: w.Version, Weight: 1, Learned: p.Learned, Locality: model.LocalityOf(w.Labels), Labels: model.LabelsOf(w.Labels),
	}
	if w.State == Stale {
		e.Health = model.Stale
	}
	return e
}

// compare adds to c what differs between two views of a namespace.
func compare(was, is *space, c *Change) {
	if was == nil {
		was = &space{}
	}
	for name := range union(was.services, is.services) {
		a, b := was.services[name], is.services[name]
		if a == nil || b == nil || !reflect.DeepEqual(a.Service, b.Service) || !reflect.DeepEqual(a.Picker, b.Picker) {
			c.Services = append(c.Services, name)
		}
	}
	for name := range union(was.endpoints, is.endpoints) {
		if !reflect.DeepEqual(was.endpoints[name], is.endpoints[name]) {
			c.Endpoints = append(c.Endpoints, name)
		}
	}
}

func union[K comparable, V any](a, b map[K]V) map[K]V {
	out := maps.Clone(a)
	if out == nil {
		out = map[K]V{}
	}
	maps.Copy(out, b)
	return out
}
