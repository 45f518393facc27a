package compile_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/model"
)

type rolloutServices struct{}

func (rolloutServices) Service(n model.ServiceName) (*registry.Service, bool) {
	return &registry.Service{Service: model.Service{Name: n, Ports: []model.ServicePort{{Port: 80}}}}, strings.HasPrefix(n.Name, "reviews")
}

func (rolloutServices) Services() []*registry.Service { return nil }

// TestRolloutWeights: the weights are those of the stored state, as long as it is one of the policy as it is now.
func TestRolloutWeights(t *testing.T) {
	docs, errs := decode.Read("x.yaml", []byte(`apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: reviews, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - name: main
    backendRefs: [{name: reviews-v2, port: 80, weight: 7}, {name: reviews-v1, port: 80, weight: 7}]
---
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: v2, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: reviews, sectionName: main}]
  rollout: {canary: reviews-v2}
`))
	if len(errs) > 0 {
		t.Fatal(errs.Error())
	}
	p := docs[1].Object.(*v1alpha1.TrafficPolicy)
	spec := rollout.SpecOf(p.Spec.TargetRefs[0], p.Spec.Rollout)
	base := compile.NewIndex([]compile.Route{{Object: docs[0].Object, Created: 1}}).With([]compile.Policy{{Object: p, Created: 2}}, nil)
	for _, test := range []struct {
		state     rollout.State
		v2        uint32 // of 100; the other has the rest
		condition string
	}{
		{rollout.State{}, 5, "Pending"},
		{rollout.State{Spec: spec, Phase: rollout.Progressing, Step: 2, Reason: "Observing"}, 50, "Observing"},
		{rollout.State{Spec: spec, Phase: rollout.Progressing, Step: 99, Reason: "Observing"}, 100, "Observing"},
		{rollout.State{Spec: spec, Phase: rollout.RolledBack, Step: 2, Reason: "Failed"}, 0, "RolledBackFailed"},
		{rollout.State{Spec: spec, Phase: rollout.Completed, Step: 3, Reason: "Completed"}, 100, "Completed"},
		{rollout.State{Spec: "of before", Phase: rollout.RolledBack}, 5, "Pending"},
	} {
		c := compile.Compiler{Index: base.Rolling(map[compile.PolicyKey]rollout.State{{Namespace: "default", Name: "v2"}: test.state}), Services: rolloutServices{}}
		table, _ := c.RouteTable(model.PortName{Service: model.ServiceName{Namespace: "default", Name: "reviews"}, Port: 80})
		got := map[string]uint32{}
		for _, b := range table.Routes[0].Backends {
			got[b.Cluster.Service.Name] = b.Weight
		}
		if got["reviews-v2"] != test.v2 || got["reviews-v1"] != 100-test.v2 {
			t.Errorf("%+v: %v", test.state, got)
		}
		said := ""
		for _, cond := range c.PolicyStatus(p)[0].Conditions {
			if cond.Type == "RolledOut" {
				said = cond.Reason
			}
		}
		if said != test.condition {
			t.Errorf("%+v: condition %q, not %q", test.state, said, test.condition)
		}
		if all := c.Rollouts(); len(all) != 1 || all[0].State != test.state || all[0].Canary.Name != "reviews-v2" || all[0].Stable.Name != "reviews-v1" {
			t.Errorf("%+v", all)
		}
	}
}
