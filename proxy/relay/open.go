package relay

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// First bytes on a mesh connection that becomes a relay. An HTTP/2 preface begins with 'P' instead.
const (
	OpenByte   = 0x01 // an OPEN frame follows, then the bytes of the relay
	GoByte     = 0x02 // after a silent OPEN: from here on come the client's bytes
	CancelByte = 0x03 // after a silent OPEN: close the connection to the program, the relay is not wanted
)

// Bounds of an OPEN frame in bytes.
const (
	MaxOpen      = 512 // the whole frame
	MaxRequestID = 64
)

// Types of the elements of an OPEN frame. A receiver skips one that it does not know, so that versions can add
// to them; a type of 128 or more must be understood.
const (
	typePort      = 1
	typeWanted    = 2
	typeSource    = 3
	typeRequestID = 4
	typeSilent    = 129
)

// Open is what the caller's proxy tells the server's proxy about a relayed connection.
type Open struct {
	Port      uint16         // of the workload; the one that the connection was authorized for
	Wanted    netip.AddrPort // what the client asked for; may be zero
	Source    netip.AddrPort // the client's address; may be zero
	RequestID []byte         // names the connection in both proxies' records; may be empty. Of a parsed Open: a part of p
	Silent    bool           // nobody has spoken yet: GoByte or CancelByte come before the client's bytes
}

// Errors of ParseOpen.
var (
	ErrOpen        = errors.New("malformed OPEN frame; are both proxies of versions next to each other?")
	ErrOpenUnknown = errors.New("OPEN frame with an element that this version must understand and does not; update this proxy")
)

// AppendOpen appends the frame: OpenByte, the length of the rest (2 bytes), then elements of type (1 byte),
// length (1 byte) and value. A longer RequestID is cut.
func AppendOpen(dst []byte, o *Open) []byte {
	start := len(dst)
	dst = append(dst, OpenByte, 0, 0)
	dst = append(dst, typePort, 2, byte(o.Port>>8), byte(o.Port))
	dst = appendAddr(dst, typeWanted, o.Wanted)
	dst = appendAddr(dst, typeSource, o.Source)
	if id := o.RequestID; len(id) > 0 {
		id = id[:min(len(id), MaxRequestID)]
		dst = append(dst, typeRequestID, byte(len(id)))
		dst = append(dst, id...)
	}
	if o.Silent {
		dst = append(dst, typeSilent, 0)
	}
	binary.BigEndian.PutUint16(dst[start+1:], uint16(len(dst)-start-3))
	return dst
}

func appendAddr(dst []byte, kind byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	if a.Addr().Is4() {
		b := a.Addr().As4()
		dst = append(append(dst, kind, 6), b[:]...)
	} else {
		b := a.Addr().As16()
		dst = append(append(dst, kind, 18), b[:]...)
	}
	return append(dst, byte(a.Port()>>8), byte(a.Port()))
}

// ParseOpen reads a frame from the start of p. n is its length; 0 without an error: not all of it is there.
func ParseOpen(p []byte) (o Open, n int, err error) {
	if len(p) > 0 && p[0] != OpenByte {
		return o, 0, ErrOpen
	}
	if len(p) < 3 {
		return o, 0, nil
	}
	n = 3 + int(binary.BigEndian.Uint16(p[1:]))
	if n > MaxOpen {
		return o, 0, ErrOpen
	}
	if len(p) < n {
		return o, 0, nil
	}
	for rest := p[3:n]; len(rest) > 0; {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return Open{}, 0, ErrOpen
		}
		kind, value := rest[0], rest[2:2+int(rest[1])]
		rest = rest[2+len(value):]
		if err := o.element(kind, value); err != nil {
			return Open{}, 0, err
		}
	}
	if o.Port == 0 {
		return Open{}, 0, ErrOpen
	}
	return o, n, nil
}

func (o *Open) element(kind byte, v []byte) error {
	ok := true
	switch kind {
	case typePort:
		if ok = len(v) == 2; ok {
			o.Port = binary.BigEndian.Uint16(v)
		}
	case typeWanted:
		o.Wanted, ok = parseAddr(v)
	case typeSource:
		o.Source, ok = parseAddr(v)
	case typeRequestID:
		o.RequestID, ok = v, len(v) <= MaxRequestID
	case typeSilent:
		o.Silent, ok = true, len(v) == 0
	default:
		if kind >= 128 {
			return ErrOpenUnknown
		}
	}
	if !ok {
		return ErrOpen
	}
	return nil
}

func parseAddr(v []byte) (netip.AddrPort, bool) {
	if len(v) != 6 && len(v) != 18 {
		return netip.AddrPort{}, false
	}
	a, _ := netip.AddrFromSlice(v[:len(v)-2])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(v[len(v)-2:])), true
}
