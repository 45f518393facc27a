//go:build e2e

package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/vault/vaulttest"
)

// put writes a file in one step.
func (m *mesh) put(name string, text []byte) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// ownRoot answers the root of the mesh's own authority.
func (m *mesh) ownRoot() *x509.Certificate {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.data, "ca", "root.pem"))
	if err != nil {
		m.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		m.t.Fatalf("no certificate: %s", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// below waits until the chains of n workloads all lead to a root, which is the only one that is believed.
func (m *mesh) below(root *x509.Certificate, n int, issuer string) {
	m.t.Helper()
	eventually(m.t, 3*patience, "every workload is below "+root.Subject.CommonName, func() error {
		r := m.certs()
		if len(r.Workloads) != n || !strings.Contains(r.Issuer, issuer) || r.Rotation.Phase != ca.Steady {
			return fmt.Errorf("%d workloads, issuer %s, rotation %+v, alarms %+v", len(r.Workloads), r.Issuer, r.Rotation, r.Alarms)
		}
		for _, w := range r.Workloads {
			if w.Chain[0].Serial != root.SerialNumber.Text(16) {
				return fmt.Errorf("%s: %+v", w.Workload, w.Chain)
			}
		}
		return nil
	})
}

// TestIssuers: a mesh goes over from its own authority to an intermediate in files, whose root is then replaced, and back,
// under load with a handshake for every request of one of the callers; no request fails. An issuer that is away is an alarm.
func TestIssuers(t *testing.T) {
	short := []string{"--identity-lifetime", "6s"}
	m := newMesh(t, short...)
	p := m.run([]string{"--service", "httpbin", "--port", "8080", "--port", "raw=8081:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	kept := m.load(nil, "http://httpbin:8080/get")
	fresh := m.load([]string{"-close"}, "http://httpbin:8081/get")
	domain, ours := m.certs().TrustDomain, m.ownRoot()

	files := func() *x509.Certificate {
		t.Helper()
		tree := issuertest.NewTree(t, fmt.Sprint("root of ", time.Now().UnixNano()))
		tree.Middle("intermediate", func(c *x509.Certificate) {
			c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{domain}, true
		})
		m.put("roots.pem", tree.RootPEM())
		m.put("key.pem", tree.KeyPEM()) // in between the files do not fit, and are told of
		m.put("intermediate.pem", tree.ChainPEM())
		return tree.Root
	}
	goOver := func(flags ...string) {
		t.Helper()
		m.flags = append(append([]string{}, short...), flags...)
		m.control.killAll()
		m.up()
	}
	first := files()
	goOver("--issuer", "pem", "--issuer-cert", filepath.Join(m.dir, "intermediate.pem"), "--issuer-key", filepath.Join(m.dir, "key.pem"), "--issuer-roots", filepath.Join(m.dir, "roots.pem"))
	m.below(first, 3, "intermediate.pem")
	second := files()
	m.below(second, 3, "intermediate.pem")
	if s := m.ok(m.cli("cert")); !strings.Contains(s, "issued by the intermediate in ") {
		t.Errorf("tulle cert: %s", s)
	}
	if r := m.cli("cert", "rotate", "--root"); r.code == 0 || !strings.Contains(r.stderr, "replaced at the issuer") {
		t.Errorf("rotating what is not ours: %s", r)
	}
	goOver() // back to its own
	m.below(ours, 3, "mesh's own authority")
	goOver()
	m.ok(m.cli("cert", "rotate", "--root"))
	fresh.more(100)
	if c := fresh.finish(); c.Failed > 0 || c.Opened != c.OK {
		t.Errorf("%d of %d failed: %v", c.Failed, c.OK, c.Errors)
	}
	kept.flawless()
}

// TestVault: workloads of a mesh whose issuer is Vault (a fake of its API) call each other; a name that its role does not allow is told with what
// to do, and a sealed Vault is an alarm.
func TestVault(t *testing.T) {
	v := vaulttest.New(t)
	v.Allow("spiffe://" + issuertest.TrustDomain + "/ns/*")
	dir := tempDir(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	m := newMesh(t, "--trust-domain", issuertest.TrustDomain, "--identity-lifetime", "10s", "--issuer", "vault", "--issuer-address", v.URL, "--issuer-role", "mesh",
		"--issuer-ca", write("ca.pem", string(v.ServerCA())), "--issuer-role-id-file", write("role", v.RoleID), "--issuer-secret-id-file", write("secret", v.SecretID))
	m.httpbin()
	if got := m.curl("-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get"); got != "200" {
		t.Errorf("answered %s", got)
	}
	v.Seal(true)
	eventually(t, patience, "an alarm", func() error {
		for _, a := range m.certs().Alarms {
			if strings.Contains(a.Message, "Vault is sealed") && strings.Contains(a.Message, v.URL) {
				return nil
			}
		}
		return errors.New("there is none")
	})
	v.Seal(false)
	eventually(t, patience, "the alarm is over", func() error {
		if a := m.certs().Alarms; len(a) > 0 {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	if log := m.control.stderr(); strings.Contains(log, v.SecretID) || strings.Contains(log, "hvs.") {
		t.Errorf("a secret is in the log: %s", log)
	}
}
