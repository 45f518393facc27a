//go:build conformance

package http1

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// bench is a proxy with a way to the origin for every variant. Listeners are named as cases name them.
type bench struct {
	origin *origin
	addr   map[string]string // by variant and listener: "one/main"
}

// newBench starts the proxy. On the way "hop2" a request passes it twice and is HTTP/2 in between.
func newBench(t testing.TB) *bench {
	b := &bench{origin: newOrigin(t), addr: map[string]string{}}
	inner := subject.Port(t)
	boot := subject.Bootstrap{
		Clusters:  []subject.Cluster{{Name: "origin", Port: b.origin.port()}, {Name: "inner", Port: inner, HTTP2: true}},
		Listeners: []subject.Listener{{Port: inner, Cluster: "origin", Codec: "HTTP2", Connect: true, MaxHead: 64, Fields: 200}},
	}
	for way, cluster := range map[string]string{"one": "origin", "hop2": "inner"} {
		boot.Listeners = append(boot.Listeners,
			b.listener(t, way+"/main", subject.Listener{Cluster: cluster, HTTP10: true, Connect: true, MaxHead: 16, Fields: 50}),
			b.listener(t, way+"/strict", subject.Listener{Cluster: cluster, Codec: "HTTP1"}))
	}
	subject.Start(t, boot)
	return b
}

func (b *bench) listener(t testing.TB, name string, l subject.Listener) subject.Listener {
	l.Port = subject.Port(t)
	b.addr[name] = fmt.Sprintf("127.0.0.1:%d", l.Port)
	return l
}

// request is what is sent where a case says nothing, and what the origin must then see.
const request = "GET /r HTTP/1.1\r\nHost: a\r\n\r\n"

func (c *Case) complete() *Case {
	if len(c.Send) > 0 {
		return c
	}
	d := *c
	d.Send = []Step{{Bytes: []byte(request)}}
	d.Sees = []Request{{Method: "GET", Target: "/r"}}
	return &d
}

// is2 reports whether the client of the case speaks HTTP/2.
func (c *Case) is2() bool { return len(c.Send) > 0 && c.Send[0].Fields != nil }

// TestRequests sends the corpus through the proxy.
func TestRequests(t *testing.T) {
	b := newBench(t)
	for _, v := range []struct {
		name, way string
		piece     int
	}{{"at once", "one", 0}, {"byte by byte", "one", 1}, {"hop2", "hop2", 0}} {
		t.Run(v.name, func(t *testing.T) { b.all(t, v.way, v.piece) })
	}
}

// all plays every case that applies to a way.
func (b *bench) all(t *testing.T, way string, piece int) {
	ran, failed := 0, 0
	turns := map[int]*Case{}
	for _, c := range load(t) {
		if slices.Contains(c.Not, way) || c.is2() && (piece > 0 || way == "hop2") {
			continue
		}
		c = c.complete()
		size := piece
		if len(c.Send[0].Bytes) > 4<<10 {
			size *= 1000
		}
		ran++
		turn := b.origin.script(c)
		turns[turn] = c
		if problems := b.run(turn, way, c, size); len(problems) > 0 {
			failed++
			t.Errorf("%s: %s", c, strings.Join(problems, "; "))
		}
	}
	for turn, c := range turns {
		if seen, _ := b.origin.take(turn); len(seen) > len(c.Sees) {
			t.Errorf("%s: later the origin saw %d requests, want %d", c, len(seen), len(c.Sees))
		}
	}
	t.Logf("%d of %d passed", ran-failed, ran)
}

// String names a case in a message.
func (c *Case) String() string {
	return fmt.Sprintf("corpus/%s:%d %s (RFC %s)", c.File, c.Line, c.Name, c.RFC)
}

// run plays one case and compares what the origin saw.
func (b *bench) run(turn int, way string, c *Case, piece int) (problems []string) {
	addr := b.addr[way+"/"+c.Via]
	if c.is2() {
		problems = talk2(addr, c)
	} else {
		problems = talk(addr, c, piece, way == "one")
	}
	var seen []*heard
	var broken []string
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) { // poll
		seen, broken = b.origin.take(turn)
		if len(seen) >= len(c.Sees) || time.Now().After(deadline) {
			break
		}
	}
	for _, p := range broken {
		problems = append(problems, "the origin heard what is no HTTP/1: "+p)
	}
	if len(seen) != len(c.Sees) {
		var got []string
		for _, m := range seen {
			got = append(got, m.start)
		}
		return append(problems, fmt.Sprintf("the origin saw %.300q, want %d requests", got, len(c.Sees)))
	}
	for i, want := range c.Sees {
		problems = append(problems, want.compare(seen[i], way == "one")...)
	}
	return problems
}

func (r Request) compare(m *heard, exact bool) (problems []string) {
	if want := r.Method + " " + r.Target + " HTTP/1.1"; m.start != want {
		problems = append(problems, fmt.Sprintf("the origin saw %.200q, want %.200q", m.start, want))
	}
	if string(m.body) != r.Body {
		problems = append(problems, fmt.Sprintf("the origin saw the body %.200q, want %.200q", m.body, r.Body))
	}
	if r.Framing != "" && m.framing != r.Framing {
		problems = append(problems, fmt.Sprintf("the origin saw framing %s, want %s", m.framing, r.Framing))
	}
	if n := m.all("host"); len(n) != 1 {
		problems = append(problems, fmt.Sprintf("the origin saw Host %q", n))
	}
	problems = append(problems, match("the origin", m.fields, r.Has, r.Not, exact)...)
	return append(problems, match("the origin's trailers", m.trailers, r.Trailers, nil, exact)...)
}
