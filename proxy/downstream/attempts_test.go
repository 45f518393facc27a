package downstream_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/kin"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// spare is a second service.
var spare = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "spare"}, Port: 8080}

// byRoute is a destination whose one route is r, to proxies of the mesh at addrs.
func byRoute(t testing.TB, r model.Route, addrs ...netip.AddrPort) *services {
	t.Helper()
	s := to(t, r.Timeouts, addrs...)
	r.Name, r.Match, r.Backends = "Service/default/cart", model.Match{Path: "/"}, []model.Backend{{Cluster: cart, Weight: 1}}
	table, err := router.Compile(&model.RouteTable{Name: cart, Routes: []model.Route{r}})
	if err != nil {
		t.Fatal(err)
	}
	s.table = table
	return s
}

// callerBy starts an outbound proxy with a route of its own.
func callerBy(t testing.TB, r model.Route, addrs ...netip.AddrPort) *hop {
	return newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: byRoute(t, r, addrs...), Service: cart}})
}

// failing is a program that answers its first n requests with status and a body, and echoes what comes after them.
func failing(t testing.TB, n int32, status int, header ...string) (netip.AddrPort, *atomic.Int32) {
	var seen atomic.Int32
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		k := seen.Add(1)
		if k > n {
			_, _ = w.Write(b)
			return
		}
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "failure %d %s", k, strings.Repeat("x", 5000))
	})
	return addrOf(t, srv), &seen
}

func do(t *testing.T, p *hop, method, body string, header ...string) (int, string) {
	t.Helper()
	req, _ := http.NewRequest(method, p.url("/"), strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestRetryStatus: a status is tried again only if the policy names it and acting twice does no harm; otherwise the response
// goes to the client, whole.
func TestRetryStatus(t *testing.T) {
	quick := model.Retry{On: model.RetryGateway, Attempts: 2, Base: time.Millisecond, Max: 2 * time.Millisecond}
	with := func(f func(r *model.Retry)) model.Retry { r := quick; f(&r); return r }
	for _, c := range []struct {
		name   string
		p      model.Retry
		method string
		header []string
		fails  int32
		status int
		seen   int32
		want   int
	}{
		{"once", quick, "GET", nil, 1, 503, 2, 200},
		{"with a body", quick, "PUT", nil, 2, 502, 3, 200},
		{"too often", quick, "PUT", nil, 9, 503, 3, 503},
		{"another status", quick, "GET", nil, 1, 500, 1, 500},
		{"a payment", quick, "POST", nil, 1, 503, 1, 503},
		{"a payment with a key", quick, "POST", []string{"Idempotency-Key", "1"}, 1, 503, 2, 200},
		{"a payment that does no harm", with(func(r *model.Retry) { r.AnyMethod = true }), "POST", nil, 1, 503, 2, 200},
		{"any 5xx", with(func(r *model.Retry) { r.On = model.Retry5xx }), "GET", nil, 1, 500, 2, 200},
		{"conflict", with(func(r *model.Retry) { r.On = model.Retry4xx }), "PUT", nil, 1, 409, 2, 200},
		{"named", with(func(r *model.Retry) { r.On, r.Statuses = model.RetryStatuses, []uint16{429} }), "GET", nil, 1, 429, 2, 200},
		{"never", model.Retry{On: model.RetryGateway}, "GET", nil, 1, 503, 1, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, seen := failing(t, c.fails, c.status)
			p := callerBy(t, model.Route{Retry: &c.p}, mesh(sidecar(t, a)))
			status, body := do(t, p, c.method, "hello", c.header...)
			if status != c.want || seen.Load() != c.seen {
				t.Fatalf("%d after %d", status, seen.Load())
			}
			want := fmt.Sprintf("failure %d %s", c.seen, strings.Repeat("x", 5000))
			if status == 200 {
				want = "hello"
			}
			if body != want {
				t.Errorf("%d bytes: %.20q", len(body), body)
			}
			if r := p.log.last(); r.NAttempts != int(c.seen) || c.seen > 1 && r.Attempts[0].Reason != "retried_status" || r.Reason != "" {
				t.Errorf("record %+v", r)
			}
			p.until("nothing is held", func() bool { return p.worker.Open() == 0 && p.worker.Lent() == 0 })
		})
	}
}

// TestRetryGRPC: a status of gRPC that comes without a body is tried again where the policy says so, and that acting twice does
// no harm: every call is a POST.
func TestRetryGRPC(t *testing.T) {
	for _, any := range []bool{true, false} {
		var seen atomic.Int32
		g := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			if seen.Add(1) == 1 {
				w.Header().Set("Grpc-Status", "14")
				return
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			w.WriteHeader(200)
			_, _ = w.Write([]byte{0, 0, 0, 0, 0})
		})
		d := byRoute(t, model.Route{Retry: &model.Retry{On: model.RetryGRPC, GRPC: 1 << 14, Attempts: 1, Base: time.Millisecond, AnyMethod: any}}, mesh(sidecar(t, g)))
		p := newHop(t, setup{http2: true, origin: exchange.Origin{Direction: record.Outbound, Destination: d, Service: cart}})
		req, _ := http.NewRequest("POST", p.url("/x"), strings.NewReader("\x00\x00\x00\x00\x00"))
		req.Header.Set("Content-Type", "application/grpc")
		res, err := h2cClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(res.Body)
		res.Body.Close()
		want, status := int32(1), 14
		if any {
			want, status = 2, 0
		}
		p.until("the record", func() bool { return p.log.count() == 1 })
		if r := p.log.last(); seen.Load() != want || r.GRPC != status {
			t.Errorf("any method %t: %d calls, %+v", any, seen.Load(), r)
		}
	}
}

