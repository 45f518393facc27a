package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// reporter is a server that says in a header, or in a trailer, how busy it is.
func reporter(t *testing.T, name, report string, trailer bool) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if trailer {
			w.Header().Set("Trailer", "Endpoint-Load-Metrics, X-Own")
		} else {
			w.Header().Set("Endpoint-Load-Metrics", report)
		}
		io.WriteString(w, name)
		if trailer {
			w.(http.Flusher).Flush()
			w.Header().Set("Endpoint-Load-Metrics", report)
			w.Header().Set("X-Own", "kept")
		}
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// TestReports: requests follow what endpoints report in headers and in trailers, and clients do not see it; with another policy
// it passes through.
func TestReports(t *testing.T) {
	boot := &model.Bootstrap{}
	busy, idle := reporter(t, "busy", "TEXT cpu_utilization=0.9,rps_fractional=90", true), reporter(t, "idle", `JSON {"cpu_utilization":0.1,"rps_fractional":90}`, false)
	cl := static(boot, "one", busy, idle)
	cl.Balancing = model.Balancing{Policy: model.LeastUtilized, Utilization: model.Utilization{Blackout: 1, Update: 100 * time.Millisecond}}
	static(boot, "plain", idle)
	c := httpChain("one")
	c.HTTP.HTTP1.AllowTrailers = true
	boot.Listeners = []model.Listener{listener("l", c), listener("p", httpChain("plain"))}
	g := start(t, boot)
	at := client(t, g.Listening("l")[0], nil, "1")
	var got map[string]int
	waitFor(t, func() error { // nine to one, once both have reported
		if got = spread(t, at, 50); got["busy"] > 10 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if got["busy"] == 0 {
		t.Errorf("the busy one gets its part: %v", got)
	}
	seen := map[string]bool{}
	for range 60 {
		r, err := at.Get("http://a.test/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.Header.Get("Endpoint-Load-Metrics") != "" || r.Trailer.Get("Endpoint-Load-Metrics") != "" {
			t.Fatalf("%s: the client sees %v %v", body, r.Header, r.Trailer)
		}
		if string(body) == "busy" && r.Trailer.Get("X-Own") != "kept" {
			t.Errorf("other trailers are %v", r.Trailer)
		}
		seen[string(body)] = true
	}
	if len(seen) != 2 {
		t.Errorf("looked at %v only", seen)
	}
	r, err := client(t, g.Listening("p")[0], nil, "1").Get("http://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.Header.Get("Endpoint-Load-Metrics") == "" {
		t.Error("without the policy the report is for somebody else")
	}
}

// TestRouteSubset: a route's labels choose among the endpoints of its cluster; no endpoint with them is 503.
func TestRouteSubset(t *testing.T) {
	boot := &model.Bootstrap{}
	static(boot, "one", origin(t, "v1"), origin(t, "v2"), origin(t, "v2"))
	e := boot.Endpoints[0].Endpoints
	for i := range e {
		e[i].Labels = []model.Label{{Name: "version", Value: fmt.Sprint(min(i+1, 2))}}
	}
	c := httpChain("one")
	route := c.HTTP.Routes.Hosts[0].Routes[0]
	c.HTTP.Routes.Hosts[0].Routes = nil
	for _, v := range []string{"1", "2", "3"} {
		r := route
		r.Match.Path = "/" + v
		r.Backends = []model.Backend{{Cluster: model.Free("one"), Weight: 1, Subset: []model.Label{{Name: "version", Value: v}}}}
		c.HTTP.Routes.Hosts[0].Routes = append(c.HTTP.Routes.Hosts[0].Routes, r)
	}
	boot.Listeners = []model.Listener{listener("l", c)}
	at := client(t, start(t, boot).Listening("l")[0], nil, "1")
	for range 20 {
		for _, v := range []string{"1", "2"} {
			if got := get(t, at, "http://a.test/"+v); !strings.HasPrefix(got, "v"+v) {
				t.Fatalf("version %s: %s", v, got)
			}
		}
	}
	r, err := at.Get("http://a.test/3")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 503 || r.Header.Get("tulle-reason") != "no_endpoint" {
		t.Errorf("version 3: %s %v", r.Status, r.Header)
	}
}

// TestOwnLocality: the node's locality comes first.
func TestOwnLocality(t *testing.T) {
	boot := &model.Bootstrap{Node: model.Node{Locality: "eu/1/a"}}
	near, far := newPatient(t, "near"), newPatient(t, "far")
	cl := static(boot, "one", near.at, far.at)
	cl.Balancing.Locality.Mode = model.LocalityPrefer
	check := quick()
	cl.HealthChecks = []model.HealthCheck{check}
	boot.Endpoints[0].Endpoints[0].Locality, boot.Endpoints[0].Endpoints[1].Locality = "eu/1/a", "eu/2/a"
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, boot)
	waitFor(t, g.Ready)
	at := client(t, g.Listening("l")[0], nil, "1")
	if got := spread(t, at, 30); got["near"] != 30 {
		t.Errorf("%v", got)
	}
	near.healthy.Store(500)
	waitStates(t, g, "one", "/failed_active_hc", "healthy")
	if got := spread(t, at, 30); got["far"] != 30 {
		t.Errorf("the near one is unhealthy: %v", got)
	}
}

// ejections answers how often an endpoint was ejected.
func ejections(g *gateway.Gateway, i int) uint64 {
	for _, c := range g.Clusters() {
		if c.Name == "one" {
			return c.Endpoints[i].Ejections
		}
	}
	return 0
}

// TestProbedRecovery: an ejected endpoint gets exactly one request when its time is over; that one fails and it is ejected for
// longer, or goes well and it is back.
func TestProbedRecovery(t *testing.T) {
	a, b := newPatient(t, "a"), newPatient(t, "b")
	boot := &model.Bootstrap{}
	cl := static(boot, "one", a.at, b.at)
	cl.Outlier, cl.Balancing.Policy = strict(), model.RoundRobin
	cl.Outlier.BaseEjection, cl.Outlier.MaxEjection, cl.Outlier.Probe = 20*time.Millisecond, 60*time.Millisecond, true
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, boot)
	at := client(t, g.Listening("l")[0], nil, "1")
	b.status.Store(500)
	ask := func() int {
		r, err := at.Get("http://a.test/")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		return r.StatusCode
	}
	waitFor(t, func() error {
		if ask(); ejections(g, 1) < 1 {
			return fmt.Errorf("b is not ejected")
		}
		return nil
	})
	before, was := b.served.Load(), ejections(g, 1)
	waitFor(t, func() error {
		if ask(); ejections(g, 1) < was+4 {
			return fmt.Errorf("b is not probed: %d", ejections(g, 1))
		}
		return nil
	})
	if probes := b.served.Load() - before; probes != int64(ejections(g, 1)-was) {
		t.Errorf("%d requests in %d probes", probes, ejections(g, 1)-was)
	}
	b.status.Store(200)
	waitFor(t, func() error {
		if ask(); states(g, "one")[1] != "healthy" {
			return fmt.Errorf("b is not back: %v", states(g, "one"))
		}
		return nil
	})
	if got := spread(t, at, 20); got["b"] != 10 {
		t.Errorf("it has its share again: %v", got)
	}
}

