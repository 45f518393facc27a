package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

type noSource struct{}

func (noSource) Subscribe(live.Kind, string)   {}
func (noSource) Unsubscribe(live.Kind, string) {}

type fixture struct {
	t        *testing.T
	metrics  string
	client   *http.Client // to the unix socket
	observer *observe.Observer
	ready    atomic.Bool
	drained  atomic.Int32
}

func start(t *testing.T) *fixture {
	f := &fixture{t: t, observer: observe.New(observe.Config{AccessLog: io.Discard})}
	m, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.sock")
	a, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := live.New(live.Config{Source: noSource{}, Wait: time.Millisecond})
	l.Find(t.Context(), model.ServiceName{Namespace: "default", Name: "cart"})
	f.metrics = "http://" + m.Addr().String()
	f.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	s := admin.Start(admin.Config{
		Metrics: m, Admin: a, Observer: f.observer, Live: l, Info: map[string]string{"workload": "web-1"},
		Ready: func() error {
			if f.ready.Load() {
				return nil
			}
			return errors.New("no identity yet")
		},
		Drain: func() { f.drained.Add(1) },
	})
	t.Cleanup(func() { s.Close(); l.Close(); f.observer.Close() })
	return f
}

func (f *fixture) do(c *http.Client, method, url string, want int) string {
	f.t.Helper()
	q, err := http.NewRequestWithContext(f.t.Context(), method, url, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := c.Do(q)
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != want {
		f.t.Errorf("%s %s: status %d, want %d; %v; %s", method, url, r.StatusCode, want, err, b)
	}
	return string(b)
}

func TestMetricsListener(t *testing.T) {
	f := start(t)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	f.observer.Recorder().Done(&record.Record{GRPC: -1, Status: 200})
	if b := f.do(c, "GET", f.metrics+"/metrics", 200); !strings.Contains(b, "\ntulle_requests_total{") {
		t.Errorf("metrics: %s", b)
	}
	if b := f.do(c, "GET", f.metrics+"/ready", 503); !strings.Contains(b, "no identity yet") {
		t.Errorf("not ready: %s", b)
	}
	f.ready.Store(true)
	f.do(c, "GET", f.metrics+"/ready", 200)
	for _, private := range []string{"/config", "/stats", "/routes", "/endpoints", "/accesslog?on=true", "/drain"} {
		f.do(c, "GET", f.metrics+private, 404)
		f.do(c, "POST", f.metrics+private, 404)
	}
}

func TestAdminSocket(t *testing.T) {
	f := start(t)
	const base = "http://admin"
	var d live.Dump
	if err := json.Unmarshal([]byte(f.do(f.client, "GET", base+"/config", 200)), &d); err != nil || len(d.Services) != 1 || d.Services[0].Subscription != "cart.default" {
		t.Errorf("config: %v %+v", err, d)
	}
	var s admin.Stats
	if err := json.Unmarshal([]byte(f.do(f.client, "GET", base+"/stats", 200)), &s); err != nil || s.Info["workload"] != "web-1" || s.Edges == nil {
		t.Errorf("stats: %v %+v", err, s)
	}
	for _, list := range []string{"/routes", "/endpoints"} {
		if b := f.do(f.client, "GET", base+list, 200); strings.TrimSpace(b) != "[]" {
			t.Errorf("%s: %s", list, b)
		}
	}
	f.do(f.client, "POST", base+"/accesslog?on=true", 200)
	if !f.observer.AccessLogOn() {
		t.Error("the access log is off")
	}
	f.do(f.client, "POST", base+"/accesslog?on=maybe", 400)
	f.do(f.client, "POST", base+"/accesslog?on=0", 200)
	if f.observer.AccessLogOn() {
		t.Error("the access log is on")
	}
	f.do(f.client, "GET", base+"/drain", 405)
	f.do(f.client, "POST", base+"/drain", 200)
	f.do(f.client, "POST", base+"/drain", 200)
	if n := f.drained.Load(); n != 1 {
		t.Errorf("drained %d times", n)
	}
	f.do(f.client, "GET", base+"/metrics", 200)
}
