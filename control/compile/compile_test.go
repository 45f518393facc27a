package compile_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// services is a registry of services that all have the ports 80 and 81.
type services []string

func (s services) Service(n model.ServiceName) (*registry.Service, bool) {
	if n.Namespace != "default" || !slices.Contains(s, n.Name) {
		return nil, false
	}
	return &registry.Service{Service: model.Service{Name: n, Ports: []model.ServicePort{{Port: 80}, {Name: "raw", Port: 81, Protocol: model.ProtocolTCP}}}}, true
}

func (s services) Services() (out []*registry.Service) {
	for _, n := range s {
		if one, ok := s.Service(model.ServiceName{Namespace: "default", Name: n}); ok {
			out = append(out, one)
		}
	}
	return out
}

func route(t *testing.T, created int64, text string) compile.Route {
	t.Helper()
	r := &v1alpha1.HTTPRoute{}
	if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	r.Namespace = "default"
	return compile.Route{Object: r, Created: created}
}

const canary = `
metadata: {name: canary}
spec:
  parentRefs: [{group: "", kind: Service, name: cart, port: 80}]
  rules:
  - matches:
    - path: {value: /a}
    - path: {type: Exact, value: /a/b}
      method: GET
      headers: [{name: X-Beta, value: "1"}, {name: x-beta, value: "2"}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-Via, value: mesh}], remove: [Cookie]}
    timeouts: {request: 1500ms, backendRequest: 1s}
    backendRefs: [{name: cart-v1, port: 80, weight: 90}, {name: cart-v2, port: 80, weight: 10}, {name: gone, port: 80, weight: 0}]
  - matches: [{path: {type: RegularExpression, value: "/[0-9]+"}}]
    backendRefs: [{name: nowhere, port: 80}]
`

func compiler(t *testing.T, routes ...compile.Route) compile.Compiler {
	t.Helper()
	return compile.Compiler{Index: compile.NewIndex(routes), Services: services{"cart", "cart-v1", "cart-v2"}}
}

var cart = model.ServiceName{Namespace: "default", Name: "cart"}

func port(n uint16) model.PortName { return model.PortName{Service: cart, Port: n} }

func TestRouteTable(t *testing.T) {
	c := compiler(t, route(t, 1, canary))
	table, ok := c.RouteTable(port(80))
	if !ok || len(table.Routes) != 3 {
		t.Fatalf("got %v, %v", table, ok)
	}
	exact, regex, prefix := table.Routes[0], table.Routes[1], table.Routes[2]
	want := model.Match{PathKind: model.PathExact, Path: "/a/b", Method: "GET", Headers: []model.FieldMatch{{Name: "x-beta", Value: "1"}}}
	if !reflect.DeepEqual(exact.Match, want) {
		t.Errorf("exact: %+v", exact.Match)
	}
	if regex.Match.PathKind != model.PathRegex || regex.Rule != 1 || !regex.Backends[0].Invalid {
		t.Errorf("regex: %+v", regex)
	}
	if prefix.Match.Path != "/a" || prefix.Timeouts.Request.Milliseconds() != 1500 || prefix.Timeouts.Attempt.Seconds() != 1 {
		t.Errorf("prefix: %+v", prefix)
	}
	if len(prefix.Backends) != 2 || prefix.Backends[0].Weight != 90 || prefix.Backends[1].Cluster.Service.Name != "cart-v2" {
		t.Errorf("backends: %+v", prefix.Backends)
	}
	change := model.HeaderChange{Set: []model.Header{{Name: "X-Via", Value: "mesh"}}, Remove: []string{"Cookie"}}
	if len(prefix.Filters) != 1 || !reflect.DeepEqual(prefix.Filters[0].Headers, change) {
		t.Errorf("filters: %+v", prefix.Filters)
	}
}

func TestDefaults(t *testing.T) {
	c := compiler(t, route(t, 1, canary))
	table, ok := c.RouteTable(port(81))
	if !ok || len(table.Routes) != 1 || table.Routes[0].Name != "Service/default/cart" || table.Routes[0].Backends[0].Cluster != port(81) {
		t.Errorf("a port without a route: %+v", table)
	}
	if _, ok := c.RouteTable(port(82)); ok {
		t.Error("a table for a port that does not exist")
	}
	// A route makes its port HTTP, and only its port; what was declared stays.
	for n, want := range map[uint16]model.Protocol{80: model.ProtocolHTTP, 81: model.ProtocolTCP} {
		if got, _ := c.Cluster(port(n)); got.Protocol != want || got.ConnectTimeout <= 0 {
			t.Errorf("port %d: %+v", n, got)
		}
	}
	if s, _ := compiler(t).Service(cart); s.Ports[0].Protocol != model.ProtocolUnknown {
		t.Errorf("without a route: %+v", s.Ports[0])
	}
	if s, _ := c.Service(cart); s.Ports[0].Protocol != model.ProtocolHTTP {
		t.Errorf("with a route: %+v", s.Ports[0])
	}
}

// TestOrder: the same routes in any order give the same table; an older route wins a tie.
func TestOrder(t *testing.T) {
	text := func(name, path string) string {
		return "metadata: {name: " + name + "}\nspec:\n  parentRefs: [{group: '', kind: Service, name: cart}]\n  rules: [{matches: [{path: {value: " + path + "}}], backendRefs: [{name: cart-v1, port: 80}]}]\n"
	}
	routes := []compile.Route{route(t, 5, text("b", "/x")), route(t, 3, text("c", "/x")), route(t, 5, text("a", "/x")), route(t, 9, text("d", "/xy"))}
	for range 20 {
		rand.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
		table, _ := compiler(t, routes...).RouteTable(port(80))
		var got []string
		for _, r := range table.Routes {
			got = append(got, r.Name)
		}
		want := []string{"HTTPRoute/default/d", "HTTPRoute/default/c", "HTTPRoute/default/a", "HTTPRoute/default/b"}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v", got)
		}
	}
}

// TestStatusOfWhatIsNew: a route that was stored a moment ago, and is in no index yet, has a status.
func TestStatusOfWhatIsNew(t *testing.T) {
	r := route(t, 1, canary)
	if got := compiler(t).Status(r.Object); len(got) != 1 || !got[0].Conditions[0].True {
		t.Errorf("got %+v", got)
	}
}

func TestStatus(t *testing.T) {
	r := route(t, 1, canary)
	status := compiler(t, r).Status(r.Object)
	if len(status) != 1 || !status[0].Conditions[0].True || status[0].Conditions[1].Reason != "BackendNotFound" {
		t.Errorf("got %+v", status)
	}
	for name, edit := range map[string]func(*v1alpha1.HTTPRoute){
		"no such service": func(o *v1alpha1.HTTPRoute) { o.Spec.ParentRefs[0].Name = "nobody" },
		"no such port":    func(o *v1alpha1.HTTPRoute) { *o.Spec.ParentRefs[0].Port = 99 },
		"a gateway":       func(o *v1alpha1.HTTPRoute) { o.Spec.ParentRefs[0].Kind = nil },
	} {
		r := route(t, 1, canary)
		edit(r.Object.(*v1alpha1.HTTPRoute))
		c := compiler(t, r)
		if got := c.Status(r.Object)[0].Conditions[0]; got.True || got.Reason != "NoMatchingParent" {
			t.Errorf("%s: %+v", name, got)
		}
		if table, _ := c.RouteTable(port(80)); table.Routes[0].Name != "Service/default/cart" {
			t.Errorf("%s: the route attached nevertheless", name)
		}
	}
}
