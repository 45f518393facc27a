package pemfile_test

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/pemfile"
)

// files is a folder with the files of an issuer.
type files struct {
	t   *testing.T
	dir string
	cfg pemfile.Config
}

func newFiles(t *testing.T) *files {
	dir := t.TempDir()
	return &files{t: t, dir: dir, cfg: pemfile.Config{Cert: filepath.Join(dir, "intermediate.pem"), Key: filepath.Join(dir, "key.pem"), Roots: filepath.Join(dir, "roots.pem"),
		TrustDomain: issuertest.TrustDomain, Dir: filepath.Join(dir, "kept")}}
}

// write writes the files: of an intermediate below a new root, unless change makes it something else.
func (f *files) write(change func(*issuertest.Tree)) *issuertest.Tree {
	f.t.Helper()
	tree := issuertest.NewTree(f.t, "root")
	tree.Middle("intermediate")
	if change != nil {
		change(tree)
	}
	f.put(f.cfg.Roots, tree.RootPEM())
	f.put(f.cfg.Cert, tree.ChainPEM())
	f.put(f.cfg.Key, tree.KeyPEM())
	return tree
}

func (f *files) put(path string, text []byte) {
	f.t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) open() *pemfile.Issuer {
	f.t.Helper()
	i, err := pemfile.Open(f.cfg, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	return i
}

func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Rig {
		f := newFiles(t)
		f.write(nil)
		return issuertest.Rig{Issuer: f.open(), Rotate: func(context.Context) { f.write(nil) }}
	})
}

// TestRefuses: each mistake is told with the file that it is in, and what to do.
func TestRefuses(t *testing.T) {
	hour := time.Hour
	for name, c := range map[string]struct {
		change func(*issuertest.Tree)
		file   string
		want   string
	}{
		"no CA": {func(x *issuertest.Tree) { x.Middle("x", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 }) }, "intermediate.pem", "no CA"},
		"may not sign": {func(x *issuertest.Tree) {
			x.Middle("x", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
		}, "intermediate.pem", "key usage"},
		"another key": {func(x *issuertest.Tree) { x.OtherKey() }, "key.pem", "not that of the first certificate"},
		"ended": {func(x *issuertest.Tree) {
			x.Middle("x", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-hour) })
		}, "intermediate.pem", "has ended"},
		"yet to begin": {func(x *issuertest.Tree) {
			x.Middle("x", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(hour) })
		}, "intermediate.pem", "begins at"},
		"another domain": {func(x *issuertest.Tree) {
			x.Middle("x", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"other.example"} })
		}, "intermediate.pem", "name constraints do not allow the trust domain mesh.example: start with the --trust-domain that"},
		"path length": {func(x *issuertest.Tree) {
			x.Middle("above", func(c *x509.Certificate) { c.MaxPathLenZero = true })
			x.Below("x")
		}, "intermediate.pem", "path length"},
		"another root": {func(x *issuertest.Tree) { *x = *x.WithRootOf(issuertest.NewTree(t, "other")) }, "intermediate.pem", "leads to no root"},
		"servers only": {func(x *issuertest.Tree) {
			x.Middle("x", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		}, "intermediate.pem", "extended key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			f.write(c.change)
			_, err := pemfile.Open(f.cfg, time.Now())
			if err == nil || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}
	f := newFiles(t)
	f.write(nil)
	if err := os.Chmod(f.cfg.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := pemfile.Open(f.cfg, time.Now()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
}

// signs answers the root that what is signed now leads to, when every proxy believes below.
func signs(t *testing.T, i *pemfile.Issuer, below ...*x509.Certificate) *x509.Certificate {
	t.Helper()
	r, _ := issuertest.Request(t, "cart")
	r.Below = below
	issued, err := i.Sign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := i.Roots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, root, err := issuer.Check(issued, r, roots)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestReplaced: new files sign only when their root is believed everywhere, also when that is after a restart; files that are no good
// change nothing and are told of.
func TestReplaced(t *testing.T) {
	f := newFiles(t)
	old := f.write(nil).Root
	i := f.open()
	if !signs(t, i, old).Equal(old) {
		t.Fatal("another root at first")
	}
	next := f.write(nil).Root
	for range 2 {
		if !signs(t, i, old).Equal(old) {
			t.Error("the new files sign although their root is not believed")
		}
		if roots, err := i.Roots(t.Context()); err != nil || !issuer.Holds(roots, next) || !issuer.Holds(roots, old) {
			t.Errorf("roots %v, %v", roots, err)
		}
		i = f.open() // a restart
	}
	if !signs(t, i, old, next).Equal(next) {
		t.Error("the old files sign although the new root is believed")
	}
	if roots, err := i.Roots(t.Context()); err != nil || issuer.Holds(roots, old) {
		t.Errorf("the old root is still wanted: %v, %v", roots, err)
	}
	if i = f.open(); !signs(t, i, old, next).Equal(next) {
		t.Error("after a restart the old ones sign again")
	}

	f.put(f.cfg.Cert, []byte("nonsense"))
	if !signs(t, i, next).Equal(next) {
		t.Error("nothing signs")
	}
	if w := i.Warnings(time.Now()); len(w) != 1 || !strings.Contains(w[0].Message, f.cfg.Cert) || w[0].Left < time.Hour {
		t.Errorf("warnings %+v", w)
	}
	f.write(nil)
	if signs(t, i, next); len(i.Warnings(time.Now())) != 0 {
		t.Errorf("warnings %+v", i.Warnings(time.Now()))
	}
}

// TestSameRoot: a new intermediate below the same root signs at once.
func TestSameRoot(t *testing.T) {
	f := newFiles(t)
	tree := f.write(nil)
	i := f.open()
	signs(t, i, tree.Root)
	tree.Middle("another")
	f.put(f.cfg.Cert, tree.ChainPEM())
	f.put(f.cfg.Key, tree.KeyPEM())
	r, _ := issuertest.Request(t, "cart")
	r.Below = []*x509.Certificate{tree.Root}
	issued, err := i.Sign(t.Context(), r)
	if err != nil || string(issued.Chain[1]) != string(tree.Chain[0].Raw) {
		t.Errorf("the old intermediate signs: %v", err)
	}
}
