package route_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// withPools answers the services with the pools that a file applies, and these.
func withPools(t *testing.T, s services, file string, text []byte) (services, []*v1alpha1.InferencePool) {
	out, pools := maps.Clone(s), []*v1alpha1.InferencePool(nil)
	maps.DeleteFunc(out, func(n model.ServiceName, _ *registry.Service) bool { return registry.IsPool(n) })
	docs, _ := decode.Read(filepath.Base(file), text)
	for _, d := range docs {
		p, ok := d.Object.(*v1alpha1.InferencePool)
		if !ok {
			continue
		}
		stored, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		def, err := registry.ParsePool(registry.PoolName(model.ServiceName{Namespace: p.Namespace, Name: p.Name}), stored)
		if err != nil {
			t.Fatal(err)
		}
		out[def.Name] = registry.NewService(def)
		pools = append(pools, p)
	}
	return out, pools
}

// poolsText answers what becomes of pools: their clusters, sent over the wire and read again, and what their authors are told.
func poolsText(t *testing.T, c compile.Compiler, pools []*v1alpha1.InferencePool) string {
	var b strings.Builder
	for _, p := range pools {
		s, ok := c.Services.Service(registry.PoolName(model.ServiceName{Namespace: p.Namespace, Name: p.Name}))
		if !ok {
			t.Fatalf("%s is no service", p.Name)
		}
		m := clusterOverTheWire(t, c, model.PortName{Service: s.Name, Port: s.Ports[0].Port})
		fmt.Fprintf(&b, "%s %s of %v, ports %v: %s picks, open %v, within %s, shown %d bytes\n", m.Name, m.Protocol, s.Selector,
			append([]uint16{s.Targets[0].Port}, s.Targets[0].Also...), m.Picker.Cluster, m.Picker.FailOpen, m.Picker.Timeout, m.Picker.MaxBody)
		for _, parent := range c.PoolStatus(p) {
			for _, cond := range parent.Conditions {
				fmt.Fprintf(&b, "  on %s: %s=%v %s: %s\n", parent.Ref.Name, cond.Type, cond.True, cond.Reason, cond.Message)
			}
		}
		for _, n := range c.Notes(p) {
			fmt.Fprintf(&b, "  note %s: %s\n", n.Path, n.Message)
		}
	}
	return b.String()
}
