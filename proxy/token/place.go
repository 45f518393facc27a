package token

import (
	"bytes"
	"slices"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Where in a request a token may be.

// each calls f for every token at a place.
func each(p *model.TokenPlace, h *message.Head, f func(raw []byte)) {
	switch {
	case p.Header != "":
		for i := range h.Fields {
			if v := behind(p, &h.Fields[i]); len(v) > 0 {
				f(v)
			}
		}
	case p.Query != "":
		_, rest, _ := bytes.Cut(h.Target, question)
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, ampersand)
			if name, v, _ := bytes.Cut(pair, equals); len(v) > 0 && decodes(name, p.Query) {
				f(v)
			}
		}
	case p.Cookie != "":
		for i := range h.Fields {
			if !message.EqualFold(h.Fields[i].Name, "cookie") {
				continue
			}
			for rest := h.Fields[i].Value; len(rest) > 0; {
				var pair []byte
				pair, rest, _ = bytes.Cut(rest, semicolon)
				if v := crumb(p, pair); len(v) > 0 {
					f(v)
				}
			}
		}
	}
}

var (
	question  = []byte{'?'}
	ampersand = []byte{'&'}
	equals    = []byte{'='}
	semicolon = []byte{';'}
)

// behind answers what a field says behind the prefix of a place, nil where it is another field or begins otherwise.
func behind(p *model.TokenPlace, f *message.Field) []byte {
	if p.Header == "" || !message.EqualFold(f.Name, p.Header) || len(f.Value) < len(p.Prefix) {
		return nil
	}
	for i := range len(p.Prefix) {
		if lower(f.Value[i]) != lower(p.Prefix[i]) {
			return nil
		}
	}
	return bytes.Trim(f.Value[len(p.Prefix):], " \t")
}

// crumb answers the value of one pair of a cookie field, nil where it has another name.
func crumb(p *model.TokenPlace, pair []byte) []byte {
	name, v, _ := bytes.Cut(bytes.TrimSpace(pair), equals)
	if string(name) != p.Cookie {
		return nil
	}
	if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
		v = v[1 : n-1]
	}
	return v
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// decodes reports whether a name in a query stands for want, percent-encoded or not: programs decode it.
func decodes(name []byte, want string) bool {
	n := 0
	for i := 0; i < len(name); i, n = i+1, n+1 {
		c := name[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(name) {
			hi, lo := digit(name[i+1]), digit(name[i+2])
			if hi < 16 && lo < 16 {
				c, i = hi<<4|lo, i+2
			}
		}
		if n >= len(want) || want[n] != c {
			return false
		}
	}
	return n == len(want)
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case lower(c) >= 'a' && lower(c) <= 'f':
		return lower(c) - 'a' + 10
	}
	return 16
}

// places reports whether a token is where this issuer's are looked for.
func (i *issuer) places(h *message.Head, raw []byte) (found bool) {
	for p := range i.model.From {
		each(&i.model.From[p], h, func(v []byte) { found = found || bytes.Equal(v, raw) })
	}
	return found
}

// strip takes this issuer's tokens out of a request. What is written anew is in scratch, which is answered.
func (i *issuer) strip(h *message.Head, scratch []byte) []byte {
	for k := range i.model.From {
		p := &i.model.From[k]
		switch {
		case p.Header != "":
			h.Fields = slices.DeleteFunc(h.Fields, func(f message.Field) bool { return len(behind(p, &f)) > 0 })
		case p.Query != "":
			scratch = stripQuery(p, h, scratch)
		case p.Cookie != "":
			scratch = stripCookie(p, h, scratch)
		}
	}
	return scratch
}

func stripQuery(p *model.TokenPlace, h *message.Head, scratch []byte) []byte {
	path, rest, asked := bytes.Cut(h.Target, question)
	if !asked {
		return scratch
	}
	start := len(scratch)
	scratch = append(scratch, path...)
	sep, taken := byte('?'), false
	for len(rest) > 0 {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		if name, _, _ := bytes.Cut(pair, equals); decodes(name, p.Query) {
			taken = true
			continue
		}
		scratch = append(append(scratch, sep), pair...)
		sep = '&'
	}
	if !taken {
		return scratch[:start]
	}
	h.Target = scratch[start:len(scratch):len(scratch)]
	return scratch
}

func stripCookie(p *model.TokenPlace, h *message.Head, scratch []byte) []byte {
	for i := range h.Fields {
		f := &h.Fields[i]
		if !message.EqualFold(f.Name, "cookie") {
			continue
		}
		start, taken := len(scratch), false
		for rest := f.Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			pair = bytes.TrimSpace(pair)
			if name, _, _ := bytes.Cut(pair, equals); string(name) == p.Cookie {
				taken = true
				continue
			}
			if len(scratch) > start {
				scratch = append(scratch, "; "...)
			}
			scratch = append(scratch, pair...)
		}
		if !taken {
			scratch = scratch[:start]
			continue
		}
		f.Value = scratch[start:len(scratch):len(scratch)]
	}
	h.Fields = slices.DeleteFunc(h.Fields, func(f message.Field) bool { return len(f.Value) == 0 && message.EqualFold(f.Name, "cookie") })
	return scratch
}

// redacted stands for a token in what is recorded.
const redacted = "redacted"

// jwt is how nearly all tokens begin: an object with a name in quotes, in base64url.
var jwt = []byte("eyJ")

// Redact answers a request's target as it may be recorded: without the values of the parameters where tokens are looked for, and of
// others that look like one. g may be nil. What is written anew is in scratch, which is answered, grown.
func (g *Guard) Redact(target, scratch []byte) (told, memory []byte) {
	path, rest, asked := bytes.Cut(target, question)
	if !asked || !bytes.Contains(rest, jwt) && !g.queries() {
		return target, scratch
	}
	start, sep := len(scratch), byte('?')
	scratch = append(scratch, path...)
	for len(rest) > 0 {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		name, v, _ := bytes.Cut(pair, equals)
		scratch = append(scratch, sep)
		if sep = '&'; len(v) > 0 && (bytes.Contains(v, jwt) || g.secretQuery(name)) {
			scratch = append(append(append(scratch, name...), '='), redacted...)
			continue
		}
		scratch = append(scratch, pair...)
	}
	return scratch[start:len(scratch):len(scratch)], scratch
}

// queries reports whether tokens are looked for in queries.
func (g *Guard) queries() bool {
	return g.anywhere(func(p *model.TokenPlace) bool { return p.Query != "" })
}

func (g *Guard) secretQuery(name []byte) bool {
	return g.anywhere(func(p *model.TokenPlace) bool { return p.Query != "" && decodes(name, p.Query) })
}

// Secret reports whether tokens are looked for in a field, parameter or cookie: its values are not recorded. g may be nil.
func (g *Guard) Secret(kind model.ConditionKind, name string) bool {
	return g.anywhere(func(p *model.TokenPlace) bool {
		return kind == model.ConditionHeader && p.Header != "" && p.Header == name || kind == model.ConditionQuery && p.Query != "" && p.Query == name ||
			kind == model.ConditionCookie && p.Cookie != "" && p.Cookie == name
	})
}

// anywhere reports whether is holds for one of the places.
func (g *Guard) anywhere(is func(p *model.TokenPlace) bool) bool {
	if g == nil {
		return false
	}
	for _, i := range g.issuers {
		for p := range i.model.From {
			if is(&i.model.From[p]) {
				return true
			}
		}
	}
	return false
}
