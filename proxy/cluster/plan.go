package cluster

import "github.com/tulle-mesh/tulle/model"

// Defaults of balancing, Envoy's.
const (
	defaultOverprovision = 140 // percent
	defaultPanic         = 50  // percent
)

// plan is how requests are shared out between priorities, as far as the health of their endpoints goes: all of them to
// the first while it can take them, what it cannot take to the next, and so on, healthy ones before degraded ones. It is
// made anew whenever an endpoint's health changes, which is seldom; a pick only reads it.
type plan struct {
	shares []share
	panic  []bool     // by level
	groups [][]uint64 // by level: running sums of the groups' shares; nil: all of a level's groups are alike
}

// share is a part of the requests: those up to till, in percent, that are not of an earlier share.
type share struct {
	till  uint32
	level int
	class class
}

// draw answers the share that a random number falls into.
func (p *plan) draw(rnd uint64) share {
	if len(p.shares) == 0 {
		return share{class: well}
	}
	if len(p.shares) == 1 {
		return p.shares[0]
	}
	at := uint32((rnd >> 32) * 100 >> 32)
	for _, s := range p.shares {
		if at < s.till {
			return s
		}
	}
	return p.shares[len(p.shares)-1]
}

// sums answers the shares of a level's groups, nil: there are none.
func (p *plan) sums(level int) []uint64 {
	if level < len(p.groups) {
		return p.groups[level]
	}
	return nil
}

func (p *plan) panics(level int) bool { return level < len(p.panic) && p.panic[level] }

// Replan makes the plans anew; it is called when the health of an endpoint has changed. From any goroutine.
func (c *Cluster) Replan() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, b := c.set.Load(), &c.model.Load().Balancing
	s.views(func(v *view) { v.replan(s, b) })
}

// replan makes the plan of one view anew.
func (v *view) replan(s *set, b *model.Balancing) {
	over := uint64(defaultOverprovision)
	if b.Overprovision > 0 {
		over = uint64(b.Overprovision)
	}
	if s.overprovision > 0 {
		over = uint64(s.overprovision)
	}
	threshold := float64(defaultPanic)
	if b.Panic != nil {
		threshold = *b.Panic
	}
	n := len(v.levels)
	can, weak := make([]uint64, n), make([]uint64, n) // percent of all requests that a level can take
	healthy := make([]float64, n)
	p := &plan{panic: make([]bool, n), groups: make([][]uint64, n)}
	var sum uint64
	for i, l := range v.levels {
		good, fair := fit(l.endpoints)
		all := uint64(len(l.endpoints))
		can[i], weak[i] = min(100, over*good/all), min(100, over*fair/all)
		healthy[i] = float64(good) * 100 / float64(all)
		sum += can[i] + weak[i]
		p.groups[i] = l.shares(over)
		for _, g := range l.groups {
			g.warmth.changed.Store(true)
		}
	}
	total := min(sum, 100)
	if total < 100 {
		for i := range p.panic {
			p.panic[i] = healthy[i] < threshold
		}
	}
	p.split(can, weak, total)
	v.plan.Store(p)
}

// shares answers the running sums of what a level's localities get: their weights, less where endpoints are unwell (Envoy's
// locality weighted load balancing); nil: there is one group, or no locality can take anything.
func (l *level) shares(over uint64) []uint64 {
	if len(l.groups) < 2 {
		return nil
	}
	sums := make([]uint64, len(l.groups))
	var sum uint64
	for i, g := range l.groups {
		good, fair := fit(g.endpoints)
		sum += g.weight * min(10000, over*100*(good+fair)/uint64(len(g.endpoints)))
		sums[i] = sum
	}
	if sum == 0 {
		return nil
	}
	return sums
}

// split shares 100 percent out.
func (p *plan) split(can, weak []uint64, total uint64) {
	if total == 0 {
		p.shares = []share{{till: 100, level: 0, class: well}}
		return
	}
	var till uint64
	for _, part := range []struct {
		percent []uint64
		class   class
	}{{can, well}, {weak, degraded}} {
		for i, n := range part.percent {
			if n = min(n*100/total, 100-till); n > 0 {
				till += n
				p.shares = append(p.shares, share{uint32(till), i, part.class})
			}
		}
	}
	p.shares[len(p.shares)-1].till = 100 // what rounding left
}

// fit answers how many endpoints are well, and how many degraded.
func fit(endpoints []*Endpoint) (good, fair uint64) {
	for _, e := range endpoints {
		switch {
		case e.is(well):
			good++
		case e.is(degraded):
			fair++
		}
	}
	return good, fair
}

// is reports whether the endpoint is of a class.
func (e *Endpoint) is(c class) bool {
	if c == whatever {
		return true
	}
	h := e.model.Load().Health
	if h == model.Unhealthy || e.unhealthy.Load() || e.ejected.Load() {
		return false
	}
	switch c {
	case well:
		return h != model.Degraded
	case degraded:
		return h == model.Degraded
	}
	return true
}

// SetUnhealthy says what active health checks have found; the endpoint is unhealthy until it is said to be well again.
// From any goroutine.
func (e *Endpoint) SetUnhealthy(v bool) {
	if e.unhealthy.Swap(v) != v && e.cluster != nil {
		e.cool()
		e.cluster.Replan()
	}
}

// Unhealthy reports what active health checks have found.
func (e *Endpoint) Unhealthy() bool { return e.unhealthy.Load() }
