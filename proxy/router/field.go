package router

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// field is one compiled model.FieldMatch.
type field struct {
	*model.FieldMatch
	name  string         // headers: in lower case
	regex *regexp.Regexp // nil: by value
}

// ignoreCase begins an expression that ignores case.
const ignoreCase = "(?i)"

func compileFields(in []model.FieldMatch, lower bool) ([]field, error) {
	out := make([]field, len(in))
	for i := range in {
		f := &in[i]
		out[i] = field{FieldMatch: f, name: f.Name}
		if lower {
			out[i].name = lowerASCII(f.Name)
		}
		if f.Regex {
			expr := f.Value
			if f.IgnoreCase {
				expr = ignoreCase + expr
			}
			re, err := anchored(expr)
			if err != nil {
				return nil, err
			}
			out[i].regex = re
		}
	}
	return out, nil
}

// inHeaders compares with the request's header of that name; several lines of one name are one value joined
// by commas (RFC 9110 section 5.3), and for convenience each line alone may match as well. Host is the
// authority: the codec has taken the field out. A field that is not there holds for nothing but an inverted FieldPresent.
func (f *field) inHeaders(h *message.Head) bool {
	if v, ok := f.special(h); ok {
		return f.holds(v) != f.Invert
	}
	n, held := 0, false
	for i := range h.Fields {
		if !message.EqualFold(h.Fields[i].Name, f.name) {
			continue
		}
		n++
		held = held || f.holds(h.Fields[i].Value)
	}
	if n == 0 {
		return f.Kind == model.FieldPresent && f.Invert
	}
	if !held && n > 1 {
		held = f.joinedHolds(h)
	}
	return held != f.Invert
}

// special answers what a request has in place of a field.
func (f *field) special(h *message.Head) (v []byte, ok bool) {
	if f.name == "host" {
		return h.Authority, true
	}
	if f.name == "" || f.name[0] != ':' {
		return nil, false
	}
	switch f.name {
	case ":authority":
		return h.Authority, true
	case ":method":
		return h.Method, true
	case ":path":
		return h.Target, true
	case ":scheme":
		return h.Scheme, true
	}
	return nil, false
}

// holds compares a value; Invert is the caller's.
func (f *field) holds(v []byte) bool {
	if f.regex != nil {
		return f.regex.Match(v)
	}
	return f.compare(v)
}

// compare is holds for what is no regular expression.
func (f *field) compare(v []byte) bool {
	n := len(f.Value)
	switch f.Kind {
	case model.FieldPresent:
		return true
	case model.FieldPrefix:
		return len(v) >= n && f.equal(v[:n])
	case model.FieldSuffix:
		return len(v) >= n && f.equal(v[len(v)-n:])
	case model.FieldContains:
		for i := 0; i+n <= len(v); i++ {
			if f.equal(v[i : i+n]) {
				return true
			}
		}
		return false
	case model.FieldRange:
		i, ok := integer(v)
		return ok && f.From <= i && i < f.To
	}
	return f.equal(v)
}

func (f *field) equal(v []byte) bool {
	if f.IgnoreCase {
		return foldEqual(v, f.Value)
	}
	return string(v) == f.Value
}

// foldEqual reports whether a and b are equal but for the case of ASCII letters.
func foldEqual(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// integer reads a whole decimal number of 64 bits.
func integer(v []byte) (n int64, ok bool) {
	neg := len(v) > 0 && v[0] == '-'
	if neg {
		v = v[1:]
	}
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	var u uint64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	switch {
	case neg && u <= 1<<63:
		return -int64(u), true
	case !neg && u < 1<<63:
		return int64(u), true
	}
	return 0, false
}

// joinedHolds compares the lines joined by "," or ", " without building the joined value. Of the kinds that look at a
// part of the value, what could span two lines is not looked for.
func (f *field) joinedHolds(h *message.Head) bool {
	if f.regex != nil {
		return f.regex.MatchReader(&joined{h: h, name: f.name})
	}
	if f.Kind != model.FieldValue || f.IgnoreCase {
		return false
	}
	rest, first := f.Value, true
	for i := range h.Fields {
		if !message.EqualFold(h.Fields[i].Name, f.name) {
			continue
		}
		if !first {
			if rest == "" || rest[0] != ',' {
				return false
			}
			rest = strings.TrimLeft(rest[1:], " ")
		}
		v := h.Fields[i].Value
		if len(rest) < len(v) || rest[:len(v)] != string(v) {
			return false
		}
		rest, first = rest[len(v):], false
	}
	return rest == ""
}

// inQuery compares with the first parameter of that name (Gateway API leaves the choice; the first is what
// most servers take).
func (f *field) inQuery(query []byte) bool {
	for len(query) > 0 {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		if len(pair) == 0 {
			continue
		}
		key, value, _ := bytes.Cut(pair, equals)
		if decodedEqual(key, f.name) {
			return f.parameterHolds(value) != f.Invert
		}
	}
	return f.Kind == model.FieldPresent && f.Invert
}

// parameterHolds compares a value that may be encoded.
func (f *field) parameterHolds(value []byte) bool {
	switch {
	case !encoded(value):
		return f.holds(value)
	case f.regex != nil:
		return f.regex.MatchReader(&decoder{in: value})
	case f.Kind == model.FieldValue && !f.IgnoreCase:
		return decodedEqual(value, f.Value)
	}
	var room [256]byte // of what is longer, the kinds below would have to allocate: it does not hold
	v := room[:0]
	for len(value) > 0 {
		c, n := next(value)
		if len(v) == len(room) {
			return f.Kind == model.FieldPresent
		}
		v, value = append(v, c), value[n:]
	}
	return f.compare(v)
}

var equals = []byte{'='}
