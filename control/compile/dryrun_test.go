package compile_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
)

func changes(before, after compile.Compiler) (out []string) {
	for _, c := range compile.Differences(before, after, []model.PortName{port(80), port(81), port(90)}) {
		out = append(out, fmt.Sprintf("%s %s %s", c.Kind, c.Name, c.Action))
		for _, f := range c.Fields {
			if len(c.Fields) < 8 {
				out = append(out, fmt.Sprintf("%s: %s → %s", f.Path, f.Before, f.After))
			}
		}
	}
	return out
}

// TestDifferences: what an edit would change is told, value by value, and nothing else; the compiler in force stays as it is.
func TestDifferences(t *testing.T) {
	c := with(t, "", on(t, 1, "p", onPort, "  retries: {attempts: 3}\n"))
	before, _ := c.RouteTable(port(80))
	for name, test := range map[string]struct {
		edits []compile.Edit
		want  []string
	}{
		"nothing":        {nil, nil},
		"the same again": {[]compile.Edit{{Object: on(t, 0, "p", onPort, "  retries: {attempts: 3}\n").Object}}, nil},
		"a value": {[]compile.Edit{{Object: on(t, 0, "p", onPort, "  retries: {attempts: 4}\n").Object}}, []string{"routes cart.default:80 changed",
			"HTTPRoute/default/canary[0].Retry.Attempts: 3 → 4", "HTTPRoute/default/canary[0].match2.Retry.Attempts: 3 → 4", "HTTPRoute/default/canary[1].Retry.Attempts: 3 → 4"}},
		"another policy": {[]compile.Edit{{Object: on(t, 0, "q", onCart, "  connections: {connectTimeout: 5s}\n").Object}},
			[]string{"cluster cart.default:80 changed", "ConnectTimeout: 2s → 5s", "cluster cart.default:81 changed", "ConnectTimeout: 2s → 5s"}},
		"of the mesh": {[]compile.Edit{{Object: &v1alpha1.MeshConfig{Spec: v1alpha1.MeshConfigSpec{Defaults: &v1alpha1.TrafficParts{Timeouts: &v1alpha1.Timeouts{Idle: "1m"}}}}}},
			[]string{"routes cart.default:80 changed", "HTTPRoute/default/canary[0].Timeouts.Idle:  → 1m0s", "HTTPRoute/default/canary[0].match2.Timeouts.Idle:  → 1m0s",
				"HTTPRoute/default/canary[1].Timeouts.Idle:  → 1m0s", "routes cart.default:81 changed", "Service/default/cart[0].Timeouts.Idle:  → 1m0s"}},
		"a policy less": {[]compile.Edit{{Object: on(t, 0, "p", onPort, "  retries: {}\n").Object, Delete: true}}, []string{"routes cart.default:80 changed"}},
		"a route less":  {[]compile.Edit{{Object: route(t, 0, canary).Object, Delete: true}}, []string{"routes cart.default:80 changed", "cluster cart.default:80 changed", "Protocol: http → "}},
		"other ports": {[]compile.Edit{{Object: &v1alpha1.Service{ObjectMeta: v1alpha1.ObjectMeta{Name: "cart", Namespace: "default"},
			Spec: v1alpha1.ServiceSpec{Ports: []v1alpha1.ServicePort{{Port: 80}, {Port: 90}}}}}},
			[]string{"routes cart.default:81 deleted", "cluster cart.default:81 deleted", "routes cart.default:90 created", "cluster cart.default:90 created"}},
	} {
		got := changes(c, c.Edited(test.edits))
		if name == "a policy less" || name == "a route less" || name == "other ports" { // what goes has many values
			got = slices.DeleteFunc(got, func(s string) bool { return !slices.Contains(test.want, s) })
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
	if after, _ := c.RouteTable(port(80)); !reflect.DeepEqual(before, after) {
		t.Error("a preview has changed what is in force")
	}
}

// TestPolicyStatus: what came of each target.
func TestPolicyStatus(t *testing.T) {
	c := with(t, "", on(t, 1, "old", onPort, "  retries: {attempts: 3}\n"))
	for targets, want := range map[string]string{
		onCart: "Accepted Accepted, NoConflict, PartlyRun",
		`group: "", kind: Service, name: cart, sectionName: raw`: "Invalid retries: about requests, and port 81 is declared to carry none: name another port in sectionName, or declare it http or grpc",
		`group: "", kind: Service, name: cart, sectionName: web`: "TargetNotFound Service cart.default has no port web",
		`group: "", kind: Service, name: nobody`:                 "TargetNotFound there is no Service nobody.default",
		onRule:                                                   "Accepted Accepted, NoConflict, PartlyRun",
		`group: gateway.networking.k8s.io, kind: HTTPRoute, name: canary, sectionName: x`: "TargetNotFound HTTPRoute canary has no rule named x",
		`group: gateway.networking.k8s.io, kind: GRPCRoute, name: canary`:                 "TargetNotFound there is no GRPCRoute canary in namespace default",
	} {
		p := on(t, 2, "new", targets, "  retries: {attempts: 1}\n")
		d := c
		d.Index = c.Index.With(append(slices.Clone(c.Index.Policies()), p), nil)
		s := d.PolicyStatus(p.Object)[0]
		got := s.Conditions[0].Reason + " " + s.Conditions[0].Message
		if s.Conditions[0].True {
			got = "Accepted " + s.Conditions[0].Reason + ", " + s.Conditions[1].Reason + ", " + s.Conditions[2].Reason
		}
		if s.Conditions[0].True != (len(s.Tables) > 0) {
			t.Errorf("%s: bears on %v", targets, s.Tables) // it would be called Programmed
		}
		if got != want {
			t.Errorf("%s: %s, want %s", targets, got, want)
		}
	}
	young := on(t, 2, "young", onPort, "  retries: {attempts: 1, anyMethod: true, wait: {base: 25ms}}\n")
	c.Index = c.Index.With(append(slices.Clone(c.Index.Policies()), young), nil)
	s := c.PolicyStatus(young.Object)[0].Conditions
	if !s[1].True || !strings.Contains(s[1].Message, "TrafficPolicy/default/old wins: it is older") || !strings.Contains(s[1].Message, "`GET http://cart.default:80/`") || !s[2].True {
		t.Errorf("got %+v", s)
	}
}

// TestPolicyStatusSays: what is written and can do nothing here, or names nobody, is said.
func TestPolicyStatusSays(t *testing.T) {
	c := with(t, "")
	for _, one := range []struct{ parts, want string }{
		{"  hash: [{source: true}]\n", "Invalid hash: no Service that takes these requests has balancing.policy RingHash or Maglev, or balancing.shards"},
		{"  hash: [{source: true}]\n  retries: {attempts: 1}\n", "Accepted the policy bears on Service/cart#80; without effect: hash: no Service"},
		{"  hash: [{source: true}]\n  balancing: {policy: Maglev}\n", "Accepted the policy bears on Service/cart#80"},
		{"  priority: [{from: [nobody, cart, x.other], class: batch}]\n", "Accepted the policy bears on Service/cart#80; there is no such Service (a caller need not be one): priority[0].from[0] nobody.default, priority[0].from[2] x.other"},
		{"  priority: [{from: [cart], class: batch}]\n", "Accepted the policy bears on Service/cart#80"},
	} {
		at := onPort
		if strings.Contains(one.parts, "Maglev") { // on the other port a route sends all to other Services
			at, one.want = strings.Replace(onPort, `"80"`, "raw", 1), strings.Replace(one.want, "#80", "#raw", 1)
		}
		p := on(t, 2, "new", at, one.parts)
		d := c
		d.Index = c.Index.With([]compile.Policy{p}, nil)
		s := d.PolicyStatus(p.Object)[0].Conditions[0]
		if got := s.Reason + " " + s.Message; !strings.HasPrefix(got, one.want) || len(one.want) < 60 && got != one.want {
			t.Errorf("%s: %s, want %s", one.parts, got, one.want)
		}
	}
}
