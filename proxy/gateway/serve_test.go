package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
)

// client speaks to one address whatever the URL says.
func client(t *testing.T, to netip.AddrPort, cfg *tls.Config, version string) *http.Client {
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: version == "h2", Protocols: &http.Protocols{},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, to.String())
		}}
	switch version {
	case "h2":
		tr.Protocols.SetHTTP2(true)
	case "h2c":
		tr.Protocols.SetUnencryptedHTTP2(true)
	default:
		tr.Protocols.SetHTTP1(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestVersions(t *testing.T) {
	ca := newAuthority(t)
	b := &model.Bootstrap{}
	static(b, "one", origin(t, "one"))
	secure := httpChain("one")
	secure.TLS = ca.server("a.test")
	b.Listeners = []model.Listener{listener("plain", httpChain("one")), listener("tls", secure)}
	g := start(t, b)
	plain, tlsAt := g.Listening("plain")[0], g.Listening("tls")[0]
	cfg := &tls.Config{RootCAs: ca.pool(), ServerName: "a.test"}
	for _, c := range []struct {
		name, version string
		at            netip.AddrPort
		url           string
		want          int
	}{
		{"HTTP/1.1", "1", plain, "http://a.test/x", 1}, {"HTTP/2 with prior knowledge", "h2c", plain, "http://a.test/x", 2},
		{"HTTP/1.1 over TLS", "1", tlsAt, "https://a.test/x", 1}, {"HTTP/2 over TLS", "h2", tlsAt, "https://a.test/x", 2},
	} {
		r, err := client(t, c.at, cfg, c.version).Post(c.url, "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.ProtoMajor != c.want || string(body) != "one HTTP/1.1 POST /x body" {
			t.Errorf("%s: %s %q %v", c.name, r.Proto, body, err)
		}
	}
}

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	b := &model.Bootstrap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	t.Cleanup(server.Close)
	static(b, "one", netip.MustParseAddrPort(server.Listener.Addr().String()))
	c := httpChain("one")
	c.TLS = ca.server("a.test")
	c.TLS.RequireClient, c.TLS.Validation = true, &model.Validation{Roots: ca.roots()}
	c.HTTP.XFCC, c.HTTP.XFCCDetails = model.XFCCSanitizeSet, model.XFCCDetails{URI: true}
	b.Listeners = []model.Listener{listener("l", c)}
	at := start(t, b).Listening("l")[0]
	id := "spiffe://tulle.local/ns/default/sa/web"
	cfg := &tls.Config{RootCAs: ca.pool(), ServerName: "a.test", Certificates: []tls.Certificate{ca.pair(ca.leaf(id))}}
	if got := get(t, client(t, at, cfg, "1"), "https://a.test/"); !strings.Contains(got, "URI="+id) {
		t.Errorf("x-forwarded-client-cert: %q", got)
	}
	cfg = &tls.Config{RootCAs: ca.pool(), ServerName: "a.test"}
	if _, err := client(t, at, cfg, "1").Get("https://a.test/"); err == nil {
		t.Error("a client without a certificate was served")
	}
	other := newAuthority(t)
	cfg.Certificates = []tls.Certificate{other.pair(other.leaf(id))}
	if _, err := client(t, at, cfg, "1").Get("https://a.test/"); err == nil {
		t.Error("a client of another authority was served")
	}
}

// echo is a TCP server that says its name first and then what it hears, and ends when its client has.
func echo(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, name)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func tcpChain(clusters ...string) model.Chain {
	t := &model.TCP{}
	for _, c := range clusters {
		t.Clusters = append(t.Clusters, model.WeightedCluster{Cluster: model.Free(c), Weight: 1})
	}
	return model.Chain{TCP: t}
}

// dial connects and sends what begins the connection.
func dial(t *testing.T, at netip.AddrPort, first []byte) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(first); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// read connects, says first, and answers what it hears until the end; a reset may be seen by the connect already.
func read(at netip.AddrPort, first string) (string, error) {
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, first); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// said ends the client's direction and answers everything that the server says.
func said(t *testing.T, c interface {
	io.Reader
	CloseWrite() error
}) string {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTCP(t *testing.T) {
	b := &model.Bootstrap{}
	ea, eb := echo(t, "a"), echo(t, "b")
	static(b, "a", ea)
	static(b, "b", eb)
	l := listener("l", tcpChain("a", "b"))
	logs := filepath.Join(t.TempDir(), "log")
	l.Chains[0].TCP.AccessLogs = []model.AccessLog{{Path: logs, Format: "%UPSTREAM_CLUSTER% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST%\n"}}
	b.Listeners = []model.Listener{l}
	at := start(t, b).Listening("l")[0]
	seen := map[string]int{}
	for range 60 {
		got := said(t, dial(t, at, []byte("hello")))
		name, rest, _ := strings.Cut(got, "\n")
		if rest != "hello" {
			t.Fatalf("%q", got)
		}
		seen[name]++
	}
	if seen["a"] < 5 || seen["b"] < 5 {
		t.Errorf("weights are not kept: %v", seen)
	}
	waitFor(t, func() error {
		got, err := os.ReadFile(logs)
		a, b := strings.Count(string(got), fmt.Sprintf("a 5 7 %v\n", ea)), strings.Count(string(got), fmt.Sprintf("b 5 7 %v\n", eb))
		if err == nil && (a != seen["a"] || b != seen["b"]) {
			err = fmt.Errorf("%d and %d lines for %v: %.200q", a, b, seen, got)
		}
		return err
	})
}

func TestTCPWithoutServer(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	b := &model.Bootstrap{}
	static(b, "a", netip.MustParseAddrPort(dead.Addr().String()))
	logs := filepath.Join(t.TempDir(), "log")
	c := tcpChain("a")
	c.TCP.AccessLogs = []model.AccessLog{{Path: logs, Format: "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n"}}
	b.Listeners = []model.Listener{listener("l", c), listener("none", tcpChain("missing"))}
	g := start(t, b)
	for _, l := range []string{"l", "none"} {
		if _, err := read(g.Listening(l)[0], "x"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", l, err)
		}
	}
	waitFor(t, func() error {
		got, err := os.ReadFile(logs)
		if err == nil && !strings.Contains(string(got), "UF") {
			err = fmt.Errorf("access log %q", got)
		}
		return err
	})
}

// waitFor polls until f is content.
func waitFor(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // poll
	}
}

// TestServerNames: TLS that is not terminated is relayed by its server name, and never seen.
func TestServerNames(t *testing.T) {
	ca := newAuthority(t)
	b := &model.Bootstrap{}
	for _, name := range []string{"a", "b"} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.pair(ca.leaf("", name+".test", "www."+name+".test"))}}
		s.StartTLS()
		t.Cleanup(s.Close)
		static(b, name, netip.MustParseAddrPort(s.Listener.Addr().String()))
	}
	static(b, "plain", origin(t, "plain"))
	to := func(cluster string, m model.ChainMatch) model.Chain {
		c := tcpChain(cluster)
		c.Match = m
		return c
	}
	l := listener("l", to("a", model.ChainMatch{ServerNames: []string{"a.test"}}), to("b", model.ChainMatch{ServerNames: []string{"*.b.test"}}),
		to("plain", model.ChainMatch{Transport: "raw_buffer"}))
	l.Inspect, l.InspectTimeout = true, 5*time.Second
	b.Listeners = []model.Listener{l}
	at := start(t, b).Listening("l")[0]
	cfg := &tls.Config{RootCAs: ca.pool()}
	if got := get(t, client(t, at, cfg, "1"), "https://a.test/"); got != "a" {
		t.Errorf("exact name: %q", got)
	}
	if got := get(t, client(t, at, cfg, "1"), "https://www.b.test/"); got != "b" {
		t.Errorf("wildcard: %q", got)
	}
	if got := get(t, client(t, at, nil, "1"), "http://plain.test/"); !strings.HasPrefix(got, "plain ") {
		t.Errorf("without TLS: %q", got)
	}
	if _, err := client(t, at, cfg, "1").Get("https://nobody.test/"); err == nil {
		t.Error("a name that no chain has was served")
	}
}

