// Package rate is the arithmetic of token buckets, as both planes keep them. It promises that a Rate never lets through more
// than it says, whoever asks and however often, and allocates nothing. It keeps no clock and locks nothing: a Rate is a
// value and its state one word, which whoever shares it keeps in an atomic or under a lock. Start reading at Rate.Take.
package rate

import (
	"math"
	"math/bits"
	"time"
)

// Rate is a token bucket: units per window, and at most burst of them at once. It is kept as GCRA (the virtual scheduling
// of ITU-T I.371): its whole state is the time at which the bucket is full again, an int64 of nanoseconds that is 0 for a
// new, full bucket. What a unit costs is rounded up to a nanosecond, so it is never more than was said; for a million
// units a second it may be 0.1 % less.
type Rate struct {
	units, window uint64
	burst         uint32
	one           int64 // what each unit costs, however many are taken together; 0: only their sum is rounded
	depth         int64 // what burst units cost
}

// furthest bounds how far ahead of now a state may be, so that no sum overflows.
const furthest = math.MaxInt64 / 4

// New makes a rate of units per window; burst 0 is units. Units 0 lets nothing through; window 0 is a second.
func New(units uint32, window time.Duration, burst uint32) Rate {
	r := Rate{units: uint64(units), window: uint64(window), burst: burst}
	if window <= 0 {
		r.window = uint64(time.Second)
	}
	if burst == 0 {
		r.burst = units
	}
	if one := r.cost(1); one < furthest/int64(max(r.burst, 1)) {
		r.depth = one * int64(r.burst)
	} else {
		r.depth = furthest
	}
	r.one = r.cost(1)
	return r
}

// NewBandwidth is New for bytes, which are taken many at a time: only the sum is rounded.
func NewBandwidth(bytes uint32, window time.Duration, burst uint32) Rate {
	r := New(bytes, window, burst)
	r.one = 0
	r.depth = r.cost(uint64(r.burst))
	return r
}

// cost answers how long n units take to come back.
func (r Rate) cost(n uint64) int64 {
	if r.units == 0 {
		return furthest
	}
	if r.one > 0 {
		if hi, lo := bits.Mul64(n, uint64(r.one)); hi == 0 && lo < furthest {
			return int64(lo)
		}
		return furthest
	}
	hi, lo := bits.Mul64(n, r.window)
	lo, carry := bits.Add64(lo, r.units-1, 0)
	hi += carry
	if hi >= r.units {
		return furthest
	}
	q, _ := bits.Div64(hi, lo, r.units)
	return int64(min(q, furthest))
}

// Take answers the state after n units were taken at now, and false, with the state as it was, if there are fewer.
func (r Rate) Take(state int64, now time.Duration, n uint32) (after int64, ok bool) {
	if r.units == 0 {
		return state, false
	}
	after = max(state, int64(now)) + r.cost(uint64(n))
	if after-int64(now) > r.depth {
		return state, false
	}
	return after, true
}

// Spend answers the state after n units were taken at now whether they were there or not: what is owed comes back first.
func (r Rate) Spend(state int64, now time.Duration, n uint32) (after int64) {
	return min(max(state, int64(now))+r.cost(uint64(n)), int64(now)+furthest)
}

// Refund answers the state after n units that were taken have been given back.
func (r Rate) Refund(state int64, n uint32) (after int64) { return max(state-r.cost(uint64(n)), 0) }

// Wait answers how long it is from now until n units are there; 0: they are.
func (r Rate) Wait(state int64, now time.Duration, n uint32) time.Duration {
	if r.units == 0 {
		return furthest
	}
	return time.Duration(max(max(state, int64(now))+r.cost(uint64(n))-int64(now)-r.depth, 0))
}

// Left answers how many units are there at now.
func (r Rate) Left(state int64, now time.Duration) uint32 {
	if r.units == 0 {
		return 0
	}
	free := r.depth - (max(state, int64(now)) - int64(now))
	if free <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(free), r.units)
	if hi >= r.window {
		return r.burst
	}
	q, _ := bits.Div64(hi, lo, r.window)
	return uint32(min(q, uint64(r.burst)))
}

// Full answers how long it is from now until the bucket is full again.
func (r Rate) Full(state int64, now time.Duration) time.Duration {
	return time.Duration(max(state-int64(now), 0))
}

// Units answers what the rate lets through per window.
func (r Rate) Units() uint32 { return uint32(r.units) }

// Window answers the time that Units is for.
func (r Rate) Window() time.Duration { return time.Duration(r.window) }
