// Package sniff decides from the first bytes of a connection, and from who speaks first, what the connection
// is. Classify looks at bytes; Machine is the state machine of docs/design/sniff.md, which decides for one
// connection without ever making a server-first protocol wait; Learner is what the proxy beside a server
// remembers about a port. Pure: events go in, actions come out; whoever drives it owns the connections and the
// timer. Values belong to one goroutine. Start reading at Classify.
package sniff

import "bytes"

// Verdict is what bytes are.
type Verdict uint8

// Verdicts. Incomplete means that more bytes could still make it HTTP; only then is it worth waiting.
const (
	Incomplete Verdict = iota
	HTTP1              // method, target and " HTTP/1."
	HTTP2              // the whole preface
	TLS                // a ClientHello
	Opaque             // none of them, whatever follows
)

// String answers the verdict in lower case.
func (v Verdict) String() string {
	return [...]string{"incomplete", "http1", "http2", "tls", "opaque"}[min(int(v), 4)]
}

// HTTP reports whether v is one of the two HTTPs.
func (v Verdict) HTTP() bool { return v == HTTP1 || v == HTTP2 }

// Preface is what an HTTP/2 client says first (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Bounds of what can still become HTTP, in bytes.
const (
	maxMethod = 24
	maxLine   = 32 << 10
)

// Classify says what a connection is whose first bytes are p. Once it answers something else than Incomplete,
// more bytes do not change the answer.
func Classify(p []byte) Verdict {
	if len(p) == 0 {
		return Incomplete
	}
	if p[0] == 22 {
		return hello(p)
	}
	if k := min(len(p), len(Preface)); string(p[:k]) == Preface[:k] {
		if k == len(Preface) {
			return HTTP2
		}
		return Incomplete
	}
	return line(p)
}

// line looks for the request line of HTTP/1.
func line(p []byte) Verdict {
	i := 0
	for i < len(p) && tchar(p[i]) {
		i++
	}
	switch {
	case i > maxMethod:
		return Opaque
	case i == len(p):
		return Incomplete
	case i == 0 || p[i] != ' ':
		return Opaque
	}
	start := i + 1
	for i = start; i < len(p) && p[i] > ' ' && p[i] != 0x7f; i++ {
		if i == maxLine {
			return Opaque
		}
	}
	switch {
	case i == len(p):
		return Incomplete
	case i == start || p[i] != ' ':
		return Opaque
	}
	const version = "HTTP/1."
	rest := p[i+1:]
	k := min(len(rest), len(version))
	switch {
	case string(rest[:k]) != version[:k]:
		return Opaque
	case k < len(version):
		return Incomplete
	}
	return HTTP1
}

// tchar reports whether c may stand in a method (RFC 9110 section 5.6.2).
func tchar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	case c <= ' ' || c >= 0x7f:
		return false
	}
	return bytes.IndexByte([]byte("\"(),/:;<=>?@[\\]{}"), c) < 0
}

// Version says which HTTP is spoken where nothing but HTTP is allowed: Incomplete only as long as p is a proper
// prefix of the HTTP/2 preface. What is no HTTP at all is HTTP1: its parser will refuse it and say so.
func Version(p []byte) Verdict {
	k := min(len(p), len(Preface))
	switch {
	case string(p[:k]) != Preface[:k]:
		return HTTP1
	case k < len(Preface):
		return Incomplete
	}
	return HTTP2
}
