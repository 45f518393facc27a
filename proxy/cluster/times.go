package cluster

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Times is how long the endpoints of a cluster take until the head of their responses, over the last half to whole
// minute: a histogram with eight places for each doubling from 64 µs to two minutes, so that an answer is right to an
// eighth. Safe for concurrent use; nothing locks or allocates.
type Times struct {
	periods [2]times
}

type times struct {
	number atomic.Int64 // of the period since the clock's origin, plus 1
	total  atomic.Int64
	places [timesPlaces]atomic.Uint32
}

const (
	timesPeriod = 30 * time.Second
	timesUnit   = 8 * time.Microsecond // 8 units are the first place
	timesPlaces = 22 * 8
	timesEnough = 20 // observations before a quantile means something
)

// Times answers the cluster's response times; from the first call on they are kept.
func (c *Cluster) Times() *Times {
	t := c.attempts.times.Load()
	if t == nil {
		c.attempts.times.CompareAndSwap(nil, &Times{})
		t = c.attempts.times.Load()
	}
	return t
}

// placeOf answers where d is counted.
func placeOf(d time.Duration) int {
	n := uint64(max(d, 0) / timesUnit)
	if n < 8 {
		return 0
	}
	shift := bits.Len64(n) - 4 // n>>shift is 8 to 15
	return min(1+shift*8+int(n>>shift)-8, timesPlaces-1)
}

// endOf answers the longest time that is counted at a place.
func endOf(place int) time.Duration {
	if place == 0 {
		return 8 * timesUnit
	}
	shift, part := (place-1)/8, (place-1)%8
	return time.Duration(uint64(part+9)<<shift) * timesUnit
}

// Add counts a response that took d.
func (t *Times) Add(now, d time.Duration) {
	n := int64(now/timesPeriod) + 1
	p := &t.periods[n%2]
	if was := p.number.Load(); was < n && p.number.CompareAndSwap(was, n) {
		p.total.Store(0)
		for i := range p.places {
			p.places[i].Store(0)
		}
	}
	p.places[placeOf(d)].Add(1)
	p.total.Add(1)
}

// Quantile answers the time within which so many thousandths of the responses have come. ok is false while there are too
// few to say.
func (t *Times) Quantile(now time.Duration, thousandths uint32) (d time.Duration, ok bool) {
	last := int64(now/timesPeriod) + 1
	var counts [timesPlaces]int64
	var total int64
	for i := range t.periods {
		p := &t.periods[i]
		if n := p.number.Load(); n == 0 || n < last-1 {
			continue
		}
		for k := range p.places {
			v := int64(p.places[k].Load())
			counts[k] += v
			total += v
		}
	}
	if total < timesEnough {
		return 0, false
	}
	want := (total*int64(min(thousandths, 1000)) + 999) / 1000
	for k, n := range counts {
		if want -= n; want <= 0 {
			return endOf(k), true
		}
	}
	return endOf(timesPlaces - 1), true
}
