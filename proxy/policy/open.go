package policy

import "github.com/tulle-mesh/tulle/proxy/loop"

// Held is an exchange or a connection that was let in and is open.
type Held interface {
	// Judge asks r about it and ends it if it is not allowed any more. It may take itself, and nothing else, out of Open. r is nil
	// where something else than the workload's policies has changed (Open.Again).
	Judge(r *Rules)
	// Slot is memory of Open, 0 at first.
	Slot() *int
}

// Open is what one loop has let in, so that it can be asked about again. It belongs to its loop; the zero value is empty.
// Add and Remove cost a few instructions and allocate nothing in the steady state.
type Open struct {
	all  []Held
	next int // to be asked about: all before it
	busy bool
	turn func()
	in   *InForce // that is asked; nil: see Again
}

// perTurn is how many are asked about in one turn of a loop.
const perTurn = 128

// Add takes in what was just let in.
func (o *Open) Add(h Held) {
	o.all = append(o.all, h)
	*h.Slot() = len(o.all)
}

// Remove takes out what has ended. It does nothing to what is not there.
func (o *Open) Remove(h Held) {
	i := *h.Slot() - 1
	if i < 0 {
		return
	}
	*h.Slot() = 0
	last := len(o.all) - 1
	if i != last { // what is asked about from the end to the beginning is missed by nobody who moves to the front
		o.all[i] = o.all[last]
		*o.all[i].Slot() = i + 1
	}
	o.all[last] = nil
	o.all = o.all[:last]
}

// Len answers how many there are.
func (o *Open) Len() int { return len(o.all) }

// Review asks about everything that is open now, perTurn in each turn of l. Called again before that is over, it begins anew.
func (o *Open) Review(l loop.Loop, in *InForce) {
	if in != nil {
		o.review(l, in)
	}
}

// Again is Review of what the workload's policies say nothing about.
func (o *Open) Again(l loop.Loop) { o.review(l, nil) }

func (o *Open) review(l loop.Loop, in *InForce) {
	o.next, o.in = len(o.all), in
	if o.busy {
		return
	}
	o.busy = true
	if o.turn == nil {
		o.turn = func() { o.some(l) }
	}
	o.some(l)
}

func (o *Open) some(l loop.Loop) {
	r := o.in.Rules()
	if r == nil && o.in != nil { // everything is allowed
		o.next = 0
	}
	for n := 0; n < perTurn && o.next > 0; n++ {
		o.next = min(o.next, len(o.all)) - 1
		if o.next < 0 {
			break
		}
		o.all[o.next].Judge(r)
	}
	if o.next <= 0 || !l.Post(o.turn) {
		o.next, o.busy = 0, false
	}
}
