package grpc

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// Web is what a content type says: whether it is gRPC-Web, and in which form.
type Web struct {
	On   bool
	Text bool   // base64
	Rest []byte // what follows: "", "+proto", "; charset=…"; part of what ParseWeb was given
}

const (
	typeGRPC    = "application/grpc"
	typeWeb     = "application/grpc-web"
	typeWebText = "application/grpc-web-text"
)

// ParseWeb reads a content type.
func ParseWeb(v []byte) Web {
	for _, t := range [...]string{typeWebText, typeWeb} {
		if len(v) >= len(t) && message.EqualFold(v[:len(t)], t) && (len(v) == len(t) || v[len(t)] == '+' || v[len(t)] == ';') {
			return Web{On: true, Text: t == typeWebText, Rest: v[len(t):]}
		}
	}
	return Web{}
}

// AppendPlain appends the content type of the same messages without gRPC-Web.
func (w Web) AppendPlain(dst []byte) []byte { return append(append(dst, typeGRPC...), w.Rest...) }

// AppendWeb appends the content type for a gRPC-Web client of a message that gRPC calls v; text: base64. v is answered if it is not gRPC's.
func AppendWeb(dst, v []byte, text bool) []byte {
	if len(v) < len(typeGRPC) || !message.EqualFold(v[:len(typeGRPC)], typeGRPC) {
		return append(dst, v...)
	}
	if text {
		dst = append(dst, typeWebText...)
	} else {
		dst = append(dst, typeWeb...)
	}
	return append(dst, v[len(typeGRPC):]...)
}

// AppendTrailers appends the frame that carries trailers to a gRPC-Web client: a message with the highest bit of its
// flags set, whose lines are names in lower case and values.
func AppendTrailers(dst []byte, h *message.Head) []byte {
	at := len(dst)
	dst = append(dst, 0x80, 0, 0, 0, 0)
	for i := range h.Fields {
		f := &h.Fields[i]
		for _, c := range f.Name {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
		dst = append(dst, ':')
		for _, c := range f.Value {
			if c == '\r' || c == '\n' { // no codec lets them through
				c = ' '
			}
			dst = append(dst, c)
		}
		dst = append(dst, '\r', '\n')
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-5))
	return dst
}

// AppendText appends p in base64, with padding: text clients read pieces that are padded each.
func AppendText(dst, p []byte) []byte { return base64.StdEncoding.AppendEncode(dst, p) }

// ErrText is why a text body is refused.
var ErrText = errors.New("grpc-web: the body is not base64")

// TextDecoder reads base64 that comes in pieces of any length, of which each may be padded. Its zero value is ready.
type TextDecoder struct {
	quad [4]byte // what has come of four characters
	n    int
}

// Append appends what p decodes to, as far as it is complete.
func (d *TextDecoder) Append(dst, p []byte) ([]byte, error) {
	for len(p) > 0 {
		if d.n == 0 {
			if whole := unpadded(p); whole > 0 {
				out, err := base64.StdEncoding.Strict().AppendDecode(dst, p[:whole])
				if err != nil {
					return dst, ErrText
				}
				dst, p = out, p[whole:]
				continue
			}
		}
		d.quad[d.n] = p[0]
		d.n++
		p = p[1:]
		if d.n < 4 {
			continue
		}
		d.n = 0
		if newline(d.quad[:]) {
			return dst, ErrText
		}
		out, err := base64.StdEncoding.Strict().AppendDecode(dst, d.quad[:])
		if err != nil {
			return dst, ErrText
		}
		dst = out
	}
	return dst, nil
}

// unpadded answers how much of the start of p are whole groups of four without padding.
func unpadded(p []byte) int {
	n := 0
	for n+4 <= len(p) {
		q := p[n : n+4]
		if q[3] == '=' || newline(q) {
			break
		}
		n += 4
	}
	return n
}

// newline: encoding/base64 skips line ends, which would shift the groups.
func newline(q []byte) bool {
	for _, c := range q {
		if c == '\r' || c == '\n' {
			return true
		}
	}
	return false
}

// End reports whether the text may end here.
func (d *TextDecoder) End() bool { return d.n == 0 }
