package v1alpha1_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// published are patterns of the Gateway API schema; ours are written by hand so that nothing is compiled when
// a proxy starts.
func published() (duration *regexp.Regexp) {
	return regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"", "0s", "1h2m3s4ms", "1h2m3s4ms5s", "100000s", "1.5s", "-1s", "1", "ms", "99999h", "1 s"} {
		f.Add(s)
	}
	duration := published()
	f.Fuzz(func(t *testing.T, s string) {
		if _, ok := v1alpha1.ParseDuration(s); ok != duration.MatchString(s) {
			t.Fatalf("%q: accepted %v, the schema says %v", s, ok, !ok)
		}
	})
}

func TestNames(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	for _, s := range []string{"a", "a-b", "-a", "a-", "A", "a.b", "a_b", "0", strings.Repeat("a", 63), strings.Repeat("a", 64), "é"} {
		svc := &v1alpha1.Service{}
		svc.Name, svc.Namespace = s, "default"
		svc.Spec.Ports = []v1alpha1.ServicePort{{Port: 80}}
		v1alpha1.Default(svc)
		if errs := v1alpha1.Validate(svc); (len(errs) == 0) != (label.MatchString(s) && len(s) <= 63) {
			t.Errorf("%q: %v", s, errs)
		}
	}
}

// TestBounds: as many as the schema allows, and not one more.
func TestBounds(t *testing.T) {
	build := func(rules, matches int) *v1alpha1.HTTPRoute {
		group, kind := v1alpha1.Group(""), v1alpha1.GatewayKind("Service")
		r := &v1alpha1.HTTPRoute{}
		r.Name = "r"
		r.Spec.ParentRefs = []v1alpha1.ParentRef{{Group: &group, Kind: &kind, Name: "cart"}}
		for range rules {
			r.Spec.Rules = append(r.Spec.Rules, v1alpha1.HTTPRouteRule{Matches: make([]v1alpha1.HTTPRouteMatch, matches)})
		}
		v1alpha1.Default(r)
		return r
	}
	for _, c := range []struct {
		rules, matches int
		ok             bool
	}{{1, 1, true}, {16, 8, true}, {17, 1, false}, {2, 64, true}, {1, 65, false}, {16, 9, false}} {
		if errs := v1alpha1.Validate(build(c.rules, c.matches)); (len(errs) == 0) != c.ok {
			t.Errorf("%d rules of %d matches: %v", c.rules, c.matches, errs)
		}
	}
}

// TestFaultTargets: a fault of connections says nothing that only requests can have.
func TestFaultTargets(t *testing.T) {
	reset, answer := &v1alpha1.FaultAbort{Reset: true}, &v1alpha1.FaultAbort{}
	target := func(kind string) []v1alpha1.PolicyTarget {
		return []v1alpha1.PolicyTarget{{Group: "gateway.networking.k8s.io", Kind: kind, Name: "db"}}
	}
	for name, c := range map[string]struct {
		spec v1alpha1.FaultInjectionSpec
		want string
	}{
		"a reset":          {v1alpha1.FaultInjectionSpec{TargetRefs: target("TCPRoute"), Abort: reset}, ""},
		"TLS":              {v1alpha1.FaultInjectionSpec{TargetRefs: target("TLSRoute"), Abort: reset}, ""},
		"an answer":        {v1alpha1.FaultInjectionSpec{TargetRefs: target("TCPRoute"), Abort: answer}, "spec.abort"},
		"answer to filter": {v1alpha1.FaultInjectionSpec{Abort: answer}, ""},
		"HTTPRoute":        {v1alpha1.FaultInjectionSpec{TargetRefs: target("HTTPRoute"), Abort: reset}, "spec.targetRefs[0].kind"},
		"headers": {v1alpha1.FaultInjectionSpec{TargetRefs: target("TCPRoute"), Abort: reset, Headers: []v1alpha1.HTTPHeaderMatch{{Name: "a", Value: "b"}}},
			"spec.headers"},
		"too many": {v1alpha1.FaultInjectionSpec{TargetRefs: make([]v1alpha1.PolicyTarget, 17), Abort: reset}, "spec.targetRefs"},
	} {
		f := &v1alpha1.FaultInjection{Spec: c.spec}
		f.Name, f.Namespace = "f", "default"
		v1alpha1.Default(f)
		errs := v1alpha1.Validate(f)
		if (c.want == "") != (len(errs) == 0) || c.want != "" && errs[0].Path != c.want {
			t.Errorf("%s: %v", name, errs)
		}
	}
}
