package http2

import (
	"encoding/binary"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// Classes of fields. hpack remembers the class of what is in its table, so that a field is checked once and not
// at every reference.
const (
	_ uint8 = iota
	classBad
	classPlain
	classMethod
	classScheme
	classAuthority
	classPath
	classProtocol
	classStatus
	classHost
	classLength
	classTE
	classExpect
	classCookie
)

// classify judges one field by RFC 9113 section 8.2 and 8.3: hpack.Classify.
func classify(name, value []byte, known uint8) uint8 {
	class := known
	if known == 0 || known == classBad {
		class = classifyName(name)
	}
	switch class {
	case classBad:
		return classBad
	case classMethod, classProtocol:
		if len(value) == 0 || !only(value, charToken) {
			return classBad
		}
	case classScheme:
		if len(value) == 0 || !only(value, charScheme) {
			return classBad
		}
	case classAuthority, classHost:
		if !only(value, charAuthority) {
			return classBad
		}
	case classPath:
		if len(value) == 0 || !only(value, charPath) {
			return classBad
		}
	case classStatus:
		if len(value) != 3 || !only(value, charDigit) || value[0] == '0' {
			return classBad
		}
	default:
		if !validValue(value) {
			return classBad
		}
	}
	return class
}

func classifyName(name []byte) uint8 {
	if len(name) == 0 {
		return classBad
	}
	if name[0] == ':' {
		switch string(name) {
		case ":method":
			return classMethod
		case ":scheme":
			return classScheme
		case ":authority":
			return classAuthority
		case ":path":
			return classPath
		case ":protocol":
			return classProtocol
		case ":status":
			return classStatus
		}
		return classBad
	}
	if !only(name, charName) {
		return classBad
	}
	switch string(name) {
	case "host":
		return classHost
	case "content-length":
		return classLength
	case "te":
		return classTE
	case "expect":
		return classExpect
	case "cookie":
		return classCookie
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return classBad // of HTTP/1 (RFC 9113 section 8.2.2)
	}
	return classPlain
}

// Sets of bytes.
const (
	charName      = 1 << iota // field name in lower case
	charToken                 // RFC 9110 section 5.6.2
	charScheme                // RFC 3986 section 3.1
	charAuthority             // host and port, without user information
	charPath                  // visible, without '#'
	charDigit
)

var chars = func() (t [256]uint8) {
	set := func(class uint8, in string) {
		for _, b := range []byte(in) {
			t[b] |= class
		}
	}
	const lower, upper, digit = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	const signs = "!#$%&'*+-.^_`|~"
	set(charName, lower+digit+signs)
	set(charToken, lower+upper+digit+signs)
	set(charScheme, lower+upper+digit+"+-.")
	set(charAuthority, lower+upper+digit+"-._~!$&'()*+,;=:[]%")
	set(charDigit, digit)
	for b := 0x21; b < 256; b++ {
		if b != 0x7f && b != '#' {
			t[b] |= charPath
		}
	}
	return t
}()

func only(b []byte, class uint8) bool {
	for _, c := range b {
		if chars[c]&class == 0 {
			return false
		}
	}
	return true
}

// validValue reports whether b is a field value: no control bytes other than tab, no space around it (RFC 9113
// section 8.2.1, and RFC 9110 section 5.5 since it may go on as HTTP/1).
func validValue(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if isSpace(b[0]) || isSpace(b[len(b)-1]) {
		return false
	}
	for len(b) >= 8 {
		const ones, highs = 0x0101010101010101, 0x8080808080808080
		w := binary.LittleEndian.Uint64(b)
		del := w ^ 0x7f*ones
		// Eight bytes at once: some byte may be below 0x20, or is 0x7f.
		if ((w-0x20*ones)&^w|(del-ones)&^del)&highs != 0 && !validBytes(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return validBytes(b)
}

func validBytes(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// sameHost compares two authorities.
func sameHost(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// parseLength reads content-length; false if it is not a number below 2^62.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 || !only(b, charDigit) {
		return 0, false
	}
	for _, c := range b {
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func isTrailers(b []byte) bool { return message.EqualFold(b, "trailers") }
