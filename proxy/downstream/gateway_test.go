package downstream_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// mirror is a program that answers every request without a body with the bytes of its head.
func mirror(t testing.TB) netip.AddrPort {
	t.Helper()
	return script(t, func(head []byte) []byte {
		return fmt.Appendf(nil, "HTTP/1.1 200 Fine And Dandy\r\nX-CamelCase: Yes\r\nserver: mirror\r\nContent-Length: %d\r\n\r\n%s", len(head), head)
	})
}

// script is a program that answers every request head with what answer makes of it.
func script(t testing.TB, answer func(head []byte) []byte) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var all []byte
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					all = append(all, buf[:n]...)
					for {
						i := bytes.Index(all, []byte("\r\n\r\n"))
						if i < 0 {
							break
						}
						if _, err := c.Write(answer(all[:i+4])); err != nil {
							return
						}
						all = all[i+4:]
					}
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// chain starts a proxy whose connections are served as m says, in front of a program.
func chain(t testing.TB, m model.HTTP, program netip.AddrPort) *hop {
	return newHop(t, setup{origin: foreignOrigin(m, program)})
}

func foreignOrigin(m model.HTTP, program netip.AddrPort) exchange.Origin {
	o := exchange.Origin{Direction: record.Outbound, Program: program, HTTP: &m}
	return o
}

// seen answers what the program was told when the client sends request.
func seen(t *testing.T, p *hop, request string) (*http.Response, string) {
	t.Helper()
	c := raw(t, p)
	c.send(request)
	return c.response(strings.Fields(request)[0])
}

