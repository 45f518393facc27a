package exchange

import (
	"bytes"
	"strconv"
	"unsafe"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/model/urlpath"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// Whether the workload's policies allow the request (docs/design/security.md). What they look at is the verified certificate
// of the connection and the request as it will reach the program; it points into the exchange's memory and is not kept.

// authorize reports whether the request goes on. Otherwise it has been answered.
func (x *Exchange) authorize() bool {
	in := x.origin.Policies
	if in == nil {
		return true
	}
	if r := in.Rules(); r != nil {
		if r.HTTP(x.origin.Caller.Port) && x.seen == nil && !x.straighten() {
			x.answer(failure.BadRequest)
			return false
		}
		a := x.attributes(r.TrustedHops())
		v := r.Request(a, &x.rec.Decision, x.rec.RequestID)
		x.looked = r.Named(x.looked, a, x.origin.Tokens.Guard())
		x.rec.Named = x.looked
		if !v.Allowed {
			x.answer(failure.AuthzDenied)
			return false
		}
		if v.External != nil {
			x.w.let.Add((*admittee)(x)) // it may be refused while it waits for the answer, as well
			return x.consult(r, &v)
		}
	}
	x.w.let.Add((*admittee)(x))
	return true
}

// admittee is Exchange as policies see it that have changed while it is open.
type admittee Exchange

// Slot implements policy.Held.
func (h *admittee) Slot() *int { return &h.slot }

// Judge implements policy.Held.
func (h *admittee) Judge(r *policy.Rules) {
	x := (*Exchange)(h)
	if x.finished {
		return
	}
	if a := x.unproven(r); a.Reason != failure.None {
		x.disprove(&a)
		return
	}
	var d record.Decision
	v := r.Request(x.attributes(r.TrustedHops()), &d, x.rec.RequestID)
	if v.Allowed {
		x.judgeExternal(r, &v)
		return
	}
	x.rec.Decision = d
	x.end(failure.AuthzDenied)
}

// Review asks again about everything that is open, a bounded number of exchanges in each turn of the loop: the policies about what
// has come in, Config.Egress about what leads out of the mesh. What is not allowed any more ends; nothing else is touched.
func (w *Worker) Review(in *policy.InForce) {
	w.let.Review(w.cfg.Loop, in)
	w.out.Again(w.cfg.Loop)
}

// revoke ends an exchange that is not allowed any more: with an answer where none has begun, in a gRPC call with its trailer,
// otherwise by breaking it off.
func (x *Exchange) revoke(why failure.Reason) {
	if !x.begun || x.over || x.rec.Protocol != model.ProtocolGRPC || x.origin.HTTP != nil || len(x.held) > 0 {
		x.fail(why)
		return
	}
	x.endAttempt(why)
	x.reason, x.over = why, true
	x.rec.GRPC = why.GRPC()
	h := &x.w.reply.head
	h.Reset()
	h.Add([]byte("grpc-status"), strconv.AppendInt(nil, int64(x.rec.GRPC), 10))
	h.Add([]byte("grpc-message"), []byte("tulle: "+why.Log()))
	h.Add(nameReason, []byte(why.Label()))
	h.Add(nameRequest, x.rec.RequestID)
	x.client.Trailers(h)
	x.finish()
}

// attributes answers what is known about the request, valid until the next call on this loop. hops is how many proxies in front of
// published ports are believed.
func (x *Exchange) attributes(hops int) *authz.Attributes {
	w := x.w
	a := &w.asked
	*a = authz.Attributes{HTTP: true, Now: w.cfg.Loop.Wall().Unix(), Fields: (*facts)(x)}
	x.origin.Caller.Fill(a)
	if hops > 0 && x.origin.Publish {
		if from, ok := x.saidBy(hops); ok { // the last one is what we have written ourselves
			a.RemoteIP = from.Unmap()
		}
	}
	x.says(a)
	x.describe(a)
	return a
}

// describe says what is asked for.
func (x *Exchange) describe(a *authz.Attributes) {
	a.Method, a.Path = x.rec.Method, text(x.path())
	a.Host = text(x.w.plainHost(x.head.Authority))
	if len(a.Path) > 0 && a.Path[0] == '/' && grpcCall(&x.head) {
		a.Procedure = a.Path[1:]
	}
}

// straighten gives the request's path the one spelling that policies judge (model/urlpath), and sends on what was judged. false: it
// can be read in more than one way, and is refused. Where no policy in force looks at requests the path goes on as it came.
func (x *Exchange) straighten() bool {
	p, memory, fault := urlpath.Normalize(x.scratch, x.head.Target)
	x.scratch = memory
	if fault != urlpath.None {
		x.details = "path_refused"
		return false
	}
	if written := len(p.Seen) > 0 && len(x.head.Target) > 0 && &p.Seen[0] != &x.head.Target[0]; written {
		x.head.Target, p.Seen = x.note(p.Sent), x.note(p.Seen)
	}
	x.seen = p.Seen
	return true
}

// path answers the request's path as policies see it. That of a request which came before any policy looked at paths is judged
// as if it came now, and as it is where it would be refused.
func (x *Exchange) path() []byte {
	if x.seen == nil {
		p, memory, fault := urlpath.Normalize(x.scratch, x.head.Target)
		x.scratch = memory
		if fault != urlpath.None {
			p.Seen, _, _ = bytes.Cut(x.head.Target, question)
		}
		return p.Seen
	}
	return x.seen
}

// note copies p to memory that lasts as long as the exchange.
func (x *Exchange) note(p []byte) []byte {
	n := len(x.notes)
	x.notes = append(x.notes, p...)
	return x.notes[n:len(x.notes):len(x.notes)]
}

// plainHost answers a host in lower case, without a port and without the dot at the end of a full name.
func (w *Worker) plainHost(authority []byte) []byte {
	h := bytes.TrimSuffix(withoutPort(authority), dot)
	for i, c := range h {
		if c >= 'A' && c <= 'Z' {
			w.lower = append(w.lower[:0], h...)
			for j := i; j < len(h); j++ {
				if c := h[j]; c >= 'A' && c <= 'Z' {
					w.lower[j] = c + 'a' - 'A'
				}
			}
			return w.lower
		}
	}
	return h
}

var dot = []byte{'.'}

// grpcCall reports whether it is a gRPC call, also one of gRPC-Web.
func grpcCall(h *message.Head) bool {
	const t = "application/grpc"
	v := h.Get("content-type")
	return len(v) >= len(t) && message.EqualFold(v[:len(t)], t)
}

// facts is Exchange as conditions see it.
type facts Exchange

// Value implements authz.Fields.
func (f *facts) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	var v []byte
	ok := false
	switch h := &f.head; kind {
	case model.ConditionHeader:
		v, ok = f.field(h, name, i)
	case model.ConditionCookie:
		v, ok = nthCookie(h, name, i)
	case model.ConditionQuery:
		v, ok = f.w.parameter(h.Target, name, i)
	case model.ConditionClaim:
		return (*Exchange)(f).claim(name, i)
	}
	return text(v), ok
}

