package mtls

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"sync"
	"unsafe"
)

// crypto/tls has no way to hand it a record without a copy, or to take its buffers back when a connection is
// idle (it never shrinks them: 26 KB for each connection that once saw a large record). So we reach for two of
// its fields, after having checked that they are what we think. If they are not, connections work as well and
// hold more memory; LayoutKnown says so.
var layout = sync.OnceValue(func() (l struct {
	known          bool
	rawInput, hand uintptr
}) {
	typ := reflect.TypeFor[tls.Conn]()
	buffer := reflect.TypeFor[bytes.Buffer]()
	raw, ok1 := typ.FieldByName("rawInput")
	hand, ok2 := typ.FieldByName("hand")
	input, ok3 := typ.FieldByName("input")
	if ok1 && ok2 && ok3 && raw.Type == buffer && hand.Type == buffer && input.Type == reflect.TypeFor[bytes.Reader]() {
		l.known, l.rawInput, l.hand = true, raw.Offset, hand.Offset
	}
	return l
})

// LayoutKnown reports whether idle connections give their record buffers back with this version of Go.
func LayoutKnown() bool { return layout().known }

// rawInput answers c's buffer of records that were read and not opened, or nil if it cannot be reached.
func rawInput(c *tls.Conn) *bytes.Buffer {
	if l := layout(); l.known {
		return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), l.rawInput))
	}
	return nil
}

// handshakeInput answers c's buffer of incomplete handshake messages, or nil if it cannot be reached.
func handshakeInput(c *tls.Conn) *bytes.Buffer {
	if l := layout(); l.known {
		return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), l.hand))
	}
	return nil
}
