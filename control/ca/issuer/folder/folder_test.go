package folder_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/folder"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/internal/testenv"
)

// clerk serves a folder.
type clerk struct {
	t   *testing.T
	cfg folder.Config

	mu     sync.Mutex
	tree   *issuertest.Tree
	silent bool
}

func newClerk(t *testing.T) *clerk {
	c := &clerk{t: t, cfg: folder.Config{Dir: filepath.Join(t.TempDir(), "requests"), Roots: filepath.Join(t.TempDir(), "roots.pem")}}
	c.rotate()
	return c
}

func (c *clerk) rotate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*x509.Certificate
	if c.tree != nil {
		list = append(list, c.tree.Root)
	}
	c.tree = issuertest.NewTree(c.t, "clerk")
	c.tree.Middle("clerk's intermediate")
	put(c.t, c.cfg.Roots, issuertest.PEM(append(list, c.tree.Root)...))
}

func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (c *clerk) open() *folder.Issuer {
	c.t.Helper()
	i, err := folder.New(c.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return i
}

// requests answers the requests without an answer.
func (c *clerk) requests() (list []string) {
	all, _ := filepath.Glob(filepath.Join(c.cfg.Dir, "*.csr")) // the pattern is good
	for _, path := range all {
		if _, err := os.Stat(strings.TrimSuffix(path, ".csr") + ".crt"); err != nil {
			list = append(list, path)
		}
	}
	return list
}

// work serves until the test ends.
func (c *clerk) work() {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	c.t.Cleanup(func() { stop(); done.Wait() })
	done.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond) // poll
			c.mu.Lock()
			for _, path := range c.requests() {
				if !c.silent {
					c.sign(path)
				}
			}
			c.mu.Unlock()
		}
	})
}

func (c *clerk) sign(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return // removed meanwhile
	}
	block, _ := pem.Decode(text)
	if block == nil {
		c.t.Errorf("%s is no PEM", path)
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		c.t.Error(err)
		return
	}
	leaf := ca.LeafTemplate(issuertest.ID("x"), time.Now(), time.Hour)
	leaf.URIs = csr.URIs
	put(c.t, strings.TrimSuffix(path, ".csr")+".crt", issuertest.PEM(append([]*x509.Certificate{c.tree.Sign(leaf, csr.PublicKey)}, c.tree.Chain...)...))
}

func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Rig {
		c := newClerk(t)
		c.work()
		return issuertest.Rig{Issuer: c.open(), Rotate: func(context.Context) { c.rotate() }, Away: func() {
			c.mu.Lock()
			c.silent = true
			c.mu.Unlock()
		}}
	})
}

