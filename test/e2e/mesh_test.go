//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

// patience bounds what ought to take well under a second, on a busy machine.
const patience = 20 * time.Second

// mesh is one control plane, and what runs under it.
type mesh struct {
	t          testing.TB
	tulle      string // the binary
	dir, data  string // a folder for files of the test, and the control plane's
	http, grpc string // addresses
	flags      []string
	control    *process
	on         []string // what every command begins with: another machine, see machines_test.go
}

// newMesh starts a control plane and answers when it is ready. flags are added to those of tulle up.
func newMesh(t *testing.T, flags ...string) *mesh {
	t.Helper()
	dir := tempDir(t)
	m := &mesh{t: t, tulle: binary(t, "tulle"), dir: dir, data: filepath.Join(dir, "d"), http: freeAddress(t), grpc: freeAddress(t), flags: flags}
	m.up()
	return m
}

// up starts the control plane on the data folder and addresses of m, also again after it was killed.
func (m *mesh) up() {
	m.t.Helper()
	m.control = start(m.t, "tulle up", m.command(append([]string{"up", "--data-dir", m.data, "--http-listen", m.http, "--grpc-listen", m.grpc}, m.flags...)...))
	eventually(m.t, patience, "the control plane is ready", func() error {
		if m.control.ended() {
			m.t.Fatalf("tulle up ended: %s", m.control.stderr())
		}
		if !strings.Contains(m.control.stdout(), " ready after ") {
			return errors.New("it has not said so")
		}
		return nil
	})
}

// command makes a command of the binary. The user's own state folder is left alone.
func (m *mesh) command(args ...string) *exec.Cmd {
	args = append(append(append([]string{}, m.on...), m.tulle), args...)
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(m.dir, "s"))
	return c
}

// cli runs a command against the control plane of m.
func (m *mesh) cli(args ...string) result {
	m.t.Helper()
	return m.cliInput("", args...)
}

func (m *mesh) cliInput(stdin string, args ...string) result {
	m.t.Helper()
	c := m.command(append(args, "--data-dir", m.data)...)
	c.Stdin = strings.NewReader(stdin)
	return m.finish(c)
}

// finish runs a short command to its end.
func (m *mesh) finish(c *exec.Cmd) result {
	m.t.Helper()
	return finish(m.t, c, 60*time.Second)
}

func finish(t testing.TB, c *exec.Cmd, limit time.Duration) result {
	t.Helper()
	var out, errOut strings.Builder
	c.Stdout, c.Stderr, c.WaitDelay = &out, &errOut, 2*time.Second
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGTERM
	failed := make(chan error)
	forks <- func() { failed <- c.Start() }
	if err := <-failed; err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	late := time.AfterFunc(limit, func() { kill(append(descendants(c.Process.Pid), c.Process.Pid)) })
	err := c.Wait()
	if !late.Stop() {
		t.Fatalf("%s has not ended after %s\nstdout: %s\nstderr: %s", c, limit, tail(out.String()), tail(errOut.String()))
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v", c, err)
	}
	return result{code: c.ProcessState.ExitCode(), stdout: out.String(), stderr: errOut.String()}
}

// ok fails the test unless the command did what it was asked for; it answers its output.
func (m *mesh) ok(r result) string {
	m.t.Helper()
	if r.code != 0 {
		m.t.Fatal(r)
	}
	return r.stdout
}

// run starts a workload. flags are those of tulle run before "--".
func (m *mesh) run(flags []string, command ...string) *process {
	m.t.Helper()
	return start(m.t, "tulle run "+strings.Join(flags, " "), m.runCommand(flags, command...))
}

func (m *mesh) runCommand(flags []string, command ...string) *exec.Cmd {
	return m.command(append(append([]string{"run", "--data-dir", m.data}, flags...), append([]string{"--"}, command...)...)...)
}

// call runs a program as a pure client of the mesh, to its end.
func (m *mesh) call(command ...string) result {
	m.t.Helper()
	return m.finish(m.runCommand([]string{"--service", "shell"}, command...))
}

// callInput is call with something on standard input.
func (m *mesh) callInput(stdin io.Reader, command ...string) result {
	m.t.Helper()
	c := m.runCommand([]string{"--service", "shell"}, command...)
	c.Stdin = stdin
	return m.finish(c)
}

// curl calls with curl and answers what it printed.
func (m *mesh) curl(args ...string) string {
	m.t.Helper()
	return m.ok(m.call(append([]string{"curl", "-sS", "--fail-with-body", "--max-time", "20"}, args...)...))
}

// httpbin starts an instance of go-httpbin that listens on port 8080 and waits until it is announced.
func (m *mesh) httpbin(flags ...string) *process {
	m.t.Helper()
	p := m.run(append([]string{"--service", "httpbin", "--port", "8080"}, flags...), binary(m.t, "go-httpbin"), "-port", "8080", "-log-level", "OFF", "-max-body-size", "4194304")
	m.announced(p)
	return p
}

// podinfo starts an instance of podinfo for a service on port 8080 that answers with a message.
// At another level than debug it takes three seconds to end.
func (m *mesh) podinfo(message string, flags ...string) *process {
	m.t.Helper()
	p := m.run(append([]string{"--port", "8080", "--ready", "http:/readyz"}, flags...), binary(m.t, "podinfo"), "--port", "8080", "--ui-message", message, "--level", "debug")
	m.announced(p)
	return p
}

// announced waits until the workload that p is has live endpoints.
func (m *mesh) announced(p *process) {
	m.t.Helper()
	eventually(m.t, patience, p.name+" is announced", func() error {
		if p.ended() {
			m.t.Fatalf("%s ended: %s", p.name, p.stderr())
		}
		status := m.status()
		for _, w := range status.Workloads {
			if w.PID == p.pid() {
				for _, set := range m.endpoints() {
					for _, e := range set.Endpoints {
						if e.Workload == w.Name || e.Workload == w.Namespace+"/"+w.Name {
							return nil
						}
					}
				}
				return fmt.Errorf("%s has no endpoint, its state is %s", w.Name, w.State)
			}
		}
		return fmt.Errorf("not among %d workloads", len(status.Workloads))
	})
}

func (m *mesh) status() httpapi.Status {
	m.t.Helper()
	return decode[httpapi.Status](m.t, m.ok(m.cli("status", "-o", "json")))
}

func (m *mesh) endpoints() []httpapi.EndpointSet {
	m.t.Helper()
	return decode[[]httpapi.EndpointSet](m.t, m.ok(m.cli("endpoints", "-o", "json")))
}

// instances answers how many endpoints "service.namespace:port" has.
func (m *mesh) instances(cluster string) int {
	m.t.Helper()
	for _, s := range m.endpoints() {
		if s.Cluster == cluster {
			return len(s.Endpoints)
		}
	}
	return 0
}

// apply stores YAML and waits until every proxy enforces it.
func (m *mesh) apply(yaml string) {
	m.t.Helper()
	m.ok(m.cliInput(yaml, "apply", "-f", "-", "--wait", "10s"))
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not the JSON that was expected: %v\n%s", err, tail(text))
	}
	return v
}

// freeAddress answers an address of the machine's loopback that nobody listens on. It is below the range that the
// kernel takes for outgoing connections, so that it is still free after a restart.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("found no free port")
	return ""
}

func freePort(t testing.TB) string {
	t.Helper()
	_, port, _ := strings.Cut(freeAddress(t), ":")
	return port
}
