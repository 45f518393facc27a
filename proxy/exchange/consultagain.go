package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// What an external authorizer has let in and is open is asked about again: when policies change, and as often as the policy
// says. The question is the first one again. A few at a time are under way on a loop, so that many streams do not bury the
// authorizer. A stream ends when it is refused, when another authorizer has the last word by now, or when nobody has answered
// several times, unless the policy says that this lets in.

// Bounds of asking again.
const (
	mostAgain  = 32          // questions under way on a loop
	againTries = 3           // in a row without an answer
	againPause = time.Second // after the first of them, doubled after each
)

// again is an exchange that waits to be asked about; turn tells whether it is still the same.
type again struct {
	x    *Exchange
	turn uint64
}

// letIn remembers that the authorizer, or that nobody could ask it, has let the exchange in.
func (x *Exchange) letIn(said record.Word) {
	first := !x.asking.let
	d := x.word(said)
	if d.Policy == "" {
		d.Action, d.Policy, d.Rule = model.ActionExternal, d.External, d.ExternalRule
	}
	if first && said == record.Unanswered {
		x.origin.Policies.PassedUnheard(x.inquired(), d, x.rec.RequestID)
	}
	x.asking.let, x.asking.failed = true, 0
	if by := x.asking.by; by != nil && by.Again > 0 {
		x.askIn(by.Again)
	}
}

// askIn has it asked about again after d, by chance a tenth more or less.
func (x *Exchange) askIn(d time.Duration) {
	share := time.Duration(x.w.random.Uint64() >> 54) // of 1024
	x.w.cfg.Loop.Arm(&x.collectTimer, d-d/10+d/5*share/1024)
}

// judgeExternal looks at an exchange that the policies in force allow, v being what they say: who has the last word now?
func (x *Exchange) judgeExternal(r *policy.Rules, v *authz.Verdict) {
	c := &x.asking
	if v.External == nil {
		if c.let {
			x.w.cfg.Loop.Disarm(&x.collectTimer)
			c.rule, c.by, c.let = nil, nil, false
		}
		return
	}
	by := r.Authorizer(v.Authorizer)
	switch {
	case c.rule == nil: // nobody was asked about it until now
		c.let = true
	case by == nil || c.by == nil || by.Name != c.by.Name || by.Backend != c.by.Backend || by.HTTP != c.by.HTTP:
		x.object(record.NotAsked, "another authorizer has the last word by now, which has not seen the request")
		x.end(failure.AuthzDenied)
		return
	}
	c.rule, c.by = v.External, by
	if c.let {
		x.w.queue(x)
	}
}

// end revokes an exchange from within the review of its policies.
func (x *Exchange) end(why failure.Reason) {
	x.busy++
	x.revoke(why)
	x.leave()
}

// queue has an exchange asked about as soon as few enough questions are under way.
func (w *Worker) queue(x *Exchange) {
	if x.asking.queued {
		return
	}
	x.asking.queued = true
	w.toAsk = append(w.toAsk, again{x, x.turn})
	if !w.asksAgain {
		w.asksAgain = true
		w.cfg.Loop.Post(w.askNext)
	}
}

// askNext asks about those who wait, as far as there is room.
func (w *Worker) askNext() {
	w.asksAgain = false
	done := 0
	for ; done < len(w.toAsk) && w.underWay < mostAgain; done++ {
		if a := w.toAsk[done]; a.x.turn == a.turn && !a.x.finished {
			a.x.busy++
			a.x.asking.queued = false
			a.x.referAgain()
			a.x.leave()
		}
	}
	n := copy(w.toAsk, w.toAsk[done:])
	clear(w.toAsk[n:])
	w.toAsk = w.toAsk[:n]
}

// referAgain asks.
func (x *Exchange) referAgain() {
	c, w := &x.asking, x.w
	if c.by == nil || x.origin.Policies.Rules() == nil { // nobody has to be asked any more
		return
	}
	if w.cfg.Consult == nil {
		x.unheardAgain()
		return
	}
	if c.question == nil {
		c.question = x.consultation()
	}
	q, turn := *c.question, x.turn
	q.Authorizer, q.At = c.by, w.cfg.Loop.Wall()
	w.underWay++
	ok := w.cfg.Consult(&q, func(a *model.AuthorizerAnswer, err error) {
		w.cfg.Loop.Post(func() {
			w.underWay--
			w.askNext()
			if x.turn != turn || x.finished {
				return
			}
			x.busy++
			x.heardAgain(a, err)
			x.leave()
		})
	})
	if !ok {
		w.underWay--
		x.unheardAgain()
	}
}

// heardAgain does what the authorizer says about an exchange that is open. What it would change about the request has gone.
func (x *Exchange) heardAgain(a *model.AuthorizerAnswer, err error) {
	switch {
	case x.asking.by == nil: // nobody had to be asked after all
	case err != nil:
		x.unheardAgain()
	case a.Allowed:
		x.letIn(record.Agreed)
	default:
		x.asking.answer = a
		x.object(record.Objected, "")
		x.revoke(failure.AuthzDenied)
	}
}

// unheardAgain: nobody has answered. It is asked again soon, and in the end not let go on.
func (x *Exchange) unheardAgain() {
	c := &x.asking
	if c.by.FailOpen {
		x.letIn(record.Unanswered)
		return
	}
	if c.failed++; c.failed < againTries {
		x.askIn(againPause << (c.failed - 1))
		return
	}
	x.object(record.Unanswered, "")
	x.revoke(failure.AuthorizerUnavailable)
}
