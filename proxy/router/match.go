package router

import (
	"bytes"
	"math/bits"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

func (r *Route) matches(h *message.Head, path, query []byte, rnd uint32) bool {
	m := &r.Route.Match
	if !r.methodMatches(h) {
		return false
	}
	switch {
	case m.Connect:
		if string(h.Method) != "CONNECT" {
			return false
		}
	case !r.pathMatches(path):
		return false
	}
	if m.GRPC && !isGRPC(h) {
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
	return m.Fraction == 0 || scale(rnd, million) < uint64(m.Fraction)
}

const million = 1_000_000

func (r *Route) pathMatches(path []byte) bool {
	m := &r.Route.Match
	switch m.PathKind {
	case model.PathExact:
		if m.IgnoreCase {
			return foldEqual(path, m.Path)
		}
		return string(path) == m.Path
	case model.PathRegex:
		return r.path.Match(path)
	}
	n := len(r.prefix)
	if len(path) < n {
		return false
	}
	if m.IgnoreCase && !foldEqual(path[:n], r.prefix) || !m.IgnoreCase && string(path[:n]) != r.prefix {
		return false
	}
	return m.PathPrefixText || endsElement(path, n)
}

// endsElement reports whether the first n bytes of path, which do not end with a slash, are whole path elements: "/a" of
// "/a", "/a/" and "/a/b" but not of "/ab".
func endsElement(path []byte, n int) bool { return n == 0 || len(path) == n || path[n] == '/' }

// isGRPC reports whether a request is gRPC by its content type.
func isGRPC(h *message.Head) bool {
	const kind = "application/grpc"
	v := h.Get("content-type")
	return len(v) >= len(kind) && foldEqual(v[:len(kind)], kind) && (len(v) == len(kind) || v[len(kind)] == '+')
}

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