// TestAnswerIsNotStale: a proxy that answers for its program was not closing an idle connection, so the policy that wants no
// retries after a reset gets none, whether the connection between the proxies is new or not.
func TestAnswerIsNotStale(t *testing.T) {
	var seen atomic.Int32
	a := addrOf(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if seen.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
	}))
	p := callerBy(t, model.Route{Retry: &model.Retry{On: model.RetryStatuses, Statuses: []uint16{418}, Attempts: 2, Base: time.Millisecond, Max: time.Millisecond}}, mesh(sidecar(t, a)))
	for i, want := range []int{200, 502} {
		if status, _ := do(t, p, "POST", "", "Idempotency-Key", "1"); status != want {
			t.Fatalf("request %d: %d", i, status)
		}
	}
	p.until("two records", func() bool { return p.log.count() == 2 })
	if r := p.log.last(); r.NAttempts != 1 || r.Reason != "upstream_reset" {
		t.Errorf("%d attempts, %s", r.NAttempts, r.Reason)
	}
}

// TestRetryKeepsConnection: a response that is not passed on is read, so its connection takes the next attempt.
func TestRetryKeepsConnection(t *testing.T) {
	var conns atomic.Int32
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int32
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1)%3 != 0 {
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "not now")
		}
	}), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	d := byRoute(t, model.Route{Retry: &model.Retry{On: model.Retry5xx, Attempts: 5, Base: time.Millisecond, AnyMethod: true}})
	c := cluster.New(&model.Cluster{Name: cart, ConnectTimeout: time.Second, Budget: model.Budget{Off: true}})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Address: ln.Addr().(*net.TCPAddr).AddrPort(), Weight: 1}}})
	d.clusters[cart] = c
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Inbound, HTTP: &model.HTTP{ServerName: "x"}, Destination: d}})
	for range 5 {
		if status, _ := do(t, p, "POST", "x"); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if seen.Load() != 15 || conns.Load() != 1 {
		t.Errorf("%d requests on %d connections", seen.Load(), conns.Load())
	}
}

