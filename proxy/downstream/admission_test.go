package downstream_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// guarded is a proxy in front of a program that takes no more than in says.
func guarded(t testing.TB, in *model.Inbound, handler http.HandlerFunc) (*hop, *admission.Gate) {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	g := admission.New(admission.Config{})
	if err := g.Set(admission.Terms{Inbound: in}); err != nil {
		t.Fatal(err)
	}
	o := inbound(addrOf(t, srv))
	o.Gate = g
	return newHop(t, setup{origin: o}), g
}

func fine(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// get answers the response's head; its body has been read.
func get(t testing.TB, c *http.Client, url string) *http.Response {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res
}

func TestRateLimited(t *testing.T) {
	p, _ := guarded(t, &model.Inbound{Limits: []model.RateLimit{{Name: "all", Requests: 2, Window: time.Hour, Headers: true}}}, fine)
	c := client(t)
	for i, want := range []string{`"all";r=1;t=1800`, `"all";r=0;t=3600`} {
		res := get(t, c, p.url("/"))
		if res.StatusCode != 200 || res.Header.Get("RateLimit") != want || res.Header.Get("RateLimit-Policy") != `"all";q=2;w=3600` {
			t.Errorf("request %d: %d %v", i, res.StatusCode, res.Header)
		}
	}
	res := get(t, c, p.url("/"))
	if res.StatusCode != 429 || res.Header.Get("Tulle-Reason") != "rate_limited" || res.Header.Get("Retry-After") != "1800" {
		t.Errorf("over the limit: %d %v", res.StatusCode, res.Header)
	}
	p.until("three records", func() bool { return p.log.count() == 3 })
	if r := p.log.last(); r.Reason != "rate_limited" || r.Status != 429 || r.NAttempts != 0 {
		t.Errorf("recorded as %q, %d, %d attempts", r.Reason, r.Status, r.NAttempts)
	}
}

func TestRateLimitedGRPC(t *testing.T) {
	p, _ := guarded(t, &model.Inbound{Limits: []model.RateLimit{{Name: "none", Status: 503}}}, fine)
	req, _ := http.NewRequest("POST", p.url("/a.B/C"), strings.NewReader(""))
	req.Header.Set("Content-Type", "application/grpc")
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "8" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// TestAtWork: as many as are allowed are at work, whoever is too many is sent away at once, and every place comes back.
func TestAtWork(t *testing.T) {
	for name, in := range map[string]*model.Inbound{
		"fixed":   {MaxRequests: 4},
		"learned": {Adaptive: &model.Adaptive{Least: 4, Most: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			var busy atomic.Int32
			p, g := guarded(t, in, func(w http.ResponseWriter, r *http.Request) {
				busy.Add(1)
				<-release
				fine(w, r)
			})
			c := client(t)
			status := make(chan int, 10)
			for range 4 {
				go func() { status <- get(t, c, p.url("/")).StatusCode }()
			}
			p.until("four at work", func() bool { return busy.Load() == 4 })
			if res := get(t, c, p.url("/")); res.StatusCode != 503 || res.Header.Get("Tulle-Reason") != "shed" {
				t.Errorf("the fifth: %d %v", res.StatusCode, res.Header)
			}
			close(release)
			for range 4 {
				if s := <-status; s != 200 {
					t.Errorf("%d", s)
				}
			}
			p.until("all places free", func() bool { return g.Load().Requests == 0 })
			if l := g.Load(); l.Shed[model.ClassDefault] != 1 {
				t.Errorf("%+v", l)
			}
		})
	}
}

// TestWaitsForItsTurn: with a line, who comes too early is served when a place comes free, and sent away when none does; who
// goes away while he waits takes nothing.
func TestWaitsForItsTurn(t *testing.T) {
	release := make(chan struct{}, 10)
	var busy atomic.Int32
	p, g := guarded(t, &model.Inbound{Adaptive: &model.Adaptive{Least: 1, Most: 1, Queue: 5 * time.Second}}, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		busy.Add(1)
		<-release
		_, _ = w.Write(b)
	})
	c, answers := client(t), make(chan string, 3)
	post := func(body string) {
		res, err := c.Post(p.url("/"), "text/plain", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			answers <- ""
			return
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		answers <- string(b)
	}
	go post("first")
	p.until("one at work", func() bool { return busy.Load() == 1 })
	gone := raw(t, p)
	gone.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	p.until("one waits", func() bool { return g.Load().Waiting == 1 })
	_ = gone.c.Close()
	go post("second")
	p.until("another waits", func() bool { return g.Load().Waiting >= 1 })
	release <- struct{}{}
	release <- struct{}{}
	release <- struct{}{}
	if a, b := <-answers, <-answers; a+b != "firstsecond" && a+b != "secondfirst" {
		t.Errorf("%q and %q", a, b)
	}
	p.until("nobody waits or works", func() bool { l := g.Load(); return l.Waiting == 0 && l.Requests == 0 })

	short, _ := guarded(t, &model.Inbound{Adaptive: &model.Adaptive{Least: 1, Most: 1, Queue: 30 * time.Millisecond}}, func(w http.ResponseWriter, r *http.Request) {
		<-release
	})
	go post2(short.url("/"), c)
	short.until("one open", func() bool { return short.worker.Open() == 1 })
	if res := get(t, c, short.url("/")); res.StatusCode != 503 {
		t.Errorf("after the wait: %d", res.StatusCode)
	}
	release <- struct{}{}
}

func post2(url string, c *http.Client) {
	if res, err := c.Get(url); err == nil {
		_ = res.Body.Close()
	}
}

// TestBandwidth: bodies both ways go no faster than the limit says.
func TestBandwidth(t *testing.T) {
	const rate, burst, size = 4 << 20, 64 << 10, 1 << 20
	p, _ := guarded(t, &model.Inbound{Limits: []model.RateLimit{{Name: "b", Requests: rate, Window: time.Second, Burst: burst, Bytes: true}}},
		func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = w.Write(make([]byte, n))
		})
	begun := time.Now()
	res, err := client(t).Post(p.url("/"), "x/y", bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	took := time.Since(begun)
	// Both ways 2 MB at 4 MB/s, but for the burst and what a window holds at the end.
	if least := time.Duration(2*size-burst-512<<10) * time.Second / rate; n != size || took < least {
		t.Errorf("%d bytes there and back in %v; at least %v", n, took, least)
	}
}

// TestClassTravels: the first proxy gives a request its class, the next believes it, the program is not told, and who is no
// proxy of the mesh is not believed.
func TestClassTravels(t *testing.T) {
	var told atomic.Value
	told.Store("")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told.Store(r.Header.Get("Tulle-Class"))
		fine(w, r)
	}))
	t.Cleanup(srv.Close)
	o := inbound(addrOf(t, srv))
	o.Mesh = true
	g := admission.New(admission.Config{})
	if err := g.Set(admission.Terms{Inbound: &model.Inbound{MaxRequests: 1}}); err != nil {
		t.Fatal(err)
	}
	o.Gate = g
	in := newHop(t, setup{origin: o, http2: true})
	dest := to(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	table, err := router.Compile(&model.RouteTable{Name: cart, Routes: dest.table.Model.Routes, Classes: []model.ClassRule{
		{Match: model.Match{Path: "/job"}, Class: model.ClassBatch}, {Match: model.Match{Path: "/pay"}, Class: model.ClassCritical}}})
	if err != nil {
		t.Fatal(err)
	}
	dest.table = table
	out := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: cart}})
	// One is at work for good, so that everybody else is shed and counted by class.
	hold := &admission.Ticket{}
	held := make(chan admission.Outcome)
	in.loop.Post(func() {
		held <- g.Enter(hold, admission.NewLoop(in.loop), &admission.Question{})
	})
	if <-held != admission.Admitted {
		t.Fatal("no place")
	}
	c := client(t)
	for path, class := range map[string]model.Class{"/job/1": model.ClassBatch, "/pay": model.ClassCritical, "/": model.ClassDefault} {
		before := g.Load().Shed
		req, _ := http.NewRequest("GET", out.url(path), nil)
		req.Header.Set("Tulle-Class", "critical") // nobody believes a program
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if after := g.Load().Shed; res.StatusCode != 503 || after[class] != before[class]+1 {
			t.Errorf("%s: %d, shed %v, before %v", path, res.StatusCode, after, before)
		}
	}
	in.do(hold.Leave)
	if res := get(t, c, out.url("/pay")); res.StatusCode != 200 || told.Load() != "" {
		t.Errorf("%d; the program was told %q", res.StatusCode, told.Load())
	}
}

