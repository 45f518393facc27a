package exchange

import (
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// receiver is a try as the upstream's stream sees it.
type receiver try

// Head implements upstream.Receiver.
func (r *receiver) Head(h *message.Head, end bool) {
	t := (*try)(r)
	x := t.x
	if x.finished {
		return
	}
	x.busy++
	defer x.leave()
	h.Close, t.stale = false, false
	x.stir()
	if h.Status < 200 && h.Status != 101 {
		if x.rivals == nil {
			x.client.Head(h, false)
		}
		return
	}
	x.prefer(t)
	x.stripResponse(h)
	if x.againElsewhere(h) {
		return
	}
	x.begin(h, end)
}

// tunnelling reports whether a response accepts to switch protocols.
func (x *Exchange) tunnelling(h *message.Head) bool {
	return x.upgrade && (h.Status == 101 || h.Status/100 == 2 && x.rec.Method == "CONNECT")
}

// begin sends the response's final head on. From here on nothing is tried again.
func (x *Exchange) begin(h *message.Head, end bool) {
	x.w.cfg.Loop.Disarm(&x.timer)
	if x.route != nil && x.route.Hedge != nil {
		x.won()
	}
	tunnel := x.tunnelling(h)
	if why := x.switched(h, tunnel); why != failure.None {
		x.fail(why)
		return
	}
	x.begun, x.over, x.tunnel = true, end, tunnel
	x.rec.Head, x.rec.Status = x.w.cfg.Loop.Now(), h.Status
	x.noteGRPC(h)
	x.responded(h.Status)
	if x.picked != nil {
		x.tellPicker(h.Status)
	}
	if x.gate != nil {
		x.served(h)
	}
	x.takeReport(h)
	if x.route != nil {
		x.filterResponse(h)
	}
	if x.origin.HTTP != nil {
		x.dress(h, false)
	}
	dressFor(h, x.asking.response, x.GRPC())
	x.present(h, false)
	x.tellSpent(h)
	x.keepForLog(h, false)
	if x.upgrade && !x.tunnel {
		x.declined(h)
	}
	if x.tunnel {
		x.w.cfg.Loop.Disarm(&x.requestTimer)
		if x.until > 0 {
			x.w.cfg.Loop.Arm(&x.requestTimer, max(x.until-x.w.cfg.Loop.Now(), 0))
		}
	}
	x.client.Head(h, end)
	if x.finished {
		return
	}
	x.forget()
	x.pump()
	x.settle()
}

// switched completes a switch of protocols, or says why it, or its refusal, cannot be told to the client.
func (x *Exchange) switched(h *message.Head, tunnel bool) failure.Reason {
	switch {
	case tunnel && h.Status == 101:
		return x.shaken(h)
	case x.native && !tunnel && h.Status/100 == 2:
		return failure.UpgradeDeclined // as it is, it would accept (RFC 8441 section 4)
	}
	return failure.None
}

// declined: the upstream answers an offer to switch with an ordinary response, so no more of a request follows.
func (x *Exchange) declined(h *message.Head) {
	x.upgrade, x.ended = false, true
	x.w.buffers.Put(x.body)
	x.body, x.sent = nil, 0
	x.markDeclined(h)
}

// Data implements upstream.Receiver.
func (r *receiver) Data(p []byte, end bool) {
	x := (*try)(r).x
	if x.finished {
		return
	}
	x.busy++
	x.stir()
	x.rec.ResponseBytes += int64(len(p))
	x.over = end
	if len(x.held) > 0 { // in order, behind what the client has not taken
		x.hold(p, end)
	} else if n := x.client.Data(p, end); !x.finished {
		x.passed(n)
		if n < len(p) {
			x.hold(p[n:], end)
		}
	}
	x.settle()
	x.leave()
}

// hold keeps what the client does not take now. It is bounded by the window of the upstream's stream.
func (x *Exchange) hold(p []byte, end bool) {
	x.held = x.w.buffers.Append(x.held, p)
	x.heldEnds = end
}

// passed gives the upstream credit for what the client has taken.
func (x *Exchange) passed(n int) {
	if n > 0 && x.stream != nil && !x.over {
		if x.gate == nil || x.pace(n, &x.owedServer) {
			x.stream.Consumed(n)
		}
	}
}

// Trailers implements upstream.Receiver.
func (r *receiver) Trailers(h *message.Head) {
	x := (*try)(r).x
	if x.finished {
		return
	}
	x.busy++
	x.stir()
	x.over = true
	x.noteGRPC(h)
	x.takeReport(h)
	if x.foreign() {
		x.cleanseTrailers(h)
	}
	x.keepForLog(h, true)
	if len(x.held) > 0 {
		x.earena = h.CloneInto(&x.ending, x.earena)
		x.heldTrails = true
	} else {
		x.client.Trailers(h)
	}
	x.settle()
	x.leave()
}

// Failed implements upstream.Receiver.
func (r *receiver) Failed(reason failure.Reason, cause error) {
	x := (*try)(r).x
	if x.finished {
		return
	}
	x.busy++
	x.prefer((*try)(r))
	if x.over { // only the rest of the request was lost
		x.endSent = true
		x.endAttempt(failure.None)
		x.settle()
	} else {
		x.attemptFailed(reason)
	}
	x.leave()
}

// Writable implements upstream.Receiver.
func (r *receiver) Writable() {
	x := (*try)(r).x
	if x.finished {
		return
	}
	x.busy++
	x.pump()
	x.leave()
}

// Writable: Client.Data takes more.
func (x *Exchange) Writable() {
	if x.finished || len(x.held)+len(x.web.wait) == 0 {
		return
	}
	x.busy++
	x.stir()
	if len(x.web.wait) > 0 && (*webClient)(x).flush() && len(x.held) == 0 {
		x.settle()
	}
	if x.finished || len(x.held) == 0 {
		x.leave()
		return
	}
	n := x.client.Data(x.held, x.heldEnds)
	if !x.finished && n > 0 {
		x.held = x.held[:copy(x.held, x.held[n:])]
		x.passed(n)
		if len(x.held) == 0 {
			x.w.buffers.Put(x.held)
			x.held = nil
			if x.heldTrails {
				x.heldTrails = false
				x.client.Trailers(&x.ending)
			}
			x.settle()
		}
	}
	x.leave()
}

// settle ends what is complete: the attempt, once its response is here and its request has gone out, so that its connection
// can serve another; the exchange, once the client has the response. A tunnel needs both directions.
func (x *Exchange) settle() {
	switch {
	case x.finished || !x.begun:
		return
	case x.tunnel && x.over != x.endSent:
		if !x.requestTimer.Armed() {
			x.w.cfg.Loop.Arm(&x.requestTimer, tunnelLinger)
		}
		return
	case !x.over:
		return
	}
	if x.endSent && x.stream != nil {
		x.endAttempt(failure.None)
	}
	if len(x.held)+len(x.web.wait) == 0 {
		x.finish()
	}
}
