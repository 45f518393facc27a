package main

import (
	"fmt"
	"os"
	"time"

	"github.com/tulle-mesh/tulle/bench/load"
)

// soak keeps one proxy under churn, mTLS and all, and looks at its memory every minute: requests on connections that stay,
// connections that are made and closed, connections by the hundred that come and go. Memory has to be flat after the first
// minutes. Not part of an ordinary run: ask for it with -parts soak.
func soak(r *results) error {
	o := r.options
	_, err := with(o, subject{"Tulle", startTulle}, load.HTTP1, oneHop, func(w *world, run *running) error {
		burst := func(k load.Kind, connections int) error {
			p := plan(o, k, oneHop, run, connections)
			p.For = 5 * time.Second
			_, err := generate(run, p)
			return err
		}
		end := time.Now().Add(o.soak)
		for minute := 1; time.Now().Before(end); minute++ {
			for next := time.Now().Add(time.Minute); time.Now().Before(next); {
				for _, b := range []struct {
					kind        load.Kind
					connections int
				}{{load.HTTP1, 32}, {load.Connects, 16}, {load.HTTP1, 500}} {
					if err := burst(b.kind, b.connections); err != nil {
						return err
					}
				}
			}
			time.Sleep(time.Second)
			f, err := memoryOf(run.pids)
			if err != nil {
				return err
			}
			r.soaked = append(r.soaked, f)
			fmt.Fprintf(os.Stderr, "soak     minute %2d: RssAnon %.1f MB, PSS %.1f MB\n", minute, f.anon/1e6, f.pss/1e6)
		}
		return nil
	})
	return err
}
