package compile_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// one is a registry of one service.
type one struct{ s *registry.Service }

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
