package mtls_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

var (
	idleCount = flag.Int("idle", 1000, "connections that TestIdleConnections measures")
	idleOf    = flag.String("idle-clients-of", "", "address and certificate file of the server; of TestIdleConnections' own child process")
)

// TestIdleConnections measures what an idle connection with client certificates costs its server in private memory: the
// clients are in another process. go test -run TestIdleConnections -v -idle=10000 measures as many.
func TestIdleConnections(t *testing.T) {
	if *idleOf != "" {
		idleClients(t)
		return
	}
	const bound = (20 << 10) * (1 + allowed) // the race detector has shadows of its own
	r := newRoot(t)
	own := r.leaf(t, nil, nil, "client.example")
	file := filepath.Join(t.TempDir(), "own.pem")
	if err := os.WriteFile(file, append(own.Certificate.Bytes, own.Key.Bytes...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tickets := range []bool{false, true} {
		m := &model.ServerTLS{RequireClient: true, Validation: &model.Validation{Roots: r.roots()}, NoTickets: !tickets}
		m.Certificates = []model.SecretRef{ref(r.leaf(t, nil, nil, "server.example"))}
		g := serveGated(t, &mtls.Handshakes{}, serverContext(t, m, store(t)).Config())
		debug.FreeOSMemory()
		before, used := private(t), cpu()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestIdleConnections$", "-idle", strconv.Itoa(*idleCount), "-idle-clients-of", g.addr+","+file)
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "all idle"; {
		}
		used = (cpu() - used) / time.Duration(*idleCount)
		if n := g.loop.Load(); n != int64(*idleCount) {
			t.Errorf("%d connections", n)
		}
		do(g.loop, func() { g.loop.Buffers().Trim() })
		debug.FreeOSMemory()
		per := (private(t) - before) / *idleCount
		t.Logf("tickets %t: %d bytes per idle connection, %v of CPU for its handshake", tickets, per, used)
		if per > bound {
			t.Errorf("tickets %t: %d bytes per idle connection, more than %d", tickets, per, bound)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// idleClients holds connections until its input ends.
func idleClients(t *testing.T) {
	addr, file, _ := strings.Cut(*idleOf, ",")
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
	conns := make([]net.Conn, *idleCount)
	for i := range conns {
		c, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := talk(c); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	fmt.Println("all idle")
	_, _ = os.Stdin.Read(make([]byte, 1))
	for _, c := range conns {
		c.Close()
	}
}

// private answers the anonymous memory of the process in bytes.
func private(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "RssAnon:" {
			kb, _ := strconv.Atoi(f[1])
			return kb << 10
		}
	}
	t.Fatal("no RssAnon in /proc/self/status")
	return 0
}
