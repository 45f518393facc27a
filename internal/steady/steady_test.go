package steady_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/internal/steady"
)

var sink *[64]byte

// TestAllocations: what happens in every measurement is seen, what happens in one is not.
func TestAllocations(t *testing.T) {
	once := 0
	if n := steady.Allocations(10, func() {
		if once++; once == 1 {
			for range 1000 {
				sink = new([64]byte)
			}
		}
	}); n > 10 {
		t.Errorf("a disturbance counts: %d", n)
	}
	if n := steady.Allocations(10, func() {
		for range 100 {
			sink = new([64]byte)
		}
	}); n < 100 {
		t.Errorf("100 allocations count as %d", n)
	}
}
