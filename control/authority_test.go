package control_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
)

// files writes what the issuer "pem" needs, of a new root.
func files(t *testing.T, dir string) control.Issuer {
	t.Helper()
	tree := issuertest.NewTree(t, "root")
	tree.Middle("intermediate")
	i := control.Issuer{Kind: control.IssuerPEM, Cert: filepath.Join(dir, "intermediate.pem"), Key: filepath.Join(dir, "key.pem"), Roots: filepath.Join(dir, "roots.pem")}
	for path, text := range map[string][]byte{i.Cert: tree.ChainPEM(), i.Key: tree.KeyPEM(), i.Roots: tree.RootPEM()} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// TestIssuerFlags: what an issuer needs is said by the flags that give it.
func TestIssuerFlags(t *testing.T) {
	for _, i := range []control.Issuer{{Kind: control.IssuerPEM}, {Kind: control.IssuerPEM, Cert: "a", Key: "b"}} {
		err := i.Validate()
		for _, flag := range []string{"--issuer-cert", "--issuer-key", "--issuer-roots"} {
			if err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("%+v: %v does not name %s", i, err, flag)
			}
		}
	}
}

// TestOwnCertificateIsKept: what the control plane proves itself with outlives a restart where somebody else signs, also a restart with
// another issuer: otherwise no proxy would believe it, and none could acknowledge the new root.
func TestOwnCertificateIsKept(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "data"))
	kept := filepath.Join(cfg.DataDir, "issuer", "own.pem")
	var first []byte
	for _, i := range []control.Issuer{files(t, t.TempDir()), files(t, t.TempDir()), {}} {
		cfg.Issuer = i
		if err := start(t, cfg).Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(kept)
		if err != nil {
			t.Fatalf("issuer %q: %v", i.Kind, err)
		}
		if st, err := os.Stat(kept); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if first == nil {
			first = text
		}
		if !bytes.Equal(text, first) {
			t.Errorf("issuer %q: it is another one after a restart", i.Kind)
		}
	}
}
