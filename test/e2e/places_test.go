//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
)

// stockPolicy is a TrafficPolicy of the service stock.
func stockPolicy(spec string) string {
	return "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: stock}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: stock}]\n" + spec
}

// place answers the flags of a workload's region and zone.
func place(region, zone string) []string {
	return []string{"--label", "topology.kubernetes.io/region=" + region, "--label", "topology.kubernetes.io/zone=" + zone}
}

// stock is a service with an instance in each of four places, and one who calls it from the first and stays.
type stock struct {
	*mesh
	shell *player
	at    map[string]*player
}

func newStock(t *testing.T) *stock {
	m := newMesh(t)
	s := &stock{mesh: m, at: map[string]*player{}}
	for _, in := range []struct{ name, region, zone, version, shards string }{{"eu-a", "eu", "eu-a", "v1", "0-7"}, {"eu-b", "eu", "eu-b", "v2", "8-11"}, {"us", "us", "us-a", "v1", "12-13"}, {"ap", "ap", "ap-a", "v1", "12_13"}} {
		s.at[in.name] = s.open(in.name, append(place(in.region, in.zone), "--version", in.version, "--label", "topology.tulle.dev/shards="+in.shards)...)
	}
	s.shell = m.part("shell", nil, append(place("eu", "eu-a"), "--service", "shell")...)
	return s
}

func (s *stock) open(name string, flags ...string) *player {
	return s.part(name, nil, append(flags, "--service", "stock", "--port", "8080/http", "--port", "9000/grpc")...)
}

// all makes every instance the same but for what is said of some.
func (s *stock) all(c conduct, but map[string]conduct) {
	for name, pl := range s.at {
		if special, ok := but[name]; ok {
			pl.be(special)
		} else {
			pl.be(c)
		}
	}
}

// ask calls the service n times.
func (s *stock) ask(n, workers int) tally {
	s.t.Helper()
	got := s.shell.ask(order{URL: "http://stock:8080/", N: n, Workers: workers})
	if got.of("200 ") != n {
		s.t.Errorf("not everything was answered: %v", got)
	}
	return got
}

