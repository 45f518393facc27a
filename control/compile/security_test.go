package compile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// one is a registry of one service.
type one struct{ s *registry.Service }

func (o one) Services() []*registry.Service { return []*registry.Service{o.s} }

func (o one) Service(n model.ServiceName) (*registry.Service, bool) { return o.s, n == o.s.Name }

// TestSecurityPreview: a dry run tells what would be enforced instead, also of the mesh's own decision.
func TestSecurityPreview(t *testing.T) {
	name := model.ServiceName{Namespace: "default", Name: "cart"}
	c := compile.Compiler{Index: compile.NewIndex(nil), Services: one{&registry.Service{Service: model.Service{Name: name, Ports: []model.ServicePort{{Port: 80}}}}}}
	p := &v1alpha1.AuthorizationPolicy{}
	p.Namespace, p.Name = "default", "nobody"
	mesh := &v1alpha1.MeshConfig{}
	mesh.Name = v1alpha1.MeshConfigName
	mesh.Spec.Authorization = &v1alpha1.MeshAuthorization{Default: v1alpha1.ActionDeny}
	after := c.Edited([]compile.Edit{{Object: p}, {Object: mesh}})
	got := map[string]string{}
	for _, d := range compile.Differences(c, after, []model.PortName{{Service: name, Port: 80}}) {
		for _, f := range d.Fields {
			got[d.Kind+" "+f.Path] = f.Before + " → " + f.After
		}
	}
	if got["security AuthorizationPolicy/default/nobody"] != " → in force" || got["security DenyByDefault"] != " → true" {
		t.Errorf("%v", got)
	}
	back := after.Edited([]compile.Edit{{Object: p, Delete: true}, {Object: mesh, Delete: true}})
	if d := compile.Differences(c, back, []model.PortName{{Service: name, Port: 80}}); len(d) > 0 {
		t.Errorf("after taking it back: %+v", d)
	}
}

// TestHTTPOnly: a denial about requests, for a whole namespace, warns of the ports that it makes HTTP, and leaves what is declared to
// be something else alone even where another of its rules is about connections.
func TestHTTPOnly(t *testing.T) {
	name := model.ServiceName{Namespace: "default", Name: "cart"}
	c := compile.Compiler{Index: compile.NewIndex(nil), Services: one{&registry.Service{Service: model.Service{Name: name, Ports: []model.ServicePort{
		{Port: 80, Protocol: model.ProtocolHTTP}, {Port: 81}, {Port: 82}, {Port: 5432, Protocol: model.ProtocolTCP}}}}}}
	p := &v1alpha1.AuthorizationPolicy{}
	p.Namespace, p.Name = "default", "mixed"
	p.Spec.Action = v1alpha1.ActionDeny
	p.Spec.Rules = []v1alpha1.AuthorizationRule{{From: []v1alpha1.AuthorizationSource{{Namespaces: []string{"evil"}}}}, {To: []v1alpha1.AuthorizationTarget{{Paths: []string{"/admin*"}}}}}
	speaks := func(n model.PortName) model.Protocol {
		if n.Port == 82 {
			return model.LearnedHTTP
		}
		return model.ProtocolUnknown
	}
	notes := func(o v1alpha1.Object) []compile.Note { return c.HTTPOnly(o, []model.ServiceName{name}, speaks) }
	got := notes(p)
	if len(got) != 1 || got[0].Path != "spec.rules[1]" || !strings.Contains(got[0].Message, "cart.default:81; ") {
		t.Errorf("%+v", got)
	}
	s, ok := c.Edited([]compile.Edit{{Object: p}}).Security(name)
	if !ok || len(s.Policies) != 2 || len(s.Policies[0].Ports) != 0 || len(s.Policies[0].Rules) != 1 || !slices.Equal(s.Policies[1].Ports, []uint16{80, 81, 82}) || len(s.Policies[1].Rules) != 1 {
		t.Fatalf("%+v", s.Policies)
	}
	set, err := authz.Compile(s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]bool{80: true, 81: true, 5432: false} {
		if set.HTTP(port) != want {
			t.Errorf("port %d is HTTP and nothing else: %v", port, !want)
		}
	}
	if v := set.Connection(&authz.Attributes{Port: 5432, Namespace: "evil", Principal: "spiffe://a/ns/evil/sa/b"}); v.Allowed {
		t.Error("the rule about connections is not about the database")
	}
	narrow := *p
	narrow.Spec.TargetRefs = []v1alpha1.PolicyTarget{{Kind: "Service", Name: "cart"}}
	dry := *p
	dry.Spec.DryRun = true
	allow := *p
	allow.Spec.Action = v1alpha1.ActionAllow
	connections := *p
	connections.Spec.Rules = p.Spec.Rules[:1]
	for i, o := range []*v1alpha1.AuthorizationPolicy{&narrow, &dry, &allow, &connections} {
		if got := notes(o); len(got) > 0 {
			t.Errorf("%d: %+v", i, got)
		}
	}
}
