//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPayment: payments are delivered once or not at all, whatever becomes of who takes them; what may be asked twice is.
func TestPayment(t *testing.T) {
	m := newMesh(t)
	var all []*player
	open := func() *player {
		p := m.part(fmt.Sprint("pay", len(all)), nil, "--service", "pay", "--port", "8080/http", "--port", "9000/grpc")
		all = append(all, p)
		return p
	}
	open()
	bad := open()
	shell := m.part("shell", nil, "--service", "shell")
	// delivered answers how many have arrived in all, and fails the test if a payment did so twice.
	delivered := func(what string) int {
		t.Helper()
		seen := map[string]bool{}
		for _, p := range all {
			for _, id := range p.ids() {
				if seen[id] && !strings.HasPrefix(id, "GET") {
					t.Errorf("%s: payment %q has arrived twice", what, id)
				}
				seen[id] = true
			}
		}
		return len(seen)
	}
	pay := func(what, method string, n int) tally {
		o := order{URL: "http://pay:8080/", Method: method, N: n, Workers: 8, Header: map[string]string{"X-Id": method + " " + what + " %"}}
		switch method {
		case "POST":
			o.Body = strings.Repeat("100 EUR ", 1000)
		case "CALL":
			o.URL = "grpc://pay:9000/shop.Payment/Charge"
		}
		return shell.ask(o)
	}

	for i, policy := range []string{"", "  retries: {attempts: 4, when: [untouched, reset, gateway], statuses: [502, 503], wait: {base: 1ms, maximum: 5ms}}\n  hedging: {after: 5ms}\n"} {
		if policy != "" {
			m.apply("apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: pay}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: pay}]\n" + policy)
		}
		what := []string{"by default", "with retries and hedging"}[i]
		bad.be(conduct{Break: 0.2, Work: 2 * time.Millisecond})
		// A tenth is broken off until the endpoint is ejected, which may be soon: then another one takes its place.
		posts, failed := brokenOff(pay(what, "POST", 300))
		for rounds := 1; failed < 5 && rounds < 10; rounds++ {
			bad.be(conduct{Work: 2 * time.Millisecond})
			bad = open()
			bad.be(conduct{Break: 0.2, Work: 2 * time.Millisecond})
			more, again := brokenOff(pay(fmt.Sprint(what, ", round ", rounds), "POST", 300))
			posts, failed = more, failed+again
		}
		if failed < 5 || failed > 60 { // a tenth of 300 is 30; five standard deviations are 26
			t.Errorf("%d broken off %s, of the last %v", failed, what, posts)
		}
		// Of what may be repeated only those fail whose answer had begun: a quarter.
		if got, failed := brokenOff(pay(what, "GET", 300)); failed > 25 {
			t.Errorf("broken off, of what may be repeated %s: %v", what, got)
		}
		if n := delivered(what); n < 600 {
			t.Errorf("%s: %d of 600 have arrived", what, n)
		}
		bad.be(conduct{Work: 2 * time.Millisecond})
		for _, dies := range []string{"everything", "the proxy", "the program"} {
			for method, got := range dying(t, open(), dies, func(method string) tally { return pay(dies+" dies "+what, method, 800) }) {
				// There are eight of each under way.
				if got, failed := brokenOff(got); failed > 8 || method == "GET" && failed > 0 {
					t.Errorf("%s dies %s, %s: %v", dies, what, method, got)
				}
			}
			delivered(dies + " dies " + what)
		}
	}
}

// brokenOff answers how many of the answers are none.
func brokenOff(got tally) (tally, int) {
	failed := -got.of("200 ") - got.of("OK ")
	for _, n := range got {
		failed += n
	}
	return got, failed
}

// dying lets something of a workload die while it is at work on what f asks for, and answers what came of that by method.
func dying(t *testing.T, victim *player, dies string, f func(method string) tally) map[string]tally {
	t.Helper()
	victim.be(conduct{Work: 10 * time.Millisecond})
	var mu sync.Mutex
	var all sync.WaitGroup
	out := map[string]tally{}
	for _, method := range []string{"POST", "GET", "CALL"} {
		all.Go(func() {
			got := f(method)
			mu.Lock()
			defer mu.Unlock()
			out[method] = got
		})
	}
	eventually(t, patience, "it is at work", func() error {
		if n := len(victim.ids()); n < 20 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	switch dies {
	case "everything":
		victim.killAll()
	case "the proxy":
		kill([]int{victim.proxyOf()})
	case "the program":
		kill([]int{victim.programOf("part")})
	}
	all.Wait()
	if !victim.ended() {
		victim.stop(patience)
	}
	return out
}

// TestServerClosesIdle: servers that close resting connections at random times, or old ones, cost no request, not even those that
// cannot be repeated.
func TestServerClosesIdle(t *testing.T) {
	m := newMesh(t)
	server := m.part("server", nil, "--service", "server", "--port", "8080/http", "--port", "9000/grpc")
	server.be(conduct{Rest: 250 * time.Millisecond})
	shell := m.part("shell", nil, "--service", "shell")
	for _, method := range []string{"GET", "POST"} {
		o := order{URL: "http://server:8080/", Method: method, N: 300, Workers: 12, Pause: 60 * time.Millisecond, Header: map[string]string{"X-Id": method + "%"}}
		if got := shell.ask(o); got["200 server"] != o.N {
			t.Errorf("%s: %v", method, got)
		}
	}
	if got := shell.ask(order{URL: "grpc://server:9000/shop.Cart/Add", N: 1500, Workers: 20, Pause: 15 * time.Millisecond}); got["OK server"] != 1500 {
		t.Errorf("calls: %v", got)
	}
	var closed int
	if server.tell("closed", nil, &closed); closed < 25 {
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
