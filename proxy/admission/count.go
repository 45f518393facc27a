package admission

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Each tells what every limit has refused, and would have in its shadow, in the order of names.
func (g *Gate) Each(tell func(name string, refused, shadowed uint64)) {
	p := g.now.Load()
	type one struct {
		name              string
		refused, shadowed uint64
	}
	var all []one
	for key, s := range p.states {
		_, name, _ := strings.Cut(key, "\x00")
		name, _, _ = strings.Cut(name, "\x00")
		all = append(all, one{name, s.refused.Load(), s.shadowed.Load()})
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Compare(a.name, b.name) })
	for i, o := range all {
		if i+1 < len(all) && all[i+1].name == o.name { // of several routes
			all[i+1].refused += o.refused
			all[i+1].shadowed += o.shadowed
			continue
		}
		tell(o.name, o.refused, o.shadowed)
	}
}

// Keys answers how many buckets are kept by key.
func (g *Gate) Keys() (n int) {
	for _, s := range g.now.Load().states {
		if s.many != nil {
			n += s.many.len()
		}
	}
	return n
}

// Load is what a Gate has under way.
type Load struct {
	Connections int64
	Requests    int64 // at work; counted where they are bounded
	Limit       int64 // that was learned; 0: none is
	Waiting     int64
	Turned      uint64    // connections that were refused
	Shed        [3]uint64 // by model.Class
	Unanswered  uint64    // questions to a rate-limit service
}

// Load answers what is under way.
func (g *Gate) Load() Load {
	l := Load{Connections: g.conns.Load(), Requests: g.atWork.Load(), Waiting: g.slots.waiting(), Turned: g.turned.Load(), Unanswered: g.failures.Load()}
	if g.now.Load().adaptive != nil {
		l.Limit, l.Requests = g.slots.limit.Load(), max(l.Requests, g.slots.inflight.Load())
	}
	for c := range l.Shed {
		l.Shed[c] = g.shed[c].Load()
	}
	return l
}

// Limits reports whether anything is limited.
func (g *Gate) Limits() bool { return !g.now.Load().idle }

// classes are the labels of model.Class.
var classes = [...]string{model.ClassDefault: "default", model.ClassCritical: "critical", model.ClassBatch: "batch"}

// Tell tells one of telemetry's metrics about the gate, which is called at.
func (g *Gate) Tell(metric, at string, tell func(n float64, values ...string)) {
	l := g.Load()
	switch metric {
	case telemetry.RateLimited:
		g.Each(func(name string, refused, shadowed uint64) {
			if refused > 0 {
				tell(float64(refused), at, name, "false")
			}
			if shadowed > 0 {
				tell(float64(shadowed), at, name, "true")
			}
		})
	case telemetry.Shed:
		for c, n := range l.Shed {
			if n > 0 {
				tell(float64(n), at, classes[c])
			}
		}
	case telemetry.AtWork:
		if p := g.now.Load(); p.requests > 0 || p.adaptive != nil {
			tell(float64(l.Requests), at)
		}
	case telemetry.ConcurrencyLimit:
		if l.Limit > 0 {
			tell(float64(l.Limit), at)
		}
	}
}
