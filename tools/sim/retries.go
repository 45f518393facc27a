package main

import (
	"fmt"
	"os"

	"github.com/tulle-mesh/tulle/sim/outage"
)

// compareRetries runs every service of sim/outage with both kinds of waits and draws the result.
func compareRetries(path string) error {
	services := outage.Services()
	var fixed, learned []outage.Result
	for _, s := range services {
		a, b := outage.Run(s, false, 0), outage.Run(s, true, 0)
		fmt.Printf("%s\n  exponential: %s\n  learned:     %s\n", s.Name, a.String(), b.String())
		fixed, learned = append(fixed, a), append(learned, b)
	}
	return os.WriteFile(path, []byte(outage.Plot(services, fixed, learned)), 0o644)
}