// TestRetryAfter: what a server asks for is waited for, up to the policy's bound; beyond, its response goes to the client.
func TestRetryAfter(t *testing.T) {
	for bound, want := range map[time.Duration]int{5 * time.Second: 200, 500 * time.Millisecond: 429} {
		a, _ := failing(t, 1, 429, "Retry-After", "1")
		p := callerBy(t, model.Route{Retry: &model.Retry{On: model.RetryStatuses, Statuses: []uint16{429}, Attempts: 1, Base: time.Millisecond, RetryAfter: bound}}, mesh(sidecar(t, a)))
		began := time.Now()
		status, _ := do(t, p, "GET", "")
		if took := time.Since(began); status != want || (took >= time.Second) != (want == 200) {
			t.Errorf("bound %s: %d after %s", bound, status, took)
		}
	}
	a, seen := failing(t, 1, 429, "Retry-After", "2")
	p := callerBy(t, model.Route{Timeouts: model.Timeouts{Request: time.Second},
		Retry: &model.Retry{On: model.RetryStatuses, Statuses: []uint16{429}, Attempts: 1, RetryAfter: time.Minute}}, mesh(sidecar(t, a)))
	if status, _ := do(t, p, "GET", ""); status != 429 || seen.Load() != 1 {
		t.Errorf("longer than the request has: %d", status)
	}
}

// TestAttemptTimeoutRetried: an attempt that hangs is given up and another endpoint asked.
func TestAttemptTimeoutRetried(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	hangs := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	good := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	p := callerBy(t, model.Route{Timeouts: model.Timeouts{Attempt: 400 * time.Millisecond},
		Retry: &model.Retry{On: model.RetryTimeout, Attempts: 1, Base: time.Millisecond, OtherHosts: true}}, mesh(sidecar(t, addrOf(t, hangs))), mesh(sidecar(t, addrOf(t, good))))
	for range 6 {
		if status, body := do(t, p, "PUT", "x"); status != 200 || body != "x" {
			t.Fatalf("%d %q", status, body)
		}
	}
}

// TestHedge: when one endpoint is slow, another is asked as well and its answer taken; what is not idempotent is not.
func TestHedge(t *testing.T) {
	gone := make(chan struct{}, 100)
	slow := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = io.WriteString(w, "slow")
			return
		}
		<-r.Context().Done() // never answers what may be hedged
		gone <- struct{}{}
	})
	good := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "quick") })
	p := callerBy(t, model.Route{Hedge: &model.Hedge{After: 20 * time.Millisecond}}, mesh(sidecar(t, addrOf(t, slow))), mesh(sidecar(t, addrOf(t, good))))
	hedged := 0
	for range 20 {
		if status, body := do(t, p, "GET", ""); status != 200 || body != "quick" {
			t.Fatalf("%d %q", status, body)
		}
		if r := p.log.last(); r.NAttempts == 2 {
			hedged++
			for _, a := range r.Attempts[:2] { // on a busy machine the good one may be asked first, and hedged
				if want := map[string]string{"cart-a": "outrun", "cart-b": ""}[a.Workload]; a.Reason != want {
					t.Errorf("attempts %+v", r.Attempts[:2])
				}
			}
			<-gone // the other one is told
		}
	}
	if hedged == 0 {
		t.Error("the slow endpoint was never asked")
	}
	if p.do(func() {}); p.worker.Lent() != 0 {
		t.Errorf("%d buffers", p.worker.Lent())
	}
	answers := map[string]int{}
	for range 20 {
		_, body := do(t, p, "POST", "")
		answers[body]++
		if r := p.log.last(); r.NAttempts != 1 {
			t.Errorf("a payment was sent %d times", r.NAttempts)
		}
	}
	if answers["slow"] == 0 {
		t.Error(answers)
	}
}

