package admission_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// enter has a request come, and answers whether it was shed at once.
func (c *crowd) enter(path string) (shed bool) {
	v := &visit{c: c, came: c.l.now}
	v.Owner = v
	o := c.Enter(&v.Ticket, c.loops[c.rnd.IntN(2)], &admission.Question{Head: head("GET", path)})
	v.class = v.Class
	switch o {
	case admission.Admitted:
		v.Admitted()
	case admission.Refused:
		v.Leave()
	}
	return o == admission.Refused
}

// TestOverloadElsewhere: callers that try once on another endpoint what one has shed, within a budget of a fifth (proxy/exchange,
// mayShift), take nothing from what two endpoints do under five times their load, and bring more through where the load is
// uneven.
func TestOverloadElsewhere(t *testing.T) {
	table, err := router.Compile(&model.RouteTable{Classes: []model.ClassRule{
		{Match: model.Match{Path: "/pay"}, Class: model.ClassCritical}, {Match: model.Match{Path: "/job"}, Class: model.ClassBatch}}})
	if err != nil {
		t.Fatal(err)
	}
	// run answers what was answered in time a second, and the share of the critical, where a share of the requests goes to the
	// first of two.
	run := func(elsewhere bool, first float64, rates map[string]float64) (goodput, critical float64) {
		rnd := rand.New(rand.NewPCG(1, 2))
		var two [2]*crowd
		clock := &still{now: time.Minute}
		for i := range two {
			f := gate(t, nil, nil)
			f.l, f.loop = clock, admission.NewLoop(clock)
			if err := f.Set(admission.Terms{Table: table, Inbound: &model.Inbound{Adaptive: &model.Adaptive{}}}); err != nil {
				t.Fatal(err)
			}
			two[i] = &crowd{good: map[model.Class]int{}, fixture: f, rnd: rnd, workers: 16, mean: 10e6, loops: [2]*admission.Loop{admission.NewLoop(clock), admission.NewLoop(clock)}}
		}
		budget, pay := 0.0, 0
		for begin := clock.now; clock.now < begin+25*time.Second; clock.advance(time.Millisecond) {
			if clock.now == begin+5*time.Second { // limits are learned
				pay, two[0].good, two[1].good = 0, map[model.Class]int{}, map[model.Class]int{}
			}
			for _, path := range []string{"/pay", "/", "/job"} {
				for p := rates[path] / 1000; p > 0; p-- {
					if rnd.Float64() >= p {
						continue
					}
					i := 0
					if rnd.Float64() >= first {
						i = 1
					}
					if path == "/pay" {
						pay++
					}
					budget = min(budget+0.2, 2000)
					if two[i].enter(path) && elsewhere && budget >= 1 {
						budget--
						two[1-i].enter(path)
					}
				}
			}
		}
		for _, c := range two {
			for _, n := range c.good {
				goodput += float64(n) / 20
			}
			critical += float64(c.good[model.ClassCritical]) / float64(pay)
		}
		return goodput, critical
	}
	five := map[string]float64{"/pay": 960, "/": 10000, "/job": 5040}
	alone, aloneCritical := run(false, 0.5, five)
	over, overCritical := run(true, 0.5, five)
	t.Logf("at 5×: %.0f/s and critical %.1f %%, with another try %.0f/s and %.1f %%", alone, 100*aloneCritical, over, 100*overCritical)
	if over < 0.98*alone || overCritical < aloneCritical-0.01 {
		t.Errorf("another try costs: %.0f/s of %.0f/s, critical %.1f %% of %.1f %%", over, alone, 100*overCritical, 100*aloneCritical)
	}
	uneven := map[string]float64{"/pay": 600, "/": 1000, "/job": 400}
	alone, _ = run(false, 0.9, uneven)
	over, _ = run(true, 0.9, uneven)
	t.Logf("2000/s, nine in ten to the first: %.0f/s, with another try %.0f/s", alone, over)
	if over < 1.1*alone {
		t.Errorf("another try brings nothing: %.0f/s, without %.0f/s", over, alone)
	}
}
