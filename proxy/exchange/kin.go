package exchange

import (
	"bytes"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/grpc"
	"github.com/tulle-mesh/tulle/proxy/kin"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// What proxies tell each other about the chain of requests that one belongs to (docs/design/traffic.md): how much time is
// left, which attempt it is, and, in responses, how many attempts it has caused. Through a program it is joined by package kin.

// family is what an exchange has to do with others.
type family struct {
	chain    kin.Said      // by the caller's proxy; of a program's own request: what was said with the one that it is made for
	timeLeft time.Duration // as the caller's proxy has told; valid if timed
	timed    bool
	parent   kin.Parent
	child    kin.Child
	opened   bool // parent is in the table
}

const (
	fieldTimeout = "tulle-timeout"
	fieldAttempt = "tulle-attempt"
	fieldSpent   = "tulle-spent"
	fieldTrace   = "traceparent"
)

var (
	nameLeft    = []byte(fieldTimeout)
	nameAttempt = []byte(fieldAttempt)
	nameSpent   = []byte(fieldSpent)
	spentHops   = []byte(";hops=")
)

// grace is how much longer than its caller a proxy waits before it ends a request by what the caller has told: the caller
// is to be the first, so that it knows what became of its attempt.
const grace = 25 * time.Millisecond

// heed takes what the caller's proxy has said of the chain.
func (x *Exchange) heed(f message.Field) {
	switch {
	case message.EqualFold(f.Name, fieldTimeout):
		x.timeLeft, x.timed = grpc.ParseTimeout(f.Value)
	case message.EqualFold(f.Name, fieldAttempt):
		if n, err := strconv.ParseUint(string(f.Value), 10, 31); err == nil && n > 1 {
			x.chain.Again, x.rec.Nth = true, int(n)
		}
	}
}

// inherit finds the request that the program makes this one for: its deadline holds for this one as well.
func (x *Exchange) inherit(id, trace []byte) {
	t := x.w.cfg.Kin
	if t == nil || x.origin.Direction != record.Outbound || x.origin.HTTP != nil || len(id) == 0 && len(trace) == 0 {
		return
	}
	if said, ok := t.Join(&x.child, t.Names(id, trace), x, x.turn); ok {
		x.chain = said
		if said.Classed {
			x.class, x.said = said.Class, true
		}
	}
}

// limitFamily applies the deadline of the chain.
func (x *Exchange) limitFamily() {
	at := x.chain.Deadline
	switch {
	case x.timed:
		at = x.rec.Start + min(x.timeLeft, longTime)
		x.limit(at+grace-x.rec.Start, failure.Deadline)
		x.chain.Deadline = at
	case at != 0:
		x.limit(at-x.rec.Start, failure.Deadline)
	default:
		return
	}
	if x.deadline == 0 || at < x.deadline {
		x.deadline = at
	}
	if !x.timed && (x.expires == 0 || at < x.expires) {
		x.expires = at
	}
}

// longTime is what a longer time is taken for, so that sums do not overflow.
const longTime = 10 * 365 * 24 * time.Hour

// arrive starts a request, unless nobody waits for it any more.
func (x *Exchange) arrive() {
	if d := x.chain.Deadline; d != 0 && d <= x.w.cfg.Loop.Now() {
		x.answer(failure.Deadline)
		return
	}
	x.openFamily()
	x.start()
}

// openFamily enters a request for the program, so that those that the program makes for it are found.
func (x *Exchange) openFamily() {
	t := x.w.cfg.Kin
	if t == nil || x.origin.Direction != record.Inbound || x.origin.HTTP != nil {
		return
	}
	said := x.chain
	said.Class, said.Classed = x.class, x.said
	if said.Deadline = x.deadline; x.deadline == 0 {
		said.Deadline = x.ends
	}
	x.opened = true
	t.Open(&x.parent, t.Names(x.rec.RequestID, x.head.Get(fieldTrace)), said)
}

// leaveFamily ends what openFamily and inherit began.
func (x *Exchange) leaveFamily() {
	if x.opened {
		x.opened = false
		x.w.cfg.Kin.Close(&x.parent, abandoned(x.reason))
	}
	if x.w.cfg.Kin != nil {
		x.w.cfg.Kin.Leave(&x.child)
	}
}

// forgetFamily makes the exchange ready for its next use.
func (x *Exchange) forgetFamily() {
	x.chain, x.timeLeft, x.timed = kin.Said{}, 0, false
}

// abandoned reports whether a request that ended for this reason has ended without anybody waiting for it.
func abandoned(reason failure.Reason) bool {
	switch reason {
	case failure.DownstreamGone, failure.CallerGone, failure.Deadline, failure.RequestTimeout, failure.StreamDuration, failure.IdleTimeout:
		return true
	}
	return false
}

// Orphaned implements kin.Owner. It may be called from any goroutine.
func (x *Exchange) Orphaned(turn uint64) {
	x.w.cfg.Loop.Post(func() {
		if x.turn != turn || x.finished {
			return
		}
		x.busy++
		x.fail(failure.CallerGone)
		x.leave()
	})
}

// inform tells the next proxy how much time is left and which attempt this is.
func (x *Exchange) inform() {
	if x.ends > 0 && !x.upgrade {
		n := len(x.notes)
		x.notes = grpc.AppendTimeout(x.notes, x.remaining())
		x.tell(nameLeft, x.notes[n:len(x.notes):len(x.notes)])
	}
	nth := x.count
	if nth == 1 && x.chain.Again {
		nth = max(x.rec.Nth, 2)
	}
	if nth > 1 {
		n := len(x.notes)
		x.notes = strconv.AppendInt(x.notes, int64(nth), 10)
		x.tell(nameAttempt, x.notes[n:len(x.notes):len(x.notes)])
	}
}

// remaining answers how much of the request's time is left.
func (x *Exchange) remaining() time.Duration {
	ends := x.ends
	if x.deadline != 0 {
		ends = min(ends, x.deadline)
	}
	return max(ends-x.w.cfg.Loop.Now(), 0)
}

// tell sets a field that only one attempt has so.
func (x *Exchange) tell(name, value []byte) {
	if x.count > 1 {
		for i := range x.head.Fields {
			if f := &x.head.Fields[i]; len(f.Name) == len(name) && string(f.Name) == string(name) {
				f.Value = value
				return
			}
		}
	}
	x.head.Add(name, value)
}

// counts reports whether the cluster's attempts are counted for the callers of this workload.
func (x *Exchange) counts() bool {
	return x.w.cfg.Spent != nil && x.origin.Direction == record.Outbound && x.origin.HTTP == nil
}

// noteSpent remembers what a request to the cluster has come to, for the callers of this workload.
func (x *Exchange) noteSpent() {
	if x.counts() {
		now := x.w.cfg.Loop.Now()
		n, hops := x.cluster.Amplification(now)
		x.w.cfg.Spent.Note(now, n, hops)
	}
}

// What is believed of another proxy's attempts: more is no measurement, and would end its callers' retries.
const (
	mostSpent = 64 * retry.One
	mostHops  = 64
)

// heardSpent takes what the endpoint's proxy has said about attempts below it.
func (x *Exchange) heardSpent(v []byte) {
	n, hops, ok := bytes.Cut(v, spentHops)
	spent, err := strconv.ParseUint(string(n), 10, 31)
	away, err2 := strconv.ParseUint(string(hops), 10, 31)
	if ok && err == nil && err2 == nil && spent <= mostSpent && away <= mostHops {
		x.cluster.Budget().Below(x.w.cfg.Loop.Now(), int64(spent), int64(away))
		x.noteSpent()
	}
}

// tellSpent tells the caller's proxy how many attempts a request causes below this workload.
func (x *Exchange) tellSpent(h *message.Head) {
	s := x.w.cfg.Spent
	if s == nil || !x.origin.Mesh {
		return
	}
	if n, hops := s.Now(x.w.cfg.Loop.Now()); n > retry.One {
		x.w.spent = append(strconv.AppendInt(x.w.spent[:0], n, 10), spentHops...)
		x.w.spent = strconv.AppendInt(x.w.spent, hops, 10)
		h.Add(nameSpent, x.w.spent)
	}
}
