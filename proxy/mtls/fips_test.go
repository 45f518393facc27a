package mtls_test

import (
	"crypto/tls"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// TestFIPS runs the tests of handshakes, contexts and resumption again in a process in FIPS 140-3 mode, and itself to see
// that only approved algorithms are used there.
func TestFIPS(t *testing.T) {
	if mtls.FIPS() {
		approvedOnly(t)
		return
	}
	const again = "^(TestFIPS|TestContract|TestIdentities|TestStandardPeer|TestServer.*|TestClient.*|TestRotation|TestParameters|TestNotReady)$"
	cmd := exec.Command(os.Args[0], "-test.run", again, "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=on")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFIPS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func approvedOnly(t *testing.T) {
	r := newRoot(t)
	own := []model.SecretRef{ref(r.leaf(t, nil, nil, "a"))}
	g := serveGated(t, &mtls.Handshakes{}, serverContext(t, &model.ServerTLS{Certificates: own}, store(t)).Config())
	cs, err := call(g.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil || cs.CurveID != tls.X25519MLKEM768 || cs.CipherSuite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		t.Errorf("%v, %v, %v", cs.CurveID, tls.CipherSuiteName(cs.CipherSuite), err)
	}
	only := model.TLSParameters{Curves: []string{"X25519"}}
	if _, err := mtls.NewServerContext(&model.ServerTLS{Certificates: own, Parameters: only}, store(t)); err == nil || !strings.Contains(err.Error(), "FIPS") {
		t.Errorf("X25519 alone: %v", err)
	}
	both := model.TLSParameters{Curves: []string{"X25519", "P-256"}}
	g = serveGated(t, &mtls.Handshakes{}, serverContext(t, &model.ServerTLS{Certificates: own, Parameters: both}, store(t)).Config())
	if cs, err := call(g.addr, &tls.Config{InsecureSkipVerify: true}); err != nil || cs.CurveID != tls.CurveP256 {
		t.Errorf("%v, %v", cs.CurveID, err)
	}
}
