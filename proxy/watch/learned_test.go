package watch_test

import (
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/watch"
)

// TestReopenLearned: an ejected endpoint whose failures last for 20 s is asked by one request when they are over by what was
// learned, neither after the ten seconds that a wait between retries may last nor after the fixed time; sooner only if the
// settings say so.
func TestReopenLearned(t *testing.T) {
	for _, c := range []struct {
		name        string
		most        time.Duration
		learned     bool
		after, till time.Duration
	}{
		{"learned", time.Minute, true, 16 * time.Second, 27 * time.Second},
		{"bounded", 5 * time.Second, true, 4 * time.Second, 5500 * time.Millisecond},
		{"fixed", time.Minute, false, 40 * time.Second, 52 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var known recovery.Learned
				for range 20 {
					known.Endpoint.Add(time.Now(), 20*time.Second)
				}
				o := &model.Outlier{Interval: time.Second, BaseEjection: 40 * time.Second, MaxEjection: c.most, MaxPercent: 100, Consecutive5xx: 3, Enforce5xx: 100, Probe: true, Learned: c.learned}
				cl := cluster.New(&model.Cluster{Name: model.Free("c"), Outlier: o, Recovery: known.Append(nil)})
				cl.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "a", Weight: 1}, {Workload: "b", Weight: 1}}})
				var group sync.WaitGroup
				w := watch.Start(watch.Config{Cluster: cl, Group: &group, Log: slog.New(slog.DiscardHandler), Part: func(*cluster.Endpoint, bool) {}})
				defer func() { w.Stop(); group.Wait() }()
				synctest.Wait()
				bad := cl.Endpoints()[0]
				for range 3 {
					bad.Answered(503)
				}
				synctest.Wait()
				if !bad.Ejected() {
					t.Fatal("not ejected")
				}
				began := time.Now()
				for probe := false; !probe; time.Sleep(100 * time.Millisecond) { // virtual
					ch := cluster.Choice{}
					if ep, _, _ := cl.Choose(&ch); ep == bad && !ch.Probe {
						t.Fatal("an ejected endpoint gets its share")
					}
					if probe = ch.Probe; time.Since(began) > 2*time.Minute {
						t.Fatal("it is never asked")
					}
				}
				if d := time.Since(began); d < c.after || d > c.till {
					t.Errorf("asked after %v, not between %v and %v", d, c.after, c.till)
				}
			})
		})
	}
}
