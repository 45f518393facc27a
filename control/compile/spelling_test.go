package compile_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// TestAliasesInPolicies: a policy that names the trust domain of before, or the one of now, means both, whichever the mesh calls its own.
func TestAliasesInPolicies(t *testing.T) {
	name := model.ServiceName{Namespace: "default", Name: "cart"}
	for _, own := range []string{"new.example", "tulle.local"} {
		for written, source := range map[string]v1alpha1.AuthorizationSource{
			"a principal of before":      {Principals: []string{"spiffe://tulle.local/ns/default/sa/web"}},
			"a principal of now":         {Principals: []string{"spiffe://new.example/ns/default/sa/web"}},
			"principals that begin so":   {Principals: []string{"spiffe://tulle.local/ns/*"}},
			"the trust domain of before": {TrustDomains: []string{"tulle.local"}},
			"the trust domain of now":    {TrustDomains: []string{"new.example"}},
			"a list that names neither":  {NotTrustDomains: []string{"other.example"}},
		} {
			p := &v1alpha1.AuthorizationPolicy{Spec: v1alpha1.AuthorizationPolicySpec{Action: v1alpha1.ActionAllow, Rules: []v1alpha1.AuthorizationRule{{From: []v1alpha1.AuthorizationSource{source}}}}}
			p.Namespace, p.Name = "default", "p"
			mesh := &v1alpha1.MeshConfigSpec{TrustDomain: "new.example", TrustDomainAliases: []string{"tulle.local"}}
			c := compile.Compiler{Index: compile.NewIndex(nil).Secured([]compile.SecurityPolicy{{Object: p}}, mesh),
				Services: one{&registry.Service{Service: model.Service{Name: name, Ports: []model.ServicePort{{Port: 80}}}}}}
			s, ok := c.Security(name)
			if !ok {
				t.Fatal("there is no such service")
			}
			set, err := authz.Compile(s, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			ask := func(domain string) bool {
				return set.Request(&authz.Attributes{Principal: "spiffe://" + domain + "/ns/default/sa/web", TrustDomain: domain, Namespace: "default", Account: "default/web", Port: 80, HTTP: true}).Allowed
			}
			if !ask(own) {
				t.Errorf("%s: who is known in %s is refused", written, own)
			}
			if len(source.NotTrustDomains) == 0 && ask("other.example") {
				t.Errorf("%s: another mesh's is let in", written)
			}
		}
	}
}
