package engine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// message1 reads HTTP/1 messages, in the simplest way that is right for well-formed ones; what is not well-formed is an
// error. It shares nothing with the proxy's codec.
type message1 struct {
	response bool
	headOnly bool // of a response to HEAD

	start    string // the first line of the head under way
	fields   map[string]string
	status   int
	state    int  // reading: 0 head, 1 body with a length, 2 chunk size, 3 chunk, 4 chunk end, 5 trailers, 6 until the end, 7 tunnel
	switches bool // set by head: a tunnel follows
	left     int
	trailers map[string]string
}

// inTunnel: what comes is no HTTP any more.
const inTunnel = 7

// events of message1: a head, a piece of body, the end of the message.
type events1 interface {
	head(m *message1) error
	piece(p []byte) error
	end(m *message1) error
}

// feed reads p and answers how much of it was used; the rest is to come again with more behind it.
func (m *message1) feed(p []byte, e events1) (used int, err error) {
	for {
		n, err := m.step(p[used:], e)
		used += n
		if err != nil || n == 0 {
			return used, err
		}
	}
}

func (m *message1) step(p []byte, e events1) (int, error) {
	switch m.state {
	case 0:
		i := bytes.Index(p, []byte("\r\n\r\n"))
		if i < 0 {
			return 0, nil
		}
		return i + 4, m.readHead(string(p[:i]), e)
	case 1, 3, 6, inTunnel:
		n := len(p)
		if m.state < 6 {
			n = min(n, m.left)
		}
		if n == 0 {
			return 0, nil
		}
		if err := e.piece(p[:n]); err != nil {
			return n, err
		}
		if m.state >= 6 {
			return n, nil
		}
		if m.left -= n; m.left == 0 && m.state == 1 {
			m.state = 0
			return n, e.end(m)
		}
		if m.left == 0 && m.state == 3 {
			m.state = 4
		}
		return n, nil
	}
	i := bytes.Index(p, []byte("\r\n"))
	if i < 0 {
		return 0, nil
	}
	return i + 2, m.line(string(p[:i]), e)
}

// line reads a line of the chunked framing.
func (m *message1) line(line string, e events1) error {
	switch m.state {
	case 2:
		n, err := strconv.ParseUint(line, 16, 31)
		if err != nil {
			return fmt.Errorf("chunk size %q", line)
		}
		if m.left, m.state = int(n), 3; n == 0 {
			m.state, m.trailers = 5, map[string]string{}
		}
	case 4:
		if m.state = 2; line != "" {
			return fmt.Errorf("%q behind a chunk", line)
		}
	case 5:
		if line == "" {
			m.state = 0
			return e.end(m)
		}
		k, v, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("trailer %q", line)
		}
		m.trailers[strings.ToLower(k)] = strings.TrimSpace(v)
	}
	return nil
}

func (m *message1) readHead(text string, e events1) error {
	lines := strings.Split(text, "\r\n")
	m.start, m.fields, m.trailers, m.left = lines[0], map[string]string{}, nil, 0
	for _, l := range lines[1:] {
		k, v, ok := strings.Cut(l, ":")
		if !ok {
			return fmt.Errorf("field %q", l)
		}
		k = strings.ToLower(k)
		if _, twice := m.fields[k]; twice && (k == "content-length" || k == "transfer-encoding" || k == "x-sim-id") {
			return fmt.Errorf("%q twice", k)
		}
		m.fields[k] = strings.TrimSpace(v)
	}
	if m.response {
		if _, err := fmt.Sscanf(m.start, "HTTP/1.1 %d", &m.status); err != nil {
			return fmt.Errorf("status line %q", m.start)
		}
		if m.status < 200 && m.status != 101 {
			return e.head(m)
		}
	}
	if err := e.head(m); err != nil {
		return err
	}
	if m.switches {
		m.state = inTunnel
		return nil
	}
	length, sized := m.fields["content-length"]
	chunked := m.fields["transfer-encoding"] == "chunked"
	switch {
	case sized && chunked:
		return fmt.Errorf("content-length and transfer-encoding")
	case m.response && (m.headOnly || m.status == 204 || m.status == 304):
		return e.end(m)
	case chunked:
		m.state = 2
	case sized:
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 {
			return fmt.Errorf("content-length %q", length)
		}
		if m.left = n; n == 0 {
			return e.end(m)
		}
		m.state = 1
	case m.response:
		m.state = 6
	default:
		return e.end(m)
	}
	return nil
}

// chunks writes b in a few chunks, without the last.
func chunks(dst, b []byte) []byte {
	for len(b) > 0 {
		n := min(len(b), 7001)
		dst = fmt.Appendf(dst, "%x\r\n%s\r\n", n, b[:n])
		b = b[n:]
	}
	return dst
}
