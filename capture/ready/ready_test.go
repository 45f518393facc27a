package ready_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/capture/ready"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]ready.Probe{
		"": {Port: 8080}, "tcp": {Port: 8080}, "tcp:9": {Port: 9}, "http:/": {Port: 8080, Path: "/"},
		"http:/a/b?c=d": {Port: 8080, Path: "/a/b?c=d"}, "http:81/x": {Port: 81, Path: "/x"},
	} {
		if p, err := ready.Parse(s, 8080); err != nil || p != want {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	}
	for _, s := range []string{"udp", "http", "http:", "http:x", "tcp:0", "tcp:x", "http:99999/", "http:/a b", "http:/a\r\nb"} {
		if p, err := ready.Parse(s, 8080); err == nil {
			t.Errorf("%q was taken: %+v", s, p)
		}
	}
	if p, err := ready.Parse("", 0); err != nil || p.Port != 0 {
		t.Errorf("a pure client: %+v, %v", p, err)
	}
	if _, err := ready.Parse("tcp", 0); err == nil {
		t.Error("tcp without a port was taken")
	}
}

func TestHTTPProbeWaitsForSuccess(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.Host == "" {
			t.Errorf("asked for %s of %q", r.URL, r.Host)
		}
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	dial := func(ctx context.Context, port uint16) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}
	port := netip.MustParseAddrPort(srv.Listener.Addr().String()).Port()
	if err := (ready.Probe{Port: port, Path: "/healthz"}).Wait(context.Background(), dial); err != nil || asked.Load() != 3 {
		t.Errorf("%v after %d", err, asked.Load())
	}
}

// TestWaitKeepsTrying: with virtual time.
func TestWaitKeepsTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, begun := 0, time.Now()
		dial := func(_ context.Context, port uint16) (net.Conn, error) {
			if tries++; tries < 20 {
				return nil, errors.New("refused")
			}
			a, b := net.Pipe()
			go io.Copy(io.Discard, b)
			t.Cleanup(func() { b.Close() })
			return a, nil
		}
		if err := (ready.Probe{Port: 80}).Wait(t.Context(), dial); err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d < time.Second || d > 5*time.Second {
			t.Errorf("20 tries took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := ready.Probe{Port: 80}.Wait(ctx, func(context.Context, uint16) (net.Conn, error) { return nil, errors.New("refused") })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("at the end: %v", err)
		}
	})
}