// TestLatencyEjection: of three the one that is slow is ejected, though it answers 200.
func TestLatencyEjection(t *testing.T) {
	boot := &model.Bootstrap{}
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(60 * time.Millisecond):
		}
		io.WriteString(w, "slow")
	}))
	t.Cleanup(slow.Close)
	cl := static(boot, "one", origin(t, "a"), netip.MustParseAddrPort(slow.Listener.Addr().String()), origin(t, "c"))
	cl.Outlier, cl.Balancing.Policy = strict(), model.RoundRobin
	cl.Outlier.Interval, cl.Outlier.BaseEjection = time.Second, time.Minute
	cl.Outlier.MaxEjection = time.Minute
	cl.Outlier.LatencyFactor, cl.Outlier.LatencyRequestVolume = 4, 3
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, boot)
	at := client(t, g.Listening("l")[0], nil, "1")
	waitFor(t, func() error {
		if spread(t, at, 6); ejections(g, 1) == 0 {
			return fmt.Errorf("%v", states(g, "one"))
		}
		return nil
	})
	if ejections(g, 0)+ejections(g, 2) > 0 {
		t.Error("others are ejected too")
	}
}

// TestRelayedBySubsetAndSource: connections that are relayed go to the endpoints with their labels, and by the client's address
// where that is hashed.
func TestRelayedBySubsetAndSource(t *testing.T) {
	boot := &model.Bootstrap{}
	static(boot, "one", echo(t, "a"), echo(t, "b"), echo(t, "c"), echo(t, "d")).Balancing.Policy = model.Maglev
	for i := range boot.Endpoints[0].Endpoints {
		boot.Endpoints[0].Endpoints[i].Labels = []model.Label{{Name: "half", Value: fmt.Sprint(i / 2)}}
	}
	hashed, labelled := tcpChain("one"), tcpChain("one")
	hashed.TCP.HashSource = true
	labelled.TCP.Clusters[0].Subset = []model.Label{{Name: "half", Value: "1"}}
	boot.Listeners = []model.Listener{listener("hashed", hashed), listener("labelled", labelled)}
	g := start(t, boot)
	seen := map[string]map[string]bool{"hashed": {}, "labelled": {}}
	for name, places := range seen {
		for range 30 {
			places[said(t, dial(t, g.Listening(name)[0], []byte("x")))] = true
		}
	}
	if len(seen["hashed"]) != 1 || len(seen["labelled"]) != 2 {
		t.Errorf("%v", seen)
	}
	for place := range seen["labelled"] {
		if !strings.Contains(place, "c") && !strings.Contains(place, "d") {
			t.Errorf("labelled: %q", place)
		}
	}
}

