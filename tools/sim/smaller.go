package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/sim/engine"
)

// patience bounds the search for a smaller failure.
const patience = 30 * time.Second

// smaller looks for the fewest faults, and then the fewest requests, with which a run still fails, and says how to run
// that again.
func smaller(o engine.Options, failed error) error {
	var e *engine.Error
	if !errors.As(failed, &e) {
		return failed
	}
	end := time.Now().Add(patience)
	o.Seed, o.Trace = e.Seed, nil
	fails := func(with engine.Options) bool {
		var found *engine.Error
		_, err := engine.Run(with)
		if !errors.As(err, &found) {
			return false
		}
		e, o = found, with
		return true
	}
	what := ""
	if o.Cut == nil && o.Scenario == "" {
		what = fmt.Sprintf("\nthe seed has faults %s; it needs ", e.Faults)
		fewerFaults(&o, e.Faults, fails, end)
		what += fmt.Sprint(e.Faults)
		fewerRequests(&o, fails, end)
	}
	return fmt.Errorf("%w%s\nagain: %s", e, what, again(o, e))
}

// fewerFaults switches classes of faults off, one after the other, as long as the run fails.
func fewerFaults(o *engine.Options, f engine.Faults, fails func(engine.Options) bool, end time.Time) {
	for progress := true; progress && time.Now().Before(end); {
		progress = false
		for _, less := range f.Without() {
			with := *o
			with.Faults = &less
			if fails(with) {
				f, progress = less, true
				break
			}
		}
	}
}

// fewerRequests leaves requests out from the end as long as the run fails.
func fewerRequests(o *engine.Options, fails func(engine.Options) bool, end time.Time) {
	for n := 1; n < 60 && (o.Requests == 0 || n < o.Requests) && time.Now().Before(end); n++ {
		with := *o
		with.Requests = n
		if fails(with) {
			return
		}
	}
}

// again is the command that repeats a run.
func again(o engine.Options, e *engine.Error) string {
	all := []string{"go run ./tools/sim -seed", fmt.Sprint(e.Seed)}
	if o.Faults != nil {
		all = append(all, "-faults", e.Faults.String())
	}
	if o.Requests > 0 {
		all = append(all, "-requests", fmt.Sprint(o.Requests))
	}
	if o.Scenario != "" {
		all = append(all, "-scenario", o.Scenario)
	}
	if o.Cut != nil {
		all = append(all, "-cut", o.Cut.String())
	}
	s := strings.Join(all, " ") + " -trace"
	if o.Scenario == "" {
		s += fmt.Sprintf("\nas it was: make sim SEEDS=1 FROM=%d", e.Seed)
	}
	return s
}
