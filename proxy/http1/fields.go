package http1

import "github.com/tulle-mesh/tulle/proxy/message"

// section is what a field section says about its message beyond the fields that go on.
type section struct {
	absolute bool // the target named the authority
	host     bool
	length   bool
	chunked  bool
	close    bool
	keep     bool
	upgrade  bool // Connection: upgrade
	trailer  bool // a trailer section: framing fields are dropped instead of obeyed

	options  [4][]byte // Connection values that name further fields
	nOptions int
	named    int // fields that they name
}

// maxNamed bounds the fields that Connection names: for each all fields are looked through.
const maxNamed = 32

// parse reads field lines from p[i:] up to and with the empty line, and answers where the body starts; 0
// without an error: not there yet.
func (s *section) parse(p []byte, i int, h *message.Head, l Limits) (int, error) {
	for lines := 0; ; lines++ {
		if i >= len(p) {
			return 0, nil
		}
		if p[i] == '\r' {
			if i+1 == len(p) {
				return 0, nil
			}
			if p[i+1] != '\n' {
				return 0, ErrLineEnd
			}
			s.prune(h)
			return i + 2, nil
		}
		if lines == l.Fields {
			return 0, ErrTooManyFields
		}
		start := i
		for i < len(p) && class[p[i]]&isToken != 0 {
			i++
		}
		if i == len(p) {
			return 0, nil
		}
		if p[i] != ':' || i == start {
			return 0, badName(p[start], start == i)
		}
		name := p[start:i:i]
		i++
		for i < len(p) && (p[i] == ' ' || p[i] == '\t') {
			i++
		}
		start = i
		for i < len(p) && class[p[i]]&isValue != 0 {
			i++
		}
		if i == len(p) {
			return 0, nil
		}
		if p[i] != '\r' {
			return 0, badValue(p[i])
		}
		if i+1 == len(p) {
			return 0, nil
		}
		if p[i+1] != '\n' {
			return 0, ErrLineEnd
		}
		end := i
		for end > start && (p[end-1] == ' ' || p[end-1] == '\t') {
			end--
		}
		i += 2
		value := p[start:end:end]
		if n := lookup(name); n != nameOther {
			if err := s.take(n, name, value, h); err != nil {
				return 0, err
			}
			continue
		}
		h.Fields = append(h.Fields, message.Field{Name: name, Value: value})
	}
}

func badName(first byte, empty bool) error {
	switch {
	case empty && (first == ' ' || first == '\t'):
		return ErrFold
	case empty && first == '\n':
		return ErrLineEnd
	}
	return ErrFieldName
}

func badValue(c byte) error {
	if c == '\n' {
		return ErrLineEnd
	}
	return ErrFieldValue
}

// take gives a field its meaning.
func (s *section) take(n name, field, value []byte, h *message.Head) error {
	if n == nameExpect {
		h.Continue = h.Continue || fold(value, "100-continue")
		h.Fields = append(h.Fields, message.Field{Name: field, Value: value})
		return nil
	}
	if s.trailer {
		return nil
	}
	switch n {
	case nameHost:
		if s.host || len(value) > 0 && !message.Authority(value, false) {
			return ErrHost
		}
		s.host = true
		if !s.absolute {
			h.Authority = value
		}
	case nameContentLength:
		v, ok := digits(value)
		if !ok || s.length && v != h.ContentLength {
			return ErrLength
		}
		s.length, h.ContentLength = true, v
	case nameTransferEncoding:
		if s.chunked || !fold(value, "chunked") {
			return ErrEncoding
		}
		s.chunked = true
	case nameTE:
		h.Trailers = h.Trailers || hasToken(value, "trailers")
	case nameUpgrade:
		if h.Upgrade != nil {
			return ErrConnection
		}
		h.Upgrade = value
	case nameConnection:
		return s.connection(value)
	case nameKeepAlive:
		h.KeepAlive = value
	}
	return nil // Proxy-Connection and HTTP2-Settings say nothing that we act on
}