// field answers the i-th field called name. What the codec has taken out of the fields is looked up where it is.
func (f *facts) field(h *message.Head, name string, i int) ([]byte, bool) {
	switch name {
	case "host":
		return h.Authority, i == 0
	case "upgrade":
		return h.Upgrade, i == 0 && h.Upgrade != nil
	case "content-length":
		if i > 0 || h.ContentLength < 0 {
			return nil, false
		}
		f.w.number = strconv.AppendInt(f.w.number[:0], h.ContentLength, 10)
		return f.w.number, true
	}
	for j := range h.Fields {
		if message.EqualFold(h.Fields[j].Name, name) {
			if i == 0 {
				return h.Fields[j].Value, true
			}
			i--
		}
	}
	return nil, false
}

// nthCookie answers the i-th value of a cookie.
func nthCookie(h *message.Head, name string, i int) ([]byte, bool) {
	for j := range h.Fields {
		if !message.EqualFold(h.Fields[j].Name, "cookie") {
			continue
		}
		for rest := h.Fields[j].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			key, v, _ := bytes.Cut(bytes.TrimSpace(pair), equals)
			if string(key) != name {
				continue
			}
			if i > 0 {
				i--
				continue
			}
			if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
				v = v[1 : n-1]
			}
			return v, true
		}
	}
	return nil, false
}

// parameter answers the i-th value of a query parameter. Names and values are decoded as programs do (WHATWG URL,
// application/x-www-form-urlencoded), so that none gets by written in another way.
func (w *Worker) parameter(target []byte, name string, i int) ([]byte, bool) {
	_, rest, _ := bytes.Cut(target, question)
	for len(rest) > 0 {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		key, v, _ := bytes.Cut(pair, equals)
		if string(w.decode(key)) != name {
			continue
		}
		if i == 0 {
			return w.decode(v), true
		}
		i--
	}
	return nil, false
}

// decode answers p with its plus signs and percent-encodings resolved, valid until the next call.
func (w *Worker) decode(p []byte) []byte {
	if bytes.IndexByte(p, '%') < 0 && bytes.IndexByte(p, '+') < 0 {
		return p
	}
	w.decoded = w.decoded[:0]
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(p):
			if hexadecimal(p[i+1]) && hexadecimal(p[i+2]) {
				c = unhex(p[i+1])<<4 | unhex(p[i+2])
				i += 2
			}
		}
		w.decoded = append(w.decoded, c)
	}
	return w.decoded
}

func hexadecimal(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// text answers b as a string that changes when b does.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