func TestChainFields(t *testing.T) {
	usual := model.HTTP{ServerName: "envoy", RequestID: true, HTTP1: model.HTTP1Options{AbsoluteURL: true}}
	with := func(f func(m *model.HTTP)) model.HTTP { m := usual; f(&m); return m }
	for _, c := range []struct {
		name         string
		m            model.HTTP
		request      string
		want, absent []string
	}{
		{"nothing", usual, "GET /a HTTP/1.1\r\nHost: a:80\r\n\r\n",
			[]string{"GET /a HTTP/1.1\r\n", "Host: a:80\r\n", "x-forwarded-proto: http\r\n", "x-request-id: "}, []string{"x-forwarded-for", "tulle-"}},
		{"case", usual, "GET /a HTTP/1.1\r\nHost: a\r\nX-MiXeD: V\r\n\r\n", []string{"X-MiXeD: V\r\n"}, nil},
		{"remote address", with(func(m *model.HTTP) { m.UseRemoteAddress = true }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\n\r\n",
			[]string{"x-forwarded-for: 192.0.2.1,127.0.0.1\r\n", "x-forwarded-proto: http\r\n"}, []string{"https"}},
		{"trusted hop", with(func(m *model.HTTP) { m.UseRemoteAddress, m.XFFTrustedHops = true, 1 }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-proto: https\r\n\r\n", []string{"x-forwarded-proto: https\r\n", "x-forwarded-for: 127.0.0.1\r\n"}, nil},
		{"skip append", with(func(m *model.HTTP) { m.UseRemoteAddress, m.SkipXFFAppend = true, true }),
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil, []string{"x-forwarded-for"}},
		{"edge request id", with(func(m *model.HTTP) { m.UseRemoteAddress = true }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 192.0.2.1\r\nx-request-id: mine\r\n\r\n", []string{"x-request-id: "}, []string{"mine"}},
		{"edge request id, private network", with(func(m *model.HTTP) { m.UseRemoteAddress = true }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\n\r\n", []string{"x-request-id: "}, []string{"mine"}},
		{"what no client says", usual,
			"GET / HTTP/1.1\r\nHost: a\r\nX-Envoy-Internal: true\r\nx-envoy-max-retries: 9\r\nx-envoy-original-path: /o\r\nx-envoy-mine: 1\r\nx-envoy-internal: true\r\nx-last: 1\r\n\r\n",
			[]string{"x-envoy-original-path: /o\r\n", "x-envoy-mine: 1\r\n", "x-last: 1\r\n"}, []string{"nternal", "retries"}},
		{"what no client of an edge says", with(func(m *model.HTTP) { m.UseRemoteAddress = true }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-envoy-external-address: 192.0.2.9\r\nx-envoy-original-path: /o\r\nx-envoy-internal: true\r\nx-envoy-original-dst-host: 192.0.2.8:1\r\n\r\n",
			[]string{"x-envoy-external-address: 127.0.0.1\r\n", "x-envoy-original-dst-host: "}, []string{"192.0.2.9", "original-path", "internal"}},
		{"external address by trusted hop", with(func(m *model.HTTP) { m.UseRemoteAddress, m.XFFTrustedHops = true, 1 }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 192.0.2.1\r\n\r\n", []string{"x-envoy-external-address: 192.0.2.1\r\n"}, nil},
		{"kept request id", with(func(m *model.HTTP) { m.UseRemoteAddress, m.KeepRequestID = true, true }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 192.0.2.1\r\nx-request-id: mine\r\n\r\n", []string{"x-request-id: mine\r\n"}, nil},
		{"no request id", with(func(m *model.HTTP) { m.RequestID = false }), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil, []string{"x-request-id"}},
		{"via", with(func(m *model.HTTP) { m.Via = "edge" }), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", []string{"via: edge\r\n"}, nil},
		{"dots", with(func(m *model.HTTP) { m.NormalizePath = true }), "GET /a/./b/../%41%2fc?x=/../ HTTP/1.1\r\nHost: a\r\n\r\n",
			[]string{"GET /a/A%2fc?x=/../ HTTP/1.1"}, nil},
		{"too many dots", with(func(m *model.HTTP) { m.NormalizePath = true }), "GET /../%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /x HTTP"}, nil},
		{"backslash", with(func(m *model.HTTP) { m.NormalizePath = true }), "GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /b HTTP"}, nil},
		{"slashes", with(func(m *model.HTTP) { m.MergeSlashes = true }), "GET //a///b//?q=// HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /a/b/?q=// HTTP"}, nil},
		{"not normal", usual, "GET //a/../b%2F HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET //a/../b%2F HTTP"}, nil},
		{"unescaped", with(func(m *model.HTTP) { m.EscapedSlashes = model.EscapedForward }), "GET /a%2Fb%5cc HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /a/b\\c HTTP"}, nil},
		{"no port", with(func(m *model.HTTP) { m.StripAnyHostPort = true }), "GET / HTTP/1.1\r\nHost: a.b:8080\r\n\r\n", []string{"Host: a.b\r\n"}, nil},
		{"no port, IPv6", with(func(m *model.HTTP) { m.StripAnyHostPort = true }), "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", []string{"Host: [::1]\r\n"}, nil},
		{"absolute", usual, "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /x HTTP/1.1\r\nHost: b\r\n"}, nil},
		{"default host", with(func(m *model.HTTP) { m.HTTP1.AcceptHTTP10, m.HTTP1.DefaultHost = true, "dflt" }), "GET / HTTP/1.0\r\n\r\n",
			[]string{"Host: dflt\r\n"}, nil},
		{"certificate not believed", usual, "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-client-cert: By=x\r\n\r\n", nil, []string{"client-cert"}},
		{"certificate believed", with(func(m *model.HTTP) { m.XFCC = model.XFCCAlwaysForwardOnly }),
			"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-client-cert: By=x\r\n\r\n", []string{"x-forwarded-client-cert: By=x\r\n"}, nil},
		{"websocket", with(func(m *model.HTTP) { m.Upgrades = []string{"websocket"} }),
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", []string{"Upgrade: websocket\r\n"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, got := seen(t, chain(t, c.m, mirror(t)), c.request)
			if res.StatusCode != 200 {
				t.Fatalf("%d %q", res.StatusCode, got)
			}
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %q in %q", w, got)
				}
			}
			for _, w := range c.absent {
				if strings.Contains(got, w) {
					t.Errorf("%q in %q", w, got)
				}
			}
		})
	}
}

func TestChainRefuses(t *testing.T) {
	usual := model.HTTP{ServerName: "envoy", HTTP1: model.HTTP1Options{AbsoluteURL: true}}
	with := func(f func(m *model.HTTP)) model.HTTP { m := usual; f(&m); return m }
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		name    string
		m       model.HTTP
		request string
		status  int
		reason  string
	}{
		{"HTTP/1.0", usual, "GET / HTTP/1.0\r\nHost: a\r\n\r\n", 426, "old_http"},
		{"HTTP/1.0 without host", with(func(m *model.HTTP) { m.HTTP1.AcceptHTTP10 = true }), "GET / HTTP/1.0\r\n\r\n", 400, "bad_request"},
		{"absolute", with(func(m *model.HTTP) { m.HTTP1.AbsoluteURL = false }), "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"},
		{"head", with(func(m *model.HTTP) { m.MaxHead = 4 << 10 }), "GET / HTTP/1.1\r\nHost: a\r\nX: " + long + "\r\n\r\n", 431, "head_too_large"},
		{"fields", with(func(m *model.HTTP) { m.MaxFields = 2 }), "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\n\r\n", 431, "head_too_large"},
		{"line", with(func(m *model.HTTP) { m.MaxHead = 4 << 10 }), "GET /" + long + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "target_too_long"},
		{"slash", with(func(m *model.HTTP) { m.EscapedSlashes = model.EscapedReject }), "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"},
		{"NUL", with(func(m *model.HTTP) { m.NormalizePath = true }), "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"},
		{"upgrade", usual, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 403, "upgrade_refused"},
		{"connect", usual, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 403, "upgrade_refused"},
		{"smuggling", usual, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := seen(t, chain(t, c.m, mirror(t)), c.request)
			if res.StatusCode != c.status || res.Header.Get("Tulle-Reason") != c.reason || res.Header.Get("Server") != "envoy" {
				t.Errorf("got %d %v %q", res.StatusCode, res.Header, body)
			}
		})
	}
}

// TestChainDate: a response without a date gets one, made here or not; one that has a date keeps it (RFC 9110 section 6.6.1).
func TestChainDate(t *testing.T) {
	m := model.HTTP{ServerName: "envoy", HTTP1: model.HTTP1Options{AbsoluteURL: true}}
	for request, status := range map[string]int{"GET / HTTP/1.1\r\nHost: a\r\n\r\n": 200, "GET / HTTP/1.0\r\n\r\n": 426} {
		res, _ := seen(t, chain(t, m, mirror(t)), request)
		when, err := http.ParseTime(res.Header.Get("Date"))
		if res.StatusCode != status || err != nil || time.Since(when).Abs() > time.Minute {
			t.Errorf("%d, date %q", res.StatusCode, res.Header["Date"])
		}
	}
	const own = "Thu, 01 Jan 2026 00:00:00 GMT"
	dated := script(t, func([]byte) []byte {
		return []byte("HTTP/1.1 200 OK\r\ndate: " + own + "\r\nContent-Length: 0\r\n\r\n")
	})
	if res, _ := seen(t, chain(t, m, dated), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); len(res.Header["Date"]) != 1 || res.Header.Get("Date") != own {
		t.Errorf("dates %q", res.Header["Date"])
	}
}

// The limit of a request line holds for a sidecar too.
func TestRequestLineTooLong(t *testing.T) {
	p := newHop(t, setup{origin: inbound(mirror(t))})
	res, _ := seen(t, p, "GET /"+strings.Repeat("x", 70<<10)+" HTTP/1.1\r\nHost: a\r\n\r\n")
	if res.StatusCode != 414 || !res.Close {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
}

func TestEscapedSlashRedirect(t *testing.T) {
	m := model.HTTP{EscapedSlashes: model.EscapedRedirect, NormalizePath: true}
	p := chain(t, m, mirror(t))
	res, _ := seen(t, p, "GET /a%2f..%2fb?c HTTP/1.1\r\nHost: a\r\n\r\n")
	if res.StatusCode != 307 || res.Header.Get("Location") != "/b?c" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
	if res, _ := seen(t, p, "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 200 {
		t.Errorf("no escaped slash: %d", res.StatusCode)
	}
}

// What a client reads of a response: its case and reason phrase, "server", "via", the request's id.
func TestChainResponse(t *testing.T) {
	for _, c := range []struct {
		m            model.HTTP
		want, absent string
	}{
		{model.HTTP{ServerName: "edge"}, "server: edge\r\n", "mirror\r\n"},
		{model.HTTP{ServerName: "edge", ServerHeader: model.ServerAppendIfAbsent}, "server: mirror\r\n", "edge"},
		{model.HTTP{ServerName: "edge", ServerHeader: model.ServerPassThrough}, "server: mirror\r\n", "edge"},
		{model.HTTP{Via: "edge"}, "via: edge\r\n", ""},
		{model.HTTP{RequestID: true, RequestIDResponse: true}, "x-request-id: ", ""},
	} {
		w := raw(t, chain(t, c.m, mirror(t)))
		w.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(w.r)
		head, _, _ := strings.Cut(string(b), "\r\n\r\n")
		head += "\r\n"
		if !strings.HasPrefix(head, "HTTP/1.1 200 Fine And Dandy\r\n") || !strings.Contains(head, "X-CamelCase: Yes\r\n") || !strings.Contains(head, c.want) {
			t.Errorf("%+v: %q", c.m, head)
		}
		if c.absent != "" && strings.Contains(head, c.absent) {
			t.Errorf("%+v: %q", c.m, head)
		}
	}
}

// certificate makes a self-signed one.
func certificate(t testing.TB, name, uri string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(uri)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(0x1234), Subject: pkix.Name{CommonName: name, Organization: []string{"O"}},
		NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}, DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestForwardedClientCertificate(t *testing.T) {
	client, own := certificate(t, "client.test", "spiffe://x/client"), certificate(t, "own.test", "spiffe://x/own")
	details := model.XFCCDetails{Subject: true, URI: true, DNS: true}
	const said = "By=spiffe://x/other;Hash=00"
	for _, c := range []struct {
		name string
		mode model.XFCC
		want func(v string) bool
	}{
		{"sanitize", model.XFCCSanitize, func(v string) bool { return v == "" }},
		{"forward only", model.XFCCForwardOnly, func(v string) bool { return v == said }},
		{"append", model.XFCCAppendForward, func(v string) bool { return strings.HasPrefix(v, said+",By=spiffe://x/own;Hash=") }},
		{"set", model.XFCCSanitizeSet, func(v string) bool {
			return strings.HasPrefix(v, "By=spiffe://x/own;Hash=") && strings.HasSuffix(v, `;Subject="CN=client.test,O=O";URI=spiffe://x/client;DNS=client.test`)
		}},
		{"always", model.XFCCAlwaysForwardOnly, func(v string) bool { return v == said }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := setup{origin: foreignOrigin(model.HTTP{XFCC: c.mode, XFCCDetails: details}, mirror(t)), cert: own,
				tls: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client}, Version: tls.VersionTLS13}}
			p := newHop(t, s)
			for range 2 {
				_, got := seen(t, p, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: "+said+"\r\n\r\n")
				v := ""
				for _, line := range strings.Split(got, "\r\n") {
					if name, value, _ := strings.Cut(line, ": "); strings.EqualFold(name, "x-forwarded-client-cert") {
						v = value
					}
				}
				if !c.want(v) {
					t.Errorf("%q", v)
				}
				if !strings.Contains(got, "x-forwarded-proto: https\r\n") {
					t.Errorf("%q", got)
				}
			}
		})
	}
}

// routed starts a proxy with foreign routes to one cluster that is a workload of the mesh; the program is behind it.
func routed(t testing.TB, m model.HTTP, program netip.AddrPort, hosts ...model.VirtualHost) *hop {
	t.Helper()
	in := sidecar(t, program)
	d := to(t, model.Timeouts{}, mesh(in))
	table, err := router.Compile(&model.RouteTable{Name: model.Free("table"), Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	d.table = table
	c := cluster.New(&model.Cluster{Name: model.Free("c"), ConnectTimeout: 2 * time.Second})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "auto.test", Namespace: "default", Address: mesh(in), Port: 8080, Weight: 1,
		Identity: "spiffe://tulle.local/ns/default/sa/cart"}}})
	d.clusters[model.Free("c")] = c
	return newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d, HTTP: &m}})
}

