package registry_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/model"
)

// overlap runs f with a registry in which proxy 0 of cart-1 is announced.
func overlap(t *testing.T, f func(r *registry.Registry, first registry.SessionID, nth func(starts int) registry.SessionID)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(100)
		defer s.Close()
		r := start(t, s, true)
		defer r.Close()
		nth := func(starts int) registry.SessionID {
			w := workload("cart", 1)
			w.PID, w.Starts = 77, starts
			return join(t, r, w)
		}
		f(r, nth(0), nth)
	})
}

// TestProxyReplaced: while two proxies of a workload are connected it is one endpoint, and it stays one whichever of
// them goes.
func TestProxyReplaced(t *testing.T) {
	overlap(t, func(r *registry.Registry, first registry.SessionID, nth func(int) registry.SessionID) {
		var gaps int
		stop := r.Watch(func(registry.Change) {
			if n := len(names(r, "cart")); n != 1 {
				gaps++
			}
		})
		second := nth(1)
		want(t, r, "cart", "cart-1")
		r.Broken(first) // it has drained
		time.Sleep(time.Minute)
		want(t, r, "cart", "cart-1")
		third := nth(2)
		r.Broken(third) // it died before it was ready
		time.Sleep(time.Minute)
		want(t, r, "cart", "cart-1")
		nth(1) // the connection of the second was lost, and made again before that was known
		r.Broken(second)
		time.Sleep(time.Minute)
		want(t, r, "cart", "cart-1")
		if gaps > 0 {
			t.Errorf("%d times it was not exactly one endpoint", gaps)
		}
		stop()
	})
}

// TestBothProxiesDie: then the workload is gone as fast as ever.
func TestBothProxiesDie(t *testing.T) {
	for _, newestFirst := range []bool{true, false} {
		overlap(t, func(r *registry.Registry, first registry.SessionID, nth func(int) registry.SessionID) {
			second := nth(1)
			if newestFirst {
				first, second = second, first
			}
			r.Broken(first)
			r.Broken(second)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			want(t, r, "cart")
		})
	}
}

// TestSameProxyReturns: a proxy that has lost its connection and made a new one does not stand under itself.
func TestSameProxyReturns(t *testing.T) {
	overlap(t, func(r *registry.Registry, first registry.SessionID, nth func(int) registry.SessionID) {
		again := nth(0)
		r.Broken(again)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		want(t, r, "cart")
	})
}

// TestGoodbyeOfEither ends the workload: it is the supervisor's word, and a retired proxy has none.
func TestGoodbyeOfEither(t *testing.T) {
	for _, newest := range []bool{true, false} {
		overlap(t, func(r *registry.Registry, first registry.SessionID, nth func(int) registry.SessionID) {
			second := nth(1)
			if newest {
				first, second = second, first
			}
			r.Goodbye(first)
			want(t, r, "cart")
			r.Broken(second)
			r.Ready(second, true)
			want(t, r, "cart")
		})
	}
}

// TestManyReplaced: what is kept of earlier proxies is bounded, and the newest but one counts when the newest goes.
func TestManyReplaced(t *testing.T) {
	overlap(t, func(r *registry.Registry, first registry.SessionID, nth func(int) registry.SessionID) {
		var all []registry.SessionID
		for i := range 20 {
			all = append(all, nth(i+1))
		}
		r.Broken(first)
		for i := len(all) - 1; i > len(all)-5; i-- {
			r.Broken(all[i])
			want(t, r, "cart", "cart-1")
		}
		r.Broken(all[15])
		time.Sleep(3 * time.Second)
		synctest.Wait()
		want(t, r, "cart")
	})
}

// TestLearnedStays: the program behind a new proxy is the same, so what is known about its ports stays.
func TestLearnedStays(t *testing.T) {
	overlap(t, func(r *registry.Registry, first registry.SessionID, nth func(int) registry.SessionID) {
		r.Learned(first, 8080, model.LearnedHTTP)
		second := nth(1)
		learned := func() model.Protocol { return r.Workloads()[0].Ports[0].Learned }
		if got := learned(); got != model.LearnedHTTP {
			t.Errorf("learned %v", got)
		}
		r.Learned(first, 8080, model.ProtocolUnknown) // nobody asks the old one any more
		if got := learned(); got != model.LearnedHTTP {
			t.Errorf("the old proxy changed it to %v", got)
		}
		r.Learned(second, 8080, model.ProtocolUnknown)
		if got := learned(); got != model.ProtocolUnknown {
			t.Errorf("learned %v", got)
		}
	})
}
