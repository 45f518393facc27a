package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// How important a request is, and whether the program beside us, or the chain, takes it (package admission).

// admitted is what an exchange has to do with its gate.
type admitted struct {
	ticket admission.Ticket
	gate   *admission.Gate // that was asked; nil: none
	class  model.Class
	said   bool // class was, by a proxy before us or by a rule
	// Bytes of bodies: paid for, and passed on while nobody has been given credit for them yet.
	spent                  int64
	owedClient, owedServer int
	pacer                  loop.Timer
}

// Values of tulle-class. A request that nobody has said anything about has none.
var (
	nameClass     = []byte(fieldClass)
	valuesOfClass = [...][]byte{model.ClassDefault: []byte("default"), model.ClassCritical: []byte("critical"), model.ClassBatch: []byte("batch")}
)

// believeClass takes the class that a proxy before us has given the request.
func (x *Exchange) believeClass(v []byte) {
	for c, text := range valuesOfClass {
		if string(v) == string(text) {
			x.class, x.said = model.Class(c), true
		}
	}
}

// classify gives a request that we are the first to see its class, by the rules of the port that is called.
func (x *Exchange) classify() {
	if x.said || x.origin.Destination == nil {
		return
	}
	if t := x.origin.Destination.Routes(); t != nil && len(t.Model.Classes) > 0 {
		x.class, x.said = t.Class(&x.head, x.origin.Source, uint32(x.w.random.Uint64()>>32))
	}
}

// tellClass tells the proxy in front of the endpoint.
func (x *Exchange) tellClass() {
	switch {
	case x.foreign():
		x.head.Remove(fieldClass)
	case !x.head.Has(fieldClass):
		x.head.Add(nameClass, valuesOfClass[x.class])
	}
}

// toll answers what bounds the program's own requests to where this one goes; nil: nothing does.
func (x *Exchange) toll() *admission.Gate {
	if t := x.origin.Destination.Routes(); t != nil && t.Model.Outbound != nil {
		return x.origin.Toll
	}
	return nil
}

// admit reports whether the request goes on. Otherwise it was refused, or waits: then it goes on, or is refused, later.
func (x *Exchange) admit() bool {
	g := x.origin.Gate
	if g == nil && x.origin.Toll != nil {
		g = x.toll()
	}
	if x.gate = g; g == nil {
		return true
	}
	q := admission.Question{Head: &x.head, Route: x.route, Caller: x.origin.Source, Address: x.origin.Remote.Addr(),
		Cluster: x.rec.Backend, Class: x.class, Said: x.said}
	if x.origin.HTTP != nil {
		q.Address, q.Random = x.caller.Addr(), uint32(x.w.random.Uint64()>>32)
	}
	switch g.Enter(&x.ticket, x.w.gates, &q) {
	case admission.Refused:
		x.answer(x.ticket.Reason)
		return false
	case admission.Waiting:
		return false
	}
	x.class, x.said = x.ticket.Class, x.ticket.Classed
	return true
}

// guest is Exchange as its ticket sees it.
type guest Exchange

// Admitted implements admission.Owner.
func (t *guest) Admitted() {
	x := (*Exchange)(t)
	x.busy++
	x.class, x.said = x.ticket.Class, x.ticket.Classed
	x.arrive()
	x.leave()
}

// Refused implements admission.Owner.
func (t *guest) Refused() {
	x := (*Exchange)(t)
	x.busy++
	x.answer(x.ticket.Reason)
	x.leave()
}

// served: the response's head is here. A server's errors say nothing about how long its work takes.
func (x *Exchange) served(h *message.Head) {
	x.ticket.Answered(h.Status >= 500)
	x.showLimits(h)
}

// showLimits tells the client how much of its limits is left.
func (x *Exchange) showLimits(h *message.Head) {
	if !x.ticket.Shown() {
		return
	}
	n := len(x.notes)
	x.notes = x.ticket.AppendPolicy(x.notes)
	h.Add(namePolicy, x.notes[n:len(x.notes):len(x.notes)])
	n = len(x.notes)
	x.notes = x.ticket.AppendState(x.notes)
	h.Add(nameLimit, x.notes[n:len(x.notes):len(x.notes)])
}

// tellLimits makes an answer of our own say what the gate has to say.
func (x *Exchange) tellLimits(h *message.Head, reason failure.Reason, grpc bool) {
	x.showLimits(h)
	if reason != failure.RateLimited || x.ticket.Reason != reason {
		return
	}
	if x.ticket.Status != 0 && !grpc {
		h.Status = x.ticket.Status
	}
	if x.ticket.Retry > 0 {
		n := len(x.notes)
		x.notes = x.ticket.AppendRetry(x.notes)
		h.Add(nameRetryAfter, x.notes[n:len(x.notes):len(x.notes)])
	}
	if x.origin.HTTP != nil {
		h.Add(nameRateLimited, valueTrue)
	}
}

// x-envoy-ratelimited is what Envoy says of requests that were refused so.
var (
	namePolicy      = []byte("ratelimit-policy")
	nameLimit       = []byte("ratelimit")
	nameRetryAfter  = []byte("retry-after")
	nameRateLimited = []byte("x-envoy-ratelimited")
)

// pace pays for n bytes that were passed on and reports whether whoever sent them may send more now; if not, he is owed
// credit for them and gets it when they are paid for.
func (x *Exchange) pace(n int, owed *int) bool {
	if !x.ticket.Metered() {
		return true
	}
	x.spent += int64(n)
	wait := x.ticket.Spend(n)
	if wait == 0 && *owed == 0 {
		return true
	}
	*owed += n
	x.w.cfg.Loop.Arm(&x.pacer, max(wait, loop.Tick))
	return false
}

// paced gives credit for what is paid for now.
func (x *Exchange) paced() {
	x.busy++
	up, down := x.owedServer, x.owedClient
	x.owedServer, x.owedClient = 0, 0
	if down > 0 && !x.finished {
		x.client.Consumed(down)
	}
	if up > 0 && !x.finished && x.stream != nil && !x.over {
		x.stream.Consumed(up)
	}
	x.leave()
}

// depart gives back what the gate has given.
func (x *Exchange) depart() {
	if x.ticket.Metered() {
		x.w.cfg.Loop.Disarm(&x.pacer)
		x.ticket.Spend(int(x.rec.RequestBytes + x.rec.ResponseBytes - x.spent))
	}
	x.ticket.Leave()
}
