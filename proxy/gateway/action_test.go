package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// acting is a gateway whose one listener has these routes, in front of clusters that answer their names and what they got.
func acting(t *testing.T, set func(h *model.HTTP), clusters []string, routes ...model.Route) netip.AddrPort {
	t.Helper()
	b := &model.Bootstrap{}
	for _, c := range clusters {
		static(b, c, origin(t, c))
	}
	return actingOn(t, b, set, routes...)
}

func actingOn(t *testing.T, b *model.Bootstrap, set func(h *model.HTTP), routes ...model.Route) netip.AddrPort {
	t.Helper()
	l := listener("l", httpChain("none"))
	h := l.Chains[0].HTTP
	h.Routes.Hosts[0].Routes = routes
	if set != nil {
		set(h)
	}
	b.Listeners = []model.Listener{l}
	return start(t, b).Listening("l")[0]
}

// everything is a route for all that goes to a cluster.
func everything(cluster string) model.Route {
	return model.Route{Match: model.Match{Path: "/"}, Backends: []model.Backend{{Cluster: model.Free(cluster), Weight: 1}}}
}

// answer sends one request as it stands and reads the response without following it anywhere.
func answer(t *testing.T, at netip.AddrPort, request string) (*http.Response, string) {
	t.Helper()
	c := dial(t, at, []byte(strings.ReplaceAll(request, "\n", "\r\n")+"\r\n\r\n"))
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: strings.Fields(request)[0]})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return r, string(body)
}

// TestRedirect: Location is made as Gateway API says, or as Envoy does.
func TestRedirect(t *testing.T) {
	const request = "GET /foo/bar?q=1 HTTP/1.1\nHost: shop.example:8080"
	for _, c := range []struct {
		name    string
		d       model.Redirect
		request string
		want    string
	}{
		{"nothing", model.Redirect{}, request, "http://shop.example:8080/foo/bar?q=1"},
		{"scheme: its own port", model.Redirect{Scheme: "https"}, request, "https://shop.example/foo/bar?q=1"},
		{"host: the request's port", model.Redirect{Host: "other"}, request, "http://other:8080/foo/bar?q=1"},
		{"port", model.Redirect{Port: 8443, Scheme: "https"}, request, "https://shop.example:8443/foo/bar?q=1"},
		{"the scheme's port is not written", model.Redirect{Port: 443, Scheme: "https", Host: "other"}, request, "https://other/foo/bar?q=1"},
		{"port 80 is not written", model.Redirect{Port: 80}, request, "http://shop.example/foo/bar?q=1"},
		{"the request's port 80 is not written", model.Redirect{Host: "b"}, "GET / HTTP/1.1\nHost: a:80", "http://b/"},
		{"prefix", model.Redirect{Change: model.PathPrefixed, Path: "/xyz/"}, request, "http://shop.example:8080/xyz/bar?q=1"},
		{"full, without query", model.Redirect{Change: model.PathFull, Path: "/x", StripQuery: true}, request, "http://shop.example:8080/x"},
		{"pattern", model.Redirect{Change: model.PathPattern, Pattern: "^/foo/(.*)", Path: `/\1/foo`}, request, "http://shop.example:8080/bar/foo?q=1"},
		{"IPv6", model.Redirect{Scheme: "https"}, "GET /foo HTTP/1.1\nHost: [::1]:80", "https://[::1]/foo"},
		{"Envoy: scheme keeps the port", model.Redirect{AsEnvoy: true, Scheme: "https"}, request, "https://shop.example:8080/foo/bar?q=1"},
		{"Envoy: scheme drops its old port", model.Redirect{AsEnvoy: true, Scheme: "https"}, "GET /foo HTTP/1.1\nHost: a:80", "https://a/foo"},
		{"Envoy: host has its own port", model.Redirect{AsEnvoy: true, Host: "other"}, request, "http://other/foo/bar?q=1"},
		{"Envoy: port is written", model.Redirect{AsEnvoy: true, Port: 80}, request, "http://shop.example:80/foo/bar?q=1"},
		{"Envoy: query of the path", model.Redirect{AsEnvoy: true, Change: model.PathFull, Path: "/x?y"}, request, "http://shop.example:8080/x?y"},
		{"Envoy: prefix is text", model.Redirect{AsEnvoy: true, Change: model.PathPrefixed, Path: "/xyz/"}, request, "http://shop.example:8080/xyz//bar?q=1"},
		{"OPTIONS *", model.Redirect{Host: "b"}, "OPTIONS * HTTP/1.1\nHost: a", "http://b/*"},
	} {
		c.d.Status = 308
		match := model.Match{Path: "/foo"}
		if !strings.Contains(c.request, "/foo") {
			match.Path = "/"
		}
		r, _ := answer(t, acting(t, nil, nil, model.Route{Match: match, Redirect: &c.d}), c.request)
		if got := r.Header.Get("Location"); got != c.want || r.StatusCode != 308 || r.ContentLength != 0 {
			t.Errorf("%s: %d %s (%d bytes), want %s", c.name, r.StatusCode, got, r.ContentLength, c.want)
		}
	}
}

