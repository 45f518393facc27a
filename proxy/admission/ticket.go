package admission

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/limit"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Outcome is what becomes of a request.
type Outcome uint8

// Outcomes.
const (
	Admitted Outcome = iota
	Refused          // Ticket.Reason says why
	Waiting          // Owner.Admitted or Owner.Refused is called later, on the loop, unless Leave is
)

// Owner is who has a Ticket.
type Owner interface {
	Admitted()
	Refused()
}

// most of a request's limits that are remembered.
const (
	maxShown = 4
	maxBytes = 2
)

// Ticket is one request on its way through a Gate. It is embedded in its owner and reused; its zero value with Owner is
// ready for Gate.Enter. It belongs to its loop.
type Ticket struct {
	Owner Owner

	// Of a refusal.
	Reason failure.Reason
	Status int           // instead of the reason's; 0: the reason's
	Retry  time.Duration // when it would be let through, where a limit tells its callers; 0: not said

	// Class is what the request was admitted with, and Classed whether somebody has said so.
	Class   model.Class
	Classed bool

	gate   *Gate
	prog   *program
	loop   *Loop
	began  time.Duration // its work
	slot   bool          // counted by gate.slots,
	work   bool          // by gate.atWork
	paused bool          // waits for bytes
	waiter limit.Waiter
	tenant uint64 // a hash, where one may have to wait for a turn
	ask    *ask
	timer  loop.Timer
	shown  [maxShown]shown
	nshown int
	bytes  [maxBytes]flow
	nbytes int
}

// flow is a limit of bytes and the bucket that the request's bodies take from.
type flow struct {
	rule   *rule
	bucket *bucket
}

// taken says of which limits a request has taken, by their place among those that it meets: what is given back if a later one
// refuses it.
type taken [(maxRules + 63) / 64]uint64

func (t *taken) note(i int)     { t[i/64] |= 1 << (i % 64) }
func (t *taken) has(i int) bool { return t[i/64]&(1<<(i%64)) != 0 }

// Enter asks whether a request may begin. It is the story of one: its class, its limits of rate (nobody else's are
// touched if one of them refuses), other services that are asked, bytes that are owed, and its turn among those at work.
func (g *Gate) Enter(t *Ticket, l *Loop, q *Question) Outcome {
	p := g.program()
	t.Class, t.Classed = p.class(q)
	if p.idle {
		return Admitted
	}
	t.gate, t.prog, t.loop = g, p, l
	if p.fair {
		t.tenant = g.hash(p.tenant, q)
	}
	own := p.rulesFor(q)
	now := l.loop.Now()
	var back taken
	n := -1
	for _, list := range [2][]*rule{own, p.all} {
		for _, r := range list {
			if n++; !r.holds(q) || replaced(r, own, p) {
				continue
			}
			switch {
			case r.ask != nil:
				t.question(r, q)
			case r.Bytes:
				t.meter(r, g.bucketOf(r, q))
			default:
				b := g.bucketOf(r, q)
				if b.take(r.rate, now, 1) {
					back.note(n)
					t.show(r, b, now)
					continue
				}
				t.show(r, b, now)
				if r.note(); r.Shadow {
					continue
				}
				g.refund(&back, q, own, p.all)
				return t.refuse(r, r.rate.Wait(b.state.Load(), now, 1))
			}
		}
	}
	if t.ask != nil {
		return t.send()
	}
	return t.owed()
}

// refund gives back what a request has taken.
func (g *Gate) refund(back *taken, q *Question, lists ...[]*rule) {
	n := -1
	for _, list := range lists {
		for _, r := range list {
			if n++; back.has(n) {
				g.bucketOf(r, q).refund(r.rate, 1)
			}
		}
	}
}

// replaced reports whether r is of all requests and one of the route's own has its name: then that one counts.
func replaced(r *rule, own []*rule, p *program) bool {
	if len(own) == 0 || len(p.all) == 0 {
		return false
	}
	for _, o := range own {
		if o == r {
			return false
		}
	}
	for _, o := range own {
		if o.Name == r.Name {
			return true
		}
	}
	return false
}

