//go:build conformance

package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// origin records every request that arrives, whole or not, and answers 200, or what the case at hand says.
type origin struct {
	l    net.Listener
	mu   sync.Mutex
	turn int // which case is at hand
	seen map[int][]*heard
	// broken are messages that are not of the shape of HTTP/1: the proxy must never send one.
	broken map[int][]string
	answer []byte // for the next request, then nil
	end    bool
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{l: l, seen: map[int][]*heard{}, broken: map[int][]string{}}
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

// script sets what the next request is answered with, and answers the number under which take knows what follows.
func (o *origin) script(c *Case) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turn++
	o.answer, o.end = c.Answer, c.End
	if c.End && c.Answer == nil {
		o.answer = []byte{}
	}
	return o.turn
}

// take answers the whole requests that began in a turn, but those of probes, and what was no HTTP.
func (o *origin) take(turn int) (seen []*heard, broken []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.seen[turn] {
		if !strings.HasPrefix(m.start, "GET /probe ") {
			seen = append(seen, m)
		}
	}
	return seen, slices.Clone(o.broken[turn])
}

func (o *origin) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		m, err := readHead(r)
		o.mu.Lock()
		turn := o.turn
		if err != nil {
			if errors.Is(err, errShape) {
				o.broken[turn] = append(o.broken[turn], err.Error())
			}
			o.mu.Unlock()
			return
		}
		answer, end := o.answer, o.end
		o.answer, o.end = nil, false
		o.mu.Unlock()
		early := m.first("x-answer") == "early" || answer != nil && m.first("expect") != ""
		if early {
			_, _ = c.Write(answer) // the client may be gone
		} else if strings.EqualFold(m.first("expect"), "100-continue") && len(m.all("content-length"))+len(m.all("transfer-encoding")) > 0 {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if err := m.readBody(r, false); err != nil {
			if errors.Is(err, errShape) {
				o.note(turn, nil, fmt.Errorf("%s: %w", m.start, err))
			}
			return
		}
		o.note(turn, m, nil)
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

// echo gives back what comes until the client ends its direction.
func echo(c net.Conn, r *bufio.Reader) {
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.Copy(c, r) // the client compares
}

func (o *origin) note(turn int, m *heard, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.broken[turn] = append(o.broken[turn], err.Error())
		return
	}
	o.seen[turn] = append(o.seen[turn], m)
}
