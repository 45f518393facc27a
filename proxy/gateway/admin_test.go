package gateway_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
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
		{"/metrics", []string{"tulle_requests_total{"}},
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
