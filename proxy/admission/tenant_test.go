package admission_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// hall is a program of 16 workers of 10 ms behind a gate, and tenants who call it, each with a rate of his own.
type hall struct {
	*fixture
	rnd     *rand.Rand
	loops   [2]*admission.Loop
	queue   []*guest
	working int
	tenants map[string]*tally
}

// tally is what a tenant has had.
type tally struct {
	offered, good int
	took          []time.Duration
}

func (t *tally) success() float64 { return float64(t.good) / float64(max(t.offered, 1)) }

// at answers how long a share of the requests took at most.
func (t *tally) at(share float64) time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	slices.Sort(t.took)
	return t.took[int(share*float64(len(t.took)-1))]
}

type guest struct {
	admission.Ticket
	h     *hall
	of    *tally
	came  time.Duration
	timer loop.Timer
}

func (v *guest) Admitted() { v.h.queue = append(v.h.queue, v); v.h.work() }
func (v *guest) Refused()  { v.Leave() }

const hallWorkers, hallService = 16, 10 * time.Millisecond

func (h *hall) work() {
	for h.working < hallWorkers && len(h.queue) > 0 {
		v := h.queue[0]
		h.queue = h.queue[1:]
		h.working++
		v.timer.Expired = func() {
			h.working--
			v.of.good++
			v.of.took = append(v.of.took, h.l.now-v.came)
			v.Answered(false)
			v.Leave()
			h.work()
		}
		h.l.Arm(&v.timer, hallService)
	}
}

// run has requests come for a while, so many a second of each tenant, always on the same loop: a tenant's proxy has one
// connection.
func (h *hall) run(d time.Duration, rates map[string]float64) {
	h.tenants = map[string]*tally{}
	var names []string
	for name := range rates {
		h.tenants[name] = &tally{}
		names = append(names, name)
	}
	slices.Sort(names)
	for end := h.l.now + d; h.l.now < end; h.l.advance(time.Millisecond) {
		for i, name := range names {
			for p := rates[name] / 1000; p > 0; p-- {
				if h.rnd.Float64() >= p {
					continue
				}
				v := &guest{h: h, of: h.tenants[name], came: h.l.now}
				v.Owner = v
				q := from(name)
				q.Head = head("GET", "/", "x-plan", name)
				v.of.offered++
				switch h.Enter(&v.Ticket, h.loops[i%2], &q) {
				case admission.Admitted:
					v.Admitted()
				case admission.Refused:
					v.Leave()
				}
			}
		}
	}
}

func openHall(t *testing.T, a *model.Adaptive) *hall {
	h := &hall{fixture: gate(t, &model.Inbound{Adaptive: a}, nil), rnd: rand.New(rand.NewPCG(3, 4))}
	h.loops = [2]*admission.Loop{admission.NewLoop(h.l), admission.NewLoop(h.l)}
	return h
}

