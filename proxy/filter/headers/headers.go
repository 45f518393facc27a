// Package headers changes the header fields of a message (HTTPRoute RequestHeaderModifier and
// ResponseHeaderModifier). The fields it adds point into the model's strings, which never change. Pure.
package headers

import (
	"unsafe"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Apply removes, then sets, then adds. Names are compared ignoring case. Setting Host changes the authority
// of a request. Fields that frame the message or belong to one hop (RFC 9110 section 7.6.1) are left alone:
// the codecs own them. Nothing is allocated once h.Fields has room.
func Apply(c *model.HeaderChange, h *message.Head) {
	for _, name := range c.Remove {
		if !owned(name) {
			remove(h, name)
		}
	}
	for i := range c.Set {
		name, value := c.Set[i].Name, c.Set[i].Value
		switch {
		case equalFold(name, "host") && h.Status == 0:
			h.Authority = bytesOf(value)
		case !owned(name):
			set(h, name, value)
		}
	}
	for i := range c.Add {
		if !owned(c.Add[i].Name) {
			h.Add(bytesOf(c.Add[i].Name), bytesOf(c.Add[i].Value))
		}
	}
}

// set replaces the first field of that name and takes out the others, or appends one.
func set(h *message.Head, name, value string) {
	keep, found := h.Fields[:0], false
	for _, f := range h.Fields {
		if equalFold(f.Name, name) {
			if found {
				continue
			}
			found = true
			f = message.Field{Name: bytesOf(name), Value: bytesOf(value)}
		}
		keep = append(keep, f)
	}
	h.Fields = keep
	if !found {
		h.Add(bytesOf(name), bytesOf(value))
	}
}

func remove(h *message.Head, name string) {
	keep := h.Fields[:0]
	for _, f := range h.Fields {
		if !equalFold(f.Name, name) {
			keep = append(keep, f)
		}
	}
	h.Fields = keep
}

// owned reports whether the codecs own the field.
func owned(name string) bool {
	for _, n := range [...]string{"content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings", "host"} {
		if equalFold(name, n) {
			return true
		}
	}
	return len(name) == 0 || name[0] == ':'
}

// equalFold compares ignoring ASCII case, whichever side is in upper case.
func equalFold[A, B ~string | ~[]byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// bytesOf answers the bytes of s without a copy. Nobody writes to the bytes of a message's fields.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
