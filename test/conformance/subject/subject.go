// Package subject runs the proxy that the conformance suites are pointed at: tulle proxy --bootstrap with a file that
// it writes. The suites know nothing of it but ports, so with -subject they can be pointed at another program that
// reads the same file (Envoy), which shows whether a failure is ours or the suite's.
//
// It is imported by tests only. Programs are looked for in the folder that the environment variable TULLE_BIN names,
// else in bin of the repository. A program that is missing fails the test. Everything that is started ends with the
// test. Start reading at Start; bootstrap.go writes the files.
package subject

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var command = flag.String("subject", "", "program and arguments before the bootstrap file; empty: tulle proxy --bootstrap")

// Foreign reports whether -subject names another program: what only Tulle promises is then not asserted.
func Foreign() bool { return *command != "" }

// Proxy is one that is running.
type Proxy struct {
	*Process
	Admin string // host:port
}

// Start runs the proxy with b and answers when it is ready.
func Start(t testing.TB, b Bootstrap) *Proxy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	admin := Port(t)
	if err := os.WriteFile(file, []byte(b.YAML(admin)), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Process: Run(t, "proxy", nil, append(Command(t), file)...), Admin: fmt.Sprintf("127.0.0.1:%d", admin)}
	p.Wait("is ready", func() error {
		resp, err := http.Get("http://" + p.Admin + "/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/ready answers %s", resp.Status)
		}
		return nil
	})
	return p
}

// Command answers the program and its arguments before the file.
func Command(t testing.TB) []string {
	t.Helper()
	if Foreign() {
		return strings.Fields(*command)
	}
	return []string{Binary(t, "tulle"), "proxy", "--bootstrap"}
}

// Port answers a TCP port of the loopback that was free a moment ago.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Binary answers the path of a program that tools/check has built.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("TULLE_BIN")
	for up := "."; dir == "" && len(up) < 40; up += "/.." {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			dir = filepath.Join(up, "bin")
		}
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build it with 'go run ./tools/check -only build,spire-server', and vault with '-only vault'", err)
	}
	return path
}

// Installed answers the path of a program of the system; pkg is the Debian package that has it.
func Installed(t testing.TB, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s needs the program %s: install it with 'apt-get install -y %s'", t.Name(), name, pkg)
	}
	return path
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// Process is a program that a test has started.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{}
}

// Run starts a program in a process group of its own. in may be nil. The group is ended with the test.
func Run(t testing.TB, name string, in io.Reader, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: name, cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	t.Cleanup(p.stop)
	return p
}

// Output answers what the process has written so far.
func (p *Process) Output() string { return p.out.String() }

// PID answers the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait asks until ok answers nil, and fails the test after 15 s or when the process has ended.
func (p *Process) Wait(what string, ok func() error) {
	p.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended before it %s: %s\n%s", p.name, what, p.cmd.ProcessState, p.Output())
		case <-time.After(20 * time.Millisecond): // poll
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waiting until %s %s: %v\n%s", p.name, what, err, p.Output())
		}
	}
}

// End waits until the process has ended by itself, at most until ctx is done, and answers its exit code.
func (p *Process) End(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s has not ended: %w", p.name, ctx.Err())
	}
}

func (p *Process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) // gone already: nothing to do
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.t.Errorf("%s did not end within 10 s of SIGTERM", p.name)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	for line := range strings.Lines(p.Output()) {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") || strings.Contains(line, "level=ERROR") {
			p.t.Errorf("%s: %s", p.name, line)
		}
	}
	if p.t.Failed() {
		p.t.Logf("--- %s (%s)\n%s", p.name, p.cmd.ProcessState, p.Output())
	}
}

// output keeps the end of what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const maxOutput = 64 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if n := o.buf.Len(); n > 2*maxOutput {
		o.buf.Next(n - maxOutput)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
