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
	// Cost is what an attempt is worth at least: as much as waiting so long.
	Cost = 25 * time.Millisecond
	// Enough is how many outages have to be remembered before waits follow from them.
	Enough = 5
)

// Law says how long failures last, in a form that answers fast.
type Law struct {
	weight float64
	below  [Buckets]float64 // weight of what was over by the end of a bucket
	last   time.Duration    // by which all were over
}

// Law answers the law of what is counted now; nil if that is less than Enough.
func (s *Sketch) Law() *Law {
	l := &Law{}
	for i, w := range s.weight {
		if w > 0 {
			l.last = end(i)
		}
		l.weight += float64(w)
		l.below[i] = l.weight
	}
	if l.weight < Enough-0.5 { // they have faded a little
		return nil
	}
	return l
}

// Question is what a wait depends on.
type Question struct {
	Down time.Duration // since the destination's first failure
	Left int           // attempts that the request may still make, at least 1
	// Least and Most of the wait; 0: the constants.
	Least, Most time.Duration
	Random      uint64 // uniform over uint64: how far the wait is spread
}

// Wait answers after what wait to ask again.
//
// A destination that has been down for a is up again by t with probability F(t) = P(D ≤ t | D > a), D being how long its
// failures last. An attempt at t costs the time until then and c, what an attempt is worth; the t is taken with the
// most probability per cost,
//
//	F(t) / (t − a + c)
//
// which is the index by which Gittins and Aalto, Ayesta and Righter order work whose end is not known. Fewer attempts that are left make
// each dearer: c is the median of what is still to come over four times their number, at least Cost. The last attempt of all
// is made when nine in ten outages are over. What has lasted longer than anything that was seen goes on as failures
// without a scale do: to last twice as long is as likely as not to. The wait is then spread by up to a quarter, so that
// callers do not come at once, and clamped.
func (l *Law) Wait(q *Question) time.Duration {
	least, most := q.Least, q.Most
	if least <= 0 {
		least = Least
	}
	if most <= 0 {
		most = Most
	}
	wait := l.best(max(q.Down, 0), max(q.Left, 1), most)
	return min(max(wait+part(wait/4, q.Random), least), most)
}

// best answers the wait of the best quotient.
func (l *Law) best(down time.Duration, left int, most time.Duration) time.Duration {
	cost := float64(max(Cost, l.reach(down, 0.5, most)/time.Duration(4*left)))
	if left == 1 {
		return l.reach(down, 0.9, most)
	}
	wait, score := most, l.over(down, down+most)/(float64(most)+cost)
	for i := bucket(down); i < Buckets && end(i) <= down+most; i++ {
		if end(i) <= down {
			continue
		}
		if s := l.over(down, end(i)) / (float64(end(i)-down) + cost); s > score {
			wait, score = end(i)-down, s
		}
	}
	return wait
}

// reach answers after what wait, at most most, what has been down for so long is over with probability p.
func (l *Law) reach(down time.Duration, p float64, most time.Duration) time.Duration {
	for i := bucket(down); i < Buckets && end(i) <= down+most; i++ {
		if end(i) > down && l.over(down, end(i)) >= p {
			return end(i) - down
		}
	}
	return most
}

// over answers the probability that what has been down for so long is over at t. One outage that was not seen, longer
// than all that were, is thought of beside them.
func (l *Law) over(down, t time.Duration) float64 {
	scale := max(l.last, down)
	passed := l.under(down)
	seen, unseen := l.under(t)-passed, 0.0
	if t > scale {
		unseen = 1 - float64(scale)/float64(t)
	}
	return (seen + unseen) / (l.weight - passed + 1)
}

// under answers the weight of what was over at t; within a bucket it grows evenly.
func (l *Law) under(t time.Duration) float64 {
	i := bucket(t)
	from, begin := 0.0, time.Duration(0)
	if i > 0 {
		from, begin = l.below[i-1], end(i-1)
	}
	share := float64(t-begin) / float64(end(i)-begin)
	return from + (l.below[i]-from)*min(max(share, 0), 1)
}

// part answers a uniform part of d.
func part(d time.Duration, random uint64) time.Duration {
	hi, _ := bits.Mul64(random, uint64(d))
	return time.Duration(hi)
}
