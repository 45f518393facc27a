package exchange

import (
	"strconv"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Gone: the downstream's stream is broken. Nothing of the client is called any more but Finished, inside.
func (x *Exchange) Gone() {
	if x.finished {
		return
	}
	x.busy++
	x.reason = failure.DownstreamGone
	if x.rec.Status == 0 {
		x.rec.Status = failure.DownstreamGone.Status()
	}
	x.endAttempt(failure.DownstreamGone)
	x.finish()
	x.leave()
}

// GRPC reports whether the exchange is a gRPC call.
func (x *Exchange) GRPC() bool { return x.rec.Protocol == model.ProtocolGRPC }

// Break ends the exchange because what the client sends breaks HTTP after its head: with an answer if no response has
// begun, otherwise by breaking that off. The upstream never sees the end of the request.
func (x *Exchange) Break(reason failure.Reason) {
	if x.finished {
		return
	}
	x.busy++
	x.fail(reason)
	x.leave()
}

// fail ends an exchange that cannot succeed: with an answer of our own, or, when a response has begun, by breaking
// it off so that the client sees it is not complete.
func (x *Exchange) fail(reason failure.Reason) {
	if x.finished {
		return
	}
	x.endAttempt(reason)
	if !x.begun {
		x.answer(reason)
		return
	}
	x.reason = reason
	x.client.Abort(reason)
	x.finish()
}

// answer ends the exchange with a response made here, as the one table says.
func (x *Exchange) answer(reason failure.Reason) {
	x.endAttempt(reason)
	x.reason, x.begun, x.over = reason, true, true
	grpc := x.rec.Protocol == model.ProtocolGRPC
	if grpc {
		x.rec.GRPC = reason.GRPC()
	}
	r := &x.w.reply
	r.make(reason, x.rec.RequestID, grpc)
	if x.asking.answer != nil && reason == failure.AuthzDenied {
		x.reword(r, grpc)
	} else {
		dressFor(&r.head, x.asking.response, grpc)
	}
	if x.gate != nil {
		x.tellLimits(&r.head, reason, grpc)
	}
	x.tellSpent(&r.head)
	if !grpc {
		x.challenge(&r.head, reason)
	}
	if x.origin.HTTP != nil {
		if reason == failure.Overflow {
			r.head.Add(nameOverloaded, valueTrue)
		}
		x.dress(&r.head, true)
	}
	switch reason {
	case failure.FaultInjected:
		x.disguise(&r.head)
	case failure.PickRefused:
		x.quote(r, grpc)
	}
	x.present(&r.head, true)
	x.keepForLog(&r.head, false)
	if x.origin.HTTP != nil && x.rec.Method != "HEAD" {
		x.rec.ResponseBytes = int64(len(r.text))
	}
	x.rec.Status = r.head.Status
	if rest := r.send(x.client, x.rec.Method == "HEAD"); len(rest) > 0 && !x.finished {
		x.hold(rest, true) // its length has been stated; settle ends the exchange
		return
	}
	x.finish()
}

// x-envoy-overloaded tells clients, among them other proxies, that it was a circuit breaker.
var (
	nameOverloaded = []byte("x-envoy-overloaded")
	valueTrue      = []byte("true")
)

// reply is an answer made by the proxy, kept for reuse.
type reply struct {
	head message.Head
	text []byte
}

// make makes the answer; one to a gRPC client has no body.
func (r *reply) make(reason failure.Reason, id []byte, grpc bool) {
	h := &r.head
	h.Reset()
	h.Version = message.HTTP11
	if grpc {
		h.Status = 200
		h.Add([]byte("content-type"), []byte("application/grpc"))
		h.Add([]byte("grpc-status"), strconv.AppendInt(nil, int64(reason.GRPC()), 10))
		h.Add([]byte("grpc-message"), []byte("tulle: "+reason.Log()))
	} else {
		h.Status = reason.Status()
		h.Add([]byte("content-type"), []byte("text/plain; charset=utf-8"))
	}
	h.Add(nameReason, []byte(reason.Label()))
	if len(id) > 0 {
		h.Add(nameRequest, id)
	}
	r.text = r.text[:0]
	if grpc {
		return
	}
	r.text = append(append(append(append(r.text, "tulle: "...), reason.Log()...), " ("+reason.Label()+")"...), '\n')
	h.ContentLength = int64(len(r.text))
}

// send sends the answer and tells what of its body the client does not take now.
func (r *reply) send(c Client, head bool) (rest []byte) {
	head = head || len(r.text) == 0
	c.Head(&r.head, head)
	if head {
		return nil
	}
	return r.text[c.Data(r.text, true):]
}

// finish ends the exchange: what it held is given back and the record handed on.
func (x *Exchange) finish() {
	if x.finished {
		return
	}
	x.finished = true
	x.endAttempt(x.reason)
	x.leaveFamily()
	x.w.let.Remove((*admittee)(x))
	x.w.out.Remove((*leaver)(x))
	x.leavePicker()
	x.turn++
	x.w.cfg.Loop.Disarm(&x.collectTimer)
	x.w.cfg.Loop.Disarm(&x.requestTimer)
	x.w.cfg.Loop.Disarm(&x.quietTimer)
	x.stopWaiting()
	x.letGo()
	if x.gate != nil {
		x.depart()
	}
	x.rec.End = x.w.cfg.Loop.Now()
	x.rec.Reason = x.reason.Label()
	x.w.cfg.Observer.Done(&x.rec)
	x.log()
	x.client.Finished()
}

// Refuse answers what never became an exchange, because it could not be read, and records it.
func (w *Worker) Refuse(o *Origin, client Client, reason failure.Reason) {
	x := w.get()
	x.busy++
	l := w.cfg.Loop
	x.belong(o, client)
	x.head.Reset()
	x.head.Version = message.HTTP11
	x.rec.Reset()
	x.rec.Direction, x.rec.Start, x.rec.Wall = o.Direction, l.Now(), l.Wall()
	x.rec.MTLS, x.rec.Source, x.rec.SourceID, x.rec.From = o.MTLS, o.Source, o.SourceID, o.Remote.Addr()
	x.rec.Destination, x.rec.Port, x.rec.Wanted = o.Service.Service, o.Service.Port, o.Wanted
	x.rec.Protocol, x.rec.RequestID = model.ProtocolHTTP, x.newID()
	x.answer(reason)
	x.finish() // whatever the client has taken: its connection, or stream, ends
	x.leave()
}