func TestForeignRoutes(t *testing.T) {
	backends := []model.Backend{{Cluster: model.Free("c"), Weight: 1}}
	prefix := func(p string) model.Match { return model.Match{Path: p, PathPrefixText: true} }
	header := func(kind model.FilterKind, name, value string) []model.Filter {
		return []model.Filter{{Kind: kind, Headers: model.HeaderChange{Set: []model.Header{{Name: name, Value: value}}}}}
	}
	p := routed(t, model.HTTP{ServerName: "edge"}, mirror(t), model.VirtualHost{
		Name: "all", Domains: []string{"*"},
		Filters: append(header(model.FilterRequestHeaders, "x-who", "host"), header(model.FilterResponseHeaders, "x-by", "host")...),
		Routes: []model.Route{
			{Name: "direct", Match: prefix("/direct"), Direct: &model.Direct{Status: 418, Body: []byte("short and stout")}},
			{Name: "empty", Match: prefix("/empty"), Direct: &model.Direct{Status: 204}},
			{Name: "rewrite", Match: prefix("/old/"), Rewrite: model.Rewrite{HasPrefix: true, Prefix: "/new/"}, Backends: backends},
			{Name: "bare", Match: prefix("/bare"), Rewrite: model.Rewrite{HasPrefix: true, Prefix: ""}, Backends: backends},
			{Name: "host", Match: prefix("/host"), Rewrite: model.Rewrite{Host: "other.test", AppendXFHost: true}, Backends: backends},
			{Name: "auto", Match: prefix("/auto"), Rewrite: model.Rewrite{AutoHost: true}, Backends: backends},
			{Name: "field", Match: prefix("/field"), FromField: "x-cluster"},
			{Name: "cookie", Match: prefix("/cookie"), Backends: backends, Hash: []model.HashKey{
				{Kind: model.HashHeader, Name: "x-user"}, {Kind: model.HashCookie, Name: "sid", Generate: true, TTL: time.Minute, Path: "/cookie"}}},
			{Name: "rest", Match: prefix("/"), Backends: backends, Filters: header(model.FilterRequestHeaders, "x-who", "route"), Upgrades: []string{"websocket"}},
		},
	})
	ask := func(target, fields string) (*http.Response, string) {
		t.Helper()
		return seen(t, p, "GET "+target+" HTTP/1.1\r\nHost: a\r\n"+fields+"\r\n")
	}
	if res, b := ask("/direct", ""); res.StatusCode != 418 || b != "short and stout" || res.Header.Get("Server") != "edge" || res.Header.Get("X-By") != "host" {
		t.Errorf("direct: %d %q %v", res.StatusCode, b, res.Header)
	}
	if res, _ := ask("/empty", ""); res.StatusCode != 204 || res.Header.Get("Content-Length") != "" {
		t.Errorf("empty: %d %v", res.StatusCode, res.Header)
	}
	for _, c := range []struct{ target, fields, want string }{
		{"/old/x?y=z", "", "GET /new/x?y=z HTTP/1.1\r\n"},
		{"/old/x?y=z", "", "x-envoy-original-path: /old/x?y=z\r\n"},
		{"/bare/x", "", "GET /x HTTP/1.1\r\n"},
		{"/bare?q", "", "GET /?q HTTP/1.1\r\n"},
		{"/host", "", "Host: other.test\r\n"},
		{"/host", "", "x-forwarded-host: a\r\n"},
		{"/auto", "", "Host: auto.test\r\n"},
		{"/field", "X-Cluster: c\r\n", "GET /field HTTP/1.1\r\n"},
		{"/x", "", "x-who: host\r\n"},
	} {
		res, got := ask(c.target, c.fields)
		if res.StatusCode != 200 || !strings.Contains(got, c.want) || strings.Contains(got, "tulle-") {
			t.Errorf("%s: %d, no %q in %q", c.target, res.StatusCode, c.want, got)
		}
		if res.Header.Get("X-By") != "host" {
			t.Errorf("%s: %v", c.target, res.Header)
		}
	}
	for _, fields := range []string{"", "X-Cluster: none\r\n"} {
		if res, _ := ask("/field", fields); res.StatusCode != 503 || res.Header.Get("Tulle-Reason") != "unknown_cluster" {
			t.Errorf("%q: %d %v", fields, res.StatusCode, res.Header)
		}
	}
	res, _ := ask("/cookie", "")
	set := res.Header.Get("Set-Cookie")
	if !strings.HasPrefix(set, `sid="`) || !strings.HasSuffix(set, `"; Max-Age=60; Path=/cookie; HttpOnly`) {
		t.Errorf("cookie: %q", set)
	}
	if res, _ := ask("/cookie", "Cookie: a=b; sid=1\r\n"); res.Header.Get("Set-Cookie") != "" {
		t.Errorf("cookie again: %v", res.Header)
	}
	if res, _ := ask("/x", "Connection: upgrade\r\nUpgrade: websocket\r\n"); res.StatusCode != 200 {
		t.Errorf("a route's own upgrade: %d", res.StatusCode)
	}
}
