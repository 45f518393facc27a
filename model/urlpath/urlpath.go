// Package urlpath makes one path of the many spellings that a request's path has, so that who decides about a request and
// who serves it mean the same: Normalize answers what is judged (Path.Seen) and what is sent on in its place (Path.Sent). What
// programs are known to read in more than one way is refused. Pure; nothing is kept, nothing is allocated but growth of the
// caller's buffer. Start reading at Normalize.
package urlpath

import (
	"bytes"
	"unicode/utf8"
)

// Fault is why a path is refused.
type Fault uint8

// Faults.
const (
	None       Fault = iota
	Escape           // a '%' without two hexadecimal digits behind it
	Slash            // an escaped slash, or a backslash, escaped or not
	Control          // a control character, NUL among them
	Parameters       // a ';', escaped or not: some programs cut there, others do not
	Encoding         // not UTF-8, overlong forms among that
	Double           // an escape of an escape of what a path's meaning hangs on: letters, digits, dots, slashes and the like
	Fragment         // a '#'
)

var faults = [...]string{None: "", Escape: "malformed escape", Slash: "escaped slash or backslash", Control: "control character",
	Parameters: "path parameters", Encoding: "not UTF-8", Double: "escaped twice", Fragment: "fragment"}

// String answers a few words for logs, "" for None.
func (f Fault) String() string {
	if int(f) < len(faults) {
		return faults[f]
	}
	return "unknown"
}

// Path is a request's path.
type Path struct {
	// Sent is the target that is sent on: path and query. Escapes that nothing needs are decoded, others are in upper case, bytes
	// beyond ASCII are escaped; empty, "." and ".." segments are gone. The query is as it was.
	Sent []byte
	// Seen is what policies judge: the path of Sent, without the query, and decoded. Since no escaped slash is let through, its
	// segments are those of Sent.
	Seen []byte
}

// Normalize reads a request's target. What does not begin with '/' ("*", CONNECT's nothing) has no path: it is sent and seen as it is.
// buf is memory for what has to be written, its content is lost; it is answered, perhaps grown. The answer points into
// target or the buffer. Most targets are normal already: for them nothing is written.
func Normalize(buf, target []byte) (Path, []byte, Fault) {
	path, query := target, []byte(nil)
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i:i], target[i:]
	}
	if len(path) == 0 || path[0] != '/' {
		return Path{Sent: target, Seen: path}, buf, None
	}
	if ordinary(path) {
		return Path{Sent: target, Seen: path}, buf, None
	}
	seen, fault := decode(buf[:0], path)
	if fault != None {
		return Path{}, buf, fault
	}
	buf = seen
	seen = settle(seen)
	n := len(seen)
	buf = append(encode(buf[:n], seen), query...)
	return Path{Sent: buf[n:len(buf):len(buf)], Seen: buf[:n:n]}, buf, None
}

// Text makes the literal text of a policy's path what Path.Seen may be: escapes are decoded, so that whoever writes "/a%20b" and
// "/a b" means the same. Nothing else changes: a prefix may end anywhere.
func Text(s string) (string, Fault) {
	out, fault := decode(nil, []byte(s))
	return string(out), fault
}

// ordinary reports whether there is nothing to do for a path, as for nearly all.
func ordinary(p []byte) bool {
	for i, b := range p {
		if !literal(b) || i > 0 && p[i-1] == '/' && (b == '/' || b == '.') {
			return false
		}
	}
	return true
}

// decode appends p without its escapes, unless something in it is refused.
func decode(out, p []byte) ([]byte, Fault) {
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c == '#' {
			return out, Fragment
		}
		if c == '%' {
			if i+2 >= len(p) || !isHex(p[i+1]) || !isHex(p[i+2]) {
				return out, Escape
			}
			c = unhex(p[i+1])<<4 | unhex(p[i+2])
			i += 2
			if c == '/' {
				return out, Slash
			}
		}
		switch {
		case c == '\\':
			return out, Slash
		case c == ';':
			return out, Parameters
		case c < ' ' || c == 0x7f:
			return out, Control
		}
		out = append(out, c)
	}
	switch {
	case !utf8.Valid(out):
		return out, Encoding
	case twice(out):
		return out, Double
	}
	return out, None
}

// twice reports whether what was decoded holds an escape that matters: nobody writes that but who hopes that somebody decodes
// once more. Others, as of a space, are what files with a '%' in their name are called.
func twice(p []byte) bool {
	for {
		i := bytes.IndexByte(p, '%')
		if i < 0 || i+2 >= len(p) {
			return false
		}
		if isHex(p[i+1]) && isHex(p[i+2]) {
			switch c := unhex(p[i+1])<<4 | unhex(p[i+2]); {
			case c == 0, c == '\\', c == ';', c == '%', c > ' ' && c < 0x7f && literal(c):
				return true
			}
		}
		p = p[i+1:]
	}
}

// settle takes out empty, "." and ".." segments, in place (RFC 3986 section 5.2.4, after slashes that follow each other are one).
// p begins with a slash. A last "." or ".." leaves a slash at the end.
func settle(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); {
		end := i + 1
		for end < len(p) && p[end] != '/' {
			end++
		}
		last := end == len(p)
		switch segment := p[i:end]; string(segment) { // with the slash before it
		case "/", "/.":
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
	return out
}

// encode appends p as a path on the wire.
func encode(out, p []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range p {
		if literal(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return out
}

// literal reports whether c stands for itself in a path: pchar of RFC 3986 section 3.3 and '/', but for ';'.
func literal(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case '-', '.', '_', '~', '!', '$', '&', '\'', '(', ')', '*', '+', ',', '=', ':', '@', '/':
		return true
	}
	return false
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
