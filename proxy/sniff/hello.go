package sniff

import (
	"encoding/binary"
	"errors"
)

// Bounds of a ClientHello in bytes.
const (
	MaxHello      = 16 << 10              // of the message
	maxHelloBytes = MaxHello + MaxHello/8 // of the records that carry it
)

// Hello is what a ClientHello asks for.
type Hello struct {
	ServerName string   // SNI (RFC 6066 section 3), as sent; "": none
	ALPN       []string // in the client's order (RFC 7301); nil: none
}

// Errors of ReadHello.
var (
	ErrNoTLS     = errors.New("no TLS handshake")
	ErrHello     = errors.New("malformed ClientHello")
	ErrHelloLong = errors.New("ClientHello of more than 16 KB")
)

// ReadHello reads the ClientHello (RFC 8446 section 4.1.2) that p, the bytes of a connection from its start, begins with.
// n is how many bytes of p carry it, in one record or in several; 0 without an error: not all of it is there. ErrNoTLS
// is answered as soon as p cannot become a handshake any more. It is called again with everything when more has come,
// and looks at no more than 18 KB. What it takes crypto/tls takes for the same names, if it takes it at all.
func ReadHello(p []byte) (h Hello, n int, err error) {
	msg, n, err := handshakeMessage(p)
	if n == 0 || err != nil {
		return Hello{}, 0, err
	}
	if h, err = parseHello(msg); err != nil {
		return Hello{}, 0, err
	}
	return h, n, nil
}

// HelloBytes answers how many bytes at the start of p carry a ClientHello, without looking into it: 0 while it is not
// complete. What is no handshake, or too long, counts as complete: whoever reads it will say what is wrong.
func HelloBytes(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	_, n, err := handshakeMessage(p)
	if err != nil {
		return len(p)
	}
	return n
}

// handshakeMessage puts the first handshake message of p together (RFC 8446 section 5.1). msg lies in p if one record
// carries it.
func handshakeMessage(p []byte) (msg []byte, n int, err error) {
	var joined []byte
	for {
		rest := p[n:]
		switch {
		case !beginsRecord(rest) && n == 0:
			return nil, 0, ErrNoTLS
		case !beginsRecord(rest):
			return nil, 0, ErrHello
		case n > maxHelloBytes:
			return nil, 0, ErrHelloLong
		case len(rest) < 5:
			return nil, 0, nil
		}
		length := int(binary.BigEndian.Uint16(rest[3:]))
		if length == 0 || length > 1<<14 {
			return nil, 0, ErrHello
		}
		body := rest[5:min(len(rest), 5+length)]
		if n == 0 {
			msg = body
		} else {
			if joined == nil {
				joined = append(make([]byte, 0, 4<<10), msg...)
			}
			joined = append(joined, body...)
			msg = joined
		}
		size := messageSize(msg)
		switch {
		case len(msg) > 0 && msg[0] != 1:
			return nil, 0, ErrNoTLS
		case size > MaxHello:
			return nil, 0, ErrHelloLong
		case len(body) < length:
			return nil, 0, nil
		}
		n += 5 + length
		if size > 0 && len(msg) >= size {
			return msg[:size], n, nil
		}
	}
}

// messageSize answers the size of a handshake message with its header; 0: not known yet.
func messageSize(msg []byte) int {
	if len(msg) < 4 {
		return 0
	}
	return 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
}

// hello looks for a TLS handshake record with a ClientHello (RFC 8446 sections 4.1.2 and 5.1). Its first byte
// can begin no HTTP, so a part of it is TLS already.
func hello(p []byte) Verdict {
	if len(p) > 1 && p[1] != 3 || len(p) > 2 && p[2] > 4 || len(p) > 5 && p[5] != 1 {
		return Opaque
	}
	return TLS
}

// beginsRecord reports whether p is, or can become, a record with a handshake message.
func beginsRecord(p []byte) bool {
	return len(p) == 0 || p[0] == 22 && (len(p) < 2 || p[1] == 3) && (len(p) < 3 || p[2] <= 4)
}

// Extensions that are read.
const (
	extServerName = 0
	extALPN       = 16
)

func parseHello(msg []byte) (h Hello, err error) {
	r := strict{rest: msg[4:]}
	r.bytes(2 + 32) // legacy_version, random
	r.vector(1)     // legacy_session_id
	ciphers := r.vector(2)
	r.vector(1) // legacy_compression_methods
	if r.bad || len(ciphers)%2 != 0 {
		return h, ErrHello
	}
	if len(r.rest) == 0 {
		return h, nil
	}
	exts := strict{rest: r.vector(2)}
	if r.bad || len(r.rest) > 0 {
		return h, ErrHello
	}
	var names, protocols bool
	for len(exts.rest) > 0 && !exts.bad {
		kind, data := exts.number(), strict{rest: exts.vector(2)}
		switch {
		case kind == extServerName && !names:
			names = true
			h.ServerName = data.serverName()
		case kind == extALPN && !protocols:
			protocols = true
			h.ALPN = data.protocols()
		case kind == extServerName || kind == extALPN:
			return Hello{}, ErrHello // twice
		}
		if data.bad {
			return Hello{}, ErrHello
		}
	}
	if exts.bad {
		return Hello{}, ErrHello
	}
	return h, nil
}

// strict takes things off the front of bytes; what is not there is bad.
type strict struct {
	rest []byte
	bad  bool
}

func (r *strict) bytes(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.bad = nil, true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *strict) number() int {
	if b := r.bytes(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return -1
}

// vector takes a length of size bytes and as many bytes.
func (r *strict) vector(size int) []byte {
	n := 0
	for _, c := range r.bytes(size) {
		n = n<<8 | int(c)
	}
	return r.bytes(n)
}

// serverName: one host name at most, and none that ends with a dot, as crypto/tls has it.
func (r *strict) serverName() (name string) {
	list := strict{rest: r.vector(2)}
	if len(list.rest) == 0 || len(r.rest) > 0 {
		r.bad = true
	}
	for len(list.rest) > 0 && !list.bad {
		kind := list.bytes(1)
		host := list.vector(2)
		if len(host) == 0 {
			list.bad = true
		} else if kind[0] == 0 {
			if name != "" || host[len(host)-1] == '.' {
				list.bad = true
			}
			name = string(host)
		}
	}
	r.bad = r.bad || list.bad
	return name
}

func (r *strict) protocols() (names []string) {
	list := strict{rest: r.vector(2)}
	if len(list.rest) == 0 || len(r.rest) > 0 {
		r.bad = true
	}
	for len(list.rest) > 0 && !list.bad {
		p := list.vector(1)
		if len(p) == 0 {
			list.bad = true
			break
		}
		names = append(names, string(p))
	}
	r.bad = r.bad || list.bad
	return names
}
