package downstream_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/router"
)

var copies = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "copies"}, Port: 80}

// shopper is a caller's proxy with one route as set makes it, in front of the proxies of some workloads of cart and, for
// mirrors, one of copies.
func shopper(t testing.TB, set func(r *model.Route), mirror http.HandlerFunc, workloads ...http.HandlerFunc) *hop {
	t.Helper()
	proxies := func(handlers ...http.HandlerFunc) (at []netip.AddrPort) {
		for _, h := range handlers {
			o := inbound(addrOf(t, serve(t, h)))
			o.Mesh = true
			at = append(at, netip.MustParseAddrPort(newHop(t, setup{origin: o, http2: true}).addr))
		}
		return at
	}
	d := to(t, model.Timeouts{}, proxies(workloads...)...)
	if mirror != nil {
		c := to(t, model.Timeouts{}, proxies(mirror)...).clusters[cart]
		m := *c.Model()
		m.Name = copies
		d.clusters[copies] = cluster.New(&m)
		e := &model.Endpoints{Cluster: copies}
		for _, ep := range c.Endpoints() {
			e.Endpoints = append(e.Endpoints, *ep.Model())
		}
		d.clusters[copies].SetEndpoints(e)
	}
	r := model.Route{Name: "HTTPRoute/default/cart", Match: model.Match{Path: "/"}, Backends: []model.Backend{{Cluster: cart, Weight: 1}}}
	set(&r)
	var err error
	if d.table, err = router.Compile(&model.RouteTable{Name: cart, Routes: []model.Route{r}}); err != nil {
		t.Fatal(err)
	}
	return newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d, Service: cart}})
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", text, r.URL, len(body))
	}
}

// TestSidecarActions: in the mesh no filter has to be switched on.
func TestSidecarActions(t *testing.T) {
	const get = "GET /a/b?q HTTP/1.1\r\nHost: cart:8080\r\nOrigin: https://shop\r\n"
	for _, c := range []struct {
		name, request string
		set           func(r *model.Route)
		status        int
		want          map[string]string // fields of the response
		body          string
	}{
		{"redirect", get, func(r *model.Route) { r.Redirect = &model.Redirect{Host: "other", Status: 301} }, 301, map[string]string{"Location": "http://other:8080/a/b?q"}, ""},
		{"rewrite", get, func(r *model.Route) { r.Match.Path, r.Rewrite = "/a/", model.Rewrite{Prefix: "/", HasPrefix: true} }, 200, nil, "cart /b?q 0"},
		{"preflight", strings.Replace(get, "GET", "OPTIONS", 1) + "Access-Control-Request-Method: PUT\r\n", func(r *model.Route) {
			r.CORS, r.Match.Method = &model.CORS{Origins: []model.OriginMatch{{Exact: "https://shop"}}, Methods: []string{"PUT"}, MaxAge: 5 * time.Second}, "PUT"
		}, 200, map[string]string{"Access-Control-Allow-Origin": "https://shop", "Access-Control-Allow-Methods": "PUT", "Access-Control-Max-Age": "5", "Vary": "Origin"}, ""},
		{"abort", get, func(r *model.Route) {
			r.Fault, r.CORS = &model.Fault{Status: 507, AbortShare: 1_000_000}, &model.CORS{Origins: []model.OriginMatch{{Any: true}}}
		}, 507, map[string]string{"Tulle-Reason": "fault_injected", "Access-Control-Allow-Origin": "https://shop"}, "tulle: a fault was injected on purpose (fault_injected)\n"},
		{"no share", get, func(r *model.Route) { r.Fault = &model.Fault{Status: 507, Delay: time.Hour, Rate: 1} }, 200, nil, "cart /a/b?q 0"},
		{"a mirror that does not exist", get, func(r *model.Route) { r.Mirrors = []model.Mirror{{Cluster: copies}} }, 200, nil, "cart /a/b?q 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := raw(t, shopper(t, c.set, nil, say("cart")))
			w.send(c.request + "\r\n")
			res, body := w.response(strings.Fields(c.request)[0])
			if res.StatusCode != c.status || body != c.body {
				t.Errorf("%d %q", res.StatusCode, body)
			}
			for k, v := range c.want {
				if res.Header.Get(k) != v {
					t.Errorf("%s: %q, want %q", k, res.Header.Get(k), v)
				}
			}
		})
	}
}

// TestSidecarReset: a fault that resets is recorded as one, and the connection is reset.
func TestSidecarReset(t *testing.T) {
	p := shopper(t, func(r *model.Route) { r.Fault = &model.Fault{Reset: true, AbortShare: 1_000_000} }, nil, say("cart"))
	w := raw(t, p)
	w.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := w.r.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	p.until("a record", func() bool { return p.log.count() == 1 && p.worker.Open() == 0 })
	if r := p.log.last(); r.Reason != "fault_injected" || r.NAttempts != 0 || r.Status != 0 {
		t.Errorf("%+v", r)
	}
}