func TestRewritten(t *testing.T) {
	with := func(path string, w model.Rewrite) model.Route {
		r := everything("one")
		r.Match.Path, r.Rewrite = path, w
		return r
	}
	at := acting(t, nil, []string{"one"}, with("/full", model.Rewrite{Path: "/x"}), with("/pattern", model.Rewrite{Pattern: "/pattern/([0-9]+)", Replacement: `/n/\1`}),
		with("/elements/", model.Rewrite{Prefix: "/y", HasPrefix: true}))
	for path, want := range map[string]string{"/full/a?q": "/x", "/pattern/17/z": "/n/17/z", "/elements": "/y", "/elements/z": "/y/z"} {
		if got := get(t, http.DefaultClient, "http://"+at.String()+path); got != "one HTTP/1.1 GET "+want+" " {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// headersOf are the fields that CORS is about, in one text.
func headersOf(h http.Header) string {
	var all []string
	for _, n := range []string{"Allow-Origin", "Allow-Credentials", "Allow-Methods", "Allow-Headers", "Expose-Headers", "Max-Age"} {
		if v := h.Values("Access-Control-" + n); v != nil {
			all = append(all, n+"="+strings.Join(v, "|"))
		}
	}
	return strings.Join(all, " ")
}

func TestCORS(t *testing.T) {
	shop := []model.OriginMatch{{Exact: "https://shop.example"}}
	const preflight = "OPTIONS /a HTTP/1.1\nHost: h\nOrigin: %s\nAccess-Control-Request-Method: PUT\nAccess-Control-Request-Headers: x-a,x-b"
	const actual = "GET /a HTTP/1.1\nHost: h\nOrigin: %s"
	policy := model.CORS{Origins: shop, Methods: []string{"GET", "PUT"}, Headers: []string{"x-a"}, Expose: []string{"x-c"}, MaxAge: time.Minute}
	open := model.CORS{Origins: []model.OriginMatch{{Any: true}}, Methods: []string{"*"}, Headers: []string{"*"}, Expose: []string{"*"}}
	trusting, forwarding := open, policy
	trusting.Credentials, forwarding.Forward = true, true
	for _, c := range []struct {
		name, request, origin string
		policy                model.CORS
		answered              bool // here
		want                  string
	}{
		{"preflight", preflight, "https://shop.example", policy, true, "Allow-Origin=https://shop.example Allow-Methods=GET, PUT Allow-Headers=x-a Max-Age=60"},
		{"preflight of another", preflight, "https://evil.example", policy, true, ""},
		{"preflight of another, forwarded", preflight, "https://evil.example", forwarding, false, "Allow-Origin=backend"},
		{"preflight of anybody", preflight, "https://x", open, true, "Allow-Origin=https://x Allow-Methods=* Allow-Headers=*"},
		{"preflight of anybody with credentials", preflight, "https://x", trusting, true, "Allow-Origin=https://x Allow-Credentials=true Allow-Methods=PUT Allow-Headers=x-a,x-b"},
		{"OPTIONS that is no preflight", "OPTIONS /a HTTP/1.1\nHost: h\nOrigin: %s", "https://shop.example", policy, false, "Allow-Origin=https://shop.example Expose-Headers=x-c"},
		{"actual", actual, "https://shop.example", policy, false, "Allow-Origin=https://shop.example Expose-Headers=x-c"},
		{"actual of another", actual, "https://evil.example", policy, false, ""},
		{"actual of another, forwarded", actual, "https://evil.example", forwarding, false, "Allow-Origin=backend"},
		{"actual of anybody", actual, "https://x", open, false, "Allow-Origin=https://x Expose-Headers=*"},
		{"actual of anybody with credentials", actual, "https://x", trusting, false, "Allow-Origin=https://x Allow-Credentials=true"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "backend")
			io.WriteString(w, "backend")
		}))
		b := &model.Bootstrap{}
		static(b, "one", netip.MustParseAddrPort(s.Listener.Addr().String()))
		route := everything("one")
		route.CORS = &c.policy
		at := actingOn(t, b, func(h *model.HTTP) { h.CORS = true }, route)
		r, body := answer(t, at, fmt.Sprintf(c.request, c.origin))
		if got := headersOf(r.Header); got != c.want || r.StatusCode != 200 || (body == "") != c.answered || r.Header.Get("Vary") != "Origin" {
			t.Errorf("%s: %d %q, body %q, vary %q; want %q", c.name, r.StatusCode, got, body, r.Header.Get("Vary"), c.want)
		}
		s.Close()
	}
}

