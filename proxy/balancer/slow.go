package balancer

import (
	"math"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// leastWarmth is model.SlowStart.Least where it is 0, Envoy's.
const leastWarmth = 0.1

// Warmth answers the part of its weight that a candidate has at an age: Envoy's slow start, the age (at least 1 s) over the
// window, to the power of 1/aggression, and never less than the least percent.
func Warmth(age time.Duration, s *model.SlowStart) float64 {
	if age = max(age, time.Second); age >= s.Window {
		return 1
	}
	least, power := leastWarmth, 1.0
	if s.Least > 0 {
		least = s.Least / 100
	}
	if s.Aggression > 0 {
		power = 1 / s.Aggression
	}
	return min(max(math.Pow(float64(age)/float64(s.Window), power), least), 1)
}