// TestFallback: where no endpoint can take a request, or a bound refuses it, the fallback gets it.
func TestFallback(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "static") })
	release := make(chan struct{})
	busy := serve(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	for name, c := range map[string]struct {
		r     model.Route
		addrs []netip.AddrPort
		busy  bool
	}{
		"no endpoint": {},
		"unreachable": {addrs: []netip.AddrPort{nobody(t)}},
		"by a bound":  {r: model.Route{Breakers: &model.Breakers{Requests: 1}}, addrs: []netip.AddrPort{mesh(sidecar(t, addrOf(t, busy)))}, busy: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.r.Fallback = &model.Backend{Cluster: spare, Weight: 1}
			d := byRoute(t, c.r, c.addrs...)
			d.clusters[spare] = to(t, model.Timeouts{}, mesh(sidecar(t, addrOf(t, other)))).clusters[cart]
			p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d, Service: cart}})
			first := make(chan int, 1)
			if c.busy {
				go func() {
					res, err := client(t).Get(p.url("/"))
					if err != nil {
						first <- 0
						return
					}
					res.Body.Close()
					first <- res.StatusCode
				}()
				p.until("the first", func() bool { return p.worker.Open() == 1 })
			}
			if status, body := do(t, p, "POST", "x"); status != 200 || body != "static" {
				t.Errorf("%d %q", status, body)
			}
			if r := p.log.last(); r.Backend != spare {
				t.Errorf("record %+v", r)
			}
			if c.busy {
				close(release)
				if status := <-first; status != 200 {
					t.Errorf("the first: %d", status)
				}
			}
		})
	}
}

// TestRouteBreaker: what is under way on a route is bounded, over all of its requests, and given back.
func TestRouteBreaker(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	p := callerBy(t, model.Route{Breakers: &model.Breakers{Requests: 3}}, mesh(sidecar(t, addrOf(t, srv))))
	got := make(chan int, 5)
	c := client(t)
	for range 5 {
		go func() {
			res, err := c.Get(p.url("/"))
			if err != nil {
				got <- 0
				return
			}
			res.Body.Close()
			got <- res.StatusCode
		}()
	}
	for range 2 {
		if status := <-got; status != 503 {
			t.Errorf("status %d", status)
		}
	}
	close(release)
	for range 3 {
		if status := <-got; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if status, _ := do(t, p, "GET", ""); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

// TestDeadlineGoesOn: the time that the first caller has goes through a program that forwards the request's identifier, and
// when it is over, or the first caller gone, the last program is told; nothing is begun that nobody waits for.
func TestDeadlineGoesOn(t *testing.T) {
	for _, by := range []string{"timeout", "client"} {
		t.Run(by, func(t *testing.T) {
			begun, ended := make(chan struct{}, 4), make(chan struct{}, 4)
			last := serve(t, func(w http.ResponseWriter, r *http.Request) {
				begun <- struct{}{}
				<-r.Context().Done()
				ended <- struct{}{}
			})
			shared := exchange.Config{Kin: kin.New()}
			out2 := newHop(t, setup{worker: shared, origin: exchange.Origin{Direction: record.Outbound, Destination: byRoute(t, model.Route{}, mesh(sidecar(t, addrOf(t, last)))), Service: cart}})
			told := make(chan string, 4)
			middle := serve(t, func(w http.ResponseWriter, r *http.Request) {
				req, _ := http.NewRequest("GET", out2.url("/"), nil) // its own context: the proxy has to do it
				req.Header.Set("X-Request-Id", r.Header.Get("X-Request-Id"))
				res, err := client(t).Do(req)
				if err == nil {
					told <- res.Header.Get("Tulle-Reason")
					res.Body.Close()
				}
			})
			o := inbound(addrOf(t, middle))
			o.Mesh = true
			in := newHop(t, setup{origin: o, http2: true, worker: shared})
			timeouts := model.Timeouts{}
			if by == "timeout" {
				timeouts.Request = time.Second
			}
			out := callerBy(t, model.Route{Timeouts: timeouts}, mesh(in))
			c := raw(t, out)
			c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			<-begun
			if by == "client" {
				_ = c.c.(*net.TCPConn).SetLinger(0)
				_ = c.c.Close()
			}
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("the last program still works")
			}
			if reason := <-told; reason != "caller_gone" && !(by == "timeout" && reason == "deadline") {
				t.Errorf("the middle was told %q", reason)
			}
			in.until("nothing is open", func() bool { return in.worker.Open() == 0 })
		})
	}
}

// TestTimeoutToProgram: a gRPC program is told how much time its caller's route leaves it; no program sees our own fields.
func TestTimeoutToProgram(t *testing.T) {
	p := callerBy(t, model.Route{Timeouts: model.Timeouts{Request: 5 * time.Second}}, mesh(sidecar(t, mirror(t))))
	_, plain := do(t, p, "GET", "")
	if strings.Contains(strings.ToLower(plain), "tulle-") || strings.Contains(plain, "grpc-timeout") {
		t.Errorf("the program sees %s", plain)
	}
	told := make(chan string, 1)
	g := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("Grpc-Timeout")
		w.Header().Set("Content-Type", "application/grpc")
	})
	s := setup{http2: true, origin: exchange.Origin{Direction: record.Outbound, Service: cart,
		Destination: byRoute(t, model.Route{Timeouts: model.Timeouts{Request: 5 * time.Second}}, mesh(sidecar(t, g)))}}
	out := newHop(t, s)
	req, _ := http.NewRequest("POST", out.url("/x"), http.NoBody)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := h2cClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if v := <-told; !strings.HasPrefix(v, "49") && v != "5000000u" {
		t.Errorf("grpc-timeout %q", v)
	}
}