// TestCORSOfFailures: pages may read why a request failed; without the filter there is no policy.
func TestCORSOfFailures(t *testing.T) {
	route := everything("missing")
	route.CORS = &model.CORS{Origins: []model.OriginMatch{{Any: true}}}
	for on, want := range map[bool]string{true: "Allow-Origin=https://x", false: ""} {
		r, _ := answer(t, acting(t, func(h *model.HTTP) { h.CORS = on }, nil, route), "GET / HTTP/1.1\nHost: h\nOrigin: https://x")
		if got := headersOf(r.Header); got != want || r.StatusCode != 503 {
			t.Errorf("filter %v: %d %q", on, r.StatusCode, got)
		}
	}
}

func TestFaultAborts(t *testing.T) {
	const all = 1_000_000
	plain, grpc := "GET / HTTP/1.1\nHost: h", "POST / HTTP/1.1\nHost: h\nContent-Type: application/grpc\nContent-Length: 0"
	for _, c := range []struct {
		name    string
		route   *model.Fault
		filter  *model.Fault
		request string
		status  int
		grpc    string
	}{
		{"status", &model.Fault{Status: 418, AbortShare: all}, &model.Fault{}, plain, 418, ""},
		{"status to gRPC", &model.Fault{Status: 429, AbortShare: all}, &model.Fault{}, grpc, 200, "14"},
		{"gRPC status", &model.Fault{Status: 500, GRPC: 8, AbortShare: all}, &model.Fault{}, grpc, 200, "8"},
		{"share of 0", &model.Fault{Status: 418}, &model.Fault{}, plain, 200, ""},
		{"the filter's own", nil, &model.Fault{Status: 417, AbortShare: all}, plain, 417, ""},
		{"the route's instead of the filter's", &model.Fault{}, &model.Fault{Status: 417, AbortShare: all}, plain, 200, ""},
		{"no filter", &model.Fault{Status: 418, AbortShare: all}, nil, plain, 200, ""},
		{"other headers", &model.Fault{Status: 418, AbortShare: all, Headers: []model.FieldMatch{{Name: "x-try", Value: "1"}}}, &model.Fault{}, plain, 200, ""},
		{"these headers", &model.Fault{Status: 418, AbortShare: all, Headers: []model.FieldMatch{{Name: "x-try", Value: "1"}}}, &model.Fault{}, plain + "\nX-Try: 1", 418, ""},
	} {
		route := everything("one")
		route.Fault = c.route
		r, _ := answer(t, acting(t, func(h *model.HTTP) { h.Fault = c.filter }, []string{"one"}, route), c.request)
		reason := ""
		if c.status != 200 || c.grpc != "" {
			reason = "fault_injected"
		}
		if r.StatusCode != c.status || r.Header.Get("Grpc-Status") != c.grpc || r.Header.Get("Tulle-Reason") != reason {
			t.Errorf("%s: %d %v", c.name, r.StatusCode, r.Header)
		}
	}
}

// TestFaultResets: the client sees a connection, or a stream, that is reset.
func TestFaultResets(t *testing.T) {
	route := everything("one")
	route.Fault = &model.Fault{Reset: true, AbortShare: 1_000_000}
	at := acting(t, func(h *model.HTTP) { h.Fault = &model.Fault{} }, []string{"one"}, route)
	if _, err := read(at, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("HTTP/1.1: %v", err)
	}
	if _, err := client(t, at, nil, "h2c").Get("http://h/"); err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
		t.Errorf("HTTP/2: %v", err)
	}
}

