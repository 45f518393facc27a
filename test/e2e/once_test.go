//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestPayment: payments are delivered once or not at all, whatever becomes of who takes them; what may be asked twice is.
func TestPayment(t *testing.T) {
	m := newMesh(t)
	var all []*player
	open := func() *player {
		p := m.part(fmt.Sprint("pay", len(all)), nil, "--service", "pay", "--port", "8080/http")
		all = append(all, p)
		return p
	}
	open()
	bad := open()
	shell := m.part("shell", nil, "--service", "shell")
	// delivered answers how many of n arrived, and fails the test if one did so twice.
	delivered := func(what string) map[string]int {
		seen := map[string]int{}
		for _, p := range all {
			for _, id := range p.ids() {
				if seen[id]++; seen[id] > 1 && id[:4] == "POST" {
					t.Errorf("%s: payment %s has arrived %d times", what, id, seen[id])
				}
			}
		}
		return seen
	}
	pay := func(what, method string, n int) tally {
		o := order{URL: "http://pay:8080/", Method: method, N: n, Workers: 8, Header: map[string]string{"X-Id": method + what + "-%"}}
		if method == "POST" {
			o.Body = "100 EUR"
		}
		return shell.ask(o)
	}

	bad.be(conduct{Reset: 0.2})
	posts, gets := pay("reset", "POST", 300), pay("reset", "GET", 300)
	if bad := 300 - posts.of("200 "); bad < 5 || bad > 60 { // a tenth is 30; five standard deviations are 26
		t.Errorf("resets: %v", posts)
	}
	if gets.of("200 ") != 300 {
		t.Errorf("resets, of what may be repeated: %v", gets)
	}
	if seen := delivered("resets"); len(seen) != 600 {
		t.Errorf("resets: %d of 600 have arrived", len(seen))
	}

	for _, method := range []string{"POST", "GET"} {
		victim := open()
		for _, p := range all {
			if !p.ended() {
				p.be(conduct{Work: 10 * time.Millisecond})
			}
		}
		answers := make(chan tally)
		go func() { answers <- pay("killed", method, 600) }()
		eventually(t, patience, "it is at work", func() error {
			if n := len(victim.ids()); n < 20 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		victim.killAll()
		got := <-answers
		if failed := 600 - got.of("200 "); failed > 8 || method == "GET" && failed > 0 {
			t.Errorf("killed: %s: %v", method, got)
		}
	}
	delivered("killed")
}

// TestServerClosesIdle: servers that close resting connections at random times cost no request, not even those that cannot be
// repeated.
func TestServerClosesIdle(t *testing.T) {
	m := newMesh(t)
	server := m.part("server", nil, "--service", "server", "--port", "8080/http")
	server.be(conduct{Rest: 250 * time.Millisecond})
	shell := m.part("shell", nil, "--service", "shell")
	for _, method := range []string{"GET", "POST"} {
		o := order{URL: "http://server:8080/", Method: method, N: 400, Workers: 12, Pause: 60 * time.Millisecond, Header: map[string]string{"X-Id": method + "%"}}
		if got := shell.ask(o); got["200 server"] != o.N {
			t.Errorf("%s: %v", method, got)
		}
	}
	var closed int
	if server.tell("closed", nil, &closed); closed < 40 {
		t.Errorf("it has closed %d connections: this test sees nothing", closed)
	}
	t.Logf("it has closed %d connections", closed)
	seen := map[string]int{}
	for _, id := range server.ids() {
		if seen[id]++; seen[id] > 1 && id[:4] == "POST" {
			t.Errorf("%s has arrived %d times", id, seen[id])
		}
	}
}
