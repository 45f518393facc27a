package router

import (
	"bytes"
	"math/bits"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

func (r *Route) matches(h *message.Head, path, query []byte) bool {
	m := &r.Match
	if m.Method != "" && string(h.Method) != m.Method {
		return false
	}
	if !r.pathMatches(path) {
		return false
	}
	for i := range r.headers {
		if !r.headers[i].inHeaders(h) {
			return false
		}
	}
	for i := range r.query {
		if !r.query[i].inQuery(query) {
			return false
		}
	}
	return true
}

func (r *Route) pathMatches(path []byte) bool {
	switch r.Match.PathKind {
	case model.PathExact:
		return string(path) == r.Match.Path
	case model.PathRegex:
		return r.path.Match(path)
	}
	return underPrefix(path, r.prefix)
}

// underPrefix reports whether path starts with the whole path elements of prefix, which has no trailing
// slash: "/a" holds for "/a", "/a/" and "/a/b" but not for "/ab".
func underPrefix(path []byte, prefix string) bool {
	if len(path) < len(prefix) || string(path[:len(prefix)]) != prefix {
		return false
	}
	return len(path) == len(prefix) || prefix == "" || path[len(prefix)] == '/'
}

// inHeaders compares with the request's header of that name; several lines of one name are one value joined
// by commas (RFC 9110 section 5.3), and for convenience each line alone may match as well. Host is the
// authority: the codec has taken the field out.
func (f *field) inHeaders(h *message.Head) bool {
	if f.name == "host" {
		return f.holds(h.Authority)
	}
	n := 0
	for i := range h.Fields {
		if !message.EqualFold(h.Fields[i].Name, f.name) {
			continue
		}
		n++
		if f.holds(h.Fields[i].Value) {
			return true
		}
	}
	return n > 1 && f.joinedHolds(h)
}

func (f *field) holds(v []byte) bool {
	if f.regex != nil {
		return f.regex.Match(v)
	}
	return string(v) == f.value
}

// joinedHolds compares the lines joined by "," or ", " without building the joined value.
func (f *field) joinedHolds(h *message.Head) bool {
	if f.regex != nil {
		return f.regex.MatchReader(&joined{h: h, name: f.name})
	}
	rest, first := f.value, true
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
		if !decodedEqual(key, f.name) {
			continue
		}
		if f.regex == nil {
			return decodedEqual(value, f.value)
		}
		if !encoded(value) {
			return f.regex.Match(value)
		}
		return f.regex.MatchReader(&decoder{in: value})
	}
	return false
}

var equals = []byte{'='}

// splitTarget cuts a request target in origin form into path and query. The fragment that a strict client
// never sends stays where it is.
func splitTarget(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i+1:]
	}
	return target, nil
}

// scale maps a uniform uint32 to [0, sum).
func scale(rnd uint32, sum uint64) uint64 {
	hi, lo := bits.Mul64(uint64(rnd), sum)
	return hi<<32 | lo>>32
}

func trimSlashes(p string) string { return strings.TrimRight(p, "/") }

func lowerASCII(s string) string { return strings.ToLower(s) }
