// Package testenv says what a test needs from the machine. A test that cannot run has not passed: what is missing
// fails it, with the line that brings it. It is imported by tests only. Start reading at NeedRoot.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// NeedRoot fails t unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("%s makes network namespaces and changes users: run it as root, for example with 'sudo env PATH=$PATH go test ./...'", t.Name())
	}
}

// NeedProgram fails t unless program is on PATH, and answers where. pkg is the Debian package that has it.
func NeedProgram(t testing.TB, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s needs the program %s: install it with 'apt-get install -y %s'", t.Name(), program, pkg)
	}
	return path
}
