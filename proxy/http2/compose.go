package http2

import (
	"strconv"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// Names of fields that this package writes by itself.
var (
	nameMethod    = []byte(":method")
	nameScheme    = []byte(":scheme")
	nameAuthority = []byte(":authority")
	namePath      = []byte(":path")
	nameProtocol  = []byte(":protocol")
	nameStatus    = []byte(":status")
	nameLength    = []byte("content-length")
	nameTE        = []byte("te")
	nameExpect    = []byte("expect")
	valueConnect  = []byte("CONNECT")
	valueTrailers = []byte("trailers")
	valueContinue = []byte("100-continue")
)

// Indexes of the static table.
const (
	indexGET    = 2
	indexPOST   = 3
	indexRoot   = 4
	indexHTTP   = 6
	indexHTTPS  = 7
	indexStatus = 8
)

func (c *Conn) writeRequest(h *message.Head, s *Stream) {
	switch {
	case s.connect:
		c.put(nameMethod, valueConnect)
	case string(h.Method) == "GET":
		c.out = c.enc.AppendStatic(c.out, indexGET)
	case string(h.Method) == "POST":
		c.out = c.enc.AppendStatic(c.out, indexPOST)
	default:
		c.put(nameMethod, h.Method)
	}
	if !s.connect || s.extended {
		switch string(h.Scheme) {
		case "", "http":
			c.out = c.enc.AppendStatic(c.out, indexHTTP)
		case "https":
			c.out = c.enc.AppendStatic(c.out, indexHTTPS)
		default:
			c.put(nameScheme, h.Scheme)
		}
		if len(h.Target) <= 1 && string(h.Target) != "*" {
			c.out = c.enc.AppendStatic(c.out, indexRoot)
		} else {
			c.put(namePath, h.Target)
		}
	}
	if len(h.Authority) > 0 {
		c.put(nameAuthority, h.Authority)
	}
	if s.extended {
		c.put(nameProtocol, h.Upgrade)
	}
	if h.ContentLength >= 0 && !s.connect {
		c.writeLength(h.ContentLength)
	}
	if h.Trailers {
		c.put(nameTE, valueTrailers)
	}
	if h.Continue {
		c.put(nameExpect, valueContinue)
	}
	c.writeFields(h.Fields)
}

func (c *Conn) put(name, value []byte) { c.out = c.enc.Append(c.out, name, value, false) }

// staticStatus answers the static table's index of a status, 0 if it has none.
func staticStatus(status int) uint8 {
	switch status {
	case 200:
		return indexStatus
	case 204:
		return indexStatus + 1
	case 206:
		return indexStatus + 2
	case 304:
		return indexStatus + 3
	case 400:
		return indexStatus + 4
	case 404:
		return indexStatus + 5
	case 500:
		return indexStatus + 6
	}
	return 0
}

func (c *Conn) writeStatus(status int) {
	if i := staticStatus(status); i != 0 {
		c.out = c.enc.AppendStatic(c.out, i)
		return
	}
	c.put(nameStatus, strconv.AppendInt(c.digit[:0], int64(status), 10))
}

func (c *Conn) writeLength(n int64) {
	c.put(nameLength, strconv.AppendInt(c.digit[:0], n, 10))
}

// writeFields writes fields as HTTP/2 has them: names in lower case, nothing that belongs to one hop.
func (c *Conn) writeFields(fields []message.Field) {
	for i := range fields {
		f := &fields[i]
		skip, secret := outgoing(f.Name, f.Value)
		if skip {
			continue
		}
		name := f.Name
		if hasUpper(name) {
			c.lower = c.lower[:0]
			for _, b := range name {
				if b >= 'A' && b <= 'Z' {
					b += 'a' - 'A'
				}
				c.lower = append(c.lower, b)
			}
			name = c.lower
		}
		c.out = c.enc.Append(c.out, name, trim(f.Value), f.Sensitive || secret)
	}
}

func hasUpper(b []byte) bool {
	for _, c := range b {
		if c >= 'A' && c <= 'Z' {
			return true
		}
	}
	return false
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// outgoing reports whether a field is left out (it belongs to one hop, or Head has it elsewhere) and whether it
// is a secret that must not enter a compression table shared with others (RFC 7541 section 7.1.3).
func outgoing(name, value []byte) (skip, secret bool) {
	switch len(name) {
	case 0:
		return true, false
	case 2:
		skip = message.EqualFold(name, "te")
	case 4:
		skip = message.EqualFold(name, "host")
	case 6:
		skip = message.EqualFold(name, "expect") && message.EqualFold(value, "100-continue")
		secret = len(value) < 20 && message.EqualFold(name, "cookie")
	case 7:
		skip = message.EqualFold(name, "upgrade")
	case 10:
		skip = message.EqualFold(name, "connection") || message.EqualFold(name, "keep-alive")
	case 13:
		secret = message.EqualFold(name, "authorization")
	case 14:
		skip = message.EqualFold(name, "content-length") || message.EqualFold(name, "http2-settings")
	case 16:
		skip = message.EqualFold(name, "proxy-connection")
	case 17:
		skip = message.EqualFold(name, "transfer-encoding")
	case 19:
		secret = message.EqualFold(name, "proxy-authorization")
	}
	return skip || name[0] == ':', secret
}