// TestFaultDelays: the request waits, its body too, and then goes on; the route's timeout runs meanwhile.
func TestFaultDelays(t *testing.T) {
	const delay = 100 * time.Millisecond
	slow, short, failing := everything("one"), everything("one"), everything("one")
	slow.Fault = &model.Fault{Delay: delay, DelayShare: 1_000_000}
	failing.Fault = &model.Fault{Delay: delay, DelayShare: 1_000_000, Status: 418, AbortShare: 1_000_000}
	short.Fault, short.Timeouts.Request = &model.Fault{Delay: time.Hour, DelayShare: 1_000_000}, 50*time.Millisecond
	for i, r := range []*model.Route{&slow, &short, &failing} {
		r.Match.Path = fmt.Sprint("/", i)
	}
	at := acting(t, func(h *model.HTTP) { h.Fault = &model.Fault{} }, []string{"one"}, slow, short, failing)
	began := time.Now()
	if r, body := answer(t, at, "POST /0 HTTP/1.1\nHost: h\nContent-Length: 4\n\nbody"); r.StatusCode != 200 || !strings.HasPrefix(body, "one HTTP/1.1 POST /0 body") {
		t.Errorf("%d %q", r.StatusCode, body)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("it took only %v", took)
	}
	if r, _ := answer(t, at, "GET /1 HTTP/1.1\nHost: h"); r.StatusCode != 504 || r.Header.Get("Tulle-Reason") != "request_timeout" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	began = time.Now()
	if r, _ := answer(t, at, "GET /2 HTTP/1.1\nHost: h"); r.StatusCode != 418 || time.Since(began) < delay {
		t.Errorf("%d after %v", r.StatusCode, time.Since(began))
	}
	c := dial(t, at, []byte("GET /0 HTTP/1.1\r\nHost: h\r\n\r\n")) // who goes away meanwhile is forgotten
	c.Close()
}

// TestFaultRate: a response comes at the rate that is given, whole, with its trailers.
func TestFaultRate(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-End")
		w.Write(make([]byte, 3000))
		w.(http.Flusher).Flush()
		w.Write(make([]byte, 3000))
		w.Header().Set("X-End", "yes")
	}))
	t.Cleanup(s.Close)
	for _, version := range []string{"1", "h2c"} {
		b := &model.Bootstrap{}
		static(b, "one", netip.MustParseAddrPort(s.Listener.Addr().String()))
		route := everything("one")
		route.Fault = &model.Fault{Rate: 20_000, RateShare: 1_000_000}
		at := actingOn(t, b, func(h *model.HTTP) { h.Fault, h.HTTP1.AllowTrailers = &model.Fault{}, true }, route)
		began := time.Now()
		r, err := client(t, at, nil, version).Get("http://h/")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if took := time.Since(began); n != 6000 || err != nil || took < 200*time.Millisecond || r.Trailer.Get("X-End") != "yes" {
			t.Errorf("%s: %d bytes in %v, %v, trailers %v", version, n, took, err, r.Trailer)
		}
	}
}

// sessionsOn is a gateway in front of some servers that answer their addresses, and how to change them.
func sessionsOn(t *testing.T, s *model.Session, n int) (at netip.AddrPort, servers []netip.AddrPort) {
	b := &model.Bootstrap{}
	for range n {
		var self string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, self) }))
		t.Cleanup(srv.Close)
		self = srv.Listener.Addr().String()
		servers = append(servers, netip.MustParseAddrPort(self))
	}
	static(b, "one", servers...)
	static(b, "two", servers...)
	route := everything("one")
	route.Session = s
	route.Backends = append(route.Backends, model.Backend{Cluster: model.Free("two"), Weight: 1,
		Filters: []model.Filter{{Kind: model.FilterResponseHeaders, Headers: model.HeaderChange{Set: []model.Header{{Name: "x-backend", Value: "two"}}}}}})
	return actingOn(t, b, func(h *model.HTTP) { h.Session = &model.Session{} }, route), servers
}

