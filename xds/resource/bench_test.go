package resource_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// BenchmarkEndpoints writes and reads a thousand endpoints, which is what a change of one of them costs.
func BenchmarkEndpoints(b *testing.B) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	e := &model.Endpoints{Cluster: name}
	for i := range 1000 {
		e.Endpoints = append(e.Endpoints, model.Endpoint{Workload: fmt.Sprintf("cart-%04d", i), Namespace: "default", Port: 80, Identity: "spiffe://tulle.local/ns/default/sa/cart",
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 15006), Weight: 1, Version: "v1", Labels: []model.Label{{Name: "app", Value: "cart"}}})
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			pack(b, e, resource.EncodeEndpoints)
		}
	})
	wire := pack(b, e, resource.EncodeEndpoints)
	b.ReportMetric(float64(len(wire.Value))/1000, "bytes/endpoint")
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := resource.DecodeEndpoints(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
}
