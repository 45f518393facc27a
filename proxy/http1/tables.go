package http1

// Classes of bytes. A table lookup per byte is what the parsers cost.
const (
	isToken  = 1 << iota // tchar, RFC 9110 section 5.6.2
	isValue              // field value: HTAB, SP, VCHAR, obs-text
	isTarget             // request target; wider than RFC 3986, as in practice, but no space, control or '#'
	isHex
)

var class = makeClass()

func makeClass() (t [256]uint8) {
	set := func(bit uint8, s string) {
		for i := range len(s) {
			t[s[i]] |= bit
		}
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= isToken | isHex
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= isToken
		t[c-32] |= isToken
	}
	set(isHex, "abcdefABCDEF")
	set(isToken, "!#$%&'*+-.^_`|~")
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= isValue
		}
		if c > ' ' && c != 0x7f && c != '#' {
			t[c] |= isTarget
		}
	}
	return t
}

func all(p []byte, bit uint8) bool {
	for _, c := range p {
		if class[c]&bit == 0 {
			return false
		}
	}
	return true
}

// name tells apart the fields that this package gives a meaning.
type name uint8

const (
	nameOther name = iota
	nameTE
	nameHost
	nameExpect
	nameUpgrade
	nameConnection
	nameKeepAlive
	nameContentLength
	nameHTTP2Settings
	nameProxyConnection
	nameTransferEncoding
)

// byLength holds, per length, the one name of that length; no two have the same.
var byLength = [...]struct {
	name  name
	lower string
}{
	2: {nameTE, "te"}, 4: {nameHost, "host"}, 6: {nameExpect, "expect"}, 7: {nameUpgrade, "upgrade"},
	10: {nameConnection, "connection"}, 11: {}, 14: {nameContentLength, "content-length"},
	16: {nameProxyConnection, "proxy-connection"}, 17: {nameTransferEncoding, "transfer-encoding"},
}

// lookup answers which field b names.
func lookup(b []byte) name {
	if len(b) >= len(byLength) {
		return nameOther
	}
	if e := &byLength[len(b)]; e.lower != "" && fold(b, e.lower) {
		return e.name
	}
	switch {
	case len(b) == 10 && fold(b, "keep-alive"): // as long as connection
		return nameKeepAlive
	case len(b) == 14 && fold(b, "http2-settings"): // as long as content-length
		return nameHTTP2Settings
	}
	return nameOther
}

// fold reports whether b equals lower (same length, letters in lower case), ignoring ASCII case.
func fold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(lower) {
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