// TestSessions: who brings the value back gets the same endpoint of the same backend, by cookie or by header; whoever makes
// one up begins a new session.
func TestSessions(t *testing.T) {
	for _, s := range []*model.Session{{Cookie: "sid", Path: "/app", Lifetime: time.Minute, Absolute: time.Minute}, {Header: "X-Session"}} {
		at, _ := sessionsOn(t, s, 6)
		first := func(extra string) (value, endpoint, backend string) {
			r, body := answer(t, at, "GET /app/x HTTP/1.1\nHost: h"+extra)
			if s.Header != "" {
				return r.Header.Get(s.Header), body, r.Header.Get("X-Backend")
			}
			for _, c := range r.Cookies() {
				if c.Name != "sid" || c.MaxAge != 60 || c.Path != "/app" || !c.HttpOnly {
					t.Errorf("cookie %v", c)
				}
				value = c.Value
			}
			return value, body, r.Header.Get("X-Backend")
		}
		with := func(v string) string {
			if s.Header != "" {
				return "\nx-session: " + v
			}
			return "\nCookie: a=b; sid=" + v
		}
		value, endpoint, backend := first("")
		if value == "" {
			t.Fatal("there is no session")
		}
		for range 20 {
			if v, e, b := first(with(value)); v != "" || e != endpoint || b != backend {
				t.Fatalf("%q: endpoint %s, then %s; backend %q, then %q; value %q", value, endpoint, e, backend, b, v)
			}
		}
		if strings.Contains(value, "127.0.0.1") || len(value) != 34 {
			t.Errorf("the value is %q", value)
		}
		seen := map[string]bool{}
		for range 40 {
			_, e, b := first("")
			seen[e+b] = true
		}
		if len(seen) < 4 {
			t.Errorf("new sessions have only %d endpoints", len(seen))
		}
		bad := []byte(value)
		bad[20] ^= 1
		for _, made := range []string{"x", string(bad), value + "A", strings.Repeat("A", 34), "127.0.0.1:80"} {
			if v, _, _ := first(with(made)); v == "" {
				t.Errorf("%q is believed", made)
			}
		}
	}
}

// TestSessionEnds: a session survives that other endpoints come and go; when its own goes, a new one begins with another.
func TestSessionEnds(t *testing.T) {
	one, two, three := newPatient(t, "a"), newPatient(t, "b"), newPatient(t, "c")
	b := &model.Bootstrap{Clusters: []model.Cluster{{Name: model.Free("one"), ConnectTimeout: time.Second, Discovery: model.DiscoveryEDS}}}
	l := listener("l", httpChain("one"))
	l.Chains[0].HTTP.Session = &model.Session{Cookie: "sid"}
	b.Listeners = []model.Listener{l}
	g, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	are := func(at ...netip.AddrPort) {
		t.Helper()
		if err := g.Apply(model.Updates{Endpoints: []*model.Endpoints{endpoints("one", at...)}}); err != nil {
			t.Fatal(err)
		}
	}
	are(one.at)
	waitFor(t, g.Ready)
	at := g.Listening("l")[0]
	r, _ := answer(t, at, "GET / HTTP/1.1\nHost: h")
	if len(r.Cookies()) != 1 || r.Cookies()[0].MaxAge != 0 || r.Cookies()[0].Path != "/" {
		t.Fatalf("%v", r.Header)
	}
	with := "GET / HTTP/1.1\nHost: h\nCookie: sid=" + r.Cookies()[0].Value
	are(two.at, three.at, one.at)
	for range 10 {
		if r, body := answer(t, at, with); body != "a" || len(r.Cookies()) != 0 {
			t.Fatalf("%s answered, cookies %v", body, r.Cookies())
		}
	}
	are(two.at, three.at)
	r, body := answer(t, at, with)
	if body == "a" || len(r.Cookies()) != 1 {
		t.Fatalf("%s answered, cookies %v", body, r.Cookies())
	}
	next := "GET / HTTP/1.1\nHost: h\nCookie: sid=" + r.Cookies()[0].Value
	are(one.at, two.at, three.at)
	for range 10 {
		if _, again := answer(t, at, next); again != body {
			t.Fatalf("%s answered, then %s", body, again)
		}
	}
}

// shadowed is a server that remembers what it got.
type shadowed struct {
	mu   sync.Mutex
	got  []string
	addr netip.AddrPort
}

func shadows(t *testing.T) *shadowed {
	c := &shadowed{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got = append(c.got, fmt.Sprintf("%s %s %s %d %v", r.Method, r.Host, r.URL, len(body), err))
		io.WriteString(w, "shadow")
	}))
	t.Cleanup(s.Close)
	c.addr = netip.MustParseAddrPort(s.Listener.Addr().String())
	return c
}

