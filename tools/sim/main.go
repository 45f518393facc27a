// Command sim runs seeds of the whole-engine simulator (package sim/engine): go run ./tools/sim -seeds 2000. With -cuts it
// then runs small fixed scenarios once for every byte that any of their connections carries, and breaks the connection
// there. A run that fails is made smaller as far as it still fails, and the command that runs it again is printed.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/engine"
)

func main() {
	seeds := flag.Uint64("seeds", 2000, "how many seeds")
	from := flag.Uint64("from", 0, "the first one")
	seed := flag.Int64("seed", -1, "this seed only")
	trace := flag.Bool("trace", false, "tell every event")
	requests := flag.Int("requests", 0, "requests at most; 0: as the seed decides")
	faults := flag.String("faults", "", "what goes wrong, with commas, or none; empty: as the seed decides")
	scenario := flag.String("scenario", "", "this small scenario instead of what the seed decides")
	cut := flag.String("cut", "", "break one connection: its number, there or back, and behind which byte, as in 2:back:117")
	cuts := flag.Bool("cuts", false, "then break the connections of all scenarios at every byte")
	payments := flag.Bool("payments", false, "every request is a POST, and the mesh is to try again whatever it may")
	workers := flag.Int("workers", runtime.NumCPU(), "runs at a time")
	plot := flag.String("retries-plot", "", "only compare waits between retries (sim/outage), print what comes out, and draw it to this file")
	flag.Parse()
	if *plot != "" {
		*seeds, *cuts = 0, false
	}
	o := engine.Options{Requests: *requests, Scenario: *scenario, Payments: *payments}
	if *seed >= 0 {
		*from, *seeds = uint64(*seed), 1
	}
	err := options(&o, *faults, *cut)
	if *trace {
		*workers = 1
		o.Trace = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	}
	if err == nil && *seeds > 0 {
		err = runSeeds(o, *from, *seeds, *workers)
	}
	if err == nil && *cuts {
		err = runCuts(*workers)
	}
	if err == nil && *plot != "" {
		err = compareRetries(*plot)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

// options reads what is given as text.
func options(o *engine.Options, faults, cut string) error {
	if faults != "" {
		f, err := engine.ParseFaults(faults)
		if err != nil {
			return err
		}
		o.Faults = &f
	}
	if cut != "" {
		c, err := sim.ParseCut(cut)
		if err != nil {
			return err
		}
		o.Cut = &c
	}
	return nil
}

// runSeeds runs the seeds and answers the failure of the lowest that failed.
func runSeeds(o engine.Options, from, n uint64, workers int) error {
	begin := time.Now()
	sum, failed := runAll(n, workers, func(i uint64) engine.Options {
		mine := o
		mine.Seed = from + i
		return mine
	})
	if failed != nil {
		return failed
	}
	fmt.Printf("%d seeds from %d: %s, %s\n", n, from, sum, time.Since(begin).Round(time.Second))
	return nil
}

// runCuts breaks the connections of every scenario at every byte.
func runCuts(workers int) error {
	for _, name := range engine.Scenarios() {
		begin := time.Now()
		whole := engine.Options{Scenario: name}
		r, err := engine.Run(whole)
		if err != nil {
			return smaller(whole, err)
		}
		var cuts []sim.Cut
		for conn, sent := range r.Sent {
			for way, bytes := range sent {
				for k := range bytes {
					cuts = append(cuts, sim.Cut{Conn: conn, Back: way == 1, Byte: k})
				}
			}
		}
		sum, failed := runAll(uint64(len(cuts)), workers, func(i uint64) engine.Options {
			return engine.Options{Scenario: name, Cut: &cuts[i]}
		})
		if failed != nil {
			return failed
		}
		fmt.Printf("%s, %d connections broken at each of %d bytes: %s, %s\n", name, len(r.Sent), len(cuts), sum, time.Since(begin).Round(time.Second))
	}
	return nil
}

// sum adds up results.
type sum struct {
	mu sync.Mutex
	engine.Result
}

func (s *sum) add(r engine.Result) {
	s.Requests, s.Answered, s.Refused, s.Cut = s.Requests+r.Requests, s.Answered+r.Answered, s.Refused+r.Refused, s.Cut+r.Cut
	s.Virtual, s.Steps = s.Virtual+r.Virtual, s.Steps+r.Steps
}

func (s *sum) String() string {
	return fmt.Sprintf("%d requests (%d answered, %d refused, %d cut off), %d steps, %s of virtual time", s.Requests, s.Answered, s.Refused, s.Cut, s.Steps, s.Virtual.Round(time.Second))
}

// runAll makes n runs and answers the failure of the first of them that failed, made smaller.
func runAll(n uint64, workers int, options func(i uint64) engine.Options) (*sum, error) {
	var next, done atomic.Uint64
	total, lowest := &sum{}, n
	var failed error
	var all sync.WaitGroup
	begin := time.Now()
	for range workers {
		all.Go(func() {
			for {
				i := next.Add(1) - 1
				total.mu.Lock()
				stop := i >= lowest
				total.mu.Unlock()
				if stop {
					return
				}
				r, err := engine.Run(options(i))
				total.mu.Lock()
				total.add(r)
				if err != nil && i < lowest {
					lowest, failed = i, err
				}
				total.mu.Unlock()
				if d := done.Add(1); d%1000 == 0 {
					fmt.Printf("%d runs, %s\n", d, time.Since(begin).Round(time.Second))
				}
			}
		})
	}
	all.Wait()
	if failed != nil {
		return total, smaller(options(lowest), failed)
	}
	return total, nil
}
