package downstream_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// A client that says nothing, or never ends its head, is let go.
func TestClientTimeouts(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {})
	p := newHop(t, setup{origin: inbound(addrOf(t, srv)), config: &downstream.Config{
		HeaderTimeout: 50 * time.Millisecond, IdleTimeout: 150 * time.Millisecond,
	}})
	for _, send := range []string{"", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /"} {
		c := raw(t, p)
		if send != "" {
			c.send(send)
		}
		if _, err := io.ReadAll(c.r); err != nil {
			t.Errorf("%q: %v", send, err)
		}
	}
}

// A client that does not send the body it has promised is given up; one that sends it slowly is not.
func TestBodyThatDoesNotCome(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	p := newHop(t, setup{origin: inbound(addrOf(t, srv)), config: &downstream.Config{IdleTimeout: time.Second}})
	slow, none := raw(t, p), raw(t, p)
	for _, c := range []*wire{slow, none} {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
	}
	for range 10 {
		var at time.Duration
		p.do(func() { at = p.loop.Now() })
		p.until("200 ms", func() bool { return p.loop.Now() > at+200*time.Millisecond })
		slow.send("x")
	}
	if _, body := slow.response("POST"); body != "xxxxxxxxxx" {
		t.Errorf("%q", body)
	}
	if b, err := io.ReadAll(none.r); len(b) > 0 || err != nil {
		t.Errorf("%q %v", b, err)
	}
	p.until("the end of both", func() bool { return p.worker.Open() == 0 })
}

// A request that takes longer than the client may be idle is not cut off.
func TestLongRequest(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		fmt.Fprint(w, "late")
	})
	p := newHop(t, setup{origin: inbound(addrOf(t, srv)), config: &downstream.Config{
		HeaderTimeout: 500 * time.Millisecond, IdleTimeout: 500 * time.Millisecond,
	}})
	c := raw(t, p)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n")
	c.send("\r\n")
	var begun time.Duration
	p.do(func() { begun = p.loop.Now() })
	p.until("1 s", func() bool { return p.loop.Now() > begun+time.Second })
	close(release)
	if _, body := c.response("GET"); body != "late" {
		t.Fatalf("%q", body)
	}
}

// Draining ends an idle connection now and a busy one after its response, which says so.
func TestDrain(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{}, 1)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			started <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "done")
	})
	var served []downstream.Drainer
	p := newHop(t, setup{origin: inbound(addrOf(t, srv)), wrap: func(c loop.Conn, serve func(c loop.Conn) loop.Handler) loop.Handler {
		h := serve(c)
		served = append(served, h.(downstream.Drainer))
		return h
	}})
	idle, busy := raw(t, p), raw(t, p)
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	idle.response("GET")
	busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-started
	p.do(func() {
		for _, d := range served {
			d.Drain()
		}
	})
	if b, err := io.ReadAll(idle.r); len(b) > 0 || err != nil {
		t.Errorf("idle: %q %v", b, err)
	}
	close(release)
	if res, body := busy.response("GET"); body != "done" || !res.Close {
		t.Errorf("busy: %v %q", res.Header, body)
	}
	if b, err := io.ReadAll(busy.r); len(b) > 0 || err != nil {
		t.Errorf("busy: %q %v", b, err)
	}
}

// Leaving answers the next request of an idle connection, and says that it was the last.
func TestLeave(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "done") })
	var served []downstream.Drainer
	p := newHop(t, setup{origin: inbound(addrOf(t, srv)), wrap: func(c loop.Conn, serve func(c loop.Conn) loop.Handler) loop.Handler {
		h := serve(c)
		served = append(served, h.(downstream.Drainer))
		return h
	}})
	idle, blank := raw(t, p), raw(t, p)
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	idle.response("GET")
	p.until("both are served", func() bool { return len(served) == 2 })
	p.do(func() {
		for _, d := range served {
			d.Leave()
		}
	})
	for _, c := range []*wire{idle, blank} {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if res, body := c.response("GET"); body != "done" || !res.Close {
			t.Errorf("%v %q", res.Header, body)
		}
		if b, err := io.ReadAll(c.r); len(b) > 0 || err != nil {
			t.Errorf("%q %v", b, err)
		}
	}
}

// Leaving while a response is under way whose head has gone out already, and so could not say that it is the last, answers the next
// request as well.
func TestLeaveInResponse(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "do")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/slow" {
			<-release
		}
		fmt.Fprint(w, "ne")
	})
	var served downstream.Drainer
	p := newHop(t, setup{origin: inbound(addrOf(t, srv)), wrap: func(c loop.Conn, serve func(c loop.Conn) loop.Handler) loop.Handler {
		h := serve(c)
		served = h.(downstream.Drainer)
		return h
	}})
	c := raw(t, p)
	c.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	p.do(func() { served.Leave() })
	close(release)
	for _, last := range []bool{false, true} {
		if res, body := c.response("GET"); body != "done" || res.Close != last {
			t.Fatalf("%v %q", res.Header, body)
		}
		if !last {
			c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		}
	}
}

// A program behind a published port learns its caller's address.
func TestForwarded(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Values("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
	})
	o := inbound(addrOf(t, srv))
	o.Publish = true
	p := newHop(t, setup{origin: o})
	for given, want := range map[string]string{"": "[127.0.0.1]http", "X-Forwarded-For: 192.0.2.1\r\n": "[192.0.2.1, 127.0.0.1]http"} {
		c := raw(t, p)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n" + given + "\r\n")
		if _, body := c.response("GET"); body != want {
			t.Errorf("%q, want %q", body, want)
		}
	}
}

// What another proxy has sent is counted until it is answered: a program that is told to end is given time for it.
func TestServed(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { <-release; fmt.Fprint(w, "done") })
	o := inbound(addrOf(t, srv))
	published := newHop(t, setup{origin: o})
	o.Mesh = true
	p := newHop(t, setup{origin: o})
	a, b := raw(t, p), raw(t, published)
	for _, c := range []*wire{a, b} {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	p.until("the request of the mesh", func() bool { return p.worker.Served() == 1 })
	published.until("the other request", func() bool { return published.worker.Open() == 1 })
	published.do(func() {
		if n := published.worker.Served(); n != 0 {
			t.Errorf("%d requests from outside the mesh count", n)
		}
	})
	close(release)
	a.response("GET")
	b.response("GET")
	p.until("the end of it", func() bool { return p.worker.Served() == 0 && p.worker.Open() == 0 })
}
