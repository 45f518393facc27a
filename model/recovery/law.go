package recovery

import (
	"math/bits"
	"time"
)

// Constants of waits.
const (
	// Least and Most of learned waits, unless configured.
	Least = 5 * time.Millisecond
	Most  = 10 * time.Second
	// Cost of an attempt that fails is at least that of coming so much too late.
	Cost = 25 * time.Millisecond
	// Enough is how many outages have to be remembered before waits follow from them.
	Enough = 5
	// MaxLeft is how many attempts are planned ahead at most.
	MaxLeft = 6

	costly = 8 // an attempt costs at least the median of what is still to come over this
	lost   = 2 // who is out of attempts has lost as much as the longest outage that was seen, so many times
)

// Law says how long failures last, as a plan of when to ask again. It never changes.
type Law struct {
	alive [Buckets + 1]float64        // probability of lasting longer than the edge i, the end of bucket i-1
	plan  [MaxLeft][Buckets + 1]uint8 // the edge to ask at, for who has asked at an edge in vain and has so many attempts left, less 1
}

// Law answers the law of what is counted now; nil if that is less than Enough.
func (s *Sketch) Law() *Law {
	all := s.Weight()
	if all < Enough-0.5 { // they have faded a little
		return nil
	}
	l := &Law{}
	last := 0
	for i, w := range s.weight {
		if w > 0 {
			last = i
		}
	}
	// One outage that was not seen, longer than all that were, is thought of beside them; it goes on as failures without a
	// scale do: to last twice as long is as likely as not to.
	sum := all
	l.alive[0] = 1
	for i, w := range s.weight {
		unseen := 1.0
		if i > last {
			unseen = float64(end(last)) / float64(end(i))
		}
		sum -= float64(w)
		l.alive[i+1] = (max(sum, 0) + unseen) / (all + 1)
	}
	l.solve(lost * float64(end(last)))
	return l
}

// edge answers when bucket i begins.
func edge(i int) time.Duration {
	if i == 0 {
		return 0
	}
	return end(i - 1)
}

// solve fills the plan. For who has asked at edge a in vain and has n attempts left, the next is at the edge t that makes
//
//	∑ (t − D)·P(D) for D in (a, t]  +  P(D > t)·(cost + the same for t and n−1)
//
// the least: how much too late it comes if the outage was over by then, else what the attempt has cost and what follows.
func (l *Law) solve(lost float64) {
	var after, cost [Buckets + 1]float64 // after: of one attempt less, times P(D > edge)
	for a, middle := 0, 0; a <= Buckets; a++ {
		for middle = max(middle, a); middle < Buckets && l.alive[middle] > l.alive[a]/2; middle++ {
		}
		after[a], cost[a] = lost*l.alive[a], max(float64(Cost), float64(edge(middle)-edge(a))/costly)
	}
	for n := range MaxLeft {
		var now [Buckets + 1]float64
		for a := range Buckets + 1 {
			now[a] = after[a]
			l.plan[n][a] = uint8(min(a+1, Buckets))
			late, best := 0.0, -1.0
			for t := a + 1; t <= Buckets; t++ {
				width := float64(edge(t) - edge(t-1))
				p := l.alive[t-1] - l.alive[t]
				late += (l.alive[a]-l.alive[t-1])*width + p*width/2
				if v := late + l.alive[t]*cost[a] + after[t]; best < 0 || v < best {
					best = v
					now[a], l.plan[n][a] = v, uint8(t)
				}
			}
		}
		after = now
	}
}

// Question is what a wait depends on.
type Question struct {
	Down  time.Duration // since the destination's first failure
	Left  int           // attempts that the request may still make, at least 1
	Least time.Duration // of the wait; 0: the constant
	Most  time.Duration // likewise
	// Random is uniform over uint64: how far the wait is spread.
	Random uint64
}

// Wait answers after what wait to ask again: the one with which, by what was seen, all attempts that are left cost the least
// (solve). It is spread by an eighth to both sides, so that callers do not come at once, and clamped.
func (l *Law) Wait(q *Question) time.Duration {
	least, most := q.Least, q.Most
	if least <= 0 {
		least = Least
	}
	if most <= 0 {
		most = Most
	}
	down := max(q.Down, 0)
	a := bucket(down) // the edge that was passed last, or nearly
	if a < Buckets && edge(a+1)-down < (edge(a+1)-edge(a))/4 {
		a++
	}
	t := max(int(l.plan[min(max(q.Left, 1), MaxLeft)-1][a]), a+1)
	wait := max(edge(min(t, Buckets))-down, 0)
	if edge(Buckets) <= down { // longer than anything that is counted
		wait = most
	}
	return min(max(wait-wait/8+part(wait/4, q.Random), least), most)
}

// part answers a uniform part of d.
func part(d time.Duration, random uint64) time.Duration {
	hi, _ := bits.Mul64(random, uint64(d))
	return time.Duration(hi)
}
