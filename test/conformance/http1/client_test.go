//go:build conformance

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// patience is how long anything that has to happen may take.
const patience = 4 * time.Second

// talk plays a case's client: it sends the steps, in pieces of so many bytes (0: at once), and compares the responses. A
// connection that is to stay open must then answer one more request.
func talk(addr string, c *Case, piece int, exact bool) (problems []string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Close()
	k := &client{conn: conn.(*net.TCPConn), r: bufio.NewReaderSize(conn, 64<<10), exact: exact}
	_ = conn.SetDeadline(time.Now().Add(patience))
	want := c.Want
	for i, s := range c.Send {
		switch {
		case s.Await > 0:
			for len(want) > 0 && !k.closed {
				w := want[0]
				want = want[1:]
				k.response(w, i)
				if w.Status == s.Await {
					break
				}
			}
		case s.FIN:
			k.wrote()
			_ = k.conn.CloseWrite() // gone already: the responses will tell
		default:
			k.send(s.Bytes, piece)
		}
	}
	for i, w := range want {
		k.response(w, i)
	}
	k.tunnel()
	if last := c.Want[len(c.Want)-1]; !k.closed && !last.Close && len(k.problems) == 0 {
		k.probe()
	}
	k.wrote()
	return k.problems
}

// client is one connection.
type client struct {
	conn     *net.TCPConn
	r        *bufio.Reader
	exact    bool
	closed   bool
	writing  chan struct{}
	through  *Response // what is said after it is no HTTP any more
	problems []string
}

func (k *client) problem(format string, args ...any) {
	k.problems = append(k.problems, fmt.Sprintf(format, args...))
}

// send writes beside the reader: who refuses a message may answer before it is complete.
func (k *client) send(p []byte, piece int) {
	k.wrote()
	k.writing = make(chan struct{})
	done := k.writing
	if piece == 0 {
		piece = len(p)
	}
	go func() {
		defer close(done)
		for len(p) > 0 {
			n := min(piece, len(p))
			if _, err := k.conn.Write(p[:n]); err != nil {
				return // refused: the response says so
			}
			p = p[n:]
		}
	}()
}

func (k *client) wrote() {
	if k.writing != nil {
		<-k.writing
	}
}

// response reads what is said to come next.
func (k *client) response(w Response, i int) {
	if len(k.problems) > 0 {
		return
	}
	where := fmt.Sprintf("response %d", i+1)
	if w.Status == 0 {
		k.ended(where)
		return
	}
	m, err := readHead(k.r)
	if err != nil {
		k.problem("%s: %v instead of status %d", where, err, w.Status)
		return
	}
	var version string
	var status int
	if _, err := fmt.Sscanf(m.start, "%s %d", &version, &status); err != nil {
		k.problem("%s: %q", where, m.start)
		return
	}
	tunnel := w.Raw != nil
	if !w.Head && status >= 200 && !tunnel {
		if err := m.readBody(k.r, true); err != nil && !w.Cut {
			k.problem("%s, %q: %v", where, m.start, err)
		}
	}
	if status != w.Status {
		k.problem("%s: %s, want %d (%.200q)", where, m.start, w.Status, m.body)
		return
	}
	k.compare(where, m, w)
	if tunnel {
		k.through = &w
	} else if w.Close && len(k.problems) == 0 {
		k.ended(where)
	}
}

// tunnel reads what comes when the connection has switched.
func (k *client) tunnel() {
	if k.through == nil || len(k.problems) > 0 {
		return
	}
	want := *k.through.Raw
	got := make([]byte, len(want))
	n, err := io.ReadFull(k.r, got)
	if string(got[:n]) != want {
		k.problem("in the tunnel: %q (%v), want %q", got[:n], err, want)
	} else if k.through.Close {
		_ = k.conn.CloseWrite()
		k.ended("in the tunnel")
	}
}

func (k *client) compare(where string, m *heard, w Response) {
	if w.Reason != nil {
		_, reason, _ := strings.Cut(m.start[len("HTTP/1.1 "):], " ")
		if reason != *w.Reason {
			k.problem("%s: reason %q, want %q", where, reason, *w.Reason)
		}
	}
	if m.cut != w.Cut {
		k.problem("%s: cut %t, want %t (%s, %d bytes)", where, m.cut, w.Cut, m.framing, len(m.body))
	}
	if w.Body != nil && string(m.body) != *w.Body {
		k.problem("%s: body %.200q, want %.200q", where, m.body, *w.Body)
	}
	if n := m.all("content-length"); len(n)+len(m.all("transfer-encoding")) > 1 || m.start == "" {
		k.problem("%s is framed twice: %q", where, m.fields)
	}
	k.problems = append(k.problems, match(where, m.fields, w.Has, w.Not, k.exact)...)
	if len(w.Trailers) > 0 {
		k.problems = append(k.problems, match(where+", trailers,", m.trailers, w.Trailers, nil, k.exact)...)
	}
}

// ended holds that nothing comes any more.
func (k *client) ended(where string) {
	rest, err := io.ReadAll(io.LimitReader(k.r, 1000))
	k.closed = true
	var timeout net.Error
	switch {
	case len(rest) > 0:
		k.problem("%s: then %.300q, want the end", where, rest)
	case errors.As(err, &timeout) && timeout.Timeout():
		k.problem("%s: the connection stays open", where)
	}
}

// probe sends one more request, whose answer only fits if nothing was left over on either side.
func (k *client) probe() {
	k.wrote()
	k.send([]byte("GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"), 0)
	m, err := readHead(k.r)
	if err == nil {
		err = m.readBody(k.r, true)
	}
	if err != nil {
		k.problem("the next request on the connection: %v", err)
	} else if !strings.HasPrefix(m.start, "HTTP/1.1 200") || len(m.body) > 0 && !bytes.Contains(m.body, []byte("seen GET /probe")) {
		k.problem("the next request on the connection: %s, %.200q", m.start, m.body)
	}
}
