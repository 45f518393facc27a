package exchange

import (
	"bytes"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Sharing with pages of other origins (WHATWG Fetch, section 3.2; Gateway API GEP-1767). The proxy tells browsers what they
// may do; it refuses nothing itself.

// shared is what is told about it.
type shared struct {
	on   bool   // the route has a policy
	from []byte // the request's origin, if the policy allows it
}

const (
	fieldOrigin           = "origin"
	fieldAllowPrefix      = "access-control-"
	fieldAskedHeaders     = "access-control-request-headers"
	fieldAskedMethod      = "access-control-request-method"
	fieldAllowOrigin      = "access-control-allow-origin"
	fieldAllowCredentials = "access-control-allow-credentials"
	fieldExposeHeaders    = "access-control-expose-headers"
)

var (
	nameAllowOrigin      = []byte(fieldAllowOrigin)
	nameAllowCredentials = []byte(fieldAllowCredentials)
	nameExposeHeaders    = []byte(fieldExposeHeaders)
	nameAllowMethods     = []byte("access-control-allow-methods")
	nameAllowHeaders     = []byte("access-control-allow-headers")
	nameMaxAge           = []byte("access-control-max-age")
	nameVary             = []byte("vary")
	valueOrigin          = []byte("Origin")
)

// share looks at who asks, and reports whether the request is a preflight that is answered here.
func (x *Exchange) share(r *router.Route) bool {
	x.shared.on = true
	if origin := x.head.Get(fieldOrigin); r.Allows(origin) {
		x.shared.from = origin
	}
	return (x.shared.from != nil || !r.CORS.Forward) && router.Preflight(&x.head)
}

// preflight answers what a browser asks before the request itself. One of an origin that is not allowed gets an answer
// without permission.
func (x *Exchange) preflight() {
	h := &x.w.reply.head
	h.Reset()
	h.Version, h.Status = message.HTTP11, 200
	if c := x.route.CORS; x.shared.from != nil {
		x.permit(h, nameAllowMethods, c.Methods, x.head.Get(fieldAskedMethod))
		x.permit(h, nameAllowHeaders, c.Headers, x.head.Get(fieldAskedHeaders))
		if c.MaxAge != 0 {
			n := len(x.notes)
			x.notes = strconv.AppendInt(x.notes, int64(max(c.MaxAge, 0)/time.Second), 10)
			h.Add(nameMaxAge, x.notes[n:len(x.notes):len(x.notes)])
		}
	}
	x.made(h, nil)
}

// permit adds a list. "*" alone means what was asked for where the request may carry credentials: browsers then take it for a
// name (Fetch, section 4.10).
func (x *Exchange) permit(h *message.Head, name []byte, list []string, asked []byte) {
	if len(list) == 0 {
		return
	}
	if x.route.CORS.Credentials && len(list) == 1 && list[0] == "*" {
		if len(asked) > 0 {
			h.Add(name, asked)
		}
		return
	}
	n := len(x.notes)
	for i, v := range list {
		if i > 0 {
			x.notes = append(x.notes, ", "...)
		}
		x.notes = append(x.notes, v...)
	}
	h.Add(name, x.notes[n:len(x.notes):len(x.notes)])
}

// tellShared says in a response whether pages of the request's origin may read it. What the backend has said about it is
// replaced; two answers would be none.
func (x *Exchange) tellShared(h *message.Head) {
	c := x.route.CORS
	if x.shared.from != nil || !c.Forward {
		keep := h.Fields[:0]
		for _, f := range h.Fields {
			if n := len(fieldAllowPrefix); len(f.Name) > n && message.EqualFold(f.Name[:n], fieldAllowPrefix) && (message.EqualFold(f.Name, fieldAllowOrigin) ||
				message.EqualFold(f.Name, fieldAllowCredentials) || message.EqualFold(f.Name, fieldExposeHeaders)) {
				continue
			}
			keep = append(keep, f)
		}
		h.Fields = keep
	}
	if !varies(h) {
		h.Add(nameVary, valueOrigin) // also of what has no origin: caches (Fetch, section 3.2.5)
	}
	if x.shared.from == nil {
		return
	}
	h.Add(nameAllowOrigin, x.shared.from)
	if c.Credentials {
		h.Add(nameAllowCredentials, valueTrue)
	}
	if e := c.Expose; x.own != ownPreflight && !(c.Credentials && len(e) == 1 && e[0] == "*") {
		x.permit(h, nameExposeHeaders, e, nil)
	}
}

// varies reports whether caches know already that the response depends on the origin.
func varies(h *message.Head) bool {
	for i := range h.Fields {
		if !message.EqualFold(h.Fields[i].Name, "vary") {
			continue
		}
		for rest := h.Fields[i].Value; len(rest) > 0; {
			var one []byte
			one, rest, _ = bytes.Cut(rest, comma)
			if one = bytes.TrimSpace(one); message.EqualFold(one, fieldOrigin) || string(one) == "*" {
				return true
			}
		}
	}
	return false
}

var comma = []byte{','}
