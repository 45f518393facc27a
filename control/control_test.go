package control_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/control"
)

func config(dir string) control.Config {
	return control.Config{DataDir: dir, HTTPListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0"}
}

func start(t *testing.T, cfg control.Config) *control.Plane {
	t.Helper()
	p, err := control.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestStart: ready in under 2 s, on the first start and after a restart; then it answers everywhere.
func TestStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for range 2 {
		begin := time.Now()
		p := start(t, config(dir))
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("ready after %s", d)
		}
		resp, err := http.Get("http://" + p.HTTPAddress() + "/v1/ready")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		for path, mode := range map[string]os.FileMode{dir: 0o700, control.APISocket(dir): 0o600, control.ProxySocket(dir): 0o600, control.AdminTokenFile(dir): 0o600} {
			if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v; want %v", path, st, err, mode)
			}
		}
		for _, path := range []string{control.APISocket(dir), control.ProxySocket(dir)} {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp", p.GRPCAddress()); err == nil {
			t.Error("closed, and yet it accepts")
		}
	}
}

func TestStartRefuses(t *testing.T) {
	dir := t.TempDir()
	p := start(t, config(dir))
	busy := config(t.TempDir())
	busy.HTTPListen = p.HTTPAddress()
	long := config(filepath.Join(t.TempDir(), strings.Repeat("x", 100)))
	domain := config(t.TempDir())
	domain.TrustDomain = "Not A Domain"
	for name, c := range map[string]struct {
		cfg  control.Config
		want string
	}{
		"a second one": {config(dir), "already uses"}, "a busy port": {busy, "--http-listen"}, "a long path": {long, "shorter --data-dir"},
		"no folder": {config(""), "--data-dir"}, "trust domain": {domain, "trust domain"},
	} {
		q, err := control.Start(t.Context(), c.cfg)
		if err == nil {
			q.Close()
			t.Errorf("%s: started", name)
		} else if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is refused leaves nothing behind: the same folder can be used right away.
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, config(dir))
}

// TestStartAborted: a start that is given up ends everything that it had begun.
func TestStartAborted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if p, err := control.Start(ctx, config(dir)); err == nil {
		p.Close()
		t.Fatal("started")
	}
	start(t, config(dir))
}

// TestSocketName: both sides agree on where proxies find the control plane.
func TestSocketName(t *testing.T) {
	if a, b := control.ProxySocket("/d"), bootstrap.ControlSocket("/d"); a != b {
		t.Errorf("%s and %s", a, b)
	}
}
