package engine_test

import (
	"fmt"
	"hash/fnv"
	"testing"

	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/engine"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// TestEngine: the whole data plane, seed by seed. `make sim SEEDS=…` runs more.
func TestEngine(t *testing.T) {
	simtest.Each(t, 50, func(t *testing.T, seed uint64) {
		if _, err := engine.Run(engine.Options{Seed: seed}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSameAgain: a seed that failed can be looked at only if it does the same again.
func TestSameAgain(t *testing.T) {
	simtest.Each(t, 15, func(t *testing.T, seed uint64) {
		run := func() (steps int, sum uint64, last string) {
			h := fnv.New64a()
			r, err := engine.Run(engine.Options{Seed: seed, Trace: func(format string, args ...any) { fmt.Fprintf(h, format, args...) }})
			return r.Steps, h.Sum64(), fmt.Sprint(r.Answered, r.Refused, r.Cut, r.Sent, err)
		}
		steps, sum, last := run()
		if s, h, l := run(); s != steps || h != sum || l != last {
			t.Errorf("%d steps, then %d; %s, then %s", steps, s, last, l)
		}
	})
}

// TestScenarios: without a cut every request is answered, and some cuts of each.
func TestScenarios(t *testing.T) {
	for _, name := range engine.Scenarios() {
		r, err := engine.Run(engine.Options{Scenario: name})
		if err != nil {
			t.Fatal(err)
		}
		if r.Answered != r.Requests || r.Requests == 0 {
			t.Errorf("%s: %d of %d requests were answered", name, r.Answered, r.Requests)
		}
		for conn, sent := range r.Sent {
			for way, n := range sent {
				if n == 0 {
					continue
				}
				c := sim.Cut{Conn: conn, Back: way == 1, Byte: n / 2}
				broken, err := engine.Run(engine.Options{Scenario: name, Cut: &c})
				if err != nil {
					t.Errorf("%s cut at %s: %v", name, c, err)
				}
				if again, err := sim.ParseCut(c.String()); err != nil || again != c {
					t.Errorf("%s is read as %v, %v", c, again, err)
				}
				if got := broken.Sent[conn][way]; got != c.Byte {
					t.Errorf("%s cut at %s: %d bytes were sent", name, c, got)
				}
			}
		}
	}
}

func TestFaults(t *testing.T) {
	f := engine.Faults{Resets: true, Slow: true}
	if got, err := engine.ParseFaults(f.String()); err != nil || got != f || f.String() != "resets,slow" {
		t.Errorf("%s is read as %s, %v", f, got, err)
	}
	if _, err := engine.ParseFaults("resets,rain"); err == nil {
		t.Error("there is no rain")
	}
	if less := f.Without(); len(less) != 2 || less[0] != (engine.Faults{Slow: true}) || less[1] != (engine.Faults{Resets: true}) {
		t.Errorf("one less: %v", less)
	}
	if none, err := engine.ParseFaults("none"); err != nil || none != (engine.Faults{}) || none.String() != "none" {
		t.Errorf("none: %v, %v", none, err)
	}
}

// TestPayment: a POST is delivered at most once by the mesh, whatever goes wrong, and however much the mesh is asked to try
// again and to hedge. (Programs fail a run that delivers one twice.)
func TestPayment(t *testing.T) {
	all := engine.Faults{Resets: true, Programs: true, Clients: true, Changes: true, Connects: true, Slow: true, Clock: true}
	sets := []engine.Faults{all, {Resets: true}, {Programs: true}, {Clients: true}, {Changes: true}, {Connects: true}, {Slow: true}, {Clock: true}}
	again, answered := 0, 0
	for i, f := range sets {
		t.Run(f.String(), func(t *testing.T) {
			simtest.Each(t, 8, func(t *testing.T, seed uint64) {
				r, err := engine.Run(engine.Options{Seed: seed + uint64(i)*1000, Payments: true, Faults: &f})
				if err != nil {
					t.Fatal(err)
				}
				again, answered = again+r.Again, answered+r.Answered
			})
		})
	}
	if again == 0 || answered == 0 {
		t.Errorf("%d further attempts, %d answers: nothing was tried", again, answered)
	}
	doubled := 0
	for seed := range uint64(20) {
		if _, err := engine.Run(engine.Options{Seed: seed, Payments: true, Careless: true, Faults: &all}); err != nil {
			doubled++
		}
	}
	if doubled == 0 {
		t.Error("a mesh that sends payments twice is not found out")
	}
}
