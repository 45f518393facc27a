package cluster_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// clock is a loop's, by hand.
type clock struct{ now time.Duration }

func (c *clock) Now() time.Duration { return c.now }
func (c *clock) Wall() time.Time    { return time.Unix(1_800_000_000, 0).Add(c.now) }

// outages makes one of a length, in which somebody asks every step.
func (c *clock) fail(e *cluster.Endpoint, length, step time.Duration) {
	for end := c.now + length; c.now < end; c.now += step {
		e.Failed(c)
	}
	e.Succeeded(c, c.now)
	c.now += time.Minute
	e.Succeeded(c, c.now)
}

func two() (*cluster.Cluster, []*cluster.Endpoint) {
	c := cluster.New(&model.Cluster{Name: model.Free("c")})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "a", Weight: 1}, {Workload: "b", Weight: 1}}})
	return c, c.Endpoints()
}

// What is learned is told once, and waits follow from it.
func TestRecovery(t *testing.T) {
	c, eps := two()
	k, r := &clock{}, c.Recovery()
	for range recovery.Enough {
		if _, ok := r.Wait(k.now, 3, 0, 0); ok {
			t.Fatal("a wait although too little was learned")
		}
		k.fail(eps[0], 20*time.Second, 100*time.Millisecond)
	}
	l, last, ok := r.Take()
	if !ok || len(last) != cluster.MaxOutages || last[0].Lasted != 20*time.Second-50*time.Millisecond || l.Service.Weight() < 4.9 || l.Endpoint.Weight() < 4.9 {
		t.Errorf("%v %v, of the service %v, of endpoints %v", ok, last, l.Service.Weight(), l.Endpoint.Weight())
	}
	if _, _, ok := r.Take(); ok {
		t.Error("told twice")
	}
	eps[0].Failed(k)
	for range 120 {
		k.now += 100 * time.Millisecond
		eps[1].Failed(k)
	}
	d, ok := r.Wait(k.now, 3, 0, 0)
	if back := k.now - 12*time.Second + 20*time.Second; !ok || k.now+d < back-2*time.Second || k.now+d > back+5*time.Second {
		t.Errorf("asks again in %v, after 12 s of 20", d)
	}
	if n := testing.AllocsPerRun(100, func() { r.Wait(k.now, 3, 0, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A success of an attempt that had begun before the failure ends nothing, and one endpoint's success ends the service's
// outage and not another endpoint's.
func TestWhoRecovers(t *testing.T) {
	c, eps := two()
	k, r := &clock{now: time.Second}, c.Recovery()
	eps[0].Failed(k)
	k.now += 10 * time.Millisecond
	eps[1].Succeeded(k, time.Second-1)
	if r.Down(k.now) != 10*time.Millisecond {
		t.Errorf("down for %v", r.Down(k.now))
	}
	eps[1].Succeeded(k, k.now)
	if r.Down(k.now) != 0 || eps[0].Down(k.now) != 10*time.Millisecond || eps[1].Down(k.now) != 0 {
		t.Errorf("down for %v, %v, %v", r.Down(k.now), eps[0].Down(k.now), eps[1].Down(k.now))
	}
	l, _, _ := r.Take()
	if l.Service.Weight() != 1 || l.Endpoint.Weight() != 0 {
		t.Errorf("of the service %v, of endpoints %v", l.Service.Weight(), l.Endpoint.Weight())
	}
}

// When nobody has asked for long, it is not known when an outage has ended, and nothing is learned.
func TestNobodyAsked(t *testing.T) {
	c, eps := two()
	k, r := &clock{}, c.Recovery()
	eps[0].Failed(k)
	k.now = time.Hour
	if d := r.Down(k.now); d != 0 {
		t.Errorf("down for %v", d)
	}
	eps[0].Succeeded(k, k.now)
	if _, _, ok := r.Take(); ok {
		t.Error("learned that it has lasted for an hour")
	}
	eps[0].Failed(k)
	k.now += time.Hour
	eps[0].Failed(k)
	if d := r.Down(k.now + time.Second/2); d != time.Second/2 {
		t.Errorf("down for %v", d)
	}
}

// What other proxies have seen counts from the first request on.
func TestShared(t *testing.T) {
	c, eps := two()
	k := &clock{}
	l := &recovery.Learned{}
	for range 50 {
		l.Service.Add(k.Wall(), 200*time.Millisecond)
		l.Endpoint.Add(k.Wall(), time.Second)
	}
	c.Set(&model.Cluster{Name: c.Name(), Recovery: l.Append(nil)})
	c.Set(&model.Cluster{Name: c.Name(), Recovery: []byte("nonsense")})
	eps[0].Failed(k)
	if d, ok := c.Recovery().Wait(k.now, 3, 0, 0); !ok || d < 170*time.Millisecond || d > 260*time.Millisecond {
		t.Errorf("%v %v", d, ok)
	}
	if d, ok := c.Recovery().Reopen(0, 0, time.Minute, 0); !ok || d < 850*time.Millisecond || d > 1300*time.Millisecond {
		t.Errorf("%v %v", d, ok)
	}
	if d, ok := c.Recovery().Reopen(0, 5*time.Second, time.Minute, 0); !ok || d != 5*time.Second {
		t.Errorf("%v %v", d, ok)
	}
}

func BenchmarkWait(b *testing.B) {
	c, eps := two()
	k := &clock{}
	for range 10 {
		k.fail(eps[0], 20*time.Second, 100*time.Millisecond)
	}
	for b.Loop() {
		c.Recovery().Wait(k.now, 3, 0, 12345)
	}
}
