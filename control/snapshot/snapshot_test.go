package snapshot_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/snapshot"
	"github.com/tulle-mesh/tulle/model"
)

// view is a registry of services without ports.
type view []model.ServiceName

func (v view) Service(n model.ServiceName) (*registry.Service, bool) {
	return &registry.Service{Service: model.Service{Name: n}}, slices.Contains(v, n)
}

func (v view) Services() (out []*registry.Service) {
	for _, n := range v {
		out = append(out, &registry.Service{Service: model.Service{Name: n}})
	}
	return out
}
func (view) ByAddress(netip.Addr) (*registry.Service, bool)    { return nil, false }
func (view) Endpoints(model.PortName) (*model.Endpoints, bool) { return nil, false }

// TestDependents: what a policy excludes by the name of a port depends on every Service that it is about, so that its proxies hear of it
// when another one's ports change; other policies do not.
func TestDependents(t *testing.T) {
	name := func(namespace, name string) model.ServiceName {
		return model.ServiceName{Namespace: namespace, Name: name}
	}
	services := view{name("default", "cart"), name("default", "web"), name("shop", "pay")}
	policy := func(namespace, action string, to v1alpha1.AuthorizationTarget, refs ...string) *v1alpha1.AuthorizationPolicy {
		p := &v1alpha1.AuthorizationPolicy{}
		p.Namespace, p.Name, p.Spec.Action = namespace, "p", action
		p.Spec.Rules = []v1alpha1.AuthorizationRule{{To: []v1alpha1.AuthorizationTarget{to}}}
		for _, r := range refs {
			p.Spec.TargetRefs = append(p.Spec.TargetRefs, v1alpha1.PolicyTarget{Kind: "Service", Name: r})
		}
		return p
	}
	not := v1alpha1.AuthorizationTarget{NotPorts: []string{"admin"}}
	for what, c := range map[string]struct {
		policy *v1alpha1.AuthorizationPolicy
		want   []model.ServiceName
	}{
		"of a namespace":   {policy("default", v1alpha1.ActionAllow, not), services[:1]},
		"of the mesh":      {policy(v1alpha1.RootNamespace, v1alpha1.ActionAllow, not), services[:1]},
		"of two":           {policy("default", v1alpha1.ActionAllow, not, "cart", "web"), services[:2]},
		"of one":           {policy("default", v1alpha1.ActionAllow, not, "cart"), services[:1]},
		"of others":        {policy("shop", v1alpha1.ActionAllow, not), services[:1]},
		"denies":           {policy("default", v1alpha1.ActionDeny, not), services[:1]},
		"excludes nothing": {policy("default", v1alpha1.ActionAllow, v1alpha1.AuthorizationTarget{Ports: []string{"admin"}}), services[:1]},
	} {
		s := snapshot.Snapshot{Index: compile.NewIndex(nil).Secured([]compile.SecurityPolicy{{Object: c.policy}}, nil), View: services}
		if got := s.Dependents(services[0]); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}
