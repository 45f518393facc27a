package http1

import (
	"bytes"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// ParseRequest reads a request head from the start of p into h (RFC 9112 sections 2 to 6). n is its length in
// bytes; n == 0 without an error means that p ends before the head does: call again with more. The slices of h
// point into p; h.Fields is reused. One empty line before the request line is skipped (section 2.2).
//
// A body of Content-Length 0 is BodyNone with h.ContentLength 0. Expect stays among the fields (it is
// end-to-end) and sets h.Continue. An offer to upgrade to h2c is not passed on.
func ParseRequest(p []byte, h *message.Head, l Limits) (n int, f Framing, err error) {
	h.Reset()
	l = l.or()
	if late(p, l) {
		return 0, f, lineTooLong(p, l, tooLong(p, l))
	}
	i := 0
	if len(p) >= 2 && p[0] == '\r' && p[1] == '\n' {
		i = 2
	} else if len(p) == 1 && p[0] == '\r' {
		return 0, f, nil
	}
	var s section
	i, err = requestLine(p, i, h, &s)
	if i == 0 || err != nil {
		return 0, f, lineTooLong(p, l, incomplete(err, p, l))
	}
	i, err = s.parse(p, i, h, l)
	if i == 0 || err != nil {
		return 0, f, incomplete(err, p, l)
	}
	if i > l.Head {
		return 0, f, lineTooLong(p, l, ErrHeadTooLarge)
	}
	f, err = s.request(h)
	if err != nil {
		return 0, Framing{}, err
	}
	return i, f, nil
}

// ParseResponse reads a response head from the start of p into h, as ParseRequest does. method is that of the
// request it answers: it decides whether there is a body (RFC 9112 section 6.3). After 101, and after a 2xx to
// CONNECT, the framing is BodyNone and the connection is no longer HTTP.
//
// h.ContentLength is kept for HEAD and 304. A body that ends with the connection sets h.Close.
func ParseResponse(p []byte, method []byte, h *message.Head, l Limits) (n int, f Framing, err error) {
	h.Reset()
	l = l.or()
	if late(p, l) {
		return 0, f, tooLong(p, l)
	}
	var s section
	i, err := statusLine(p, h)
	if i == 0 || err != nil {
		return 0, f, incomplete(err, p, l)
	}
	i, err = s.parse(p, i, h, l)
	if i == 0 || err != nil {
		return 0, f, incomplete(err, p, l)
	}
	if i > l.Head {
		return 0, f, ErrHeadTooLarge
	}
	f, err = s.response(h, method)
	if err != nil {
		return 0, Framing{}, err
	}
	return i, f, nil
}

func (l Limits) or() Limits {
	if l.Head <= 0 {
		l.Head = DefaultHead
	}
	if l.Fields <= 0 {
		l.Fields = DefaultFields
	}
	return l
}

// late reports that p is long and yet holds no end of a head. Looking for the end costs much less than parsing
// again, which would make a head that arrives byte by byte expensive.
func late(p []byte, l Limits) bool {
	return len(p) > 4<<10 && !bytes.Contains(p[:min(len(p), l.Head)], endOfHead)
}

var endOfHead = []byte("\r\n\r\n")

func tooLong(p []byte, l Limits) error {
	if len(p) >= l.Head {
		return ErrHeadTooLarge
	}
	return nil
}

// lineTooLong makes of a head that is too large what it is if its request line alone is.
func lineTooLong(p []byte, l Limits, err error) error {
	if err == ErrHeadTooLarge && bytes.IndexByte(p[:min(len(p), l.Head)], '\n') < 0 {
		return ErrLineTooLong
	}
	return err
}

func incomplete(err error, p []byte, l Limits) error {
	if err != nil {
		return err
	}
	return tooLong(p, l)
}

// requestLine reads "method SP target SP version CRLF" from p[i:] and answers where the next line starts; 0
// without an error: not there yet.
func requestLine(p []byte, i int, h *message.Head, s *section) (int, error) {
	start := i
	for i < len(p) && class[p[i]]&isToken != 0 {
		i++
	}
	if i == len(p) {
		return 0, nil
	}
	if i == start || p[i] != ' ' {
		return 0, ErrStartLine
	}
	h.Method = p[start:i:i]
	i++
	start = i
	for i < len(p) && class[p[i]]&isTarget != 0 {
		i++
	}
	if i == len(p) {
		return 0, nil
	}
	if i == start || p[i] != ' ' {
		return 0, ErrTarget
	}
	target := p[start:i:i]
	i++
	v, err := version(p[i:])
	if err != nil {
		return 0, err
	}
	if len(p) < i+10 {
		return 0, ends(p, i+8)
	}
	h.Version = v
	if p[i+8] != '\r' || p[i+9] != '\n' {
		return 0, ErrLineEnd
	}
	return i + 10, s.target(h, target)
}

// ends checks what is there of a CRLF at p[i:].
func ends(p []byte, i int) error {
	if i < len(p) && p[i] != '\r' || i+1 < len(p) && p[i+1] != '\n' {
		return ErrLineEnd
	}
	return nil
}

// version reads "HTTP/1.0" or "HTTP/1.1"; of a shorter p it checks what is there.
func version(p []byte) (message.Version, error) {
	const name = "HTTP/1."
	k := min(len(p), len(name))
	if string(p[:k]) != name[:k] {
		return 0, ErrVersion
	}
	if len(p) <= len(name) {
		return 0, nil
	}
	switch p[len(name)] {
	case '1':
		return message.HTTP11, nil
	case '0':
		return message.HTTP10, nil
	}
	return 0, ErrVersion
}

// target takes a request target apart (RFC 9112 section 3.2).
func (s *section) target(h *message.Head, t []byte) error {
	h.Scheme = schemeHTTP
	switch {
	case string(h.Method) == "CONNECT":
		if !message.Authority(t, true) {
			return ErrTarget
		}
		h.Authority, s.absolute = t, true
		return nil
	case t[0] == '/':
		h.Target = t
	case len(t) == 1 && t[0] == '*':
		if string(h.Method) != "OPTIONS" {
			return ErrTarget
		}
		h.Target = t
		return nil
	default:
		if err := s.absoluteForm(h, t); err != nil {
			return err
		}
	}
	return escapes(h.Target)
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
	slash       = []byte("/")
	asterisk    = []byte("*")
)

func (s *section) absoluteForm(h *message.Head, t []byte) error {
	switch {
	case len(t) > 7 && fold(t[:7], "http://"):
		t = t[7:]
	case len(t) > 8 && fold(t[:8], "https://"):
		h.Scheme, t = schemeHTTPS, t[8:]
	default:
		return ErrTarget
	}
	end := bytes.IndexAny(t, "/?")
	rest := []byte(nil)
	if end >= 0 {
		t, rest = t[:end:end], t[end:]
	}
	if !message.Authority(t, false) {
		return ErrTarget
	}
	h.Authority, s.absolute = t, true
	switch {
	case len(rest) == 0 && string(h.Method) == "OPTIONS":
		h.Target = asterisk
	case len(rest) == 0:
		h.Target = slash
	case rest[0] == '?':
		h.Target = append([]byte("/"), rest...) // the one form that is not in p; nobody sends it
	default:
		h.Target = rest
	}
	return nil
}

// escapes refuses a path with a '%' that is not followed by two hexadecimal digits.
func escapes(t []byte) error {
	for i := 0; i < len(t) && t[i] != '?'; i++ {
		if t[i] != '%' {
			continue
		}
		if i+2 >= len(t) || class[t[i+1]]&isHex == 0 || class[t[i+2]]&isHex == 0 {
			return ErrTarget
		}
	}
	return nil
}

// statusLine reads "version SP status [SP reason] CRLF" and answers where the next line starts.
func statusLine(p []byte, h *message.Head) (int, error) {
	v, err := version(p)
	if err != nil {
		return 0, err
	}
	if len(p) < 14 { // version, space, status, CRLF
		return 0, nil
	}
	h.Version = v
	if p[8] != ' ' {
		return 0, ErrStartLine
	}
	for _, c := range p[9:12] {
		if c < '0' || c > '9' {
			return 0, ErrStartLine
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	if h.Status < 100 {
		return 0, ErrStartLine
	}
	i := 12
	if p[i] == ' ' {
		i++
		for i < len(p) && class[p[i]]&isValue != 0 {
			i++
		}
		h.Reason = p[13:i:i]
	} else if p[i] != '\r' {
		return 0, ErrStartLine
	}
	if i+2 > len(p) {
		return 0, ends(p, i)
	}
	if p[i] != '\r' || p[i+1] != '\n' {
		return 0, ErrLineEnd
	}
	return i + 2, nil
}