func (c *shadowed) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}

// TestMirrors: every mirror gets head and body as the backend does, the client nothing of it; one that is dead costs nothing.
func TestMirrors(t *testing.T) {
	one, two := shadows(t), shadows(t)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	b := &model.Bootstrap{}
	static(b, "main", origin(t, "main"))
	static(b, "one", one.addr)
	static(b, "two", two.addr)
	static(b, "dead", netip.MustParseAddrPort(dead.Addr().String()))
	route := everything("main")
	route.Rewrite = model.Rewrite{Prefix: "/v1", HasPrefix: true}
	route.Mirrors = []model.Mirror{{Cluster: model.Free("one"), Suffix: true}, {Cluster: model.Free("two"), Fraction: 1_000_000}, {Cluster: model.Free("dead")},
		{Cluster: model.Free("nowhere")}, {Cluster: model.Free("one"), Invalid: true}, {Cluster: model.Free("one"), Fraction: 1}}
	at := actingOn(t, b, nil, route)
	big := strings.Repeat("x", 200_000)
	for _, body := range []string{"", "hello", big} {
		r, err := http.Post("http://"+at.String()+"/a?q", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(got) != "main HTTP/1.1 POST /v1/a "+body {
			t.Fatalf("%.100q %v", got, err)
		}
	}
	port := at.Port()
	waitFor(t, func() error {
		want := func(host string) []string {
			var w []string
			for _, n := range []int{0, 5, len(big)} {
				w = append(w, fmt.Sprintf("POST %s:%d /v1/a?q %d <nil>", host, port, n))
			}
			return w
		}
		if a, b := one.all(), two.all(); !reflect.DeepEqual(a, want("127.0.0.1-shadow")) || !reflect.DeepEqual(b, want("127.0.0.1")) {
			return fmt.Errorf("%q %q", a, b)
		}
		return nil
	})
}

// TestMirrorBehind: a mirror that takes nothing delays nobody, and is given up.
func TestMirrorBehind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never reads
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b := &model.Bootstrap{}
	static(b, "main", origin(t, "main"))
	static(b, "stuck", netip.MustParseAddrPort(l.Addr().String()))
	route := everything("main")
	route.Mirrors = []model.Mirror{{Cluster: model.Free("stuck")}}
	at := actingOn(t, b, nil, route)
	body := strings.Repeat("x", 20<<20)
	r, err := http.Post("http://"+at.String()+"/", "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || len(got) < len(body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestSticky: the same user stays with the same backend; one who has nothing gets a cookie.
func TestSticky(t *testing.T) {
	route := everything("stable")
	route.Backends = append(route.Backends, model.Backend{Cluster: model.Free("canary"), Weight: 1})
	route.Sticky = []model.HashKey{{Kind: model.HashHeader, Name: "x-user", Terminal: true}, {Kind: model.HashCookie, Name: "u", Generate: true, Path: "/", TTL: time.Hour}}
	at := acting(t, nil, []string{"stable", "canary"}, route)
	seen := map[string]int{}
	for user := range 40 {
		var first string
		for range 3 {
			_, body := answer(t, at, fmt.Sprintf("GET / HTTP/1.1\nHost: h\nX-User: %d", user))
			if body, _, _ = strings.Cut(body, " "); first == "" {
				first = body
				seen[body]++
			} else if body != first {
				t.Errorf("user %d: %s, then %s", user, first, body)
			}
		}
	}
	if seen["stable"] < 8 || seen["canary"] < 8 {
		t.Errorf("%v", seen)
	}
	values := map[string]bool{}
	for range 5 {
		r, body := answer(t, at, "GET / HTTP/1.1\nHost: h")
		if len(r.Cookies()) != 1 || r.Cookies()[0].Name != "u" || r.Cookies()[0].MaxAge != 3600 {
			t.Fatalf("%v", r.Header)
		}
		v := r.Cookies()[0].Value
		values[v] = true
		if r, again := answer(t, at, "GET / HTTP/1.1\nHost: h\nCookie: u="+v); again != body || len(r.Cookies()) != 0 {
			t.Errorf("%q, then %q %v", body, again, r.Cookies())
		}
	}
	if len(values) != 5 {
		t.Errorf("%d values for five users", len(values))
	}
}
