package exchange

import (
	"bytes"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// normalise makes the request's path what the chain says, before it is routed and for the upstream: escaped slashes,
// then RFC 3986 section 6.2.2, then slashes that follow each other. A query stays as it is.
func (x *Exchange) normalise(c *model.HTTP) failure.Reason {
	if !c.NormalizePath && !c.MergeSlashes && c.EscapedSlashes == model.EscapedKeep {
		return failure.None
	}
	t := x.head.Target
	if len(t) == 0 || t[0] != '/' {
		return failure.None
	}
	path, rest := t, []byte(nil)
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		path, rest = t[:i], t[i:]
	}
	if ordinary(path, c) {
		return failure.None
	}
	p := append(x.scratch[:0], path...)
	if c.EscapedSlashes != model.EscapedKeep {
		n := len(p)
		p = unescapeSlashes(p)
		switch {
		case len(p) == n:
		case c.EscapedSlashes == model.EscapedReject:
			return failure.BadRequest
		case c.EscapedSlashes == model.EscapedRedirect:
			x.moved = true
		}
	}
	if c.NormalizePath {
		var ok bool
		if p, ok = normal(p); !ok {
			return failure.BadRequest
		}
	}
	if c.MergeSlashes {
		p = mergeSlashes(p)
	}
	x.scratch = p
	if bytes.Equal(p, path) {
		return failure.None
	}
	n := len(x.notes)
	x.notes = append(append(x.notes, p...), rest...)
	x.head.Target = x.notes[n:len(x.notes):len(x.notes)]
	return failure.None
}

// ordinary reports whether there is nothing to do for a path, as for nearly all.
func ordinary(p []byte, c *model.HTTP) bool {
	for i, b := range p {
		switch b {
		case '%', '\\':
			return false
		case '.':
			if p[i-1] == '/' && c.NormalizePath {
				return false
			}
		case '/':
			if i > 0 && p[i-1] == '/' && c.MergeSlashes {
				return false
			}
		}
	}
	return true
}

// unescapeSlashes replaces %2F and %5C, in place.
func unescapeSlashes(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			switch c := unhex(p[i+1])<<4 | unhex(p[i+2]); {
			case !isHex(p[i+1]) || !isHex(p[i+2]):
			case c == '/' || c == '\\':
				out = append(out, c)
				i += 2
				continue
			}
		}
		out = append(out, p[i])
	}
	return out
}

// normal decodes what need not be escaped, makes slashes of backslashes and takes out dot segments, in place. false: an
// escape is malformed, or decodes to a control character or NUL.
func normal(p []byte) ([]byte, bool) {
	out := p[:0]
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '\\':
			c = '/'
		case c == '%':
			if i+2 >= len(p) || !isHex(p[i+1]) || !isHex(p[i+2]) {
				return nil, false
			}
			v := unhex(p[i+1])<<4 | unhex(p[i+2])
			if v == 0 {
				return nil, false
			}
			if !unreserved(v) {
				out = append(out, p[i], p[i+1], p[i+2])
				i += 2
				continue
			}
			c = v
			i += 2
		}
		out = append(out, c)
	}
	return withoutDots(out), true
}

// withoutDots takes out "." and ".." segments (RFC 3986 section 5.2.4), in place. p begins with a slash.
func withoutDots(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); {
		end := i + 1
		for end < len(p) && p[end] != '/' {
			end++
		}
		segment := p[i:end] // with the slash before it
		last := end == len(p)
		switch string(segment) {
		case "/.":
			if last {
				out = append(out, '/')
			}
		case "/..":
			if at := bytes.LastIndexByte(out, '/'); at >= 0 {
				out = out[:at]
			}
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, segment...)
		}
		i = end
	}
	if len(out) == 0 {
		out = append(out, '/')
	}
	return out
}

func mergeSlashes(p []byte) []byte {
	out := p[:0]
	for i, c := range p {
		if c == '/' && i > 0 && len(out) > 0 && out[len(out)-1] == '/' {
			continue
		}
		out = append(out, c)
	}
	return out
}

// unreserved: RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}
