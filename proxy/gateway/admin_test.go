package gateway_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

func TestAdmin(t *testing.T) {
	ca := newAuthority(t)
	b := &model.Bootstrap{Admin: &model.Admin{Address: loopback}, Node: model.Node{ID: "n1"},
		ADS: &model.ADS{Headers: []model.Header{{Name: "Authorization", Value: "Bearer hunter2"}}}}
	static(b, "one", origin(t, "one"))
	c := httpChain("one")
	c.TLS = ca.server("a.test")
	b.Listeners = []model.Listener{listener("plain", httpChain("one")), listener("tls", c)}
	var level slog.LevelVar
	g, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 1, Level: &level, Version: "v9"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	get(t, http.DefaultClient, "http://"+g.Listening("plain")[0].String()+"/")
	at := "http://" + g.AdminAddress()
	for _, c := range []struct {
		path string
		want []string
	}{
		{"/", []string{"/config_dump", "/drain_listeners"}},
		{"/ready", []string{"ready"}},
		{"/metrics", []string{"tulle_requests_total{", `tulle_tls_handshakes{state="open"} 0`, `tulle_tls_handshakes_shed_total{shed="refused"} 0`}},
		{"/stats/prometheus", []string{"tulle_requests_total{"}},
		{"/clusters", []string{"one::discovery::STATIC", "::rq_total::1"}},
		{"/clusters?format=json", []string{`"total": 1`, `"health": "healthy"`}},
		{"/listeners", []string{"plain::" + g.Listening("plain")[0].String()}},
		{"/listeners?format=json", []string{`"state": "active"`}},
		{"/server_info", []string{`"state": "LIVE"`, `"version": "v9"`, `"node": "n1"`}},
		{"/memory", []string{`"allocated"`}},
		{"/logging", []string{`"info"`}},
		{"/config_dump", []string{"[redacted]", `"Domains"`, g.Listening("plain")[0].Addr().String()}},
		{"/debug/pprof/goroutine?debug=1", []string{"goroutine profile"}},
	} {
		got := get(t, http.DefaultClient, at+c.path)
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %q: %.2000s", c.path, w, got)
			}
		}
	}
	dump := get(t, http.DefaultClient, at+"/config_dump")
	key, _ := pem.Decode(b.Listeners[1].Chains[0].TLS.Certificates[0].Inline.Key.Bytes)
	for _, secret := range []string{"PRIVATE KEY", "hunter2", string(key.Bytes)} {
		if strings.Contains(dump, secret) {
			t.Errorf("the dump tells %q", secret)
		}
	}
	if !json.Valid([]byte(dump)) {
		t.Error("the dump is no JSON")
	}
	post := func(path, from string) (int, string) {
		req, err := http.NewRequest("POST", at+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if from != "" {
			req.Header.Set("Origin", from)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(bytes.TrimSpace(body))
	}
	if code, body := post("/logging?level=debug", ""); code != 200 || level.Level() != slog.LevelDebug {
		t.Errorf("logging: %d %s", code, body)
	}
	if code, body := post("/logging?level=loud", ""); code != 400 || strings.Contains(body, "\n") {
		t.Errorf("a level that is none: %d %s", code, body)
	}
	if code, _ := post("/drain_listeners", "http://evil.test"); code != 403 || g.Ready() != nil {
		t.Errorf("a web page drained it: %d", code)
	}
	for host, want := range map[string]int{"evil.test": 403, "evil.test:80": 403, "localhost": 200, "localhost:9901": 200, "[::1]:9901": 200} {
		req, err := http.NewRequest("GET", at+"/config_dump", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != want {
			t.Errorf("the configuration, asked for at %s: %d, want %d", host, r.StatusCode, want)
		}
	}
	if code, _ := post("/drain_listeners", ""); code != 200 || g.Ready() == nil {
		t.Errorf("drain: %d, ready %v", code, g.Ready())
	}
	if r, err := http.Get(at + "/ready"); err != nil || r.StatusCode != 503 {
		t.Errorf("ready while draining: %v %v", r, err)
	}
}

func TestAdminIsOnTheLoopback(t *testing.T) {
	b := &model.Bootstrap{Admin: &model.Admin{Address: netip.MustParseAddrPort("0.0.0.0:0")}}
	g, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 1})
	if err == nil {
		g.Close()
		t.Fatal("the admin server is open to everybody")
	}
	if !strings.Contains(err.Error(), "admin address 0.0.0.0:0 is not a loopback one") {
		t.Error(err)
	}
	b.Admin.Open = true
	if g, err = gateway.Start(gateway.Config{Bootstrap: b, Loops: 1}); err != nil {
		t.Fatal(err)
	}
	g.Close()
}

// TestAdminAccessLog: who asks is written down, in the format that the file gives, what is refused as well.
func TestAdminAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.log")
	b := &model.Bootstrap{Admin: &model.Admin{Address: loopback, AccessLogs: []model.AccessLog{{Path: path,
		Format: "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(X-Who)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% " +
			"%RESP(CONTENT-TYPE)% %UPSTREAM_HOST% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %CONNECTION_ID%\n"}}}}
	g := start(t, b)
	at := g.AdminAddress()
	for _, q := range []struct{ method, path, origin string }{{"GET", "/ready?x=1", ""}, {"POST", "/logging", "http://evil.test"}, {"GET", "/none", ""}} {
		r, err := http.NewRequest(q.method, "http://"+at+q.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Who", "me")
		if q.origin != "" {
			r.Header.Set("Origin", q.origin)
		}
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, w.Body)
		w.Body.Close()
	}
	want := "GET /ready?x=1 AT me HTTP/1.1 200 admin_filter_response - 0 6 text/plain; charset=utf-8 - 127.0.0.1 1\n" +
		"POST /logging AT me HTTP/1.1 403 admin_filter_response - 0 36 text/plain; charset=utf-8 - 127.0.0.1 1\n" +
		"GET /none AT me HTTP/1.1 404 admin_filter_response - 0 19 text/plain; charset=utf-8 - 127.0.0.1 1\n"
	waitFor(t, func() error {
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if s := strings.ReplaceAll(string(got), at, "AT"); s != want {
			return fmt.Errorf("%q, want %q", s, want)
		}
		return nil
	})
	b.Admin.AccessLogs[0].Path = filepath.Join(path, "not", "a", "folder")
	if _, err := gateway.Start(gateway.Config{Bootstrap: b}); err == nil || !strings.Contains(err.Error(), "admin: access log") {
		t.Errorf("a log that cannot be written: %v", err)
	}
}