// TestShards: each user's requests go to who owns the user's slot, and are refused where nobody does.
func TestShards(t *testing.T) {
	boot := &model.Bootstrap{}
	m := static(boot, "one", newPatient(t, "a").at, newPatient(t, "b").at)
	m.Balancing.Shards = &model.Shards{Slots: 16, Label: "owns"}
	for i, owns := range []string{"0-7", "8-14"} {
		boot.Endpoints[0].Endpoints[i].Labels = []model.Label{{Name: "owns", Value: owns}}
	}
	chain := httpChain("one")
	chain.HTTP.Routes.Hosts[0].Routes[0].Hash = []model.HashKey{{Kind: model.HashHeader, Name: "x-user"}}
	boot.Listeners = []model.Listener{listener("l", chain)}
	at := client(t, start(t, boot).Listening("l")[0], nil, "1")
	refused := 0
	for i := range 200 {
		r, _ := http.NewRequest("GET", "http://a.test/", nil)
		user := fmt.Sprintf("user-%d", i)
		r.Header.Set("X-User", user)
		a, err := at.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(a.Body)
		a.Body.Close()
		switch slot := xxhash.Sum64String(user) % 16; {
		case slot == 15:
			if refused++; a.StatusCode != 503 || a.Header.Get("Tulle-Reason") != "no_endpoint" {
				t.Errorf("%s, whom nobody owns: %d %q", user, a.StatusCode, a.Header.Get("Tulle-Reason"))
			}
		case slot < 8 && string(body) != "a", slot >= 8 && string(body) != "b":
			t.Errorf("%s of slot %d: %d by %q", user, slot, a.StatusCode, body)
		}
	}
	if refused == 0 {
		t.Error("no user was in the slot that nobody owns")
	}
}

