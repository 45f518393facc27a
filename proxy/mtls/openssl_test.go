package mtls_test

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/testenv"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// TestKeyUpdate: OpenSSL changes its keys, and has us change ours, while lines go back and forth.
func TestKeyUpdate(t *testing.T) {
	program := testenv.NeedProgram(t, "openssl", "openssl")
	r := newRoot(t)
	ctx := serverContext(t, &model.ServerTLS{Certificates: []model.SecretRef{ref(r.leaf(t, nil, nil, "a"))}}, store(t))
	g := serveGated(t, &mtls.Handshakes{}, ctx.Config())
	cmd := exec.Command(program, "s_client", "-connect", g.addr, "-tls1_3", "-servername", "a")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer deadline.Stop()
	stderr := make(chan string, 1000)
	go func() {
		for lines := bufio.NewScanner(said); lines.Scan(); {
			stderr <- lines.Text()
		}
		close(stderr)
	}()
	lines := bufio.NewScanner(out)
	await := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
		}
		t.Fatalf("%q did not come back: %v", want, lines.Err())
	}
	updated := func() {
		t.Helper()
		for line := range stderr {
			if strings.Contains(line, "KEYUPDATE") {
				return
			}
		}
		t.Fatal("OpenSSL has not updated its keys")
	}
	// A command letter stands at the start of what one read of OpenSSL's gets.
	for i, step := range []string{"one", "k", "two", "K", "three", "K", "k", "four"} {
		if _, err := in.Write([]byte(step + "\n")); err != nil {
			t.Fatal(i, err)
		}
		if len(step) == 1 {
			updated()
		} else {
			await(step)
		}
	}
	_, _ = in.Write([]byte("Q\n"))
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
