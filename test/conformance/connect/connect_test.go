//go:build conformance

package connect

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// TestMain is also the program that stands in for the server.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "between" {
		runtime.LockOSThread() // children end with the thread that made them
		if err := Between(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var tls = flag.Bool("tls", false, "also with TLS and client certificates: twice as many cases, for whoever has the time")

// TestConnect asserts that every case passes, and how many there are.
func TestConnect(t *testing.T) {
	config, total := "features:\n  supports_tls: false\n", 1890
	if *tls {
		config, total = "features:\n  supports_tls_client_certs: true\n  supports_half_duplex_bidi_over_http1: true\n", 3800
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{subject.Binary(t, "connectconformance"), "--mode", "server", "--conf", file, "--", self, "between", subject.Binary(t, "referenceserver")}
	p := subject.Run(t, "connectconformance", nil, append(args, subject.Command(t)...)...)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	code, err := p.End(ctx)
	if want := fmt.Sprintf("Total cases: %d\n%d passed, 0 failed", total, total); err != nil || code != 0 || !strings.Contains(p.Output(), want) {
		t.Errorf("exit code %d, %v, want %q:\n%s", code, err, want, p.Output())
	}
}
