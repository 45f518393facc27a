// Package signed is a mesh whose certificates somebody else signs, for the tests that have the real programs of issuers do it: a control
// plane, a server, and a caller that opens a connection for each call and says when one has failed. Imported by tests only. Everything ends
// with the test. Start reading at Up.
package signed

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// Mesh is a running one.
type Mesh struct {
	t    testing.TB
	data string

	Control *subject.Process // 'tulle up'
	Calls   *subject.Process // the caller
}

// Up starts a control plane with its state in a folder, and these flags; identities last for seconds.
func Up(t testing.TB, data string, flags ...string) *Mesh {
	t.Helper()
	m := &Mesh{t: t, data: data}
	local := func() string { return fmt.Sprintf("127.0.0.1:%d", subject.Port(t)) }
	m.Control = subject.Run(t, "tulle up", nil, append([]string{subject.Binary(t, "tulle"), "up", "--data-dir", data, "--http-listen", local(), "--grpc-listen", local()}, flags...)...)
	m.Control.Wait("is ready", says(m.Control, " ready after "))
	return m
}

// Call starts the server "httpbin" and the caller "shell", and waits until it has called.
func (m *Mesh) Call() {
	m.t.Helper()
	m.run("httpbin", "--port", "8080", "--", subject.Binary(m.t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	// One connection of curl, and so one handshake at the least, for each call; -f: anything but 2xx ends it.
	m.Calls = m.run("shell", "--wait-for", "httpbin", "--", "sh", "-c",
		`n=0; while curl -fsS --max-time 10 -o /dev/null http://httpbin:8080/get; do n=$((n+1)); echo called $n; sleep 0.1; done; echo FAILED after $n`)
	m.Calls.Wait("has called", says(m.Calls, "called 3\n"))
}

func (m *Mesh) run(name string, args ...string) *subject.Process {
	m.t.Helper()
	return subject.Run(m.t, name, nil, append([]string{subject.Binary(m.t, "tulle"), "run", "--data-dir", m.data, "--service", name}, args...)...)
}

// Well reports a call that has failed.
func (m *Mesh) Well(when string) {
	m.t.Helper()
	if strings.Contains(m.Calls.Output(), "FAILED") {
		m.t.Errorf("a call failed %s: %s; %s", when, m.Calls.Output(), m.Control.Output())
	}
}

// Secret reports secrets that the control plane has written to its log.
func (m *Mesh) Secret(list ...string) {
	m.t.Helper()
	for _, secret := range list {
		if strings.Contains(m.Control.Output(), secret) {
			m.t.Errorf("a secret is in the log: %s", m.Control.Output())
		}
	}
}

// Tulle runs a command for this mesh and answers what it has printed.
func (m *Mesh) Tulle(args ...string) (string, error) {
	c := exec.Command(subject.Binary(m.t, "tulle"), append(args[:len(args):len(args)], "--data-dir", m.data)...)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+m.data+".state")
	out, err := c.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	return string(out), err
}

// Certs answers what 'tulle cert' says.
func (m *Mesh) Certs() (r trust.Report, err error) {
	out, err := m.Tulle("cert", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	return r, err
}

// Below reports an error unless every chain of the two workloads leads to a root, by an issuer whose name begins so.
func (m *Mesh) Below(root *x509.Certificate, issuer string) func() error {
	return func() error {
		r, err := m.Certs()
		if err != nil {
			return err
		}
		if len(r.Workloads) != 2 || !strings.HasPrefix(r.Issuer, issuer) {
			return fmt.Errorf("%d workloads, issuer %s", len(r.Workloads), r.Issuer)
		}
		for _, w := range r.Workloads {
			if len(w.Chain) < 3 || w.Chain[0].Serial != root.SerialNumber.Text(16) {
				return fmt.Errorf("%s: %+v; alarms %+v; rotation %+v", w.Workload, w.Chain, r.Alarms, r.Rotation)
			}
		}
		return nil
	}
}

// Alarmed reports an error unless there is an alarm that says all of these.
func (m *Mesh) Alarmed(texts ...string) func() error {
	return func() error {
		r, err := m.Certs()
	next:
		for _, a := range r.Alarms {
			for _, text := range texts {
				if !strings.Contains(a.Message, text) {
					continue next
				}
			}
			return nil
		}
		return fmt.Errorf("%v, alarms %+v", err, r.Alarms)
	}
}

func says(p *subject.Process, text string) func() error {
	return func() error {
		if !strings.Contains(p.Output(), text) {
			return errors.New("it has not said so")
		}
		return nil
	}
}

// Within waits longer than subject.Process.Wait.
func Within(t testing.TB, patience time.Duration, what string, ok func() error) {
	t.Helper()
	begin := time.Now()
	for err := ok(); err != nil; err = ok() { // poll
		if time.Since(begin) > patience {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond) // poll
	}
}

// Stop ends an issuer's program by a signal, and waits for it.
func Stop(t testing.TB, p *subject.Process, by os.Signal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if process, err := os.FindProcess(p.PID()); err == nil {
		_ = process.Signal(by) // gone already: End says so
	}
	if _, err := p.End(ctx); err != nil {
		t.Fatal(err)
	}
}
