package exchange

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// What an external authorizer's answer changes: the request that the program gets, and the response that the client gets. Fields
// by which a program knows who asks are not the authorizer's to say.

// comply does what the authorizer says, and reports whether the request goes on.
func (x *Exchange) comply(a *model.AuthorizerAnswer, err error) bool {
	switch {
	case err != nil:
		return x.unheard()
	case !a.Allowed:
		x.asking.answer = a
		x.object(record.Objected, "")
		x.answer(failure.AuthzDenied)
		return false
	}
	for i := range a.Edits {
		if e := &a.Edits[i]; !x.ours(e.Name) {
			edit(&x.head, e, true)
		}
	}
	for _, name := range a.Remove {
		if !x.ours(name) {
			x.head.Remove(name)
		}
	}
	if len(a.SetQuery)+len(a.RemoveQuery) > 0 {
		x.requery(a.SetQuery, a.RemoveQuery)
	}
	x.asking.response = a.Response
	x.letIn(record.Agreed)
	return true
}

// ours reports whether a field of the request is what we tell the program about who asks: by peers' certificates, addresses and
// verified tokens.
func (x *Exchange) ours(name string) bool {
	b := []byte(name)
	if x.reserved(b) || message.Alias(b, fieldForwarded) || message.Alias(b, fieldProto) {
		return true
	}
	g := x.origin.Tokens.Guard()
	return g != nil && g.Tells(b)
}

// edit makes one change. first: it is the first of its name, and takes the place of what was there if it says so.
func edit(h *message.Head, e *model.FieldEdit, first bool) {
	there := h.Has(e.Name)
	switch {
	case e.How == model.FieldDefault && there, e.How == model.FieldReplace && !there:
		return
	case first && (e.How == model.FieldSet || e.How == model.FieldReplace):
		h.Remove(e.Name)
	}
	h.Add([]byte(e.Name), []byte(e.Value))
}

// dressFor changes a response's fields. Several of one name, such as cookies, count all.
func dressFor(h *message.Head, list []model.FieldEdit, grpc bool) {
	for i := range list {
		e := &list[i]
		if grpc && (e.Name == "content-type" || strings.HasPrefix(e.Name, "grpc-")) {
			continue
		}
		edit(h, e, !slices.ContainsFunc(list[:i], func(o model.FieldEdit) bool { return o.Name == e.Name }))
	}
}

// reword makes an answer of our own what the authorizer wants the client to get.
func (x *Exchange) reword(r *reply, grpc bool) {
	a, h := x.asking.answer, &r.head
	if grpc {
		if a.Status != 0 && a.Status != 403 {
			x.rec.GRPC = grpcOfStatus(a.Status)
			h.Remove("grpc-status")
			h.Add([]byte("grpc-status"), strconv.AppendInt(nil, int64(x.rec.GRPC), 10))
		}
	} else {
		if a.Status != 0 {
			h.Status = a.Status
		}
		if r.text = append(r.text[:0], a.Body...); h.Status == 204 || h.Status == 304 {
			r.text = r.text[:0]
		}
		h.Remove("content-type")
		h.ContentLength = int64(len(r.text))
	}
	dressFor(h, a.Response, grpc)
}

// requery changes parameters of the query: first those that are set, in the place of what was there, then those that are removed. Names
// are compared as programs read them; an authorizer's text that could end a parameter is escaped.
func (x *Exchange) requery(set []model.Header, remove []string) {
	path, rest, _ := bytes.Cut(x.head.Target, question)
	if len(path) == 0 || path[0] != '/' {
		return
	}
	gone := func(name string) bool { return slices.Contains(remove, name) }
	n, sep := len(x.notes), byte('?')
	x.notes = append(x.notes, path...)
	for len(rest) > 0 {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		key, _, _ := bytes.Cut(pair, equals)
		name := string(x.w.decode(key))
		if gone(name) || slices.ContainsFunc(set, func(p model.Header) bool { return p.Name == name }) {
			continue
		}
		x.notes = append(append(x.notes, sep), pair...)
		sep = '&'
	}
	for _, p := range set {
		if gone(p.Name) {
			continue
		}
		x.notes = appendParameter(append(x.notes, sep), p.Name)
		x.notes = appendParameter(append(x.notes, '='), p.Value)
		sep = '&'
	}
	x.head.Target = x.notes[n:len(x.notes):len(x.notes)]
}

// appendParameter writes a name or a value of a query. What is escaped already stays so, as Envoy has it.
func appendParameter(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		escaped := c == '%' && i+2 < len(s) && hexadecimal(s[i+1]) && hexadecimal(s[i+2])
		if escaped || unreserved(c) || strings.IndexByte("/?:@!$'()*,", c) >= 0 {
			b = append(b, c)
			continue
		}
		b = append(b, '%', digits[c>>4], digits[c&15])
	}
	return b
}
