package admission_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
)

// TestMeter: relayed connections pay from the limits of bytes that look at no request, with others and with requests; what is
// said anew holds for connections that are open.
func TestMeter(t *testing.T) {
	bytes := func(name string, n uint32, by ...model.RateKey) model.RateLimit {
		return model.RateLimit{Name: name, Requests: n, Window: time.Second, Burst: 100, Bytes: true, By: by}
	}
	f := gate(t, &model.Inbound{Limits: []model.RateLimit{
		bytes("each", 1000, model.RateKey{Kind: model.RateByCaller}),
		{Name: "requests", Requests: 1, Window: time.Hour},
		{Name: "some", Requests: 1, Window: time.Hour, Bytes: true, Match: &model.Match{Path: "/"}},
		bytes("paths", 1, model.RateKey{Kind: model.RateByPath}),
	}}, nil)
	meter := func(caller string) *admission.Meter {
		return f.Meter(f.l, model.ServiceName{Namespace: "default", Name: caller}, netip.Addr{})
	}
	a, b, other := meter("a"), meter("a"), meter("b")
	if w := a.Spend(100); w != 0 {
		t.Errorf("the burst waits %v", w)
	}
	if w := b.Spend(500); w != 500*time.Millisecond {
		t.Errorf("another connection of the same caller waits %v", w)
	}
	if w := other.Spend(100); w != 0 {
		t.Errorf("another caller waits %v", w)
	}
	if w := a.Spend(1000); w != 1500*time.Millisecond {
		t.Errorf("what is owed: %v", w)
	}
	f.set(&model.Inbound{}, nil)
	if w := a.Spend(1 << 20); w != 0 {
		t.Errorf("without a limit %v", w)
	}
	if meter("a") != nil {
		t.Error("there is nothing to pay, and the kernel could carry the bytes")
	}
	f.set(&model.Inbound{Limits: []model.RateLimit{bytes("all", 100)}}, nil)
	if w := a.Spend(200); w != time.Second {
		t.Errorf("with a new limit %v", w)
	}
}

// TestPass: of what nobody counts while it is there only the rate is bounded.
func TestPass(t *testing.T) {
	f := gate(t, &model.Inbound{ConnectionRate: &model.RateLimit{Requests: 2, Window: time.Hour}}, nil)
	for i, want := range []bool{true, true, false} {
		if ok := f.Pass(f.l.now); ok != want {
			t.Errorf("connection %d: %v; two an hour are allowed", i, ok)
		}
	}
	if !f.Pass(f.l.now + time.Hour) {
		t.Error("none after an hour")
	}
	f.set(&model.Inbound{ConnectionRate: &model.RateLimit{Requests: 1, Window: time.Hour, Shadow: true}}, nil)
	for range 3 {
		if !f.Pass(f.l.now) {
			t.Error("a limit in its shadow refuses")
		}
	}
	if f.set(nil, nil); !f.Pass(f.l.now) {
		t.Error("nothing bounds it")
	}
}
