package exchange

import "github.com/tulle-mesh/tulle/proxy/message"

// Request bodies. What has come from the client is in x.body, behind x.dropped bytes that are gone; the current
// stream has taken x.sent of it. As long as the body fits into Config.Replay and no response has begun, all of it is
// kept for another attempt; afterwards bytes pass by. The client gets credit for bytes only when a stream
// has taken them, so what is held is bounded by the downstream's window.

// Data gives bytes of the request's body. All are taken; Client.Consumed says when they have been passed on.
func (x *Exchange) Data(p []byte, end bool) {
	if x.finished {
		return
	}
	x.busy++
	x.stir()
	x.rec.RequestBytes += int64(len(p))
	if x.web.text {
		var ok bool
		if p, ok = x.unweb(p, end); !ok {
			x.leave()
			return
		}
	}
	if x.ended = end; end {
		x.whole = x.stirred
	}
	if len(x.copies) > 0 {
		x.copyBody(p, end)
	}
	if x.begun || x.shadow.on || len(x.body)+len(p) > x.w.cfg.Replay {
		x.forget()
	}
	if len(x.body) == 0 && x.stream != nil && (x.begun || x.dropped > 0) && !x.shut() {
		p = x.passBy(p)
	}
	if len(p) > 0 {
		x.body = x.w.buffers.Append(x.body, p)
	}
	if x.asking.waits {
		x.collect(len(p))
	}
	x.pump()
	x.leave()
}

// passBy gives p to the stream without keeping it and answers what it did not take.
func (x *Exchange) passBy(p []byte) []byte {
	n := x.stream.Data(p, x.ended)
	x.dropped += int64(n)
	if n == len(p) {
		x.endSent = x.ended
	}
	x.credit()
	return p[n:]
}

// Trailers ends the request with trailers.
func (x *Exchange) Trailers(h *message.Head) {
	if x.finished {
		return
	}
	x.busy++
	x.tarena = h.CloneInto(&x.trailers, x.tarena)
	x.cleanseTrailers(&x.trailers)
	x.ended, x.hasTrailers = true, true
	x.stir()
	x.whole = x.stirred
	if len(x.copies) > 0 {
		x.copyTrailers()
	}
	if x.asking.waits {
		x.collect(0)
	}
	x.pump()
	x.leave()
}

// forget drops what the current stream has taken; the request cannot be sent again then.
func (x *Exchange) forget() {
	if x.rivals != nil {
		x.settleOn()
	}
	if x.sent == 0 {
		return
	}
	x.dropped += int64(x.sent)
	x.body = x.body[:copy(x.body, x.body[x.sent:])]
	x.sent = 0
	if len(x.body) == 0 {
		x.w.buffers.Put(x.body)
		x.body = nil
	}
}

// shut reports whether the bytes have to wait: what follows an offer to switch protocols goes through only after the switch.
func (x *Exchange) shut() bool { return x.upgrade && !x.tunnel }

// pump gives the stream what it takes of the request.
func (x *Exchange) pump() {
	if x.rivals != nil {
		x.pumpRivals()
	}
	if x.stream == nil || x.shut() {
		if x.gathers {
			x.gathered()
		}
		return
	}
	if x.endSent {
		x.settle()
		return
	}
	if !x.feed(x.try) {
		if !x.finished {
			x.credit()
		}
		return
	}
	x.credit()
	if x.begun || x.shadow.on {
		x.forget()
	}
	x.settle()
}

// pumpRivals does that for the attempts beside the current one. A stream may fail while it is given something, and with it its
// attempt: then the list is another one.
func (x *Exchange) pumpRivals() {
	var all [mostHedged]*try
	n := 0
	for t := x.rivals; t != nil && n < len(all); t = t.beside {
		all[n] = t
		n++
	}
	for _, t := range all[:n] {
		if t != x.try && t.stream != nil && !t.endSent {
			x.feed(t)
		}
	}
}

// feed gives one stream what it takes of the request, and reports whether that was all there is. The stream may fail meanwhile.
func (x *Exchange) feed(t *try) bool {
	s := t.stream
	for t.sent < len(x.body) {
		n := s.Data(x.body[t.sent:], x.ended && !x.hasTrailers)
		if t.stream != s {
			return false
		}
		t.sent += n
		if n == 0 {
			return false
		}
		t.endSent = t.sent == len(x.body) && x.ended && !x.hasTrailers
	}
	if x.ended && !t.endSent {
		t.endSent = true
		if x.hasTrailers {
			s.Trailers(&x.trailers)
		} else {
			s.Data(nil, true)
		}
	}
	return t.stream == s
}

// credit tells the client what has been passed on.
func (x *Exchange) credit() {
	sent := x.sent
	for t := x.rivals; t != nil; t = t.beside {
		sent = max(sent, t.sent)
	}
	if n := x.dropped + int64(sent) - x.credited; n > 0 {
		x.credited += n
		if x.gate == nil || x.pace(int(n), &x.owedClient) {
			x.client.Consumed(int(n))
		}
	}
}
