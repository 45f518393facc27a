package gateway_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// wherever adds a cluster whose endpoints are what clients want.
func wherever(b *model.Bootstrap, name string, o model.OriginalOptions) {
	b.Clusters = append(b.Clusters, model.Cluster{Name: model.Free(name), ConnectTimeout: time.Second, Discovery: model.DiscoveryOriginal, Original: o})
}

func ask(t *testing.T, at netip.AddrPort, version string, fields ...string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://a.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w, err := client(t, at, nil, version).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	b := make([]byte, 100)
	n, _ := w.Body.Read(b)
	return w.StatusCode, string(b[:n])
}

// TestOriginalByField: the request says where to, in nothing but an address, once; whoever does not say gets 503.
func TestOriginalByField(t *testing.T) {
	const field = "x-envoy-original-dst-host"
	b := &model.Bootstrap{}
	one, two := origin(t, "one"), origin(t, "two")
	wherever(b, "field", model.OriginalOptions{Header: field})
	wherever(b, "none", model.OriginalOptions{})
	wherever(b, "port", model.OriginalOptions{Header: field, Port: one.Port()})
	for i := range b.Clusters {
		b.Listeners = append(b.Listeners, listener(b.Clusters[i].Name.String(), httpChain(b.Clusters[i].Name.String())))
	}
	g := start(t, b)
	at := g.Listening("field")[0]
	for _, c := range []struct {
		listener string
		fields   []string
		want     string // "": 503
	}{
		{"field", []string{field, one.String()}, "one"},
		{"field", []string{"X-Envoy-Original-Dst-Host", two.String()}, "two"},
		{"field", []string{field, fmt.Sprintf("[::ffff:127.0.0.1]:%d", two.Port())}, "two"},
		{"field", nil, ""},
		{"field", []string{field, one.String(), field, two.String()}, ""},
		{"field", []string{field, "127.0.0.1"}, ""},
		{"field", []string{field, fmt.Sprintf("localhost:%d", one.Port())}, ""},
		{"field", []string{field, one.String() + "," + two.String()}, ""},
		{"field", []string{field, fmt.Sprintf("0.0.0.0:%d", one.Port())}, ""},
		{"field", []string{field, fmt.Sprintf("[::1%%lo]:%d", one.Port())}, ""},
		{"field", []string{field, at.String()}, ""}, // itself
		{"field", []string{field, one.String()}, "one"},
		{"none", []string{field, one.String()}, ""},
		{"port", []string{field, "127.0.0.1:1"}, "one"},
	} {
		for _, version := range []string{"1", "h2c"} {
			status, body := ask(t, g.Listening(c.listener)[0], version, c.fields...)
			if c.want == "" && status != 503 || c.want != "" && (status != 200 || body[:3] != c.want) {
				t.Errorf("%s %v, client %s: %d %q, want %q", c.listener, c.fields, version, status, body, c.want)
			}
		}
	}
}

// TestOriginalForgotten: an address that is not used any more is forgotten, and its connections with it.
func TestOriginalForgotten(t *testing.T) {
	closed := make(chan bool, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- true
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	b := &model.Bootstrap{}
	wherever(b, "field", model.OriginalOptions{Header: "to", Clean: 50 * time.Millisecond})
	b.Listeners = []model.Listener{listener("l", httpChain("field"))}
	g := start(t, b)
	if status, _ := ask(t, g.Listening("l")[0], "1", "to", s.Listener.Addr().String()); status != 200 {
		t.Fatal(status)
	}
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("its connection stays")
	}
	if n := len(g.Clusters()[0].Endpoints); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
}

// TestOriginalWithoutTurning: a connection that nobody has turned to us goes nowhere, least of all to us again.
func TestOriginalWithoutTurning(t *testing.T) {
	b := &model.Bootstrap{}
	wherever(b, "original", model.OriginalOptions{})
	l, tcp := listener("http", httpChain("original")), listener("tcp", tcpChain("original"))
	l.OriginalDestination, tcp.OriginalDestination = true, true
	b.Listeners = []model.Listener{l, tcp}
	g := start(t, b)
	if status, body := ask(t, g.Listening("http")[0], "1"); status != 503 {
		t.Errorf("HTTP: %d %q", status, body)
	}
	if _, err := read(g.Listening("tcp")[0], "x"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("TCP: %v, want a reset", err)
	}
}