// TestSpentComesBack: who tries again tells his callers, and they try less.
func TestSpentComesBack(t *testing.T) {
	var n atomic.Int32
	last := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(503)
		}
	})
	again := model.Route{Retry: &model.Retry{On: model.RetryGateway, Attempts: 2, Base: time.Microsecond}}
	spent := &cluster.Spent{}
	d2 := byRoute(t, again, mesh(sidecar(t, addrOf(t, last))))
	out2 := newHop(t, setup{worker: exchange.Config{Spent: spent}, origin: exchange.Origin{Direction: record.Outbound, Destination: d2, Service: cart}})
	middle := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := do(t, out2, "GET", "")
		w.WriteHeader(status)
	})
	o := inbound(addrOf(t, middle))
	o.Mesh = true
	in := newHop(t, setup{origin: o, http2: true, worker: exchange.Config{Spent: spent}})
	d1 := byRoute(t, again, mesh(in))
	out := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d1, Service: cart}})
	for range 300 {
		do(t, out, "GET", "")
	}
	var now time.Duration
	out.do(func() { now = out.loop.Now() })
	s1, s2 := d1.clusters[cart].Budget().Sums(now), d2.clusters[cart].Budget().Sums(now)
	if s1.Extra == 0 || d2.clusters[cart].Budget().Refused() == 0 {
		t.Errorf("nothing was told: %+v, below %+v", s1, s2)
	}
	if got := float64(n.Load()) / 300; got > 1.3 { // a few are allowed whatever the share is; the law itself is in cluster.TestChain
		t.Errorf("one request came to %.2f", got)
	}
}

// TestRetryWhenWell: who waits is tried again once another request has shown that the service is well, unless the wait is
// pinned.
func TestRetryWhenWell(t *testing.T) {
	for _, base := range []time.Duration{0, time.Millisecond} {
		var well atomic.Bool
		var seen atomic.Int32
		srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if seen.Add(1); !well.Load() {
				w.WriteHeader(503)
			}
		})
		least := 30 * time.Second
		if base > 0 {
			least = 300 * time.Millisecond
		}
		p := callerBy(t, model.Route{Retry: &model.Retry{On: model.RetryGateway, Attempts: 1, Base: base, Least: least, Max: least}}, mesh(sidecar(t, addrOf(t, srv))))
		began := time.Now()
		answers := make(chan int, 3)
		for range 3 {
			go func() {
				res, err := client(t).Get(p.url("/"))
				if err != nil {
					answers <- 0
					return
				}
				_ = res.Body.Close()
				answers <- res.StatusCode
			}()
		}
		for seen.Load() < 3 { // poll
			if time.Since(began) > 10*time.Second {
				t.Fatal("the first attempts do not arrive")
			}
			time.Sleep(time.Millisecond) // poll
		}
		well.Store(true)
		for n := 0; n < 3; {
			if status, _ := do(t, p, "GET", ""); status != 200 { // poll: one that begins before the failures are known ends nothing
				t.Fatal(status)
			}
			select {
			case status := <-answers:
				if n++; status != 200 {
					t.Error(status)
				}
			default:
			}
		}
		if took := time.Since(began); base == 0 && took > 20*time.Second || base > 0 && took < least {
			t.Errorf("%v with waits of %v", took, least)
		}
	}
}
