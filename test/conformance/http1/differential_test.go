//go:build conformance

package http1

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// sight is a request as a real server understood it.
type sight struct {
	method, target, host, body string
	fields, trailers           http.Header // nil: the server does not tell
}

// server is a real one that says what it understood.
type server interface {
	port() int
	// sights answers what was understood since the last call, but probes. It waits for at least n.
	sights(n int) []sight
}

var direct = flag.Bool("direct", false, "leave the proxy out, which shows what the servers themselves make of the corpus")

// TestDifferential: whatever the proxy accepts, every server sees the same message, the one of the corpus. What is
// ambiguous never gets there. A server that refuses what RFC 9110 allows is left out of the case, by name.
func TestDifferential(t *testing.T) {
	servers := map[string]server{"nethttp": newNetHTTP(t), "nginx": newNginx(t), "haproxy": newHAProxy(t)}
	boot := subject.Bootstrap{}
	addr := map[string]string{}
	for name, s := range servers {
		port := subject.Port(t)
		boot.Clusters = append(boot.Clusters, subject.Cluster{Name: name, Port: s.port()})
		boot.Listeners = append(boot.Listeners, subject.Listener{Port: port, Cluster: name, HTTP10: true, Connect: true, MaxHead: 16, Fields: 50})
		addr[name] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	if *direct {
		for name, s := range servers {
			addr[name] = fmt.Sprintf("127.0.0.1:%d", s.port())
		}
	} else {
		subject.Start(t, boot)
	}
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			ran, failed := 0, 0
			for _, c := range load(t) {
				if c.Answer != nil || c.End || c.Via != "main" || slices.Contains(c.Not, name) || slices.Contains(c.Not, "differential") {
					continue
				}
				ran++
				if problems := understood(addr[name], s, c.complete()); len(problems) > 0 {
					failed++
					t.Errorf("%s: %s", c, strings.Join(problems, "; "))
				}
			}
			t.Logf("%d of %d passed", ran-failed, ran)
		})
	}
}

// understood plays one case and compares what the server understood.
func understood(addr string, s server, c *Case) (problems []string) {
	if c.is2() {
		problems = talk2(addr, c)
	} else {
		problems = talk(addr, c, 0, false)
	}
	seen := s.sights(len(c.Sees))
	if len(seen) != len(c.Sees) {
		return append(problems, fmt.Sprintf("the server saw %.500q, want %d requests", seen, len(c.Sees)))
	}
	for i, want := range c.Sees {
		got := seen[i]
		if got.method != want.Method || got.target != want.Target {
			problems = append(problems, fmt.Sprintf("the server saw %s %.200q, want %s %.200q", got.method, got.target, want.Method, want.Target))
		}
		if got.body != want.Body {
			problems = append(problems, fmt.Sprintf("the server saw the body %.200q, want %.200q", got.body, want.Body))
		}
		for _, f := range want.Has {
			if strings.EqualFold(f.Name, "host") && got.host != f.Value {
				problems = append(problems, fmt.Sprintf("the server saw host %q, want %q", got.host, f.Value))
			}
		}
		if got.fields != nil {
			problems = append(problems, match("the server", pairs(got), want.Has, want.Not, false)...)
		}
		for _, f := range want.Trailers {
			if got.trailers != nil && got.trailers.Get(f.Name) != f.Value {
				problems = append(problems, fmt.Sprintf("the server saw trailers %q", got.trailers))
			}
		}
	}
	return problems
}

func pairs(s sight) []Pair {
	all := []Pair{{"Host", s.host}}
	for name, values := range s.fields {
		for _, v := range values {
			all = append(all, Pair{name, v})
		}
	}
	return all
}

// settle asks take until it answers n sights, a second at most, and then once more for what should not be there.
func settle(n int, take func() []sight) []sight {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) { // poll
		if seen := take(); len(seen) >= n || time.Now().After(deadline) {
			return seen
		}
	}
}