func TestProxyProtocol(t *testing.T) {
	b := &model.Bootstrap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	}))
	t.Cleanup(server.Close)
	static(b, "one", netip.MustParseAddrPort(server.Listener.Addr().String()))
	l := listener("l", httpChain("one"))
	l.Chains[0].HTTP.UseRemoteAddress = true
	l.ProxyProtocol = &model.AcceptProxyProtocol{V1: true, V2: true}
	free := l
	free.Name, free.ProxyProtocol = "free", &model.AcceptProxyProtocol{V1: true, V2: false, AllowWithout: true}
	b.Listeners = []model.Listener{l, free}
	g := start(t, b)
	src, dst := netip.MustParseAddrPort("192.0.2.7:1234"), netip.MustParseAddrPort("198.51.100.1:80")
	ask := func(name string, header []byte, parts int) (string, error) {
		c := dial(t, g.Listening(name)[0], nil)
		all := append(header, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"...)
		for len(all) > 0 {
			n := min(parts, len(all))
			if _, err := c.Write(all[:n]); err != nil {
				return "", err
			}
			all = all[n:]
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		return string(body), err
	}
	for _, c := range []struct {
		name, listener string
		header         []byte
		parts          int
		want           string // "": refused
	}{
		{"version 1", "l", proxyproto.AppendV1(nil, src, dst), 1000, "192.0.2.7"},
		{"version 1 byte by byte", "l", proxyproto.AppendV1(nil, src, dst), 1, "192.0.2.7"},
		{"version 2", "l", proxyproto.AppendV2(nil, src, dst), 1000, "192.0.2.7"},
		{"local", "l", proxyproto.AppendV2(nil, netip.AddrPort{}, netip.AddrPort{}), 1000, "127.0.0.1"},
		{"none", "l", nil, 1000, ""},
		{"none, permitted", "free", nil, 1000, "127.0.0.1"},
		{"version 1, permitted", "free", proxyproto.AppendV1(nil, src, dst), 1000, "192.0.2.7"},
		{"version 2, not permitted", "free", proxyproto.AppendV2(nil, src, dst), 1000, ""},
	} {
		got, err := ask(c.listener, c.header, c.parts)
		if (err != nil) != (c.want == "") || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestSilentClients(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "one", echo(t, "one"))
	closed, served := listener("closed", tcpChain("one")), listener("served", tcpChain("one"))
	for _, l := range []*model.Listener{&closed, &served} {
		l.Inspect, l.InspectTimeout = true, 50*time.Millisecond
	}
	served.ContinueOnTimeout = true
	b.Listeners = []model.Listener{closed, served}
	g := start(t, b)
	if _, err := read(g.Listening("closed")[0], ""); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a silent client: %v, want a reset", err)
	}
	c := dial(t, g.Listening("served")[0], nil)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != "one\n" {
		t.Errorf("a silent client that may be: %q, %v", line, err)
	}
}

func TestMaxConnections(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "one", echo(t, "one"))
	l := listener("l", tcpChain("one"))
	l.MaxConnections = 2
	b.Listeners = []model.Listener{l}
	at := start(t, b).Listening("l")[0]
	hello := func(c *net.TCPConn) (string, error) { return bufio.NewReader(c).ReadString('\n') }
	first := dial(t, at, nil)
	for _, c := range []*net.TCPConn{first, dial(t, at, nil)} {
		if _, err := hello(c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := read(at, ""); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a third connection: %v, want a reset", err)
	}
	_ = said(t, first)
	first.Close()
	waitFor(t, func() error {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = bufio.NewReader(c).ReadString('\n')
		return err
	})
}