// limited is everything that a gate can do without waiting, switched on.
func limited(t testing.TB) *hop {
	o := inbound(fixed(t))
	table, err := router.Compile(&model.RouteTable{
		Classes: []model.ClassRule{{Match: model.Match{Path: "/pay"}, Class: model.ClassCritical}, {Match: model.Match{Path: "/"}, Class: model.ClassBatch}},
		Routes: []model.Route{{Name: "r", Match: model.Match{Path: "/products"}, Limits: []model.RateLimit{
			{Name: "key", Requests: 1 << 30, Window: time.Second, Headers: true, By: []model.RateKey{{Kind: model.RateByCaller}, {Kind: model.RateByHeader, Name: "user-agent"}, {Kind: model.RateByAddress}, {Kind: model.RateByPath}}}}}},
		Inbound: &model.Inbound{Adaptive: &model.Adaptive{Queue: time.Second}, MaxRequests: 100, Limits: []model.RateLimit{
			{Name: "all", Requests: 1 << 30, Window: time.Second, Headers: true},
			{Name: "bytes", Requests: 1 << 30, Window: time.Second, Bytes: true}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Gate = admission.New(admission.Config{Terms: func() admission.Terms { return admission.Terms{Table: table} }})
	h := newHop(t, setup{origin: o})
	h.log.forget()
	return h
}

func TestNoAllocationLimited(t *testing.T) { noAllocation(t, 0, drive(t, limited(t))) }

// TestCallersLimit: what is said of the side of the caller, his own proxy holds him to; what is not said costs nothing.
func TestCallersLimit(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(fine))
	t.Cleanup(srv.Close)
	o := inbound(addrOf(t, srv))
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true})
	dest := to(t, model.Timeouts{}, netip.MustParseAddrPort(in.addr))
	dest.table.Model.Outbound = &model.Inbound{Limits: []model.RateLimit{{Name: "each", Requests: 2, Window: time.Hour}}}
	toll := admission.New(admission.Config{Terms: func() admission.Terms { return admission.Terms{Inbound: dest.table.Model.Outbound} }})
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Service: cart, Destination: dest, Toll: toll}})
	c := client(t)
	for i, want := range []int{200, 200, 429} {
		if res := get(t, c, p.url("/")); res.StatusCode != want {
			t.Errorf("request %d: %d %v", i, res.StatusCode, res.Header)
		}
	}
	p.until("three records", func() bool { return p.log.count() == 3 })
	if r := p.log.last(); r.Reason != "rate_limited" || r.NAttempts != 0 {
		t.Errorf("recorded as %q, %d attempts", r.Reason, r.NAttempts)
	}
}
