//go:build e2e

// Package e2e runs the real binary: control planes, and unmodified third-party programs as workloads in their own
// namespaces. Every test has a control plane of its own in a folder of its own and ends what it started; nothing
// in the repository is written. The tests pass as root and as an ordinary user. Tests run one after the other.
// The environment variable TULLE_BIN names the folder with tulle, go-httpbin and podinfo; without it that is this
// binary's own folder if tulle is there, else ../../bin. Start reading at newMesh, then TestHTTP.
package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tulle-mesh/tulle/internal/testenv"
)

// TestMain is also the main function of what the tests run inside the mesh: this binary calls itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if program, ok := map[string]func([]string) error{
			"load": loadMain, "grpc-health": grpcHealthMain, "datagram": datagramMain, "ping": pingMain, "dial": dialMain, "grpc-load": grpcLoadMain, "many": manyMain, "hold": holdMain, "websocket": websocketMain, "streams": streamsMain, "proxy": hangMain, "serve-after-fin": serveAfterFINMain,
			"shop": shopMain, "talk": talkMain, "talk-load": talkLoadMain, "rls": rlsMain, "picker": pickerMain, "flaky": flakyMain, "shop-load": shopLoadMain,
			"part": partMain, "svid-serve": svidServeMain, "svid-call": svidCallMain, "svid-get": svidGetMain,
			"leak": leakMain, "sink": sinkMain, "issuer": issuerMain, "serve-ok": serveOKMain,
		}[os.Args[1]]; ok {
			if err := program(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	// Children ask the kernel to be ended with the thread that forked them, and that is to live as long as we do.
	go forkThread()
	os.Exit(m.Run())
}

// forks are run one after the other on one thread that never ends.
var forks = make(chan func())

func forkThread() {
	runtime.LockOSThread()
	for f := range forks {
		f()
	}
}

// isRoot reports whether the tests run as root.
func isRoot() bool { return os.Getuid() == 0 }

// nobody is the user that root becomes where it needs another one, and the user of the second run of these tests.
const nobody = 65534

// binary answers the path of a program that tools/check has built.
func binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("TULLE_BIN")
	if dir == "" {
		dir = filepath.Dir(self(t))
		if _, err := os.Stat(filepath.Join(dir, "tulle")); err != nil {
			dir = filepath.Join("..", "..", "bin")
		}
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build it with 'go run ./tools/check -only build'", err)
	}
	return path
}

// self answers the path of this binary, to be run inside the mesh.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program answers the path of an installed program, also one in a folder that only root has on its PATH.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	return testenv.NeedProgram(t, name, pkg)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// tempDir makes a folder with a short path (a unix socket's path has 107 bytes) that other users may pass through.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "te")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
