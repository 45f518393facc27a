package registry_test

import (
	"reflect"
	"testing"
	"testing/synctest"

	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/model"
)

// TestPool: an InferencePool is a service under a name of its own; its endpoints are the target ports of the workloads that its
// selector finds, and a change of its picker is a change. A Service of its name is another.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		var seen []registry.Change
		defer r.Watch(func(c registry.Change) { seen = append(seen, c) })()
		pool := model.PortName{Service: registry.PoolName(model.ServiceName{Namespace: "default", Name: "llama"}), Port: 8000}
		put := func(mode string) {
			t.Helper()
			text := `{"spec":{"selector":{"matchLabels":{"model":"llama"}},"targetPorts":[{"number":8000},{"number":8001}],"endpointPickerRef":{"name":"epp","port":{"number":9002},"failureMode":"` + mode + `"}}}`
			if _, err := s.Apply(t.Context(), []store.Change{{Key: store.Key{Kind: "InferencePool", Namespace: "default", Name: "llama"}, Value: []byte(text)}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put("FailOpen")
		for i, labels := range []map[string]string{{"model": "llama"}, {"model": "mistral"}, {"model": "llama"}} {
			w := workload("vllm", i)
			w.Labels = labels
			w.Ports = []registry.Port{{Port: 80, Target: 8000}}
			if i == 2 {
				w.Ports = append(w.Ports, registry.Port{Port: 81, Target: 8001})
			}
			join(t, r, w)
		}
		e, _ := r.Endpoints(pool)
		got := map[string][]uint16{}
		for _, x := range e.Endpoints {
			got[x.Workload] = append(got[x.Workload], x.Port)
		}
		if !reflect.DeepEqual(got, map[string][]uint16{"vllm-0": {8000}, "vllm-2": {8000, 8001}}) {
			t.Errorf("endpoints %v", got)
		}
		is := func(open bool) {
			t.Helper()
			svc, ok := r.Service(pool.Service)
			if want := (model.Picker{Cluster: model.PortName{Service: model.ServiceName{Namespace: "default", Name: "epp"}, Port: 9002}, FailOpen: open,
				Timeout: model.DefaultPickTimeout, MaxBody: model.DefaultPickBody}); !ok || svc.Picker == nil || *svc.Picker != want || svc.Workloads != 2 {
				t.Errorf("%+v", svc)
			}
		}
		is(true)
		seen = nil
		put("FailClose")
		is(false)
		if len(seen) != 1 || !reflect.DeepEqual(seen[0].Services, []model.ServiceName{pool.Service}) {
			t.Errorf("changes %+v", seen)
		}
		if _, ok := r.Service(model.ServiceName{Namespace: "default", Name: "llama"}); ok {
			t.Error("there is a Service")
		}
		if _, err := s.Apply(t.Context(), []store.Change{{Key: store.Key{Kind: "InferencePool", Namespace: "default", Name: "llama"}, Delete: true}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, ok := r.Service(pool.Service); ok {
			t.Error("it is still there")
		}
	})
}
