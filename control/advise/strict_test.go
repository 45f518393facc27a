package advise_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/advise"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
)

// TestStrict: whoever is served in plaintext would be cut off, whoever is refused already would not.
func TestStrict(t *testing.T) {
	list := []decisions.Service{{Name: cart, Since: 1, Unproven: []decisions.Caller{
		{Port: 80, Address: "192.0.2.1", Count: 3, Last: 5, Sample: "GET /"}, {Port: 80, Address: "192.0.2.2", Count: 2, Refused: 2, Last: 9},
		{Port: 5432, Address: "192.0.2.1", TCP: true, Count: 1, Last: 7}}}}
	at := func(a netip.Addr) []string {
		if a.String() == "192.0.2.1" {
			return []string{"default/web-1"}
		}
		return nil
	}
	cut := func(c compile.Compiler) (out string) {
		for _, e := range advise.Strict(list, c, at) {
			out += e.Mode + ":"
			for _, p := range e.Callers {
				out += " " + p.Address
				if p.CutOff {
					out += "!"
				}
				if web := len(p.Workloads) > 0 && strings.Contains(p.Next, "default/web-1"); web != (p.Address == "192.0.2.1") || !strings.Contains(p.Next, "tulle run") {
					t.Errorf("%+v", p)
				}
			}
			out += "; "
		}
		return out
	}
	if got := cut(compiler()); got != "Permissive: 192.0.2.2 192.0.2.1!; Permissive: 192.0.2.1!; " {
		t.Errorf("before: %s", got)
	}
	p := &v1alpha1.AuthenticationPolicy{}
	p.Namespace, p.Name = "default", "db"
	p.Spec.MTLS = &v1alpha1.AuthenticationMTLS{Mode: v1alpha1.ModeStrict, Ports: []v1alpha1.AuthenticationPort{{Port: "db", Mode: v1alpha1.ModeDisabled}}}
	if got := cut(compiler().Edited([]compile.Edit{{Object: p}})); got != "Strict: 192.0.2.2 192.0.2.1; Disabled: 192.0.2.1!; " {
		t.Errorf("with a policy: %s", got)
	}
	some := &v1alpha1.AuthenticationPolicy{}
	some.Namespace, some.Name = "default", "some"
	some.Spec.Selector = map[string]string{"app": "old"}
	some.Spec.MTLS = &v1alpha1.AuthenticationMTLS{Mode: v1alpha1.ModePermissive}
	if got := cut(compiler().Edited([]compile.Edit{{Object: p}, {Object: some}})); got != "Mixed: 192.0.2.2 192.0.2.1!; Disabled: 192.0.2.1!; " { // what is said of a port comes first
		t.Errorf("with a policy about some workloads: %s", got)
	}
}
