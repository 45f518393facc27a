package observe

import (
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// Recorder counts for one loop. Its methods are called on that loop only.
type Recorder struct {
	o       *Observer
	edges   map[edgeKey]*edge
	head    atomic.Pointer[edge] // of the list of all edges, newest first, for whoever reads
	recent  [16]*edge            // by edgeKey.slot: most requests are of a few edges, and hashing five strings is dear
	refused [maxReasons]atomic.Uint64

	mirrored atomic.Pointer[mirrored] // a list, newest first

	decisions *decisions // nil: they are not told
	flight    *flight    // nil: there is none

	byPolicy    map[decidedKey]*decided
	lastDecided *decided                // most are of one policy
	decidedHead atomic.Pointer[decided] // of the list of all, newest first
}

const maxReasons = 64

// Flow is one relayed connection that is being counted. The zero value is ready for Opened.
type Flow struct {
	e                 *edge
	request, response int64          // bytes counted so far
	verdict           record.Verdict // with which it was let in
}

// Done counts what ended: an exchange, or a whole TCP connection (r.TCP) for which Opened was not called. r is
// not kept.
func (c *Recorder) Done(r *record.Record) {
	if r.TCP {
		var f Flow
		c.Opened(r, &f)
		c.Closed(r, &f)
		return
	}
	if r.Mirror {
		c.mirror(r)
	} else {
		c.edge(r).done(r)
		if c.decisions != nil && r.Direction == record.Inbound {
			c.decisions.note(r)
		}
		c.decide(&r.Decision)
	}
	c.keep(r)
	if c.o.log.on.Load() {
		c.o.log.put(r)
	}
}

// Opened counts a relayed connection that begins. r names the edge: directions, names, protocol, mTLS.
func (c *Recorder) Opened(r *record.Record, f *Flow) {
	f.e = c.edge(r)
	add(&f.e.opened, 1)
	if c.decisions != nil && r.Direction == record.Inbound {
		c.decisions.note(r) // it may stay open for days
	}
	f.verdict = r.Decision.Verdict
	c.decide(&r.Decision)
}

// Moved counts bytes of a connection that goes on: how many have gone either way since it began.
func (f *Flow) Moved(request, response int64) {
	if request > f.request {
		add(&f.e.sent, uint64(request-f.request))
		f.request = request
	}
	if response > f.response {
		add(&f.e.received, uint64(response-f.response))
		f.response = response
	}
}

// Closed counts the end of a connection, with the bytes of r that Moved has not counted.
func (c *Recorder) Closed(r *record.Record, f *Flow) {
	if f.e == nil {
		c.Opened(r, f)
	}
	f.Moved(r.RequestBytes, r.ResponseBytes)
	add(&f.e.closed, 1)
	if r.Decision.Verdict != f.verdict { // it was let in and is not allowed any more
		c.decide(&r.Decision)
	}
	add(&f.e.outcome(0, -1, r.Reason).n, 1)
	if failed(r) {
		add(&f.e.failures, 1)
	}
	c.keep(r)
	if c.o.log.on.Load() {
		c.o.log.put(r)
	}
}

// keep puts r into the flight recorder.
func (c *Recorder) keep(r *record.Record) {
	if c.flight != nil {
		c.flight.note(r)
	}
}

// Refused counts a connection that was refused before there was a record of it.
func (c *Recorder) Refused(why failure.Reason) { add(&c.refused[int(why)%maxReasons], 1) }

// edge answers the edge that r belongs to.
func (c *Recorder) edge(r *record.Record) *edge {
	k := keyOf(r)
	slot := &c.recent[k.slot()%uint(len(c.recent))]
	if *slot != nil && (*slot).key == k {
		return *slot
	}
	e := c.edges[k]
	if e == nil {
		e = c.discover(k)
	}
	*slot = e
	return e
}

// discover makes the edge of k, or answers the one that stands for all others.
func (c *Recorder) discover(k edgeKey) *edge {
	if !c.o.admit(k) {
		c.o.overflow.Add(1)
		k = k.other()
		if e := c.edges[k]; e != nil {
			return e
		}
	}
	e := &edge{key: k, owner: c, next: c.head.Load()}
	c.edges[k] = e
	c.head.Store(e)
	return e
}

// add adds to a counter that only this goroutine writes: a plain store that readers see whole, cheaper than
// an atomic addition.
func add(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }
