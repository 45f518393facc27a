package cli

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestVersion: the mode of the cryptography is what the process was started with; the test runs again in the other one.
func TestVersion(t *testing.T) {
	out, failed := tulle(t, "version")
	want := "FIPS 140-3 mode off)\n"
	if fips140.Enabled() {
		want = "FIPS 140-3 mode on)\n"
	}
	if failed != "" || !strings.HasPrefix(out, "tulle ") || !strings.HasSuffix(out, want) {
		t.Errorf("%q %s, want %q at its end", out, failed, want)
	}
	if fips140.Enabled() {
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestVersion$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=on")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestVersion") {
		t.Errorf("with fips140=on: %v\n%s", err, out)
	}
}
