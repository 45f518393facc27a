package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/grpc"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// gRPC-Web clients (model.HTTP.GRPCWeb) are bridged: the upstream sees gRPC, the client its trailers as the last frame of
// the body, and base64 where it asks for it. webClient stands between the exchange and the client.

// web is the state of the bridge.
type web struct {
	on, text bool // the request: is gRPC-Web; its body is base64
	textOut  bool // the response's is
	client   Client
	dec      grpc.TextDecoder
	plain    []byte // of the request, for one call
	wait     []byte // of the response, not yet taken by the client
	ends     bool   // wait is its end
}

// bridge makes a gRPC request of a gRPC-Web one.
func (x *Exchange) bridge() {
	var accept []byte
	at := -1
	for i := range x.head.Fields {
		switch f := &x.head.Fields[i]; {
		case message.EqualFold(f.Name, "content-type"):
			at = i
		case message.EqualFold(f.Name, "accept"):
			accept = f.Value
		}
	}
	if at < 0 {
		return
	}
	t := grpc.ParseWeb(x.head.Fields[at].Value)
	if !t.On {
		return
	}
	x.web.on, x.web.text = true, t.Text
	x.web.textOut = t.Text
	if a := grpc.ParseWeb(accept); a.On {
		x.web.textOut = a.Text
	}
	n := len(x.notes)
	x.notes = t.AppendPlain(x.notes)
	x.head.Fields[at].Value = x.notes[n:len(x.notes):len(x.notes)]
	if t.Text {
		x.head.ContentLength = message.NoLength
	}
	x.head.Trailers = true
	x.rec.Protocol = model.ProtocolGRPC
	x.version = message.HTTP2 // gRPC knows no other
	x.web.client, x.client = x.client, (*webClient)(x)
}

// unweb decodes a piece of the request's body; ok is false when that has ended the exchange.
func (x *Exchange) unweb(p []byte, end bool) (out []byte, ok bool) {
	out, err := x.web.dec.Append(x.web.plain[:0], p)
	x.web.plain = reusable(out)
	if err != nil || end && !x.web.dec.End() {
		x.fail(failure.BadRequest)
		return nil, false
	}
	if n := len(p) - len(out); n > 0 {
		x.web.client.Consumed(n) // what base64 adds is not held by anybody
	}
	return out, true
}

// webClient is Exchange as a Client of itself.
type webClient Exchange

// Head implements Client.
func (t *webClient) Head(h *message.Head, end bool) {
	if h.Status < 200 {
		t.web.client.Head(h, end)
		return
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; message.EqualFold(f.Name, "content-type") {
			n := len(t.notes)
			t.notes = grpc.AppendWeb(t.notes, f.Value, t.web.textOut)
			f.Value = t.notes[n:len(t.notes):len(t.notes)]
		}
	}
	if !end {
		h.ContentLength = message.NoLength
		h.Remove("trailer") // there will be none
	}
	t.web.client.Head(h, end)
}

// Data implements Client.
func (t *webClient) Data(p []byte, end bool) int {
	if !t.web.textOut && len(t.web.wait) == 0 {
		return t.web.client.Data(p, end)
	}
	if len(t.web.wait) > 0 && !t.flush() {
		return 0
	}
	if !t.web.textOut {
		return t.web.client.Data(p, end)
	}
	t.web.ends = end
	t.web.wait = grpc.AppendText(t.web.wait, p)
	t.flush()
	return len(p)
}

// Trailers implements Client.
func (t *webClient) Trailers(h *message.Head) {
	n := len(t.notes)
	t.notes = grpc.AppendTrailers(t.notes, h)
	frame := t.notes[n:]
	if t.web.textOut {
		t.web.wait = grpc.AppendText(t.web.wait, frame)
	} else {
		t.web.wait = append(t.web.wait, frame...)
	}
	t.web.ends = true
	t.flush()
}

// flush gives the client what waits, and reports whether it has taken all of it.
func (t *webClient) flush() bool {
	w := &t.web
	n := w.client.Data(w.wait, w.ends)
	if n < len(w.wait) {
		w.wait = w.wait[:copy(w.wait, w.wait[n:])]
		return false
	}
	w.wait = w.wait[:0]
	return true
}

// Consumed implements Client.
func (t *webClient) Consumed(n int) { t.web.client.Consumed(n) }

// Abort implements Client.
func (t *webClient) Abort(reason failure.Reason) { t.web.client.Abort(reason) }

// Finished implements Client.
func (t *webClient) Finished() { t.web.client.Finished() }
