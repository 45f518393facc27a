package drive_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/control/rollout/drive"
	"github.com/tulle-mesh/tulle/control/stats"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/telemetry"
)

const objects = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - name: main
    backendRefs: [{name: reviews-v1, port: 80}, {name: reviews-v2, port: 80}]
---
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: v2, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: reviews, sectionName: main}]
  rollout: {canary: reviews-v2, interval: 10s, requests: 10}
`

// bench is a driver with one caller's proxy whose counts go up.
type bench struct {
	*drive.Driver
	t     *testing.T
	now   time.Time
	edges map[string]*telemetry.Edge // by backend
	route string
}

func newBench(t *testing.T) *bench {
	docs, errs := decode.Read("x.yaml", []byte(objects))
	if len(errs) > 0 {
		t.Fatal(errs.Error())
	}
	s := mem.New(0)
	t.Cleanup(func() { s.Close() })
	if _, err := s.Put(t.Context(), store.Object{Key: store.Key{Kind: "TrafficPolicy", Namespace: "default", Name: "v2"}, Value: []byte("{}")}, store.Any); err != nil {
		t.Fatal(err)
	}
	ix := compile.NewIndex([]compile.Route{{Object: docs[0].Object}}).With([]compile.Policy{{Object: docs[1].Object.(*v1alpha1.TrafficPolicy)}}, nil)
	b := &bench{t: t, now: time.Unix(1e9, 0), edges: map[string]*telemetry.Edge{}, route: "HTTPRoute/default/reviews"}
	b.Driver = &drive.Driver{Store: s, Seen: &stats.Stats{}, Compiler: func() compile.Compiler { return compile.Compiler{Index: ix} }, Here: func(string) bool { return true }}
	return b
}

// second lets requests to a backend go by, and a second.
func (b *bench) second(backend string, requests, failures uint64, report bool) rollout.State {
	b.t.Helper()
	e := b.edges[backend]
	if e == nil {
		e = &telemetry.Edge{EdgeKey: telemetry.EdgeKey{Direction: "outbound", Route: b.route, Backend: backend}}
		b.edges[backend] = e
	}
	e.Requests, e.Failures = e.Requests+requests, e.Failures+failures
	b.now = b.now.Add(time.Second)
	if report {
		var all []telemetry.Edge
		for _, e := range b.edges {
			all = append(all, *e)
		}
		text, err := json.Marshal(all)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := b.Seen.Report("default/web#1", text, b.now); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.Tick(b.t.Context(), b.now); err != nil {
		b.t.Fatal(err)
	}
	o, err := b.Store.Get(b.t.Context(), store.Key{Kind: rollout.Kind, Namespace: "default", Name: "v2"})
	if err != nil {
		b.t.Fatal(err)
	}
	var s rollout.State
	if err := json.Unmarshal(o.Value, &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// TestDrive: what failed before the rollout and on other routes does not count; a restarted control plane, which hears the totals
// again, goes on; nobody who is silent is passed over; the state goes with its policy.
func TestDrive(t *testing.T) {
	b := newBench(t)
	b.edges["reviews-v2.default"] = &telemetry.Edge{EdgeKey: telemetry.EdgeKey{Direction: "outbound", Route: b.route, Backend: "reviews-v2.default"}, Requests: 1000, Failures: 1000}
	b.edges["other"] = &telemetry.Edge{EdgeKey: telemetry.EdgeKey{Direction: "outbound", Route: "HTTPRoute/default/other", Backend: "reviews-v2.default"}}
	var s rollout.State
	for range 15 {
		b.edges["other"].Requests, b.edges["other"].Failures = b.edges["other"].Requests+10, b.edges["other"].Failures+10
		s = b.second("reviews-v2.default", 2, 0, true)
	}
	if s.Phase != rollout.Progressing || s.Step != 1 {
		t.Fatalf("%+v", s)
	}
	b.Seen = &stats.Stats{} // a new process on the same store
	for range 5 {
		s = b.second("reviews-v2.default", 2, 0, true)
	}
	if s.Phase != rollout.Progressing || s.Step != 1 {
		t.Errorf("after the restart: %+v", s)
	}
	for range 20 {
		s = b.second("reviews-v2.default", 2, 0, false)
	}
	if s.Reason != "Blind" {
		t.Errorf("a silent proxy: %+v", s)
	}
	s = b.second("reviews-v2.default", 0, 0, true)
	for range 5 {
		s = b.second("reviews-v2.default", 2, 2, true)
	}
	if s.Phase != rollout.RolledBack {
		t.Errorf("a bad canary: %+v", s)
	}
	b.Compiler = func() compile.Compiler { return compile.Compiler{Index: compile.NewIndex(nil)} }
	if _, err := b.Store.Delete(t.Context(), store.Key{Kind: "TrafficPolicy", Namespace: "default", Name: "v2"}, store.Any); err != nil {
		t.Fatal(err)
	}
	if err := b.Tick(t.Context(), b.now); err != nil {
		t.Fatal(err)
	}
	if left, _, _ := b.Store.List(t.Context(), rollout.Kind, ""); len(left) != 0 {
		t.Errorf("the state outlives its policy: %v", left)
	}
}
