// Package message is an HTTP message as the exchange sees it, whichever version carried it. A Head's byte
// slices point into memory of whoever made it and are valid until that says otherwise; Clone copies. Pure; not
// safe for concurrent use.
package message

// Version of HTTP on the wire.
type Version uint8

// Versions.
const (
	HTTP10 Version = iota
	HTTP11
	HTTP2
)

// Field is one header or trailer field. Names from HTTP/1 keep their case; comparison ignores it.
type Field struct {
	Name, Value []byte
	Sensitive   bool // never indexed by HPACK (RFC 7541 section 7.1)
}

// NoLength is ContentLength of a message that states none.
const NoLength = -1

// Head is the head of a request or a response, or a trailer section (then only Fields count).
//
// A codec that parses takes out of Fields what belongs to one hop and puts its meaning here: Host and
// :authority into Authority, Content-Length into ContentLength, Transfer-Encoding, Connection and the fields
// it names, Keep-Alive, Proxy-Connection, TE, Upgrade and HTTP2-Settings (RFC 9110 section 7.6.1). A codec
// that writes puts back what its version needs.
type Head struct {
	Version Version

	Method    []byte // requests
	Target    []byte // path and query in origin form, "*", or for CONNECT empty
	Scheme    []byte // "http" unless stated
	Authority []byte // Host or :authority

	Status int    // responses
	Reason []byte // reason phrase as received; HTTP/1 only

	Fields        []Field
	ContentLength int64  // NoLength if not stated; kept for HEAD and 304 although no body follows
	Upgrade       []byte // Upgrade (HTTP/1.1) or :protocol (RFC 8441); nil if none
	Close         bool   // HTTP/1: the connection ends after this message
	KeepAlive     []byte // HTTP/1 responses: Keep-Alive; a hint, not kept by CloneInto
	Trailers      bool   // TE: trailers
	Continue      bool   // Expect: 100-continue
}

// Reset empties h and keeps its memory.
func (h *Head) Reset() {
	f := h.Fields[:0]
	*h = Head{Fields: f, ContentLength: NoLength}
}

// Get answers the value of the first field called name (in lower case), nil if there is none.
func (h *Head) Get(name string) []byte {
	for i := range h.Fields {
		if EqualFold(h.Fields[i].Name, name) {
			return h.Fields[i].Value
		}
	}
	return nil
}

// Has reports whether a field called name (in lower case) is there.
func (h *Head) Has(name string) bool {
	for i := range h.Fields {
		if EqualFold(h.Fields[i].Name, name) {
			return true
		}
	}
	return false
}

// Add appends a field.
func (h *Head) Add(name, value []byte) {
	h.Fields = append(h.Fields, Field{Name: name, Value: value})
}

// Remove takes out every field called name (in lower case).
func (h *Head) Remove(name string) {
	keep := h.Fields[:0]
	for _, f := range h.Fields {
		if !EqualFold(f.Name, name) {
			keep = append(keep, f)
		}
	}
	h.Fields = keep
}

// EqualFold reports whether b equals lower, which has to be in lower case already, ignoring ASCII case.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Alias reports whether b is another spelling of lower, which has to be in lower case and without '_' and '.': ignoring ASCII case,
// and with '_' or '.' for '-'.
func Alias(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '_' || c == '.':
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// CloneInto makes dst a copy of h whose bytes live in arena, which is grown as needed and answered. dst and
// arena are reused, so a steady state allocates nothing. dst must not be h; arena's old content is lost.
func (h *Head) CloneInto(dst *Head, arena []byte) []byte {
	need := len(h.Method) + len(h.Target) + len(h.Scheme) + len(h.Authority) + len(h.Reason) + len(h.Upgrade)
	for i := range h.Fields {
		need += len(h.Fields[i].Name) + len(h.Fields[i].Value)
	}
	if cap(arena) < need {
		arena = make([]byte, 0, need+need/2)
	}
	arena = arena[:0]
	put := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		n := len(arena)
		arena = append(arena, b...)
		return arena[n:len(arena):len(arena)]
	}
	fields := dst.Fields[:0]
	*dst = *h
	dst.KeepAlive = nil
	dst.Method, dst.Target, dst.Scheme = put(h.Method), put(h.Target), put(h.Scheme)
	dst.Authority, dst.Reason, dst.Upgrade = put(h.Authority), put(h.Reason), put(h.Upgrade)
	for i := range h.Fields {
		f := &h.Fields[i]
		fields = append(fields, Field{Name: put(f.Name), Value: put(f.Value), Sensitive: f.Sensitive})
	}
	dst.Fields = fields
	return arena
}
