package cluster

import (
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// A Budget remembers budgetSlots times budgetSlot.
const (
	budgetSlot  = 250 * time.Millisecond
	budgetSlots = 40
)

// Budget counts what a cluster was sent in the last ten seconds and says how much of it may be sent again (model.Budget,
// package retry). It outlives changes of the settings. Safe for concurrent use; nothing locks or allocates. When a slot
// begins anew, counts of another loop in the same instant may be lost.
type Budget struct {
	slots   [budgetSlots]slot
	hops    atomic.Int64 // of what was told last
	refused atomic.Uint64
	again   atomic.Uint64
	told    [2]atomic.Uint64 // of again and refused, by News
}

type slot struct {
	number atomic.Int64  // of the slot since the clock's origin, plus 1; 0: never used
	sums   atomic.Uint64 // requests, what arrived, attempts: 20, 22 and 22 bits
	extra  atomic.Int64
}

const (
	oneAttempt = 1
	oneArrived = 1 << 22
	oneRequest = 1 << 44
	countMask  = oneArrived - 1
)

// at answers the slot of loop time now, made empty if it was of an earlier time.
func (b *Budget) at(now time.Duration) *slot {
	n := int64(now/budgetSlot) + 1
	s := &b.slots[n%budgetSlots]
	if was := s.number.Load(); was < n && s.number.CompareAndSwap(was, n) {
		s.sums.Store(0)
		s.extra.Store(0)
	}
	return s
}

// First counts a request and its first attempt; earns is false for one that is itself an attempt of a request that was
// counted before, further up: it earns no attempts.
func (b *Budget) First(now time.Duration, earns bool) {
	n := uint64(oneArrived + oneAttempt)
	if earns {
		n += oneRequest
	}
	b.at(now).sums.Add(n)
}

// Below counts what an attempt has come to below this hop, in thousandths, and so many hops away (field tulle-spent).
func (b *Budget) Below(now time.Duration, spent, hops int64) {
	if spent > retry.One && hops < MostHops {
		b.at(now).extra.Add(min(spent, mostSpent) - retry.One)
		b.hops.Store(hops)
	}
}

// MostHops is how far away attempts are told of. Where services call each other in a circle, what one says comes back to it:
// it is as far away then as it has come, and so is forgotten in the end.
const MostHops = 16

// mostSpent bounds what is told, in thousandths.
const mostSpent = 1 << 24

// Sums answers what was counted in the last ten seconds.
func (b *Budget) Sums(now time.Duration) (out retry.Sums) {
	last := int64(now/budgetSlot) + 1
	for i := range b.slots {
		s := &b.slots[i]
		n := s.number.Load()
		if n == 0 || n <= last-budgetSlots {
			continue
		}
		v := s.sums.Load()
		out.Requests += int64(v / oneRequest)
		if n > last-budgetSlots+1 {
			out.Earning += int64(v / oneRequest)
		}
		out.Arrived += int64(v / oneArrived & countMask)
		out.Attempts += int64(v & countMask)
		out.Extra += s.extra.Load()
	}
	return out
}

// Refused answers how many attempts were not allowed; Again how many were made.
func (b *Budget) Refused() uint64 { return b.refused.Load() }

// Again answers how many further attempts the cluster was sent.
func (b *Budget) Again() uint64 { return b.again.Load() }

// attempts is what all loops count of a cluster's attempts.
type attempts struct {
	budget Budget
	times  atomic.Pointer[Times] // nil: nobody wants to know
}

// Budget answers what counts the cluster's attempts.
func (c *Cluster) Budget() *Budget { return &c.attempts.budget }

// First counts a request that is sent to the cluster, where its settings want that known.
func (c *Cluster) First(now time.Duration, earns bool) {
	if m := &c.model.Load().Budget; !m.Off && !m.UnderWay {
		c.attempts.budget.First(now, earns)
	}
}

// MayRepeat counts a further attempt if the settings allow it. free says that the one before has reached nobody. bound is
// what the number of further attempts under way is bounded by where the settings have no bound of their own; 0: nothing.
// held reports whether b, which may be nil, has counted it among Retries: Give has to follow.
func (c *Cluster) MayRepeat(now time.Duration, b *Breaker, free bool, bound int64) (may, held bool) {
	m := c.model.Load().Budget
	switch {
	case m.UnderWay && b != nil:
		most := max(int64(m.Least), int64(m.Percent)*(b.Now(Requests)+b.Now(Pending))/100)
		may = b.take(Retries, most)
		held = may
	case b != nil && !b.take(Retries, b.mostOr(Retries, bound)):
	case m.Off || m.UnderWay || free:
		may, held = true, b != nil
	default:
		may, held = c.attempts.budget.allow(now, m, b)
	}
	if may {
		c.attempts.budget.again.Add(1)
	} else {
		c.attempts.budget.refused.Add(1)
	}
	return may, held
}

// allow counts a further attempt if what was counted so far leaves room for it; otherwise b gets back what it has counted.
func (b *Budget) allow(now time.Duration, m model.Budget, br *Breaker) (may, held bool) {
	if retry.Allows(retry.Filled(m), b.Sums(now)) {
		b.at(now).sums.Add(oneAttempt)
		return true, br != nil
	}
	if br != nil {
		br.Give(Retries)
	}
	return false, false
}

// Amplification answers how many attempts at the end of the chain one request to the cluster has come to, in thousandths, and
// how many hops away they were made.
func (c *Cluster) Amplification(now time.Duration) (thousandths, hops int64) {
	m := c.model.Load().Budget
	if m.Off || m.UnderWay {
		return retry.One, 1
	}
	s := c.attempts.budget.Sums(now)
	if hops = 1; s.Extra > 0 {
		hops += c.attempts.budget.hops.Load()
	}
	return retry.Amplification(retry.Filled(m), s), hops
}

// Spent is what the proxy of a workload tells its callers: how many attempts a request causes below it, at most, in the
// cluster where that is the most, over the last five to ten seconds. Safe for concurrent use; its zero value is ready.
type Spent struct {
	now, before atomic.Uint64 // number of the period, thousandths, and 255 less the hops: the larger counts
}

const spentPeriod = 5 * time.Second

// Note says what a cluster's amplification is at loop time now.
func (s *Spent) Note(now time.Duration, thousandths, hops int64) {
	if thousandths <= retry.One || hops >= MostHops {
		return
	}
	period := uint64(now/spentPeriod) + 1
	v := period<<40 | uint64(min(thousandths, mostSpent))<<8 | uint64(255-hops)
	for {
		was := s.now.Load()
		switch {
		case was >= v:
			return
		case was>>40 == period:
			if s.now.CompareAndSwap(was, v) {
				return
			}
		case s.now.CompareAndSwap(was, v):
			s.before.Store(was)
			return
		}
	}
}

// Now answers what to tell, in thousandths, and how far away that was; retry.One: nothing.
func (s *Spent) Now(now time.Duration) (thousandths, hops int64) {
	period := uint64(now/spentPeriod) + 1
	best := uint64(retry.One<<8 | 255)
	for _, v := range [...]uint64{s.now.Load(), s.before.Load()} {
		if v>>40+1 >= period {
			best = max(best, v&(1<<40-1))
		}
	}
	return int64(best >> 8), 255 - int64(best&255)
}