// TestDelayIsForgotten: a client that goes away during an injected delay is not waited for, and nothing is sent.
func TestDelayIsForgotten(t *testing.T) {
	p := shopper(t, func(r *model.Route) { r.Fault = &model.Fault{Delay: time.Hour, DelayShare: 1_000_000} }, nil, say("cart"))
	w := raw(t, p)
	w.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
	p.until("the exchange", func() bool { return p.worker.Open() == 1 })
	w.c.Close()
	p.until("its end", func() bool { return p.worker.Open() == 0 && p.worker.Lent() == 0 })
	if r := p.log.last(); r.Reason != "downstream_gone" || r.NAttempts != 0 {
		t.Errorf("%+v", r)
	}
}

// TestSlowAnswerInDelay: an answer of ours that ends an injected delay reaches its client whole, though it is slowed down, too.
func TestSlowAnswerInDelay(t *testing.T) {
	p := shopper(t, func(r *model.Route) {
		r.Timeouts.Request = 10 * time.Millisecond
		r.Fault = &model.Fault{Delay: time.Hour, DelayShare: 1_000_000, Rate: 400, RateShare: 1_000_000}
	}, nil, say("cart"))
	w := raw(t, p)
	w.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, body := w.response("GET"); res.StatusCode != 504 || !strings.HasSuffix(body, "(request_timeout)\n") {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	p.until("its end", func() bool { return p.worker.Open() == 0 && p.worker.Lent() == 0 })
}

// recorded waits for n records, of which one is a mirror's, and answers that and the other one.
func recorded(t *testing.T, p *hop) (request, mirror record.Record) {
	t.Helper()
	p.until("two records", func() bool { return p.log.count() == 2 && p.worker.Open() == 0 && p.worker.Lent() == 0 })
	for _, r := range p.log.all {
		if r.Mirror {
			mirror = r
		} else {
			request = r
		}
	}
	return request, mirror
}

func mirrored(r *model.Route) { r.Mirrors = []model.Mirror{{Cluster: copies}} }

// TestMirrorRecord: a copy has a record of its own, with the request's route and identifier, and tells of its own end.
func TestMirrorRecord(t *testing.T) {
	p := shopper(t, mirrored, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(500)
		_, _ = w.Write(make([]byte, 1<<20)) // all of it is read and dropped
	}, say("cart"))
	const size = 100_000 // what a stream takes at once, and less than maxBehind more: it is not given up
	for _, n := range []int{0, size} {
		res, err := client(t).Post(p.url("/x"), "text/plain", bytes.NewReader(noise(n)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != fmt.Sprint("cart /x ", n) {
			t.Errorf("%q", body)
		}
		if n == 0 { // the connections stand
			recorded(t, p)
			p.log.clear()
		}
	}
	r, m := recorded(t, p)
	if r.Destination != cart.Service || r.Status != 200 || r.RequestBytes != size || r.Reason != "" {
		t.Errorf("%+v", r)
	}
	if m.Destination != copies.Service || m.Status != 500 || m.RequestBytes != size || m.ResponseBytes != 1<<20 || m.NAttempts != 1 || m.Route != r.Route ||
		!bytes.Equal(m.RequestID, r.RequestID) || string(m.Path) != "/x" || m.Reason != "" {
		t.Errorf("%+v", m)
	}
}

// TestMirrorIsTriedOnce: whatever becomes of a copy, the request does not notice.
func TestMirrorIsTriedOnce(t *testing.T) {
	p := shopper(t, mirrored, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, say("cart"))
	w := raw(t, p)
	w.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, body := w.response("GET"); res.StatusCode != 200 || body != "cart / 0" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if _, m := recorded(t, p); m.NAttempts != 1 || m.Reason != "upstream_reset" {
		t.Errorf("%+v", m)
	}
}

// TestMirrorGivenUp: a mirror that reads nothing is given up when it is 64 KiB behind; the request goes on at its own pace.
func TestMirrorGivenUp(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	p := shopper(t, mirrored, func(http.ResponseWriter, *http.Request) { <-end }, say("cart"))
	res, err := client(t).Post(p.url("/"), "text/plain", bytes.NewReader(noise(20<<20)))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(body) != "cart / 20971520" {
		t.Errorf("%q", body)
	}
	if _, m := recorded(t, p); m.Reason != "mirror_behind" || m.RequestBytes >= 20<<20 {
		t.Errorf("%+v", m)
	}
}

// TestMirrorOfHalf: a request that is never complete ends its copy.
func TestMirrorOfHalf(t *testing.T) {
	p := shopper(t, mirrored, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, say("cart"))
	w := raw(t, p)
	w.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
	p.until("both under way", func() bool { return p.worker.Open() == 2 })
	_ = w.c.(*net.TCPConn).SetLinger(0)
	w.c.Close()
	r, m := recorded(t, p)
	if r.Reason != "downstream_gone" || m.Reason != "downstream_gone" || m.RequestBytes != 5 {
		t.Errorf("%+v\n%+v", r, m)
	}
}

// TestMirrorAfterDelay: what came of the body during an injected delay is copied too.
func TestMirrorAfterDelay(t *testing.T) {
	p := shopper(t, func(r *model.Route) {
		mirrored(r)
		r.Fault = &model.Fault{Delay: 50 * time.Millisecond, DelayShare: 1_000_000}
	}, say("copy"), say("cart"))
	w := raw(t, p)
	w.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
	if res, body := w.response("POST"); res.StatusCode != 200 || body != "cart / 5" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if _, m := recorded(t, p); m.Status != 200 || m.RequestBytes != 5 || m.ResponseBytes != int64(len("copy / 5")) {
		t.Errorf("%+v", m)
	}
}

// TestMirrorTrailers: trailers of a request reach its copy.
func TestMirrorTrailers(t *testing.T) {
	seen := make(chan string, 1)
	p := shopper(t, mirrored, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer.Get("X-Sum")
	}, say("cart"))
	w := raw(t, p)
	w.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")
	if res, body := w.response("POST"); res.StatusCode != 200 || body != "cart / 5" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if got := <-seen; got != "7" {
		t.Errorf("trailer %q", got)
	}
	if _, m := recorded(t, p); m.Status != 200 || m.RequestBytes != 5 {
		t.Errorf("%+v", m)
	}
}

// value is a session's value with these times.
func value(t *testing.T, like string, begun, seen time.Duration) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(like)
	if err != nil || len(raw) != 25 {
		t.Fatalf("%q: %v", like, err)
	}
	now := time.Now()
	binary.BigEndian.PutUint32(raw[17:], uint32(now.Add(-begun).Unix()))
	binary.BigEndian.PutUint32(raw[21:], uint32(now.Add(-seen).Unix()))
	return base64.RawURLEncoding.EncodeToString(raw)
}

