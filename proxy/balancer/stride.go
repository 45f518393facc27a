package balancer

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// FullTurn is the weight of a candidate that has every one of its turns in Stride.
const FullTurn = 1<<16 - 1

// Stride answers whose turn it is, of n candidates whose weights may change at any time: in every round each one's turn
// comes, and one with a weight of half of FullTurn takes every other turn of its own (the static stride of gRFC A58, which
// needs no order that has to be made anew). turn counts, across all who pick; -1 if nobody took a turn in so many rounds
// that nobody may.
func Stride(n int, turn func() uint64, weight func(i int) uint32, may func(i int) bool) int {
	const offset = FullTurn / 2
	for range max(maxRounds*n, 64) {
		t := turn()
		i, round := int(t%uint64(n)), t/uint64(n)
		w := uint64(weight(i))
		if (w*round+uint64(i)*offset)%FullTurn < FullTurn-w {
			continue
		}
		if may(i) {
			return i
		}
	}
	return -1
}

// maxRounds is how many rounds Stride looks: even the least weight, a hundredth of the greatest, should have had a turn.
const maxRounds = 4

// Defaults of model.Utilization, those of gRFC A58.
const (
	DefaultBlackout = 10 * time.Second
	DefaultExpiry   = 3 * time.Minute
	DefaultUpdate   = time.Second
	LeastUpdate     = 100 * time.Millisecond
)

// Usage are the settings u with defaults.
func Usage(u model.Utilization) model.Utilization {
	if u.Blackout == 0 {
		u.Blackout = DefaultBlackout
	}
	if u.Expiry == 0 {
		u.Expiry = DefaultExpiry
	}
	if u.Update == 0 {
		u.Update = DefaultUpdate
	}
	if u.ErrorPenalty == 0 {
		u.ErrorPenalty = 1
	}
	u.Update = max(u.Update, LeastUpdate)
	return u
}

// Weight answers the weight that follows from a report: requests a second that it answers for the part of it that it uses
// (gRFC A58); 0: the report does not say.
func (r *Report) Weight(penalty float64) float64 {
	used := r.Application
	if used <= 0 {
		used = r.CPU
	}
	if used <= 0 || r.Requests <= 0 {
		return 0
	}
	if r.Errors > 0 && penalty > 0 {
		used += r.Errors / r.Requests * penalty
	}
	return r.Requests / used
}

// Bounds of the weights that Turns answers, over and under their mean.
const maxRatio = 10

// Turns makes of weights (0: not known) what Stride takes: the mean for who has none, nobody more than ten times the mean
// or less than a tenth of it, the greatest FullTurn. With fewer than two known weights all are alike. weight is called twice
// for each of n candidates.
func Turns(n int, weight func(i int) float64, set func(i int, turn uint32)) {
	sum, known := 0.0, 0
	for i := range n {
		if w := weight(i); w > 0 {
			sum += w
			known++
		}
	}
	if known < 2 {
		for i := range n {
			set(i, FullTurn)
		}
		return
	}
	mean := sum / float64(known)
	clamp := func(w float64) float64 {
		if w <= 0 {
			return mean
		}
		return min(max(w, mean/maxRatio), mean*maxRatio)
	}
	most := 0.0
	for i := range n {
		most = max(most, clamp(weight(i)))
	}
	for i := range n {
		set(i, uint32(max(clamp(weight(i))/most*FullTurn+0.5, 1)))
	}
}
