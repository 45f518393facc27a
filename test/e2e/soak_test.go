//go:build e2e && soak

package e2e

import (
	"flag"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
)

var soakFor = flag.Duration("soak", 10*time.Minute, "how long TestSoakCerts goes on")

// TestSoakCerts: with lives of seconds everything that proves an identity is replaced by itself again and again, under load, with
// a handshake for every request of one of the callers. No request and no handshake fails. `make soak-certs`.
func TestSoakCerts(t *testing.T) {
	m := newMesh(t, lives...)
	p := m.run([]string{"--service", "httpbin", "--port", "8080", "--port", "raw=8081:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	kept, fresh := m.load(nil, "http://httpbin:8080/get"), m.load([]string{"-close"}, "http://httpbin:8081/get")
	roots, middles, leaves, phases := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[ca.Phase]bool{}
	for end := time.Now().Add(*soakFor); time.Now().Before(end); time.Sleep(500 * time.Millisecond) { // poll
		r := m.certs()
		phases[r.Rotation.Phase] = true
		for _, a := range r.Alarms {
			t.Errorf("%+v", a)
		}
		for _, w := range r.Workloads {
			for _, c := range w.Chain {
				map[string]map[string]bool{"root": roots, "intermediate": middles, "leaf": leaves, "cross-signed root": {}}[c.Role][c.Serial] = true
			}
		}
		if k, f := kept.counts(), fresh.counts(); k.Failed+f.Failed > 0 {
			t.Fatalf("%+v, %+v", k, f)
		}
	}
	c := fresh.finish()
	if c.Failed > 0 || c.Opened != c.OK {
		t.Errorf("%d of %d failed: %v", c.Failed, c.OK, c.Errors)
	}
	kept.flawless()
	t.Logf("measured: %d roots, %d intermediates, %d leaves; %d handshakes", len(roots), len(middles), len(leaves), c.Opened)
	if len(roots) < int(*soakFor/time.Minute) || len(phases) < 3 {
		t.Errorf("%d roots, phases %v", len(roots), phases)
	}
}
