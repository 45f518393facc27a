//go:build conformance

package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// origin records every request that arrives, whole or not, and answers 200, or what the case at hand says.
type origin struct {
	l    net.Listener
	mu   sync.Mutex
	seen []*heard
	// broken are messages that are not of the shape of HTTP/1: the proxy must never send one.
	broken []string
	answer []byte // for the next request, then nil
	end    bool
	quiet  chan struct{} // renewed with every change
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{l: l}
	var conns sync.WaitGroup
	t.Cleanup(func() { l.Close(); conns.Wait() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { o.serve(c) })
		}
	}()
	return o
}

func (o *origin) port() int { return o.l.Addr().(*net.TCPAddr).Port }

// script sets what the next request is answered with, and forgets what was seen.
func (o *origin) script(c *Case) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen, o.broken = nil, nil
	o.answer, o.end = c.Answer, c.End
	if c.End && c.Answer == nil {
		o.answer = []byte{}
	}
}

// take answers the whole requests that came since script, and what was no HTTP.
func (o *origin) take() (seen []*heard, broken []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen, o.broken
}

func (o *origin) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		m, err := readHead(r)
		if err != nil {
			if errors.Is(err, errShape) {
				o.note(nil, err)
			}
			return
		}
		o.mu.Lock()
		answer, end := o.answer, o.end
		o.answer, o.end = nil, false
		o.mu.Unlock()
		early := m.first("x-answer") == "early" || answer != nil && m.first("expect") != ""
		if early {
			_, _ = c.Write(answer) // the client may be gone
		} else if strings.EqualFold(m.first("expect"), "100-continue") && strings.HasSuffix(m.start, "HTTP/1.1") {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if err := m.readBody(r, false); err != nil {
			if errors.Is(err, errShape) {
				o.note(nil, fmt.Errorf("%s: %w", m.start, err))
			}
			return
		}
		o.note(m, nil)
		if answer == nil {
			answer = []byte(m.reply())
		}
		if !early {
			_, _ = c.Write(answer)
		}
		tunnel := strings.HasPrefix(string(answer), "HTTP/1.1 101") || strings.HasPrefix(m.start, "CONNECT ") && strings.HasPrefix(string(answer), "HTTP/1.1 2")
		if tunnel {
			echo(c, r)
			return
		}
		if end || strings.EqualFold(m.first("connection"), "close") {
			return
		}
	}
}

// reply is the answer to a request without a script: it tells which request it is for.
func (m *heard) reply() string {
	body := "seen " + strings.TrimSuffix(m.start, " HTTP/1.1")
	if len(body) > 500 {
		body = body[:500]
	}
	text := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(body))
	if strings.HasPrefix(m.start, "HEAD ") {
		return text
	}
	return text + body
}

// echo gives back four bytes at least and ends the connection: the tunnels of the corpus are that short.
func echo(c net.Conn, r *bufio.Reader) {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	p := make([]byte, 100)
	n, _ := io.ReadAtLeast(r, p, 4)
	_, _ = c.Write(p[:n])
}

func (o *origin) note(m *heard, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.broken = append(o.broken, err.Error())
		return
	}
	o.seen = append(o.seen, m)
}
