package cluster

import (
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
)

// tally is what is counted of an endpoint whose cluster looks for outliers (model.Outlier); other endpoints have none. All
// loops write it, one goroutine (Cluster.Watch) reads it and decides. Envoy documents what counts as what: outlier
// detection, "Locally originated vs externally originated events".
type tally struct {
	rates   [health.Rates]rate
	fives   atomic.Uint32 // responses of 5xx in a row
	gateway atomic.Uint32 // of 502, 503 and 504
	local   atomic.Uint32 // failures on our side
	tripped atomic.Uint32 // bits: health.Why that has come to its threshold
	spent   atomic.Uint64 // nanoseconds that answers took together
	answers atomic.Uint64 // how many
}

type rate struct{ total, good atomic.Uint64 }

// Answered says that the endpoint has answered a request with a status of HTTP.
func (e *Endpoint) Answered(status int) {
	if t := e.tally.Load(); t != nil {
		t.answered(e, status)
	}
}

// Reached says that a request has a connection to the endpoint.
func (e *Endpoint) Reached() {
	if t := e.tally.Load(); t != nil {
		t.reached(e, false)
	}
}

// Relayed says that a connection to the endpoint stands that is not asked for anything more: Reached and a good answer.
func (e *Endpoint) Relayed() {
	if t := e.tally.Load(); t != nil {
		t.reached(e, true)
	}
}

// Missed says that the endpoint has not answered: there was no connection, it broke, or it took too long (late).
func (e *Endpoint) Missed(late bool) {
	if t := e.tally.Load(); t != nil {
		t.missed(e, late)
	}
}

// outlier answers the settings in force, nil: none.
func (e *Endpoint) outlier() *model.Outlier { return e.cluster.model.Load().Outlier }

func (t *tally) answered(e *Endpoint, status int) {
	o := e.outlier()
	if o == nil {
		return
	}
	t.rates[health.External].total.Add(1)
	if status < 500 || status > 599 {
		t.rates[health.External].good.Add(1)
		zero(&t.fives)
		zero(&t.gateway)
		return
	}
	if status < 502 || status > 504 {
		zero(&t.gateway)
	} else {
		t.more(e, &t.gateway, o.ConsecutiveGateway, health.ConsecutiveGateway)
	}
	t.more(e, &t.fives, o.Consecutive5xx, health.Consecutive5xx)
}

func (t *tally) reached(e *Endpoint, final bool) {
	o := e.outlier()
	switch {
	case o == nil:
	case o.SplitLocal:
		t.rates[health.Local].total.Add(1)
		t.rates[health.Local].good.Add(1)
		zero(&t.local)
	case final:
		t.answered(e, 200)
	}
}

func (t *tally) missed(e *Endpoint, late bool) {
	o := e.outlier()
	switch {
	case o == nil:
	case o.SplitLocal:
		t.rates[health.Local].total.Add(1)
		t.more(e, &t.local, o.ConsecutiveLocal, health.ConsecutiveLocal)
	case late:
		t.answered(e, 504)
	default:
		t.answered(e, 503)
	}
}

// zero writes only if that changes something: loops share the line.
func zero(n *atomic.Uint32) {
	if n.Load() != 0 {
		n.Store(0)
	}
}

// more counts one more failure in a row and tells whoever watches, once, when they are too many. A threshold may have been
// lowered below what was counted.
func (t *tally) more(e *Endpoint, row *atomic.Uint32, most uint32, why health.Why) {
	if n := row.Add(1); most > 0 && n >= most && t.tripped.Or(1<<why)>>why&1 == 0 {
		e.cluster.nudge()
	}
}

// Tripped answers whether the endpoint has failed so often in a row, since the last call, that why holds. It then begins
// to count anew. For who watches.
func (e *Endpoint) Tripped(why health.Why) bool {
	t := e.tally.Load()
	if t == nil || t.tripped.Load()>>why&1 == 0 {
		return false
	}
	t.row(why).Store(0) // first: more failures may come between
	t.tripped.And(^(uint32(1) << why))
	return true
}

// Forgive forgets all failures in a row. For who watches.
func (e *Endpoint) Forgive() {
	if t := e.tally.Load(); t != nil {
		for why := range health.ConsecutiveLocal + 1 {
			t.row(why).Store(0)
		}
		t.tripped.Store(0)
	}
}

func (t *tally) row(why health.Why) *atomic.Uint32 {
	return [...]*atomic.Uint32{&t.fives, &t.gateway, &t.local}[why]
}

// TakeRates answers what was counted since the last call. For who watches.
func (e *Endpoint) TakeRates() (out [health.Rates]health.Rate) {
	if t := e.tally.Load(); t != nil {
		for i := range t.rates {
			out[i].Good = t.rates[i].good.Swap(0) // first: a request may come between
			out[i].Total = max(t.rates[i].total.Swap(0), out[i].Good)
		}
	}
	return out
}

// keepTally gives endpoints what their cluster's settings want counted.
func keepTally(all []*Endpoint, m *model.Cluster) {
	for _, e := range all {
		switch has := e.tally.Load() != nil; {
		case m.Outlier != nil && !has:
			e.tally.Store(&tally{})
		case m.Outlier == nil && has:
			e.tally.Store(nil)
		}
	}
}

// Watch answers what becomes readable when the cluster has other settings or endpoints, or an endpoint has tripped. There
// is one watcher at most.
func (c *Cluster) Watch() <-chan struct{} {
	if c.watch.Load() == nil {
		w := make(chan struct{}, 1)
		c.watch.CompareAndSwap(nil, &w)
	}
	return *c.watch.Load()
}

func (c *Cluster) nudge() {
	if w := c.watch.Load(); w != nil {
		select {
		case *w <- struct{}{}:
		default:
		}
	}
}
