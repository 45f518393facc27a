package engine_test

import (
	"testing"

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
