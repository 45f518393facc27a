// Command sim runs seeds of the whole-engine simulator (package sim/engine): go run ./tools/sim -seeds 2000. A seed that
// fails is made smaller as far as it still fails, and the command that runs it again is printed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/sim/engine"
)

func main() {
	seeds := flag.Uint64("seeds", 2000, "how many seeds")
	from := flag.Uint64("from", 0, "the first one")
	trace := flag.Bool("trace", false, "tell every event")
	requests := flag.Int("requests", 0, "requests at most; 0: as the seed decides")
	workers := flag.Int("workers", runtime.NumCPU(), "seeds at a time")
	flag.Parse()
	o := engine.Options{Requests: *requests}
	if *trace {
		*workers = 1
		o.Trace = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	}
	if err := run(o, *from, *seeds, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

// run runs the seeds and answers the failure of the lowest that failed.
func run(o engine.Options, from, n uint64, workers int) error {
	begin := time.Now()
	var next, done atomic.Uint64
	next.Store(from)
	var mu sync.Mutex
	var sum engine.Result
	var failed error
	lowest := from + n
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				seed := next.Add(1) - 1
				mu.Lock()
				stop := seed >= lowest
				mu.Unlock()
				if stop {
					return
				}
				mine := o
				mine.Seed = seed
				r, err := engine.Run(mine)
				mu.Lock()
				sum.Requests, sum.Answered, sum.Refused, sum.Cut = sum.Requests+r.Requests, sum.Answered+r.Answered, sum.Refused+r.Refused, sum.Cut+r.Cut
				sum.Virtual, sum.Steps = sum.Virtual+r.Virtual, sum.Steps+r.Steps
				if err != nil && seed < lowest {
					lowest, failed = seed, err
				}
				mu.Unlock()
				if d := done.Add(1); d%1000 == 0 {
					fmt.Printf("%d seeds, %s\n", d, time.Since(begin).Round(time.Second))
				}
			}
		})
	}
	all.Wait()
	if failed != nil {
		return smaller(o, failed)
	}
	fmt.Printf("%d seeds from %d: %d requests (%d answered, %d refused, %d cut off), %d steps, %s of virtual time, %s\n", n, from,
		sum.Requests, sum.Answered, sum.Refused, sum.Cut, sum.Steps, sum.Virtual.Round(time.Second), time.Since(begin).Round(time.Second))
	return nil
}

// smaller looks for the fewest requests with which a seed still fails, and says how to run that again.
func smaller(o engine.Options, failed error) error {
	var e *engine.Error
	if !errors.As(failed, &e) {
		return failed
	}
	o.Seed = e.Seed
	for n := 1; n < 60 && (o.Requests == 0 || n < o.Requests); n++ {
		with := o
		with.Requests = n
		if _, err := engine.Run(with); err != nil {
			return fmt.Errorf("%w\nagain: go run ./tools/sim -from %d -seeds 1 -requests %d -trace", err, e.Seed, n)
		}
	}
	return fmt.Errorf("%w\nagain: go run ./tools/sim -from %d -seeds 1 -trace", failed, e.Seed)
}