// connection reads the options of one Connection field (RFC 9110 section 7.6.1).
func (s *section) connection(value []byte) error {
	others := false
	for rest := value; len(rest) > 0; {
		var tok []byte
		tok, rest = element(rest)
		switch {
		case len(tok) == 0:
		case fold(tok, "close"):
			s.close = true
		case fold(tok, "keep-alive"):
			s.keep = true
		case fold(tok, "upgrade"):
			s.upgrade = true
		case !all(tok, isToken):
			return ErrConnection
		case lookup(tok) == nameOther:
			others = true
			if s.named++; s.named > maxNamed {
				return ErrConnection
			}
		}
	}
	if !others {
		return nil
	}
	if s.nOptions == len(s.options) {
		return ErrConnection
	}
	s.options[s.nOptions] = value
	s.nOptions++
	return nil
}

// prune takes out the fields that Connection names.
func (s *section) prune(h *message.Head) {
	for _, v := range s.options[:s.nOptions] {
		for len(v) > 0 {
			var tok []byte
			if tok, v = element(v); len(tok) > 0 && lookup(tok) == nameOther {
				remove(h, tok)
			}
		}
	}
}

func remove(h *message.Head, name []byte) {
	keep := h.Fields[:0]
	for _, f := range h.Fields {
		if !foldEqual(f.Name, name) {
			keep = append(keep, f)
		}
	}
	h.Fields = keep
}

func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x >= 'A' && x <= 'Z' {
			x += 'a' - 'A'
		}
		if y >= 'A' && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}

// element cuts the first element off a comma-separated list and trims it.
func element(p []byte) (tok, rest []byte) {
	end := 0
	for end < len(p) && p[end] != ',' {
		end++
	}
	tok = p[:end]
	if end < len(p) {
		rest = p[end+1:]
	}
	for len(tok) > 0 && (tok[0] == ' ' || tok[0] == '\t') {
		tok = tok[1:]
	}
	for len(tok) > 0 && (tok[len(tok)-1] == ' ' || tok[len(tok)-1] == '\t') {
		tok = tok[:len(tok)-1]
	}
	return tok, rest
}

func hasToken(list []byte, lower string) bool {
	for len(list) > 0 {
		var tok []byte
		if tok, list = element(list); fold(tok, lower) {
			return true
		}
	}
	return false
}

// digits reads a Content-Length.
func digits(p []byte) (v int64, ok bool) {
	for _, c := range p {
		if c < '0' || c > '9' || v > (1<<63-1-9)/10 {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, len(p) > 0
}

// common settles what requests and responses share.
func (s *section) common(h *message.Head) error {
	if s.chunked && s.length {
		return ErrLengthEncoding
	}
	if s.chunked && h.Version == message.HTTP10 {
		return ErrEncoding // RFC 9112 section 6.1: faulty framing
	}
	h.Close = s.close || h.Version == message.HTTP10 && !s.keep
	if !s.upgrade || h.Version == message.HTTP10 || len(h.Upgrade) == 0 {
		h.Upgrade = nil
	}
	return nil
}

// request settles the framing of a request.
func (s *section) request(h *message.Head) (f Framing, err error) {
	if err := s.common(h); err != nil {
		return f, err
	}
	if !s.host && h.Version == message.HTTP11 {
		return f, ErrHost
	}
	if fold(h.Upgrade, "h2c") {
		h.Upgrade = nil // its HTTP2-Settings concern this hop only
	}
	switch {
	case s.chunked:
		f.Kind = BodyChunked
	case h.ContentLength > 0:
		f = Framing{BodyLength, h.ContentLength}
	}
	if f.Kind != BodyNone && string(h.Method) == "CONNECT" {
		return f, ErrNoBody
	}
	return f, nil
}

// response settles the framing of a response (RFC 9112 section 6.3).
func (s *section) response(h *message.Head, method []byte) (f Framing, err error) {
	if err := s.common(h); err != nil {
		return f, err
	}
	if h.Status != 101 && h.Status != 426 {
		h.Upgrade = nil
	}
	switch {
	case h.Status < 200 || h.Status == 204:
		if s.chunked || h.ContentLength > 0 {
			return f, ErrNoBody
		}
		h.ContentLength = message.NoLength
	case h.Status < 300 && string(method) == "CONNECT":
		h.ContentLength = message.NoLength
	case h.Status == 304 || string(method) == "HEAD":
	case s.chunked:
		f.Kind = BodyChunked
	case s.length && h.ContentLength == 0:
	case s.length:
		f = Framing{BodyLength, h.ContentLength}
	default:
		f.Kind = BodyUntilClose
		h.Close = true
	}
	return f, nil
}