// TestHashKeys: a header, a cookie, a query parameter or the client's address decides where requests go; a cookie that is not
// there is made.
func TestHashKeys(t *testing.T) {
	for name, c := range map[string]struct {
		key model.HashKey
		ask func(r *http.Request, user string)
	}{
		"header": {model.HashKey{Kind: model.HashHeader, Name: "x-user"}, func(r *http.Request, user string) { r.Header.Set("X-User", user) }},
		"cookie": {model.HashKey{Kind: model.HashCookie, Name: "u"}, func(r *http.Request, user string) { r.AddCookie(&http.Cookie{Name: "u", Value: user}) }},
		"query":  {model.HashKey{Kind: model.HashQuery, Name: "u"}, func(r *http.Request, user string) { r.URL.RawQuery = "a=b&u=" + user }},
		"path":   {model.HashKey{Kind: model.HashPath, Name: "/users/{id}"}, func(r *http.Request, user string) { r.URL.Path = "/users/" + user + "/cart" }},
		"source": {model.HashKey{Kind: model.HashSourceIP}, func(r *http.Request, user string) {}},
		"made":   {model.HashKey{Kind: model.HashCookie, Name: "u", Generate: true, TTL: time.Hour, Path: "/"}, nil},
	} {
		boot := &model.Bootstrap{}
		static(boot, "one", newPatient(t, "a").at, newPatient(t, "b").at, newPatient(t, "c").at, newPatient(t, "d").at).Balancing.Policy = model.RingHash
		chain := httpChain("one")
		chain.HTTP.Routes.Hosts[0].Routes[0].Hash = []model.HashKey{c.key}
		boot.Listeners = []model.Listener{listener("l", chain)}
		at := client(t, start(t, boot).Listening("l")[0], nil, "1")
		cookie, places := "", map[string]bool{}
		for round := range 3 {
			for i := range 12 {
				r, _ := http.NewRequest("GET", "http://a.test/", nil)
				user := fmt.Sprintf("user-%d", i)
				switch {
				case c.ask != nil:
					c.ask(r, user)
				case cookie != "":
					r.Header.Set("Cookie", cookie)
				}
				a, err := at.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(a.Body)
				a.Body.Close()
				if c.ask == nil && cookie == "" {
					set := a.Cookies()
					if len(set) != 1 || set[0].Name != "u" || set[0].MaxAge != 3600 {
						t.Fatalf("%s: %v", name, set)
					}
					cookie = "u=" + set[0].Value
				}
				if c.ask == nil || name == "source" {
					user = "one"
				}
				if places[user+string(body)] = true; round == 2 && len(places) > 12 {
					t.Errorf("%s: users went to more than one place: %v", name, places)
				}
			}
		}
		if want := map[bool]int{true: 1, false: 12}[c.ask == nil || name == "source"]; len(places) != want {
			t.Errorf("%s: %d users and places, want %d: %v", name, len(places), want, places)
		}
	}
}

// TestRefusalsAreSlow: a server that says 429 or 500 at once does not look fast.
func TestRefusalsAreSlow(t *testing.T) {
	for _, status := range []int32{429, 500} {
		a, b := newPatient(t, "a"), newPatient(t, "b")
		a.status.Store(status)
		boot := &model.Bootstrap{}
		static(boot, "one", a.at, b.at).Balancing.Policy = model.PeakEWMA
		boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
		if got := spread(t, client(t, start(t, boot).Listening("l")[0], nil, "1"), 200); got["a"] > 20 {
			t.Errorf("%d: %v", status, got)
		}
	}
}

// TestPerRequest: requests of one HTTP/2 connection are balanced one by one.
func TestPerRequest(t *testing.T) {
	boot := &model.Bootstrap{}
	static(boot, "one", newPatient(t, "a").at, newPatient(t, "b").at, newPatient(t, "c").at).Balancing.Policy = model.RoundRobin
	boot.Listeners = []model.Listener{listener("l", httpChain("one"))}
	if got := spread(t, client(t, start(t, boot).Listening("l")[0], nil, "h2c"), 30); got["a"] != 10 || got["b"] != 10 || got["c"] != 10 {
		t.Errorf("%v", got)
	}
}
