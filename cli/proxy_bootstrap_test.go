package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

// origin is a server, and a bootstrap with a listener at an address that leads to it.
func oneOrigin(t *testing.T) func(at, admin netip.AddrPort) *model.Bootstrap {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	t.Cleanup(s.Close)
	name := model.Free("one")
	return func(at, admin netip.AddrPort) *model.Bootstrap {
		return &model.Bootstrap{
			Admin:    &model.Admin{Address: admin},
			Clusters: []model.Cluster{{Name: name, ConnectTimeout: time.Second, Discovery: model.DiscoveryStatic}},
			Endpoints: []model.Endpoints{{Cluster: name, Endpoints: []model.Endpoint{
				{Address: netip.MustParseAddrPort(s.Listener.Addr().String()), Weight: 1}}}},
			Listeners: []model.Listener{{Name: "l", Addresses: []netip.AddrPort{at}, Chains: []model.Chain{{HTTP: &model.HTTP{
				MaxHead: 60 << 10, MaxFields: 100, IdleTimeout: time.Hour, DrainTimeout: time.Second,
				Routes: &model.RouteTable{Name: model.Free("r"), Hosts: []model.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []model.Route{
					{Match: model.Match{Path: "/", PathPrefixText: true}, Backends: []model.Backend{{Cluster: name, Weight: 1}}}}}}},
			}}}}},
		}
	}
}

// TestHandover replaces a running gateway by another one five times under load: no request fails, be it on a connection
// that stays or on a new one.
func TestHandover(t *testing.T) {
	boot := oneOrigin(t)
	path := filepath.Join(t.TempDir(), "s")
	any4 := netip.MustParseAddrPort("127.0.0.1:0")
	log := slog.New(slog.DiscardHandler)
	begin := func(b *model.Bootstrap) *running {
		p, err := startGateway(gateway.Config{Bootstrap: b, Loops: 2, Drain: 10 * time.Second, Log: log}, path)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := begin(boot(any4, any4))
	at, admin := p.Listening("l")[0], netip.MustParseAddrPort(p.AdminAddress())
	var n atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := requests(at.String(), 1+50*(i%2), &n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	more := func(some int64) { // requests
		before := n.Load()
		for deadline := time.Now().Add(10 * time.Second); n.Load() < before+some && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // poll
		}
	}
	var ends []chan error
	for range 5 {
		more(200)
		next := begin(boot(at, admin))
		end := make(chan error, 1)
		go func(p *running) {
			err := p.live(make(chan os.Signal), log)
			p.Close()
			end <- err
		}(p)
		ends, p = append(ends, end), next
	}
	more(200)
	cancel()
	wg.Wait()
	for i, end := range ends {
		select {
		case err := <-end:
			if err != nil {
				t.Errorf("proxy %d: %v", i, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("proxy %d does not end", i)
		}
	}
	r, err := http.Get("http://" + admin.String() + "/ready")
	if err != nil || r.StatusCode != 200 {
		t.Errorf("the last admin server: %v %v", r, err)
	}
	p.Close()
	if n.Load() < 1200 {
		t.Errorf("only %d requests", n.Load())
	}
	t.Logf("%d requests", n.Load())
}

// requests sends some on one connection, fewer if a response says that it is the last.
func requests(at string, some int, n *atomic.Int64) error {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for range some {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || string(body) != "ok" {
			return fmt.Errorf("%s %q %v", resp.Status, body, err)
		}
		n.Add(1)
		if resp.Close {
			return nil
		}
	}
	return nil
}

// TestSignals: SIGTERM waits for what is under way, the second one does not.
func TestSignals(t *testing.T) {
	boot := oneOrigin(t)
	any4 := netip.MustParseAddrPort("127.0.0.1:0")
	log := slog.New(slog.DiscardHandler)
	p, err := startGateway(gateway.Config{Bootstrap: boot(any4, any4), Loops: 1, Log: log}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := net.Dial("tcp", p.Listening("l")[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab") // and one byte that never comes
	for p.Connections() == 0 {
		time.Sleep(time.Millisecond) // poll
	}
	signals, end := make(chan os.Signal, 2), make(chan error, 1)
	go func() { end <- p.live(signals, log) }()
	signals <- syscall.SIGHUP
	signals <- syscall.SIGTERM
	select {
	case <-end:
		t.Fatal("a request under way was not waited for")
	case <-time.After(200 * time.Millisecond):
	}
	signals <- syscall.SIGTERM
	select {
	case err := <-end:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the second signal does not end it")
	}
}

func TestProxyErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	listener := func(extra string) string {
		return "static_resources:\n  listeners:\n  - name: l\n    address: { socket_address: { address: 127.0.0.1, port_value: 0 } }\n" + extra
	}
	const relay = "      - {name: t, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}\n"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "--bootstrap FILE"},
		{"no file", []string{"--bootstrap", filepath.Join(dir, "none"), "--check"}, "no such file"},
		{"no YAML", []string{"--bootstrap", file("a", "a: ["), "--check"}, "/a:1: "},
		{"unknown field", []string{"--bootstrap", file("b", listener("    no_such_field: 1\n")), "--check"}, "no_such_field"},
		{"a certificate", []string{"--bootstrap", file("d", listener("    filter_chains:\n    - name: n\n      filters:\n"+relay+"    - filter_chain_match: {server_names: [x]}\n      filters:\n"+relay+
			"      transport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: [{certificate_chain: {filename: /nowhere/c}, private_key: {filename: /nowhere/k}}]}}}\n")), "--check"},
			"/d:9: listener l: filter chain 1: "},
		{"a level", []string{"--bootstrap", file("c", "{}"), "--check", "--log-level", "loud"}, "--log-level"},
	} {
		var out bytes.Buffer
		root := newRootCommand()
		root.SetOut(&out)
		root.SetArgs(append([]string{"proxy"}, c.args...))
		cmd, err := root.ExecuteC()
		if err == nil {
			t.Errorf("%s: no error, %q", c.name, out.String())
			continue
		}
		text := errorText(cmd.CommandPath(), err)
		if !strings.Contains(text, c.want) || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: %q, want one line with %q", c.name, text, c.want)
		}
	}
}
