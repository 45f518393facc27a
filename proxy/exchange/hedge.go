package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// Hedging: when no response head has come for a while, the request is sent to another endpoint as well, and the first
// head that comes wins (J. Dean, L. Barroso, "The Tail at Scale", 2013). The other attempts are cancelled then.

// mostHedged is how many attempts may be under way at once, whatever a policy says.
const mostHedged = 8

// armHedge starts the clock for another attempt beside the present ones.
func (x *Exchange) armHedge() {
	h := x.route.Hedge
	if x.upgrade || x.cluster == nil || x.shadow.on || x.dropped > 0 || x.underWay() >= hedgedMost(h) || !x.repeatable() {
		return
	}
	if d, ok := x.hedgeAfter(h); ok {
		x.w.cfg.Loop.Arm(&x.pause, d)
	}
}

// hedgedMost answers how many attempts may be under way at once.
func hedgedMost(h *model.Hedge) int {
	if h.Most == 0 {
		return 2
	}
	return int(min(h.Most, mostHedged))
}

// hedgeAfter answers after what time without a head another attempt is made; ok is false while too little is known.
func (x *Exchange) hedgeAfter(h *model.Hedge) (d time.Duration, ok bool) {
	d = h.After
	if h.Quantile > 0 {
		q, known := x.cluster.Times().Quantile(x.w.cfg.Loop.Now(), h.Quantile)
		if !known {
			return 0, false
		}
		d = max(d, q)
	}
	return d, d > 0
}

// underWay answers how many attempts are.
func (x *Exchange) underWay() int {
	n := 1
	for t := x.rivals; t != nil; t = t.beside {
		n++
	}
	return n
}

// hedge makes another attempt beside those that are under way.
func (x *Exchange) hedge() {
	if x.finished || !x.canHedge() {
		return
	}
	may, held := x.mayRepeat(false)
	if !may {
		return
	}
	t := x.w.spare()
	t.x, t.again = x, held
	x.try.beside, x.rivals = x.rivals, x.try
	x.try = t
	x.attempt()
}

func (x *Exchange) canHedge() bool {
	return x.route != nil && x.route.Hedge != nil && x.cluster != nil && x.canRepeat() && x.nth > 0 && x.underWay() < hedgedMost(x.route.Hedge)
}

// prefer makes t the current try.
func (x *Exchange) prefer(t *try) {
	if t == x.try {
		return
	}
	for p := &x.rivals; *p != nil; p = &(*p).beside {
		if *p == t {
			*p, t.beside = t.beside, nil
			break
		}
	}
	x.try.beside, x.rivals = x.rivals, x.try
	x.try = t
}

// drop ends the current try and goes on with a rival, which may be given the connection that becomes free.
func (x *Exchange) drop(reason failure.Reason, waste bool) {
	over := x.try
	x.try = x.rivals
	x.rivals, x.try.beside = x.try.beside, nil
	x.endTry(over, reason, waste)
	x.bury(over)
}

// endRivals ends all tries but the current one.
func (x *Exchange) endRivals(reason failure.Reason) {
	for t := x.rivals; t != nil; t = t.beside {
		x.w.cfg.Pool.Leave(&t.wait) // else one would be given what another lets go of
	}
	for t := x.rivals; t != nil; t = x.rivals {
		x.rivals, t.beside = t.beside, nil
		x.endTry(t, reason, false)
		x.bury(t)
	}
}

// won ends the other attempts when one has answered.
func (x *Exchange) won() {
	l := x.w.cfg.Loop
	l.Disarm(&x.pause)
	if h := x.route.Hedge; h.Quantile > 0 && x.cluster != nil && x.reason == failure.None {
		x.cluster.Times().Add(l.Now(), l.Now()-x.since)
	}
	if x.rivals != nil {
		x.endRivals(failure.Outrun)
		x.rec.DestinationID = x.target.Identity
	}
}

// settleOn ends all tries but the one that has taken the most of the request: the others could not get all of it any more.
func (x *Exchange) settleOn() {
	best := x.try
	for t := x.rivals; t != nil; t = t.beside {
		if t.sent > best.sent {
			best = t
		}
	}
	x.prefer(best)
	x.endRivals(failure.Outrun)
}

// bury keeps a try that is over until nobody is inside the exchange any more: its stream's connection may be.
func (x *Exchange) bury(t *try) {
	t.clear()
	if t != &x.first {
		t.beside, x.dead = x.dead, t
	}
}

// spare answers a try that is not used.
func (w *Worker) spare() *try {
	t := w.tries
	if t == nil {
		t = &try{}
		t.ready()
		return t
	}
	w.tries, t.beside = t.beside, nil
	return t
}

// reclaim takes back the tries of an exchange that is over, but its first one.
func (w *Worker) reclaim(x *Exchange) {
	if x.try != &x.first {
		x.bury(x.try)
		x.try = &x.first
	}
	for t := x.dead; t != nil; t = x.dead {
		x.dead = t.beside
		t.x, t.beside = nil, w.tries
		w.tries = t
	}
	x.try.clear()
}
