package compile_test

import (
	"reflect"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
)

// read decodes an object of namespace default, with its defaults.
func read[T any, P interface {
	*T
	v1alpha1.Object
}](t *testing.T, text string) P {
	t.Helper()
	o := P(new(T))
	if err := yaml.UnmarshalStrict([]byte(text), o); err != nil {
		t.Fatal(err)
	}
	v1alpha1.Default(o)
	if errs := v1alpha1.Validate(o); len(errs) > 0 {
		t.Fatal(errs)
	}
	return o
}

// TestRelayFault: a fault that names a TCPRoute, or one rule of it, is injected into its connections; of two the first by name.
func TestRelayFault(t *testing.T) {
	r := read[v1alpha1.TCPRoute](t, `
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: db, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: cart, port: 81}]
  rules: [{name: main, backendRefs: [{name: cart-v1, port: 81}]}]
`)
	fault := func(name, target string) *v1alpha1.FaultInjection {
		return read[v1alpha1.FaultInjection](t, `
apiVersion: tulle.dev/v1alpha1
kind: FaultInjection
metadata: {name: `+name+`, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, `+target+`}]
  delay: {duration: 1s, percent: 10}
  abort: {reset: true, fraction: {numerator: 1, denominator: 1000}}
  bandwidth: {bytesPerSecond: 1000}
`)
	}
	want := &model.Fault{Delay: time.Second, DelayShare: 100_000, Reset: true, AbortShare: 1000, Rate: 1000, RateShare: 1_000_000}
	for target, concerned := range map[string]bool{"name: db": true, "name: db, sectionName: main": true, "name: db, sectionName: other": false, "name: other": false} {
		c := compiler(t)
		c.Index = compile.NewIndex([]compile.Route{{Object: r}}).Referred(compile.Beside{Faults: []*v1alpha1.FaultInjection{fault("z", target), fault("a", target)}})
		c.Index = c.Index.With(nil, nil)
		table, ok := c.RouteTable(port(81))
		if !ok || len(table.Relay) != 1 {
			t.Fatalf("%+v", table)
		}
		got := table.Relay
		if who := c.Index.Referring(fault("a", target)); (len(who) == 1) != (target != "name: other") {
			t.Errorf("%s: %v look at it", target, who)
		}
		if f := got[0].Fault; concerned && !reflect.DeepEqual(f, want) || !concerned && f != nil {
			t.Errorf("%s: %+v", target, f)
		}
	}
}
