// Package proxyproto is the codec of the PROXY protocol, versions 1 and 2: the header that a load balancer writes before
// the bytes of a connection, so that the server knows who the client is. Pure; Parse never keeps what it is given, and
// values belong to whoever has them. Only TCP is carried: what was AF_UNIX or a datagram at the sender is refused by name.
// The specification is HAProxy's proxy-protocol.txt of 2020-03-05. Start reading at Parse.
package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
)

// Bounds of a header in bytes.
const (
	MaxV1 = 107 // with CR LF; the specification's own
	MaxV2 = 16 + 16<<10
)

// Header is what a sender says about a connection.
type Header struct {
	Version int // 1 or 2
	// Local: nothing is said (v1 UNKNOWN, v2 LOCAL or AF_UNSPEC); the connection's own addresses hold. The sender may
	// have opened it for itself, for example to see whether we are well.
	Local               bool
	Source, Destination netip.AddrPort // zero if Local; IPv4 inside IPv6 is IPv4
}

// Errors of Parse.
var (
	// ErrNone: the bytes begin no header. Where headers are not required they are the client's own.
	ErrNone = errors.New("no PROXY protocol header; does the sender speak it?")

	ErrLong      = errors.New("PROXY protocol header too long")
	ErrMalformed = errors.New("malformed PROXY protocol header")
	ErrChecksum  = errors.New("PROXY protocol header with a wrong CRC32c; was it altered on its way?")
	ErrUnix      = errors.New("PROXY protocol header for an AF_UNIX socket: not supported")
	ErrDatagram  = errors.New("PROXY protocol header for a datagram protocol: not supported")
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Parse reads a header from the start of p. n is its length in bytes; 0 without an error: not all of it is there yet,
// and what is there can still become one. It looks at no more than MaxV2 bytes. It is called again with everything from
// the start when more has come. An empty p is no error.
func Parse(p []byte) (h Header, n int, err error) {
	switch {
	case begins(p, signature1):
		return parse1(p)
	case begins(p, signature2):
		return parse2(p)
	}
	return Header{}, 0, ErrNone
}

// begins reports whether p begins with s, or is the beginning of it.
func begins(p []byte, s string) bool {
	k := min(len(p), len(s))
	return string(p[:k]) == s[:k]
}

// parse1 reads "PROXY TCP4 <source> <destination> <source port> <destination port>\r\n" (section 2.1).
func parse1(p []byte) (h Header, n int, err error) {
	end := bytes.IndexByte(p[:min(len(p), MaxV1)], '\n')
	switch {
	case end < 0 && len(p) >= MaxV1:
		return h, 0, ErrLong
	case end < 0:
		return h, 0, nil
	case p[end-1] != '\r': // the signature has no line feed: end is above 0
		return h, 0, ErrMalformed
	}
	line := p[len(signature1) : end-1]
	h.Version = 1
	word, rest, more := bytes.Cut(line, []byte{' '})
	if string(word) == "UNKNOWN" {
		h.Local = true // whatever follows is to be ignored
		return h, end + 1, nil
	}
	v6 := string(word) == "TCP6"
	if !more || !v6 && string(word) != "TCP4" {
		return Header{}, 0, ErrMalformed
	}
	var f [4][]byte
	for i := range f {
		if f[i], rest, more = bytes.Cut(rest, []byte{' '}); more != (i < 3) {
			return Header{}, 0, ErrMalformed
		}
	}
	var ok, ok2 bool
	h.Source, ok = addr1(f[0], f[2], v6)
	h.Destination, ok2 = addr1(f[1], f[3], v6)
	if !ok || !ok2 {
		return Header{}, 0, ErrMalformed
	}
	return h, end + 1, nil
}

func addr1(addr, port []byte, v6 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(addr))
	if err != nil || a.Is6() != v6 || a.Zone() != "" || len(port) == 0 || len(port) > 5 || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' {
			return netip.AddrPort{}, false
		}
		n = n*10 + int(c-'0')
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), n <= 0xffff
}

// AppendV1 appends a header of version 1. Addresses that are not valid both make it UNKNOWN; if one of them is IPv6, both
// are written as IPv6.
func AppendV1(dst []byte, source, destination netip.AddrPort) []byte {
	s, d, ok := pair(source.Addr(), destination.Addr())
	if !ok {
		return append(dst, "PROXY UNKNOWN\r\n"...)
	}
	dst = append(dst, "PROXY TCP"...)
	if s.Is4() {
		dst = append(dst, "4 "...)
	} else {
		dst = append(dst, "6 "...)
	}
	dst = append(s.AppendTo(dst), ' ')
	dst = append(d.AppendTo(dst), ' ')
	dst = append(appendNumber(dst, source.Port()), ' ')
	dst = appendNumber(dst, destination.Port())
	return append(dst, '\r', '\n')
}

func appendNumber(dst []byte, n uint16) []byte {
	if n >= 10 {
		dst = appendNumber(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// pair brings two addresses into one family; false if there is none.
func pair(s, d netip.Addr) (netip.Addr, netip.Addr, bool) {
	s, d = s.Unmap().WithZone(""), d.Unmap().WithZone("")
	switch {
	case !s.IsValid() || !d.IsValid():
		return s, d, false
	case s.Is4() != d.Is4():
		return netip.AddrFrom16(s.As16()), netip.AddrFrom16(d.As16()), true
	}
	return s, d, true
}

// Out answers a header of a version, 1 or 2, as it is sent.
func Out(version uint8, source, destination netip.AddrPort) string {
	var b [128]byte
	if version == 2 {
		return string(AppendV2(b[:0], source, destination))
	}
	return string(AppendV1(b[:0], source, destination))
}