// TestNoisyTenant: the workload can do 1600 requests a second, of which each of four tenants has 400 as his share. Three stay
// below that. The fourth comes with ten times his share, and the others do not notice it, on whichever loop they are.
func TestNoisyTenant(t *testing.T) {
	for _, c := range []struct {
		name string
		set  model.Adaptive
		fair bool
		slow time.Duration // how much later the others are answered than alone, and
		// least is how many of those that they have answered alone they have answered still: a learned limit is halved now and then.
		least float64
	}{
		{"a limit that is set", model.Adaptive{Least: hallWorkers, Most: hallWorkers, Queue: 100 * time.Millisecond}, true, 5 * time.Millisecond, 0.99},
		{"a learned limit", model.Adaptive{Queue: 100 * time.Millisecond}, true, 15 * time.Millisecond, 0.96},
		{"by a header", model.Adaptive{Least: hallWorkers, Most: hallWorkers, Queue: 100 * time.Millisecond,
			Fair: &model.Fair{By: []model.RateKey{{Kind: model.RateByHeader, Name: "x-plan"}}}}, true, 5 * time.Millisecond, 0.99},
		{"all are one tenant", model.Adaptive{Least: hallWorkers, Most: hallWorkers, Queue: 100 * time.Millisecond,
			Fair: &model.Fair{By: []model.RateKey{{Kind: model.RateByMethod}}}}, false, 0, 0},
	} {
		h := openHall(t, &c.set)
		quiet := map[string]float64{"a": 300, "b": 300, "c": 300}
		h.run(5*time.Second, quiet) // a learned limit finds down
		h.run(5*time.Second, quiet)
		alone := h.tenants
		quiet["noisy"] = 4000
		h.run(5*time.Second, quiet)
		h.run(10*time.Second, quiet)
		worst := 1.0
		for _, name := range []string{"a", "b", "c"} {
			before, now := alone[name], h.tenants[name]
			t.Logf("%s: %s: %.2f %% in %v, 99 of 100 in %v; alone %.2f %% in %v, %v", c.name, name, 100*now.success(), now.at(0.5), now.at(0.99),
				100*before.success(), before.at(0.5), before.at(0.99))
			worst = min(worst, now.success()/before.success())
			if late := now.at(0.5) - before.at(0.5); c.fair && late > c.slow {
				t.Errorf("%s: %s is answered %v later than alone", c.name, name, late)
			}
		}
		if noisy := h.tenants["noisy"]; c.fair && noisy.good < 10*600 {
			t.Errorf("%s: the noisy one has %d of the 7000 that nobody else wants", c.name, noisy.good)
		}
		switch {
		case c.fair && worst < c.least:
			t.Errorf("%s: a quiet tenant has %.1f %% of his success alone", c.name, 100*worst)
		case !c.fair && worst > 0.9:
			t.Errorf("%s: %.1f %%; without turns the noisy one takes everything, or this test shows nothing", c.name, 100*worst)
		}
		h.run(time.Second, nil)
		if l := h.Load(); l.Requests != 0 || l.Waiting != 0 {
			t.Errorf("%s: left over: %+v", c.name, l)
		}
	}
}

// TestWeights: of those who all want more than there is, each gets turns by his weight.
func TestWeights(t *testing.T) {
	h := openHall(t, &model.Adaptive{Least: hallWorkers, Most: hallWorkers, Queue: 50 * time.Millisecond, Fair: &model.Fair{
		Weights: []model.TenantWeight{{Tenant: "b.default", Weight: 2}, {Tenant: "c.default", Weight: 5}}}})
	h.run(10*time.Second, map[string]float64{"a": 2500, "b": 2500, "c": 2500})
	a := float64(h.tenants["a"].good)
	for name, want := range map[string]float64{"b": 2, "c": 5} {
		if got := float64(h.tenants[name].good) / a; got < want*0.85 || got > want*1.15 {
			t.Errorf("%s has %.2f times as many as a, want %v", name, got, want)
		}
	}
}

// TestLanesTakeTurns: one who waits on the one loop is not put behind everybody who waits on the other.
func TestLanesTakeTurns(t *testing.T) {
	h := openHall(t, &model.Adaptive{Least: hallWorkers, Most: hallWorkers, Queue: 50 * time.Millisecond, Fair: &model.Fair{By: []model.RateKey{{Kind: model.RateByMethod}}}})
	h.run(10*time.Second, map[string]float64{"a": 1600, "b": 1600})
	for name, other := range map[string]string{"a": "b", "b": "a"} {
		if own, others := h.tenants[name].good, h.tenants[other].good; own < others/2 {
			t.Errorf("on its loop %s has %d answers, %s %d", name, own, other, others)
		}
	}
}

// TestManyTenants: more tenants than are told apart still have turns; one who is noisy harms whom he shares one with alone.
func TestManyTenants(t *testing.T) {
	h := openHall(t, &model.Adaptive{Least: hallWorkers, Most: hallWorkers, Queue: 100 * time.Millisecond})
	rates := map[string]float64{"noisy": 6000}
	for i := range 200 {
		rates[fmt.Sprint("quiet", i)] = 4
	}
	h.run(10*time.Second, rates)
	harmed := 0
	for name, n := range h.tenants {
		if name != "noisy" && n.success() < 0.95 {
			harmed++
		}
	}
	if harmed > 20 {
		t.Errorf("%d of 200 quiet tenants are harmed by one", harmed)
	}
}
