// Package ready finds out whether a program takes work: its port accepts, or an HTTP request to it succeeds. It
// never decides what follows from that. It keeps no state; a Probe may be run from any goroutine. Start reading at
// Probe.Wait.
package ready

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Dial connects to a port on the program's own loopback. It gives up when ctx ends.
type Dial func(ctx context.Context, port uint16) (net.Conn, error)

// attempt bounds one try; the pause between two grows from first to last.
const (
	attempt    = 2 * time.Second
	firstPause = 2 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// Probe is one way to ask.
type Probe struct {
	Port uint16 // of the program
	Path string // "" asks only whether the port accepts; else GET is to answer 200 to 399
}

// Parse reads the value of --ready: "" and "tcp" ask whether port accepts, "http:/path" asks for a page on it, and
// "tcp:PORT" and "http:PORT/path" do so on another port. A pure client has no port: pass 0, and only the last two are taken.
func Parse(s string, port uint16) (Probe, error) {
	bad := func(why string) (Probe, error) {
		return Probe{}, fmt.Errorf("--ready %q: %s; write tcp, tcp:PORT, http:/path or http:PORT/path", s, why)
	}
	kind, rest, _ := strings.Cut(s, ":")
	p := Probe{Port: port}
	switch kind {
	case "", "tcp":
	case "http":
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			return bad("no path")
		}
		p.Path = rest[slash:]
		rest = rest[:slash]
		if strings.ContainsFunc(p.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return bad("space in the path")
		}
	default:
		return bad("unknown kind")
	}
	if rest != "" {
		n, err := strconv.ParseUint(rest, 10, 16)
		if err != nil || n == 0 {
			return bad("no port number")
		}
		p.Port = uint16(n)
	}
	if p.Port == 0 && s != "" {
		return bad("the workload has no --port")
	}
	return p, nil
}

// Wait tries until the program is ready (nil) or ctx ends (its error, with the last reason). A Probe without a port
// is ready at once.
func (p Probe) Wait(ctx context.Context, dial Dial) error {
	if p.Port == 0 {
		return nil
	}
	pause := firstPause
	for {
		err := p.Once(ctx, dial)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w (last: %v)", ctx.Err(), err)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// Once tries one time.
func (p Probe) Once(ctx context.Context, dial Dial) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	c, err := dial(ctx, p.Port)
	if err != nil {
		return err
	}
	defer c.Close()
	if p.Path == "" {
		return nil
	}
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: tulle-ready\r\nConnection: close\r\n\r\n", p.Path, p.Port); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return errors.New("readiness answered " + resp.Status)
	}
	return nil
}
