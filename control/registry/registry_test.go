package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/model"
)

func workload(service string, n int) registry.Workload {
	return registry.Workload{
		Name: fmt.Sprintf("%s-%d", service, n), Namespace: "default", Service: service, Version: "v1",
		Ports: []registry.Port{{Name: "http", Port: 80, Target: 8080}}, Address: netip.MustParseAddrPort("127.0.0.1:2000"),
		Identity: "spiffe://tulle.local/ns/default/sa/" + service,
	}
}

func portOf(service string) model.PortName {
	return model.PortName{Service: model.ServiceName{Namespace: "default", Name: service}, Port: 80}
}

// start makes a registry that is closed with the test, and past its hold.
func start(t *testing.T, s store.Store, aged bool) *registry.Registry {
	t.Helper()
	r, err := registry.Start(t.Context(), registry.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	if aged {
		time.Sleep(registry.StartHold + time.Second) // virtual
	}
	return r
}

func join(t *testing.T, r *registry.Registry, w registry.Workload) registry.SessionID {
	t.Helper()
	id, err := r.Join(w, true)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func names(r *registry.Registry, service string) []string {
	e, _ := r.Endpoints(portOf(service))
	out := []string{}
	if e != nil {
		for _, ep := range e.Endpoints {
			s := ep.Workload
			if ep.Health == model.Stale {
				s += " stale"
			}
			out = append(out, s)
		}
	}
	return out
}

func want(t *testing.T, r *registry.Registry, service string, names_ ...string) {
	t.Helper()
	if got := names(r, service); !slices.Equal(got, append([]string{}, names_...)) {
		t.Fatalf("endpoints of %s: %v, want %v", service, got, names_)
	}
}

func TestDeadIsGoneWithinThreeSeconds(t *testing.T) {
	// Also in a mesh that is younger than the hold: whoever knew nobody before has nobody to forget.
	for _, aged := range []bool{true, false} {
		deadIsGone(t, aged)
	}
}

func deadIsGone(t *testing.T, aged bool) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, aged)
		defer r.Close()
		join(t, r, workload("cart", 1))
		two := join(t, r, workload("cart", 2))
		want(t, r, "cart", "cart-1", "cart-2")
		r.Broken(two)
		want(t, r, "cart", "cart-1", "cart-2")
		time.Sleep(1900 * time.Millisecond)
		want(t, r, "cart", "cart-1", "cart-2")
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		want(t, r, "cart", "cart-1")
	})
}

func TestBackWithinTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		one := join(t, r, workload("cart", 1))
		r.Broken(one)
		time.Sleep(time.Second)
		again := join(t, r, workload("cart", 1))
		r.Broken(one) // the old session says so once more
		time.Sleep(time.Minute)
		want(t, r, "cart", "cart-1")
		r.Goodbye(again)
		want(t, r, "cart")
		if svc, ok := r.Service(portOf("cart").Service); !ok || !svc.VIP4.IsValid() {
			t.Error("the service went with its last workload")
		}
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		if _, ok := r.Service(portOf("cart").Service); ok {
			t.Error("the service is still there after 26 hours")
		}
	})
}

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		id, err := r.Join(workload("cart", 1), false)
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, "cart")
		r.Ready(id, true)
		want(t, r, "cart", "cart-1")
		r.Learned(id, 8080, model.LearnedServerFirst)
		if e, _ := r.Endpoints(portOf("cart")); e.Endpoints[0].Learned != model.LearnedServerFirst || e.Endpoints[0].Port != 8080 {
			t.Errorf("endpoint %+v", e.Endpoints[0])
		}
		r.Ready(id, false)
		want(t, r, "cart")
	})
}

func TestManyAtOnceStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		var ids []registry.SessionID
		for i := range 4 {
			ids = append(ids, join(t, r, workload("cart", i)))
		}
		r.Broken(ids[1])
		r.Broken(ids[2])
		time.Sleep(3 * time.Second)
		synctest.Wait()
		want(t, r, "cart", "cart-0", "cart-1 stale", "cart-2 stale", "cart-3")
		join(t, r, workload("cart", 1))
		want(t, r, "cart", "cart-0", "cart-1", "cart-2 stale", "cart-3")
		time.Sleep(registry.StaleHold)
		synctest.Wait()
		want(t, r, "cart", "cart-0", "cart-1", "cart-3")
	})
}

func TestRestartForgetsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		join(t, r, workload("cart", 1))
		join(t, r, workload("web", 1))
		vip, _ := r.Service(portOf("cart").Service)
		r.Close()

		r = start(t, s, false)
		defer r.Close()
		want(t, r, "cart", "cart-1")
		want(t, r, "web", "web-1")
		if now, ok := r.Service(portOf("cart").Service); !ok || now.VIP4 != vip.VIP4 || now.VIP6 != vip.VIP6 {
			t.Errorf("address %v, before the restart %v", now.VIP4, vip.VIP4)
		}
		if svc, ok := r.ByAddress(vip.VIP6); !ok || svc.Name != portOf("cart").Service {
			t.Error("not found by its address")
		}
		one := join(t, r, workload("cart", 1))
		r.Broken(one) // even now nothing expires before the hold ends
		time.Sleep(9 * time.Second)
		want(t, r, "cart", "cart-1")
		join(t, r, workload("cart", 1))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want(t, r, "cart", "cart-1")
		want(t, r, "web")
	})
}

func TestVersionsAndDefinitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		var changes []registry.Change
		defer r.Watch(func(c registry.Change) { changes = append(changes, c) })()
		join(t, r, workload("cart", 1))
		v2 := workload("cart", 2)
		v2.Version = "v2"
		join(t, r, v2)
		want(t, r, "cart", "cart-1", "cart-2")
		want(t, r, "cart-v1", "cart-1")
		want(t, r, "cart-v2", "cart-2")
		if len(changes) != 2 || !slices.Contains(changes[1].Endpoints, portOf("cart-v2")) || slices.Contains(changes[1].Endpoints, portOf("cart-v1")) {
			t.Errorf("changes %+v", changes)
		}
		value := `{"spec":{"selector":{"app":"cart","version":"v2"},"ports":[{"port":80,"targetPort":"http","appProtocol":"http"}]}}`
		key := store.Key{Kind: "Service", Namespace: "default", Name: "cart-v1"} // wins over the implicit one
		if _, err := s.Put(t.Context(), store.Object{Key: key, Value: []byte(value)}, store.Any); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, r, "cart-v1", "cart-2")
		svc, _ := r.Service(portOf("cart-v1").Service)
		if svc.Implicit || svc.Ports[0].Protocol != model.ProtocolHTTP {
			t.Errorf("service %+v", svc)
		}
		if _, err := s.Delete(t.Context(), key, store.Any); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, r, "cart-v1", "cart-1")
	})
}

func TestNameTakenByAnotherIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		join(t, r, workload("cart", 1))
		thief := workload("cart", 1)
		thief.Identity = "spiffe://tulle.local/ns/default/sa/thief"
		if _, err := r.Join(thief, true); err == nil {
			t.Error("another identity took the name of a live workload")
		}
	})
}

// Every service has an address of its own, in both ranges, and is found by either.
func TestAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(10_000)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		seen := map[netip.Addr]bool{}
		for i := range 300 {
			w := workload(fmt.Sprintf("svc-%d", i), 1)
			w.Version = ""
			join(t, r, w)
		}
		for _, svc := range r.Services() {
			for _, a := range []netip.Addr{svc.VIP4, svc.VIP6} {
				if seen[a] || !registry.Range4.Contains(a) && !registry.Range6.Contains(a) {
					t.Fatalf("%s has %s", svc.Name, a)
				}
				seen[a] = true
				if found, ok := r.ByAddress(a); !ok || found.Name != svc.Name {
					t.Fatalf("%s is not found by %s", svc.Name, a)
				}
			}
		}
		if len(seen) != 600 {
			t.Errorf("%d addresses, want 600", len(seen))
		}
		for _, a := range []string{"198.18.0.0", "198.19.255.255", "fd74:756c:6c65::", "fd74:756c:6c65::1:0:0:1", "10.0.0.1"} {
			if svc, ok := r.ByAddress(netip.MustParseAddr(a)); ok {
				t.Errorf("%s is %s", a, svc.Name)
			}
		}
	})
}

// A store that fails for a while loses nothing.
// TestAddressIsStoredBeforeItIsTold: whoever has been told an address finds it again after a crash at any moment.
func TestAddressIsStoredBeforeItIsTold(t *testing.T) {
	s := &moody{Store: mem.New(0)}
	defer s.Close()
	r := start(t, s, false)
	defer r.Close()
	told := 0
	r.Watch(func(c registry.Change) {
		for _, name := range c.Services {
			told++
			if _, err := s.Get(t.Context(), store.Key{Kind: registry.KindAddress, Namespace: name.Namespace, Name: name.Name}); err != nil {
				t.Errorf("%s was told before it was stored: %v", name, err)
			}
		}
	})
	join(t, r, workload("cart", 1))
	join(t, r, workload("reviews", 1))
	if told != 4 { // each with its version
		t.Errorf("told of %d services", told)
	}
}

func TestStoreFailsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New(100)
		defer inner.Close()
		s := &moody{Store: inner}
		r := start(t, s, true)
		s.fail.Store(true)
		join(t, r, workload("cart", 1))
		time.Sleep(time.Second)
		s.fail.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		r.Close()
		r = start(t, s, false)
		defer r.Close()
		want(t, r, "cart", "cart-1")
	})
}

type moody struct {
	store.Store
	fail atomic.Bool
}

func (m *moody) Apply(ctx context.Context, c []store.Change) (int64, error) {
	if m.fail.Load() {
		return 0, errors.New("no quorum")
	}
	return m.Store.Apply(ctx, c)
}

// TestPlaceAndLabels: callers are told where an endpoint is, and its labels.
func TestPlaceAndLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		w := workload("cart", 1)
		w.Labels = map[string]string{"tier": "gold", model.LabelZone: "1", model.LabelRegion: "eu"}
		join(t, r, w)
		join(t, r, workload("cart", 2))
		want(t, r, "cart", "cart-1", "cart-2")
		e, _ := r.Endpoints(portOf("cart"))
		labels := []model.Label{{Name: "tier", Value: "gold"}, {Name: model.LabelRegion, Value: "eu"}, {Name: model.LabelZone, Value: "1"}}
		if got := e.Endpoints[0]; got.Locality != "eu/1/" || !slices.Equal(got.Labels, labels) {
			t.Errorf("%q %v", got.Locality, got.Labels)
		}
		if got := e.Endpoints[1]; got.Locality != "" || got.Labels != nil {
			t.Errorf("without labels: %q %v", got.Locality, got.Labels)
		}
	})
}