// TestSessionTimes: a session ends when it is too old, or was idle for too long; while it is used it is renewed now and then,
// and its cookie ends when it does.
func TestSessionTimes(t *testing.T) {
	p := shopper(t, func(r *model.Route) {
		r.Session = &model.Session{Cookie: "s", Lifetime: 10 * time.Hour, Absolute: 10 * time.Hour, Idle: 80 * time.Minute}
	}, nil, say("a"), say("b"), say("c"), say("d"))
	w := raw(t, p)
	ask := func(v string) (cookie *http.Cookie, who string) {
		w.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: s=" + v + "\r\n\r\n")
		res, body := w.response("GET")
		if all := res.Cookies(); len(all) == 1 {
			cookie = all[0]
		} else if len(all) > 1 {
			t.Fatalf("%v", all)
		}
		return cookie, body[:1]
	}
	first, who := ask("")
	for range 10 {
		if c, again := ask(first.Value); c != nil || again != who {
			t.Fatalf("%v, %s then %s", c, who, again)
		}
	}
	c, again := ask(value(t, first.Value, 2*time.Hour, 20*time.Minute))
	if c == nil || again != who || c.MaxAge > 8*3600 || c.MaxAge < 8*3600-60 {
		t.Errorf("not renewed: %v, %s then %s", c, who, again)
	}
	if c, again := ask(value(t, first.Value, 2*time.Hour, time.Minute)); c != nil || again != who {
		t.Errorf("renewed too soon: %v, %s then %s", c, who, again)
	}
	for name, v := range map[string]string{"too old": value(t, first.Value, 11*time.Hour, time.Minute), "idle": value(t, first.Value, 2*time.Hour, 90*time.Minute)} {
		seen := map[string]bool{}
		for range 40 {
			c, who := ask(v)
			if c == nil || c.MaxAge < 36000-60 {
				t.Fatalf("%s: no new session: %v", name, c)
			}
			seen[who] = true
		}
		if len(seen) < 2 {
			t.Errorf("%s: still believed", name)
		}
	}
}

// FuzzSession: whatever a client brings, it gets an answer of one of the workloads.
func FuzzSession(f *testing.F) {
	for _, s := range []string{"", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AQ==", `"x"`, strings.Repeat("_", 34), strings.Repeat("9", 200)} {
		f.Add(s)
	}
	p := shopper(f, func(r *model.Route) { r.Session = &model.Session{Cookie: "s", Absolute: time.Hour} }, nil, say("a"), say("b"))
	c := client(f)
	f.Fuzz(func(t *testing.T, v string) {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' || r == ';' || r == ',' || r == '"' || r == '\\' }) {
			return
		}
		req, err := http.NewRequest("GET", p.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", "s="+v)
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || len(body) == 0 || body[0] != 'a' && body[0] != 'b' {
			t.Fatalf("%d %q", res.StatusCode, body)
		}
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimSpace(v)); (err != nil || len(raw) != 25) && len(res.Cookies()) != 1 {
			t.Fatalf("%q is believed", v)
		}
	})
}