// becomes waits until all answers are as they should be.
func (s *stock) becomes(what string, n, workers int, holds func(tally) bool) {
	s.t.Helper()
	eventually(s.t, patience, what, func() error {
		if got := s.shell.ask(order{URL: "http://stock:8080/", N: n, Workers: workers}); !holds(got) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// TestPlaces: the nearest take the requests, those next to them what is too much, and other regions when a region is gone.
func TestPlaces(t *testing.T) {
	s := newStock(t)
	s.apply(stockPolicy("  balancing: {locality: {mode: Prefer, spillAt: 2, failover: [{from: eu, to: us}]}}\n  healthChecks: [{http: {path: /health}, interval: 250ms, timeout: 250ms, unhealthy: 2, healthy: 1}]\n"))
	only := func(name string) func(tally) bool {
		return func(got tally) bool { return got.of("200 "+name) == 50 }
	}
	s.becomes("the caller's own zone takes all", 50, 1, only("eu-a"))

	s.all(conduct{Work: 20 * time.Millisecond}, nil)
	if got := s.ask(200, 4); got["200 eu-a"] < 60 || got["200 eu-b"] < 60 || got["200 us"]+got["200 ap"] > 20 {
		t.Errorf("four requests at a time, two for each endpoint: %v", got)
	}
	if got := s.ask(400, 16); got["200 eu-a"] < 60 || got["200 eu-b"] < 60 || got["200 us"] < 60 {
		t.Errorf("sixteen at a time: %v", got)
	}
	s.all(conduct{}, nil)
	s.becomes("without load the caller's own zone again", 50, 1, only("eu-a"))

	s.at["eu-a"].be(conduct{Sick: true})
	s.becomes("the next zone takes what a sick one would", 50, 1, only("eu-b"))
	s.at["eu-b"].be(conduct{Sick: true})
	s.becomes("the region that eu fails over to", 50, 1, only("us"))
	s.at["us"].killAll()
	s.becomes("any other region", 50, 1, only("ap"))
	s.at["eu-b"].be(conduct{})
	s.becomes("a zone of the own region is back", 50, 1, only("eu-b"))
	s.at["eu-a"].be(conduct{})
	s.becomes("the own zone is back", 50, 1, only("eu-a"))
}

// TestShares: who gets which share of the requests, by what endpoints report, by hash, as a new one, when another is slow, and by sticky weights.
func TestShares(t *testing.T) {
	s := newStock(t)
	const slow, window = "  balancing: {policy: RoundRobin, slowStart: {window: 4s}}\n", 4 * time.Second
	s.apply(stockPolicy(slow))
	s.ask(40, 2)
	other := s.part("other", nil, append(place("ap", "ap-a"), "--service", "other")...)
	begin := time.Now() // from now on these four grow old
	t.Run("by reported utilization", func(t *testing.T) {
		report := func(u float64) conduct { return conduct{Load: u} }
		s.all(report(0.4), map[string]conduct{"eu-a": report(0.1), "eu-b": report(0.2)})
		s.apply(stockPolicy("  balancing: {policy: LeastUtilized, utilization: {blackout: 0s, update: 100ms}}\n"))
		s.becomes("shares of 8:4:2:2", 400, 2, func(got tally) bool { return near(got, 200, 100, 50, 50) })
		s.all(report(0.1), map[string]conduct{"eu-a": report(0.4)})
		s.becomes("shares of 1:4:4:4 when the first has become busy", 390, 2, func(got tally) bool { return near(got, 30, 120, 120, 120) })
		// grpc-go's own reports, in the trailers of calls.
		eventually(t, patience, "shares of calls of 1:4:4:4", func() error {
			got, calls := s.shell.ask(order{URL: "grpc://stock:9000/shop.Stock/Get", N: 390, Workers: 2}), tally{}
			for answer, n := range got {
				calls[strings.Replace(answer, "OK", "200", 1)] = n
			}
			if !near(calls, 30, 120, 120, 120) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		s.all(conduct{}, nil)
	})
	t.Run("a new endpoint's share grows, and hashes stay", func(t *testing.T) {
		s.apply(stockPolicy("  balancing: {policy: RingHash}\n  hash: [{header: x-user}]\n"))
		before := s.users(t, s.shell, nil)
		if elsewhere := s.users(t, other, nil); !maps.Equal(before, elsewhere) {
			t.Errorf("another caller's users are elsewhere: %v and %v", before, elsewhere)
		}
		if len(places(before)) != 4 {
			t.Errorf("200 users are at %v", places(before))
		}
		fifth := s.open("fifth", "--version", "v1")
		var after map[string]string
		eventually(t, patience, "the new one has users", func() error {
			if after = s.users(t, s.shell, nil); places(after)["fifth"] == 0 {
				return fmt.Errorf("%v", places(after))
			}
			return nil
		})
		stayed := 0
		for user, at := range after {
			if at == before[user] {
				stayed++
			}
		}
		// A fifth goes to the new one. Envoy's ring has 1024 points in all, so each of the old ones has a fifth fewer, too.
		if stayed < 100 || places(after)["fifth"] > 80 {
			t.Errorf("%d of 200 users have stayed; before they were at %v, now at %v", stayed, places(before), places(after))
		}
		fifth.stop(patience)
		eventually(t, patience, "everybody is where he was", func() error {
			if after = s.users(t, s.shell, nil); !maps.Equal(before, after) {
				return fmt.Errorf("%v, before %v", places(after), places(before))
			}
			return nil
		})
	})
	t.Run("hedging", func(t *testing.T) {
		s.all(conduct{}, map[string]conduct{"ap": {Work: time.Second}})
		impatient := order{URL: "http://stock:8080/", N: 60, Timeout: 300 * time.Millisecond}
		s.apply(stockPolicy("  balancing: {policy: RoundRobin}\n"))
		if got := s.shell.ask(order{URL: impatient.URL, N: 8, Timeout: impatient.Timeout}); got.of("failed: ") == 0 {
			t.Errorf("without hedging nothing is late: %v", got)
		}
		s.apply(stockPolicy("  balancing: {policy: RoundRobin}\n  hedging: {after: 20ms}\n  retryBudget: {percent: 100, least: 100}\n"))
		if got := s.shell.ask(impatient); got.of("200 ") != 60 || got.of("200 ap") != 0 {
			t.Errorf("with another request after 20 ms: %v", got)
		}
		s.all(conduct{}, nil)
	})
	t.Run("sticky canary", func(t *testing.T) {
		var last map[string]string
		version := func(at string) string {
			if at == "eu-b" {
				return "v2"
			}
			return "v1"
		}
		for _, share := range []int{10, 40, 80} {
			s.apply(gatewayRoute("HTTPRoute", "default", "stock", "stock", fmt.Sprintf("  rules: [{backendRefs: [{name: stock-v1, port: 8080, weight: %d}, {name: stock-v2, port: 8080, weight: %d}]}]\n", 100-share, share)) +
				"---\napiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: sticky}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: stock}]\n  sticky: [{header: x-user}]\n")
			now := s.users(t, s.shell, version)
			if elsewhere := s.users(t, other, version); !maps.Equal(now, elsewhere) {
				t.Errorf("%d %% to v2: another caller's users are with others: %v and %v", share, now, elsewhere)
			}
			if n := places(now)["v2"]; n < 2*share-35 || n > 2*share+35 { // of 200; five standard deviations are 35 at most
				t.Errorf("%d %% to v2: %d of 200 users", share, n)
			}
			for user, at := range last {
				if at == "v2" && now[user] != "v2" {
					t.Errorf("%d %% to v2: user %s has left it", share, user)
				}
			}
			last = now
		}
	})
	s.ok(s.cli("delete", "httproute", "stock"))
	t.Run("shards", s.shards)
	t.Run("slow start", func(t *testing.T) {
		s.apply(stockPolicy(slow))
		for time.Since(begin) < window { // else the four are new themselves
			s.ask(40, 2)
		}
		s.open("slow", "--version", "v1")
		var shares []float64
		for begin := time.Now(); time.Since(begin) < window+time.Second; {
			got := s.shell.ask(order{URL: "http://stock:8080/", N: 200, Workers: 1, Pause: 2 * time.Millisecond})
			shares = append(shares, float64(got["200 slow"])/200)
		}
		// A quarter of its weight in the first second (Envoy's curve has no younger ones), and all of it at the end.
		if first, last := shares[0], shares[len(shares)-1]; first > 0.11 || last < 0.18 || last > 0.22 {
			t.Errorf("its shares were %.3f, want about 0.06 at first and 0.2 at last", shares)
		}
		for i := range shares[1:] {
			if shares[i+1] < shares[i]-0.06 {
				t.Errorf("its shares were %.3f: they shrink", shares)
			}
		}
	})
}

// shards: users are served by who owns their slot; nobody owns 14 and 15, and it is said.
func (s *stock) shards(t *testing.T) {
	s.apply(stockPolicy("  balancing: {shards: {slots: 16, otherwise: Any}}\n  hash: [{header: x-user}]\n"))
	owners := func(user string) string {
		return [16]string{8: "eu-b", 9: "eu-b", 10: "eu-b", 11: "eu-b", 12: "us ap", 13: "us ap", 14: "eu-a eu-b us ap", 15: "eu-a eu-b us ap"}[xxhash.Sum64String(user)%16]
	}
	for user, at := range s.users(t, s.shell, nil) {
		want := owners(user)
		if want == "" {
			want = "eu-a"
		}
		if !strings.Contains(want, at) {
			t.Errorf("user %s is at %s, want %s", user, at, want)
		}
	}
	if text := s.ok(s.cli("endpoints", "stock")); !strings.Contains(text, "warning: nobody owns shards 14-15 of stock.default:8080") || !strings.Contains(text, "8-11") {
		t.Error(text)
	}
	s.apply(stockPolicy("  balancing: {policy: RoundRobin}\n"))
}

// near reports whether the four have a share of requests each, to a quarter and ten.
func near(got tally, want ...int) bool {
	for i, name := range []string{"eu-a", "eu-b", "us", "ap"} {
		if n := got["200 "+name]; n < want[i]*3/4-10 || n > want[i]*5/4+10 {
			return false
		}
	}
	return true
}

// users has a caller ask for 200 users three times, and answers who served each; as, if not nil, says what that is.
func (s *stock) users(t *testing.T, caller *player, as func(string) string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for range 3 {
		for answer := range caller.ask(order{URL: "http://stock:8080/", N: 200, Workers: 2, Header: map[string]string{"X-User": "%"}}) {
			at, user, ok := strings.Cut(strings.TrimPrefix(answer, "200 "), " ")
			if !ok {
				t.Fatal(errors.New(answer))
			}
			if as != nil {
				at = as(at)
			}
			if old := out[user]; old != "" && old != at && as != nil {
				t.Errorf("user %s was at %s and is at %s", user, old, at)
			}
			out[user] = at
		}
	}
	return out
}

// places counts users.
func places(users map[string]string) map[string]int {
	out := map[string]int{}
	for _, at := range users {
		out[at]++
	}
	return out
}
