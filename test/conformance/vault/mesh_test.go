//go:build conformance && vault

package vault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/test/conformance/signed"
)

func newMesh(s *server) *signed.Mesh {
	s.t.Helper()
	return signed.Up(s.t, filepath.Join(s.dir, "d"), "--trust-domain", issuertest.TrustDomain, "--identity-lifetime", "20s", "--issuer", "vault", "--issuer-address", s.cfg.Address,
		"--issuer-ca", s.cfg.CAFile, "--issuer-roots", s.write("roots.pem", string(issuertest.PEM(s.current()))), "--issuer-role", "mesh",
		"--issuer-role-id-file", s.role.RoleIDFile, "--issuer-secret-id-file", s.role.SecretIDFile)
}

// believes reports an error unless a root is among the mesh's authorities.
func believes(m *signed.Mesh, root *x509.Certificate) func() error {
	return func() error {
		r, err := m.Certs()
		for _, c := range r.Authorities {
			if c.Serial == root.SerialNumber.Text(16) {
				return nil
			}
		}
		return fmt.Errorf("%v, authorities %+v", err, r.Authorities)
	}
}

// TestMesh: workloads of a mesh get their identities from Vault, by AppRole, and call each other over mTLS, a connection for each call; the
// mount goes over to a new root meanwhile, twice, Vault is sealed for a while, and is gone in the end, and no call fails.
func TestMesh(t *testing.T) {
	s := newServer(t)
	m := newMesh(s)
	m.Call()
	below := func() func() error { return m.Below(s.current(), "Vault at ") }
	at := "Vault at " + s.cfg.Address
	m.Control.Wait("has workloads below Vault's root", below())
	if out, err := m.Tulle("cert"); err != nil || !strings.Contains(out, "issued by "+at) {
		t.Errorf("tulle cert: %v: %s", err, out)
	}

	// As the guide has it: the file has the next root first.
	first := s.current()
	next := s.prepare("4380h")
	s.write("roots.pem", string(issuertest.PEM(first, s.current())))
	m.Control.Wait("believes the next root", believes(m, s.current()))
	s.choose(next)
	signed.Within(t, 2*time.Minute, "workloads come below the next root", below())
	m.Well("while the root was replaced")

	// And without: the mount signs below a root that nobody has heard of, and the one before is not listed any more.
	s.write("roots.pem", string(issuertest.PEM(first)))
	s.rotate()
	signed.Within(t, 2*time.Minute, "workloads come below the new root", below())
	m.Well("while the root was replaced at once")

	s.seal()
	m.Control.Wait("raises an alarm", m.Alarmed(at, "Vault is sealed: unseal it"))
	s.unseal()
	signed.Within(t, time.Minute, "the alarm ends", func() error {
		if m.Alarmed(at, "sealed")() == nil {
			return errors.New("it is still there")
		}
		return nil
	})
	m.Well("while Vault was sealed")

	s.stop()
	m.Control.Wait("raises an alarm", m.Alarmed(at, "is it up"))
	m.Well("while Vault was away")
	m.Secret(append(s.secrets, "hvs.")...)
}
