package main

import (
	"fmt"
	"os"

	"github.com/tulle-mesh/tulle/sim/outage"
)

// compareRetries runs every service of sim/outage with both kinds of waits, with a large budget and with the mesh's own, and
// draws what came of the large one.
func compareRetries(path string) error {
	services := outage.Services()
	var fixed, learned []outage.Result
	for _, percent := range []uint32{20, 100} {
		fixed, learned = nil, nil
		for _, s := range services {
			a, b := outage.Run(s, false, percent, 0), outage.Run(s, true, percent, 0)
			fmt.Printf("%s, budget %d %%\n  exponential: %s\n  learned:     %s\n", s.Name, percent, a.String(), b.String())
			fixed, learned = append(fixed, a), append(learned, b)
		}
	}
	return os.WriteFile(path, []byte(outage.Plot(services, fixed, learned)), 0o644)
}
