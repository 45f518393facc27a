package gateway_test

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/ratelimit"
)

// TestGlobalRateLimit: the service that the chain's filter names is asked about what the route says; while it is away the
// filter says what happens.
func TestGlobalRateLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var left atomic.Int64
	left.Store(2)
	g := grpc.NewServer()
	ratelimit.Serve(g, func(_ spiffe.ID, q *model.RateQuestion, _ uint32) *model.RateAnswer {
		if q.Domain != "edge" || len(q.Descriptors) != 1 || q.Descriptors[0][0].Value != "127.0.0.1" || q.Descriptors[0][1] != (model.DescriptorEntry{Key: "destination_cluster", Value: "one"}) {
			t.Errorf("asked %+v", q)
		}
		return &model.RateAnswer{Descriptors: []model.DescriptorAnswer{{Over: left.Add(-1) < 0}}}
	})
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	for _, closed := range []bool{false, true} {
		left.Store(2)
		b := &model.Bootstrap{}
		static(b, "one", origin(t, "one"))
		static(b, "rls", netip.MustParseAddrPort(l.Addr().String()))
		limited := everything("one")
		limited.Limits = []model.RateLimit{{Name: "ratelimit", Global: &model.GlobalLimit{}, By: []model.RateKey{{Kind: model.RateByAddress}, {Kind: model.RateByCluster}}}}
		at := actingOn(t, b, func(h *model.HTTP) {
			h.Global = &model.GlobalLimit{Cluster: model.Free("rls"), Domain: "edge", Timeout: 5 * time.Second, Closed: closed}
		}, limited)
		for i, want := range []int{200, 200, 429} {
			if r, _ := answer(t, at, plainGet); r.StatusCode != want {
				t.Errorf("request %d: %d, want %d", i, r.StatusCode, want)
			}
		}
		if closed {
			g.Stop()
			if r, _ := answer(t, at, plainGet); r.StatusCode != 429 || r.Header.Get("Tulle-Reason") != "rate_limited" {
				t.Errorf("without the service: %d %v", r.StatusCode, r.Header)
			}
		}
	}
}
