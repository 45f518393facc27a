//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// counts is what a load generator prints, as a line of JSON five times a second and once more at its end.
type counts struct {
	OK     int            `json:"ok"`
	Failed int            `json:"failed"`
	Opened int            `json:"opened"` // connections, over the whole time
	Errors map[string]int `json:"errors,omitempty"`
	Final  bool           `json:"final,omitempty"`
}

// loadMain sends requests over a number of keep-alive connections until SIGTERM. It is strict on purpose: it never
// repeats a request, as net/http's client would, and opens a connection again only after it has counted the failure.
func loadMain(args []string) error {
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	connections := f.Int("connections", 8, "")
	posts := f.Bool("posts", false, "every second request is a POST")
	post := f.Bool("post", false, "every request is a POST")
	fresh := f.Bool("close", false, "every request has a connection of its own")
	pause := f.Duration("pause", 5*time.Millisecond, "between two requests of one connection")
	if err := f.Parse(args); err != nil {
		return err
	}
	target, err := url.Parse(f.Arg(0))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l := &load{target: target, posts: *posts, post: *post, fresh: *fresh, pause: *pause, sum: counts{Errors: map[string]int{}}}
	var workers sync.WaitGroup
	for range *connections {
		workers.Go(func() { l.work(ctx) })
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			l.print(false)
		}
	}
	workers.Wait()
	l.print(true)
	return nil
}

type load struct {
	target *url.URL
	posts  bool
	post   bool
	fresh  bool
	pause  time.Duration
	mu     sync.Mutex
	sum    counts
}

func (l *load) print(final bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Final = final
	_ = json.NewEncoder(os.Stdout).Encode(l.sum) // who does not read it has ended
}

// work keeps one connection busy; the request that is under way at the end is still finished.
func (l *load) work(ctx context.Context) {
	var c net.Conn
	var r *bufio.Reader
	for n := 0; ctx.Err() == nil; n++ {
		var err error
		if c == nil {
			if c, err = net.DialTimeout("tcp", l.target.Host, 10*time.Second); err == nil {
				r = bufio.NewReader(c)
				l.mu.Lock()
				l.sum.Opened++
				l.mu.Unlock()
			}
		}
		keep := false
		if err == nil {
			keep, err = l.request(c, r, n)
		}
		l.mu.Lock()
		if err == nil {
			l.sum.OK++
		} else {
			l.sum.Failed++
			l.sum.Errors[err.Error()]++
		}
		l.mu.Unlock()
		if c != nil && !keep {
			c.Close()
			c = nil
		}
		wait := time.NewTimer(l.pause)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
	}
}

// request sends one and reads its response. keep says whether the connection can have another.
func (l *load) request(c net.Conn, r *bufio.Reader, n int) (keep bool, err error) {
	req := &http.Request{Method: http.MethodGet, URL: l.target, Host: l.target.Host, Header: http.Header{"User-Agent": {"load"}}}
	if l.post || l.posts && n%2 == 1 {
		text := strings.Repeat("x", 1000)
		req.Method, req.Body, req.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(text)), int64(len(text))
	}
	req.Close = l.fresh
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false, err
	}
	if err := req.Write(c); err != nil {
		return false, fmt.Errorf("%s: write: %w", req.Method, plain(err))
	}
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return false, fmt.Errorf("%s: read: %w", req.Method, plain(err))
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return false, fmt.Errorf("%s: body: %w", req.Method, plain(err))
	}
	if resp.StatusCode != http.StatusOK {
		return !resp.Close, fmt.Errorf("%s: %s, reason %q", req.Method, resp.Status, resp.Header.Get("Tulle-Reason"))
	}
	return !resp.Close, nil
}

// plain takes addresses out of an error, so that equal ones can be counted.
func plain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// loader is a load generator that runs in the mesh.
type loader struct {
	m           *mesh
	p           *process
	connections int
}

// load starts a load generator in the mesh and waits until it flows.
func (m *mesh) load(flags []string, target string) *loader {
	m.t.Helper()
	return m.loadBy(8, append(append([]string{"load", "-connections", "8"}, flags...), target)...)
}

// loadBy is load with any of our programs that prints counts, and that opens a number of connections.
func (m *mesh) loadBy(connections int, command ...string) *loader {
	m.t.Helper()
	l := &loader{m: m, p: m.run([]string{"--service", "load"}, append([]string{self(m.t)}, command...)...), connections: connections}
	l.more(50)
	return l
}

// counts answers the last line that the generator has printed.
func (l *loader) counts() counts {
	l.m.t.Helper()
	text := l.p.stdout()
	text = text[:strings.LastIndexByte(text, '\n')+1] // whole lines
	if text == "" {
		return counts{}
	}
	return decode[counts](l.m.t, text[strings.LastIndexByte(text[:len(text)-1], '\n')+1:])
}

// more waits until n more requests have been answered well.
func (l *loader) more(n int) {
	l.m.t.Helper()
	before := l.counts().OK
	eventually(l.m.t, patience, fmt.Sprintf("%d more requests", n), func() error {
		if l.p.ended() {
			l.m.t.Fatalf("the load generator ended: %s", l.p.stderr())
		}
		if now := l.counts(); now.OK < before+n {
			return fmt.Errorf("%d after %d; %d failed: %v", now.OK, before, now.Failed, now.Errors)
		}
		return nil
	})
}

// finish ends the generator and answers its last word.
func (l *loader) finish() counts {
	l.m.t.Helper()
	l.p.signal(syscall.SIGTERM)
	if code := l.p.wait(patience); code != 0 {
		l.m.t.Fatalf("the load generator ended with %d: %s", code, l.p.stderr())
	}
	c := l.counts()
	if !c.Final {
		l.m.t.Fatalf("the load generator has not said its last word: %s", tail(l.p.stdout()))
	}
	l.m.t.Logf("load: %d ok, %d failed %v, %d connections opened by %d workers", c.OK, c.Failed, c.Errors, c.Opened, l.connections)
	return c
}

// flawless ends the generator and fails the test if any request failed or any connection was closed.
func (l *loader) flawless() {
	l.m.t.Helper()
	c := l.finish()
	if c.Failed != 0 {
		l.m.t.Errorf("%d of %d requests failed: %v", c.Failed, c.OK+c.Failed, c.Errors)
	}
	if c.Opened != l.connections {
		l.m.t.Errorf("%d connections were opened, want %d: some were closed under load", c.Opened, l.connections)
	}
}

// TestLoadCounts: the generator that the other tests trust sees what is wrong.
func TestLoadCounts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var mu sync.Mutex
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		n++
		k := n
		mu.Unlock()
		switch k {
		case 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 5:
			panic(http.ErrAbortHandler)
		case 7:
			w.Header().Set("Connection", "close")
		}
	})}
	go server.Serve(l)
	defer server.Close()
	c := &load{target: &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}, sum: counts{Errors: map[string]int{}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done sync.WaitGroup
	done.Go(func() { c.work(ctx) })
	eventually(t, patience, "ten requests", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sum.OK < 10 {
			return fmt.Errorf("%d", c.sum.OK)
		}
		return nil
	})
	cancel()
	done.Wait()
	if c.sum.Failed != 2 || c.sum.Opened != 3 || len(c.sum.Errors) != 2 {
		t.Errorf("counted %+v, want 2 failures of 2 kinds and 3 connections", c.sum)
	}
}