// refuse notes why.
func (t *Ticket) refuse(r *rule, wait time.Duration) Outcome {
	t.Reason, t.Status = failure.RateLimited, r.Status
	if r.Headers {
		t.Retry = max(wait, 1)
	}
	return Refused
}

// meter notes that the request's bodies are paid for from b.
func (t *Ticket) meter(r *rule, b *bucket) {
	if t.nbytes < maxBytes {
		t.bytes[t.nbytes] = flow{r, b}
		t.nbytes++
	}
}

// owed goes on when the bytes that others have had are paid for: at once, after at most the limit's window, or not.
func (t *Ticket) owed() Outcome {
	now, wait := t.loop.loop.Now(), time.Duration(0)
	for _, f := range t.bytes[:t.nbytes] {
		w := f.rule.rate.Wait(f.bucket.state.Load(), now, 0)
		if w > f.rule.rate.Window() {
			if f.rule.note(); !f.rule.Shadow {
				t.show(f.rule, f.bucket, now)
				return t.refuse(f.rule, w)
			}
			continue
		}
		if !f.rule.Shadow {
			wait = max(wait, w)
		}
	}
	if wait == 0 {
		return t.turn()
	}
	t.paused, t.timer.Expired = true, t.paid
	t.loop.loop.Arm(&t.timer, wait)
	return Waiting
}

// paid: what was owed may have come back.
func (t *Ticket) paid() {
	t.paused = false
	t.tell(t.owed())
}

// tell passes on what has become of a request that waited.
func (t *Ticket) tell(o Outcome) {
	switch o {
	case Admitted:
		t.Owner.Admitted()
	case Refused:
		t.Owner.Refused()
	}
}

// Spend takes n bytes of a body from the request's limits, and answers how long no more should come.
func (t *Ticket) Spend(n int) (wait time.Duration) {
	if t.nbytes == 0 || n <= 0 {
		return 0
	}
	now := t.loop.loop.Now()
	for _, f := range t.bytes[:t.nbytes] {
		if w := f.bucket.spend(f.rule.rate, now, uint32(n)); !f.rule.Shadow {
			wait = max(wait, w)
		}
	}
	return wait
}

// Metered reports whether bytes of bodies are limited.
func (t *Ticket) Metered() bool { return t.nbytes > 0 }

// turn gets the request its place among those at work.
func (t *Ticket) turn() Outcome {
	g, p := t.gate, t.prog
	if p.requests > 0 && !t.takeWork() {
		return t.shed()
	}
	if p.adaptive == nil {
		return Admitted
	}
	now := t.loop.loop.Now()
	if !(p.fair && g.slots.before(t.Class)) && g.slots.take(t.Class, now) {
		t.slot, t.began = true, now
		return Admitted
	}
	if p.adaptive.Queue <= 0 {
		return t.shed()
	}
	return t.line()
}

func (t *Ticket) takeWork() bool {
	most := int64(limit.ShareFixed(t.Class, t.prog.requests))
	if t.gate.atWork.Add(1) > most {
		t.gate.atWork.Add(-1)
		return false
	}
	t.work = true
	return true
}

// shed sends the request away.
func (t *Ticket) shed() Outcome {
	t.gate.shed[t.Class%3].Add(1)
	t.Reason, t.Status = failure.Shed, 0
	return Refused
}

// Answered: the response's head is there, or there will be none (failed: the workload has failed). Who is next
// may begin.
func (t *Ticket) Answered(failed bool) {
	if !t.slot {
		return
	}
	t.slot = false
	t.gate.slots.give(t.began, t.loop.loop.Now(), failed)
}

// Leave ends the request, at whatever stage. Calling it again does nothing.
func (t *Ticket) Leave() {
	if t.gate == nil {
		return
	}
	if t.paused {
		t.paused = false
		t.loop.loop.Disarm(&t.timer)
	}
	if a := t.ask; a != nil {
		t.ask, a.ticket = nil, nil
	}
	if t.waiter.Waiting() {
		t.loop.lanes[t.gate].remove(t)
	}
	t.Answered(true)
	if t.work {
		t.work = false
		t.gate.atWork.Add(-1)
	}
	t.gate, t.prog = nil, nil
	t.nshown, t.nbytes = 0, 0
	t.Reason, t.Status, t.Retry = failure.None, 0, 0
}
