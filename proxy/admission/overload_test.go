package admission_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// crowd is a program of some workers behind a gate, in the virtual time of two loops that share the gate.
type crowd struct {
	*fixture
	rnd     *rand.Rand
	loops   [2]*admission.Loop
	workers int
	mean    float64 // of the service, ns
	queue   []*visit
	working int
	offered map[model.Class]int
	good    map[model.Class]int
}

// visit is one request.
type visit struct {
	admission.Ticket
	c     *crowd
	class model.Class
	came  time.Duration
	timer loop.Timer
}

func (v *visit) Admitted() { v.c.queue = append(v.c.queue, v); v.c.work() }
func (v *visit) Refused()  { v.Leave() }

func (c *crowd) work() {
	for c.working < c.workers && len(c.queue) > 0 {
		v := c.queue[0]
		c.queue = c.queue[1:]
		c.working++
		v.timer.Expired = func() {
			c.working--
			if c.l.now-v.came <= time.Second {
				c.good[v.class]++
			}
			v.Answered(false)
			v.Leave()
			c.work()
		}
		c.l.Arm(&v.timer, time.Duration(c.rnd.ExpFloat64()*c.mean))
	}
}

// run has requests come for a while, so many a second of each path, and answers what was answered in time a second.
func (c *crowd) run(d time.Duration, rates map[string]float64) float64 {
	c.offered, c.good = map[model.Class]int{}, map[model.Class]int{}
	for end := c.l.now + d; c.l.now < end; c.l.advance(time.Millisecond) {
		for path, rate := range rates {
			for p := rate / 1000; p > 0; p-- {
				if c.rnd.Float64() >= p {
					continue
				}
				v := &visit{c: c, came: c.l.now}
				v.Owner = v
				o := c.Enter(&v.Ticket, c.loops[c.rnd.IntN(2)], &admission.Question{Head: head("GET", path)})
				v.class = v.Class
				c.offered[v.class]++
				switch o {
				case admission.Admitted:
					v.Admitted()
				case admission.Refused:
					v.Leave()
				}
			}
		}
	}
	total := 0
	for _, n := range c.good {
		total += n
	}
	return float64(total) / d.Seconds()
}

// TestOverload: five times as many requests as can be served, through the gate that serves them in a proxy: classes by rules,
// a limit that two loops share, and with and without a line.
func TestOverload(t *testing.T) {
	table, err := router.Compile(&model.RouteTable{Classes: []model.ClassRule{
		{Match: model.Match{Path: "/pay"}, Class: model.ClassCritical}, {Match: model.Match{Path: "/job"}, Class: model.ClassBatch}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range []time.Duration{0, 50 * time.Millisecond} {
		f := gate(t, nil, nil)
		if err := f.Set(admission.Terms{Table: table, Inbound: &model.Inbound{Adaptive: &model.Adaptive{Queue: queue}}}); err != nil {
			t.Fatal(err)
		}
		c := &crowd{fixture: f, rnd: rand.New(rand.NewPCG(1, 2)), workers: 16, mean: 10e6}
		c.loops = [2]*admission.Loop{admission.NewLoop(f.l), admission.NewLoop(f.l)}
		share := func(class model.Class) float64 { return float64(c.good[class]) / float64(c.offered[class]) }
		c.run(10*time.Second, map[string]float64{"/pay": 100, "/": 200, "/job": 100})
		calm := share(model.ClassCritical)
		peak := c.run(20*time.Second, map[string]float64{"/pay": 480, "/": 750, "/job": 370})
		c.run(5*time.Second, map[string]float64{"/pay": 480, "/": 5000, "/job": 2520})
		over := c.run(20*time.Second, map[string]float64{"/pay": 480, "/": 5000, "/job": 2520})
		critical, def, batch := share(model.ClassCritical), share(model.ClassDefault), share(model.ClassBatch)
		t.Logf("queue %v: %.0f/s at 1×, %.0f/s at 5×; critical %.1f %% of %.1f %%, default %.1f %%, batch %.1f %%; %+v", queue, peak, over, 100*critical, 100*calm, 100*def, 100*batch, f.Load())
		if over < 0.9*peak {
			t.Errorf("queue %v: goodput is %.1f %% of its peak", queue, 100*over/peak)
		}
		if critical < 0.95*calm {
			t.Errorf("queue %v: critical %.1f %%, without load %.1f %%", queue, 100*critical, 100*calm)
		}
		if batch >= def {
			t.Errorf("queue %v: batch %.1f %%, default %.1f %%", queue, 100*batch, 100*def)
		}
		c.run(5*time.Second, nil)
		if l := f.Load(); l.Requests != 0 || l.Waiting != 0 {
			t.Errorf("queue %v: left over: %+v", queue, l)
		}
	}
}
