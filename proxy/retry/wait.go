package retry

import (
	"math/bits"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Waits that are taken where none are given and nothing is known: Envoy's.
const (
	DefaultBase = 25 * time.Millisecond
	DefaultMax  = 250 * time.Millisecond
)

// Wait answers how long to wait before the next attempt when n, at least 1, have failed: uniform between 0 and
// Base·(2^n−1), at most Max. rnd is uniform over uint64.
func Wait(p *model.Retry, n int, rnd uint64) time.Duration {
	base, most := p.Base, p.Max
	if base <= 0 {
		base = DefaultBase
	}
	if most <= 0 {
		most = max(10*base, DefaultMax)
	}
	reach := most
	if n = max(n, 1); n < 32 {
		if r := base * (1<<n - 1); r/(1<<n-1) == base {
			reach = min(reach, r)
		}
	}
	return Clamp(p, uniform(reach, rnd))
}

// Clamp holds a wait to Least and Max.
func Clamp(p *model.Retry, d time.Duration) time.Duration {
	least := p.Least
	if p.Max > 0 {
		d, least = min(d, p.Max), min(least, p.Max)
	}
	return max(d, least)
}

// Spread answers a wait that is at least d and at most half as much again: what a server has told many callers at the same
// time does not bring them back at the same time.
func Spread(d time.Duration, rnd uint64) time.Duration { return d + uniform(d/2, rnd) }

// uniform maps rnd to [0, d).
func uniform(d time.Duration, rnd uint64) time.Duration {
	if d <= 0 {
		return 0
	}
	hi, _ := bits.Mul64(uint64(d), rnd)
	return time.Duration(hi)
}

// After reads when a server wants to be asked again (RFC 9110 section 10.2.3): seconds, a date, or, if unix, seconds since
// 1970. wall is now. ok is false for what says nothing; a time that has passed is 0.
func After(v []byte, unix bool, wall time.Time) (d time.Duration, ok bool) {
	if n, ok := number(v); ok {
		if unix {
			n -= wall.Unix()
		}
		return time.Duration(min(max(n, 0), int64(forever/time.Second))) * time.Second, true
	}
	if unix || len(v) != len(dateLayout) {
		return 0, false
	}
	t, err := time.Parse(dateLayout, string(v))
	if err != nil {
		return 0, false
	}
	return max(t.Sub(wall), 0), true
}

// dateLayout is the only form of a date that may still be sent (RFC 9110 section 5.6.7).
const dateLayout = "Mon, 02 Jan 2006 15:04:05 GMT"

// forever is what a longer time is read as.
const forever = 1 << 62 * time.Nanosecond

// number reads digits; what is too large is the largest.
func number(v []byte) (n int64, ok bool) {
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n < 1<<58 {
			n = n*10 + int64(c-'0')
		}
	}
	return n, len(v) > 0
}