// short answers a context that is over soon.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// TestUnanswered: a request that nobody answers is asked about again as the same one, is told of with its file, and is there for
// cert-manager too.
func TestUnanswered(t *testing.T) {
	c := newClerk(t)
	i := c.open()
	r, _ := issuertest.Request(t, "cart")
	for range 2 {
		if _, err := i.Sign(short(t), r); err == nil || !strings.Contains(err.Error(), "not answered") {
			t.Fatalf("%v", err)
		}
	}
	list := c.requests()
	if len(list) != 1 {
		t.Fatalf("requests %v", list)
	}
	if w := i.Warnings(time.Now()); len(w) != 0 {
		t.Errorf("told at once: %+v", w)
	}
	if w := i.Warnings(time.Now().Add(time.Minute)); len(w) != 1 || !strings.Contains(w[0].Message, filepath.Base(list[0])) || !w[0].First {
		t.Errorf("warnings %+v", w)
	}
	text, err := os.ReadFile(strings.TrimSuffix(list[0], ".csr") + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		APIVersion, Kind string
		Metadata         struct {
			Name        string
			Annotations map[string]string
		}
		Spec struct {
			Request, Duration string
			IsCA              bool
			Usages            []string
			IssuerRef         map[string]string
		}
	}
	if err := yaml.UnmarshalStrict(text, &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	request, err := base64.StdEncoding.DecodeString(m.Spec.Request)
	csr, rerr := os.ReadFile(list[0])
	if err != nil || rerr != nil || !bytes.Equal(request, csr) || m.Kind != "CertificateRequest" || m.Spec.Duration != "1h0m0s" || m.Metadata.Annotations["tulle.dev/spiffe-id"] != r.ID.String() {
		t.Errorf("%+v", m)
	}
	c.sign(list[0])
	if issued, err := i.Sign(t.Context(), r); err != nil || len(issued.Chain) != 2 {
		t.Errorf("answered: %v", err)
	}
	if w := i.Warnings(time.Now().Add(time.Minute)); len(w) != 0 {
		t.Errorf("warnings %+v", w)
	}
	if _, err := c.open().Sign(t.Context(), r); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestBad: an answer that is no good is put aside and said to be so; a refusal is handed on.
func TestBad(t *testing.T) {
	c := newClerk(t)
	i := c.open()
	r, _ := issuertest.Request(t, "cart")
	bank, _ := issuertest.Request(t, "bank")
	for _, r := range []issuer.Request{r, bank} {
		if _, err := i.Sign(short(t), r); err == nil {
			t.Fatal("signed by nobody")
		}
	}
	list := c.requests() // bank, cart: in the order of their names
	c.sign(list[0])
	crt := strings.TrimSuffix(list[1], ".csr") + ".crt"
	if err := os.Rename(strings.TrimSuffix(list[0], ".csr")+".crt", crt); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(crt, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Sign(t.Context(), r); err == nil || !strings.Contains(err.Error(), "another key") || !strings.Contains(err.Error(), ".bad") {
		t.Errorf("another's certificate: %v", err)
	}
	c.sign(list[1])
	if _, err := i.Sign(t.Context(), r); err != nil {
		t.Errorf("a good one after a bad one: %v", err)
	}
	put(t, strings.TrimSuffix(list[0], ".csr")+".refused", []byte("not\nin my house\n"))
	if _, err := i.Sign(t.Context(), bank); err == nil || !strings.Contains(err.Error(), "it was refused: not in my house") {
		t.Errorf("%v", err)
	}
}

// TestBounded: no more than a thousand requests wait.
func TestBounded(t *testing.T) {
	c := newClerk(t)
	i := c.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err error
	for n := range 1001 {
		r, _ := issuertest.Request(t, fmt.Sprintf("cart-%d", n))
		_, err = i.Sign(ctx, r)
	}
	if err == nil || !strings.Contains(err.Error(), "1000 requests wait") {
		t.Errorf("%v", err)
	}
	if n := len(c.requests()); n != 1000 {
		t.Errorf("%d requests", n)
	}
}

// TestOpenSSL: the commands of docs/guides/issuers.md serve a folder.
func TestOpenSSL(t *testing.T) {
	testenv.NeedProgram(t, "openssl", "openssl")
	dir := t.TempDir()
	guide, err := os.ReadFile("../../../../docs/guides/issuers.md")
	if err != nil {
		t.Fatal(err)
	}
	script := func(name string) string {
		_, rest, ok := strings.Cut(string(guide), "<!-- "+name+" -->\n```sh\n")
		text, _, ended := strings.Cut(rest, "```")
		if !ok || !ended {
			t.Fatalf("docs/guides/issuers.md has no script %q", name)
		}
		return text
	}
	run := func(name string) {
		t.Helper()
		cmd := exec.Command("sh", "-eu", "-c", script(name))
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("make a CA")
	c := &clerk{t: t, cfg: folder.Config{Dir: filepath.Join(dir, "requests"), Roots: filepath.Join(dir, "root.pem")}}
	i := c.open()
	r, _ := issuertest.Request(t, "cart")
	r.TTL = issuer.Ask(24 * time.Hour)
	if _, err := i.Sign(short(t), r); err == nil {
		t.Fatal("signed by nobody")
	}
	run("sign what waits")
	issued, err := i.Sign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := i.Roots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Now = time.Now()
	if _, _, err := issuer.Check(issued, r, roots); err != nil {
		t.Error(err)
	}
}
