//go:build conformance && vault

package vault

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// mesh is a control plane whose issuer is Vault.
type mesh struct {
	t    *testing.T
	data string
	up   *subject.Process
}

func newMesh(s *server) *mesh {
	s.t.Helper()
	m := &mesh{t: s.t, data: filepath.Join(s.dir, "d")}
	local := func() string { return fmt.Sprintf("127.0.0.1:%d", subject.Port(s.t)) }
	m.up = subject.Run(s.t, "tulle up", nil, subject.Binary(s.t, "tulle"), "up", "--data-dir", m.data, "--http-listen", local(), "--grpc-listen", local(),
		"--trust-domain", issuertest.TrustDomain, "--identity-lifetime", "20s", "--issuer", "vault", "--issuer-address", s.cfg.Address, "--issuer-ca", s.cfg.CAFile,
		"--issuer-roots", s.write("roots.pem", string(issuertest.PEM(s.current()))), "--issuer-role", "mesh", "--issuer-role-id-file", s.role.RoleIDFile, "--issuer-secret-id-file", s.role.SecretIDFile)
	m.up.Wait("is ready", says(m.up, " ready after "))
	return m
}

func says(p *subject.Process, text string) func() error {
	return func() error {
		if !strings.Contains(p.Output(), text) {
			return errors.New("it has not said so")
		}
		return nil
	}
}

func (m *mesh) run(name string, args ...string) *subject.Process {
	m.t.Helper()
	return subject.Run(m.t, name, nil, append([]string{subject.Binary(m.t, "tulle"), "run", "--data-dir", m.data, "--service", name}, args...)...)
}

func (m *mesh) tulle(args ...string) (string, error) {
	c := exec.Command(subject.Binary(m.t, "tulle"), append(args[:len(args):len(args)], "--data-dir", m.data)...)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+m.data+".state")
	out, err := c.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	return string(out), err
}

func (m *mesh) certs() (r trust.Report, err error) {
	out, err := m.tulle("cert", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	return r, err
}

// below reports an error unless every chain of two workloads leads to a root.
func (m *mesh) below(root *x509.Certificate) func() error {
	return func() error {
		r, err := m.certs()
		if err != nil {
			return err
		}
		if len(r.Workloads) != 2 || !strings.HasPrefix(r.Issuer, "Vault at ") {
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

// believes reports an error unless a root is among the mesh's authorities.
func (m *mesh) believes(root *x509.Certificate) func() error {
	return func() error {
		r, err := m.certs()
		for _, c := range r.Authorities {
			if c.Serial == root.SerialNumber.Text(16) {
				return nil
			}
		}
		return fmt.Errorf("%v, authorities %+v", err, r.Authorities)
	}
}

// within waits longer than Process.Wait.
func within(t *testing.T, patience time.Duration, what string, ok func() error) {
	t.Helper()
	begin := time.Now()
	for err := ok(); err != nil; err = ok() { // poll
		if time.Since(begin) > patience {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond) // poll
	}
}

// TestMesh: workloads of a mesh get their identities from Vault, by AppRole, and call each other over mTLS, a connection for each call; the
// mount goes over to a new root meanwhile, twice, Vault is sealed for a while, and is gone in the end, and no call fails.
func TestMesh(t *testing.T) {
	s := newServer(t)
	m := newMesh(s)
	m.run("httpbin", "--port", "8080", "--", subject.Binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	// One connection of curl, and so one handshake at the least, for each call; -f: anything but 2xx ends it.
	loop := m.run("shell", "--wait-for", "httpbin", "--", "sh", "-c",
		`n=0; while curl -fsS --max-time 10 -o /dev/null http://httpbin:8080/get; do n=$((n+1)); echo called $n; sleep 0.1; done; echo FAILED after $n`)
	loop.Wait("has called", says(loop, "called 3\n"))
	m.up.Wait("has workloads below Vault's root", m.below(s.current()))
	if out, err := m.tulle("cert"); err != nil || !strings.Contains(out, "issued by Vault at "+s.cfg.Address) {
		t.Errorf("tulle cert: %v: %s", err, out)
	}
	well := func(when string) {
		t.Helper()
		if strings.Contains(loop.Output(), "FAILED") {
			t.Errorf("a call failed %s: %s; %s", when, loop.Output(), m.up.Output())
		}
	}

	// As the guide has it: the file has the next root first.
	first := s.current()
	next := s.prepare("4380h")
	s.write("roots.pem", string(issuertest.PEM(first, s.current())))
	m.up.Wait("believes the next root", m.believes(s.current()))
	s.choose(next)
	within(t, 2*time.Minute, "workloads come below the next root", m.below(s.current()))
	well("while the root was replaced")

	// And without: the mount signs below a root that nobody has heard of, and the one before is not listed any more.
	s.write("roots.pem", string(issuertest.PEM(first)))
	s.rotate()
	within(t, 2*time.Minute, "workloads come below the new root", m.below(s.current()))
	well("while the root was replaced at once")

	s.seal()
	m.up.Wait("raises an alarm", m.alarmed(s, "Vault is sealed: unseal it"))
	s.unseal()
	within(t, time.Minute, "the alarm ends", func() error {
		if m.alarmed(s, "sealed")() == nil {
			return errors.New("it is still there")
		}
		return nil
	})
	well("while Vault was sealed")

	s.stop()
	m.up.Wait("raises an alarm", m.alarmed(s, "is it up"))
	well("while Vault was away")
	for _, secret := range append(s.secrets, "hvs.") {
		if strings.Contains(m.up.Output(), secret) {
			t.Errorf("a secret is in the log: %s", m.up.Output())
		}
	}
}

// alarmed reports an error unless there is an alarm about Vault that says so.
func (m *mesh) alarmed(s *server, text string) func() error {
	return func() error {
		r, err := m.certs()
		for _, a := range r.Alarms {
			if strings.Contains(a.Message, "Vault at "+s.cfg.Address) && strings.Contains(a.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("%v, alarms %+v", err, r.Alarms)
	}
}
