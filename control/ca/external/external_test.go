package external_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/external"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/own"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// fake is an issuer that does what a test says.
type fake struct {
	mu    sync.Mutex
	tree  *issuertest.Tree // that signs
	roots []*x509.Certificate
	fails []error // of the next calls of Sign
	calls int
	leaf  func(*x509.Certificate) // what becomes of a leaf
	other *ecdsa.PrivateKey       // that is signed instead
}

func (f *fake) Name() string { return "fake" }
func (f *fake) Close()       {}

func (f *fake) Roots(context.Context) ([]*x509.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.roots) == 0 {
		return nil, &issuer.Error{Issuer: "fake", What: "roots", Err: errors.New("away"), Again: false}
	}
	return f.roots, nil
}

func (f *fake) Sign(_ context.Context, r issuer.Request) (*ca.Issued, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if len(f.fails) > 0 {
		err := f.fails[0]
		f.fails = f.fails[1:]
		return nil, err
	}
	req, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	c := ca.LeafTemplate(r.ID, r.Now, r.TTL)
	if f.leaf != nil {
		f.leaf(c)
	}
	key := req.PublicKey
	if f.other != nil {
		key = &f.other.PublicKey
	}
	return &ca.Issued{Chain: append([][]byte{f.tree.Sign(c, key).Raw}, issuer.Chain(f.tree.Chain)...)}, nil
}

// set changes what the fake does.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// rig is an authority with a fake issuer and a clock of its own.
type rig struct {
	*external.Authority
	t    *testing.T
	fake *fake
	cfg  external.Config
	now  time.Time
}

func newRig(t *testing.T, before issuer.Issuer) *rig {
	tree := issuertest.NewTree(t, "first")
	tree.Middle("middle")
	r := &rig{t: t, now: time.Now().Truncate(time.Second), fake: &fake{tree: tree, roots: []*x509.Certificate{tree.Root}}}
	r.cfg = external.Config{Issuer: r.fake, Dir: filepath.Join(t.TempDir(), "issuer"), TrustDomain: issuertest.TrustDomain, Leaf: 100 * time.Second, Before: before}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	if r.Authority != nil {
		r.Close()
	}
	var err error
	if r.Authority, err = external.Open(r.t.Context(), r.cfg, r.now); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.Authority.Close)
}

// sign answers the chain of a new certificate.
func (r *rig) sign() ([]*x509.Certificate, error) {
	r.t.Helper()
	req, _ := issuertest.Request(r.t, "cart")
	issued, err := r.Sign(r.t.Context(), req.CSR, req.ID, 0, r.now)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, der := range issued.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			r.t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

func (r *rig) must() []*x509.Certificate {
	r.t.Helper()
	chain, err := r.sign()
	if err != nil {
		r.t.Fatal(err)
	}
	return chain
}

// believed reports whether a chain leads to one of the roots that are believed now.
func (r *rig) believed(chain []*x509.Certificate) error {
	pool := x509.NewCertPool()
	for _, der := range r.RootsDER() {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			r.t.Fatal(err)
		}
		pool.AddCert(c)
	}
	_, err := svid.Verify(chain, pool, r.now, x509.ExtKeyUsageClientAuth)
	return err
}

func (r *rig) step(want ca.Phase, m ca.Standing) {
	r.t.Helper()
	if _, err := r.Step(r.now, m); err != nil {
		r.t.Fatal(err)
	}
	if got := r.Status(r.now, m).Phase; got != want {
		r.t.Fatalf("the phase is %s, want %s", got, want)
	}
}

// TestRotation: a new root is believed, then acknowledged, and only then is anything handed out that leads to it; the old one goes
// when nothing leads there any more. Each stage outlives a restart.
func TestRotation(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		r := newRig(t, nil)
		again := func() {
			if restarts {
				r.open()
			}
		}
		old := r.must()
		r.step(ca.Steady, ca.Standing{})
		next := issuertest.NewTree(t, "second")
		next.Middle("middle two")
		first := r.fake.tree
		r.fake.set(func() { r.fake.roots = append(r.fake.roots, next.Root) })
		r.Refresh(t.Context())
		behind := ca.Standing{Behind: []string{"default/cart-1"}}
		r.step(ca.Announced, behind)
		again()
		if len(r.RootsDER()) != 2 {
			t.Fatalf("%d roots are believed", len(r.RootsDER()))
		}
		r.fake.set(func() { r.fake.tree = next }) // it signs below the new root already
		if _, err := r.sign(); !errors.Is(err, external.ErrNotNow) || !strings.Contains(err.Error(), "acknowledged") {
			t.Errorf("not acknowledged: %v", err)
		}
		r.fake.set(func() { r.fake.tree = first })
		r.must()
		r.fake.set(func() { r.fake.tree = next })
		r.step(ca.Announced, behind)
		r.step(ca.Steady, ca.Standing{})
		again()
		fresh := r.must()
		for what, chain := range map[string][]*x509.Certificate{"old": old, "new": fresh} {
			if err := r.believed(chain); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		r.fake.set(func() { r.fake.roots = r.fake.roots[1:] }) // the old one is gone there
		r.Refresh(t.Context())
		r.step(ca.Signing, ca.Standing{})
		again()
		s := r.Status(r.now, ca.Standing{})
		if !s.SignedByOther(old) || s.SignedByOther(fresh) || s.Renew.IsZero() {
			t.Errorf("who shows old certificates is not known: %v %v, renew %v", s.SignedByOther(old), s.SignedByOther(fresh), s.Renew)
		}
		r.now = r.now.Add(99 * time.Second)
		r.step(ca.Signing, ca.Standing{})
		r.now = r.now.Add(time.Second)
		r.step(ca.Signing, ca.Standing{Held: []string{"default/web-1"}})
		r.step(ca.Steady, ca.Standing{})
		again()
		if len(r.RootsDER()) != 1 || r.believed(r.must()) != nil {
			t.Errorf("%d roots are believed", len(r.RootsDER()))
		}
	}
}

// TestSudden: an issuer that changes its root without a word is found out by what it signs; nothing is handed out until the new root is
// believed everywhere.
func TestSudden(t *testing.T) {
	r := newRig(t, nil)
	r.must()
	next := issuertest.NewTree(t, "second")
	r.fake.set(func() { r.fake.tree, r.fake.roots = next, []*x509.Certificate{next.Root} })
	if _, err := r.sign(); !errors.Is(err, external.ErrNotNow) {
		t.Fatalf("below an unknown root: %v", err)
	}
	r.Refresh(t.Context())
	r.step(ca.Announced, ca.Standing{Behind: []string{"x"}})
	if _, err := r.sign(); !errors.Is(err, external.ErrNotNow) {
		t.Fatalf("not acknowledged: %v", err)
	}
	if err := r.Force(); err != nil {
		t.Fatal(err)
	}
	r.step(ca.Signing, ca.Standing{Behind: []string{"x"}})
	if chain := r.must(); len(chain) != 1 || r.believed(chain) != nil {
		t.Errorf("a chain of %d", len(chain))
	}
}

// TestRefused: what an issuer answers is held against the request.
func TestRefused(t *testing.T) {
	id := issuertest.ID("bank").URL()
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   string
	}{
		"another identity": {func(c *x509.Certificate) { c.URIs[0] = id }, "must have spiffe://mesh.example/ns/default/sa/cart alone"},
		"two identities":   {func(c *x509.Certificate) { c.URIs = append(c.URIs, id) }, "alone"},
		"a DNS name":       {func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} }, "alone"},
		"a CA": {func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}, "for signing"},
		"too long":     {func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }, "longer than was asked for"},
		"not begun":    {func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "compare the clocks"},
		"ended":        {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "compare the clocks"},
		"servers only": {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "not good"},
	} {
		r := newRig(t, nil)
		r.fake.leaf = c.change
		if _, err := r.sign(); !errors.Is(err, external.ErrNotNow) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "fake") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := newRig(t, nil)
	var err error
	if r.fake.other, err = svid.NewKey(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.sign(); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
}

// TestRequests: what is wrong with a request is found before the issuer is asked.
func TestRequests(t *testing.T) {
	r := newRig(t, nil)
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := svid.Request(key, spiffe.ID{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Admit(nameless, issuertest.ID("cart")); !errors.Is(err, external.ErrNameless) {
		t.Errorf("without a name: %v", err)
	}
	bank, _ := issuertest.Request(t, "bank")
	broken, _ := issuertest.Request(t, "cart")
	broken.CSR[len(broken.CSR)-1] ^= 1
	elsewhere := issuertest.ID("cart")
	elsewhere.TrustDomain = "elsewhere"
	for what, c := range map[string]struct {
		csr []byte
		id  spiffe.ID
	}{"another's": {bank.CSR, issuertest.ID("cart")}, "broken": {broken.CSR, issuertest.ID("cart")}, "nothing": {nil, issuertest.ID("cart")}, "elsewhere": {bank.CSR, elsewhere}} {
		if _, err := r.Sign(t.Context(), c.csr, c.id, 0, r.now); err == nil || errors.Is(err, external.ErrNotNow) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.fake.calls != 0 {
		t.Errorf("the issuer was asked %d times", r.fake.calls)
	}
}

// TestAgain: what may go well is tried again, a few times; what is refused is not. While it lasts there is a warning.
func TestAgain(t *testing.T) {
	r := newRig(t, nil)
	away := &issuer.Error{Issuer: "fake", What: "sign", Err: errors.New("away"), Again: true}
	r.fake.fails = []error{away, away}
	r.must()
	if r.fake.calls != 3 {
		t.Errorf("%d tries, want 3", r.fake.calls)
	}
	r.fake.calls, r.fake.fails = 0, []error{&issuer.Error{Issuer: "fake", What: "sign", Err: errors.New("403")}}
	if _, err := r.sign(); !errors.Is(err, external.ErrNotNow) || r.fake.calls != 1 {
		t.Errorf("refused: %v after %d tries", err, r.fake.calls)
	}
	r.now = r.now.Add(time.Minute)
	if w := r.Status(r.now, ca.Standing{}).Warnings; len(w) != 1 || !strings.Contains(w[0].Message, "403") || !w[0].First {
		t.Errorf("warnings %+v", w)
	}
	r.must()
	if w := r.Status(r.now, ca.Standing{}).Warnings; len(w) != 0 {
		t.Errorf("warnings %+v", w)
	}
}

// TestAway: a control plane that starts while its issuer is away knows whom the mesh believes.
func TestAway(t *testing.T) {
	r := newRig(t, nil)
	chain := r.must()
	r.fake.set(func() { r.fake.roots = nil })
	r.open()
	if err := r.believed(chain); err != nil {
		t.Error(err)
	}
}

// TestFromOwn: a mesh with an authority of its own goes over to an issuer without a certificate that somebody does not believe.
func TestFromOwn(t *testing.T) {
	c, root := ownCA(t)
	r := newRig(t, own.Issuer{CA: c})
	r.step(ca.Announced, ca.Standing{Behind: []string{"default/cart-1"}})
	old := r.must()
	if !ca.IssuedBy(old[1], root) || r.fake.calls > 0 {
		t.Fatal("the new issuer signs before it is believed")
	}
	r.open()
	r.must()
	r.step(ca.Signing, ca.Standing{})
	fresh := r.must()
	if r.fake.calls != 1 || ca.IssuedBy(fresh[1], root) {
		t.Error("the old authority still signs")
	}
	for _, chain := range [][]*x509.Certificate{old, fresh} {
		if err := r.believed(chain); err != nil {
			t.Error(err)
		}
	}
	if s := r.Status(r.now, ca.Standing{}); !s.SignedByOther(old) || s.SignedByOther(fresh) {
		t.Error("who shows old certificates is not known")
	}
	r.now = r.now.Add(100 * time.Second)
	r.step(ca.Steady, ca.Standing{})
	if len(r.RootsDER()) != 1 || r.believed(fresh[:0:0]) == nil {
		t.Errorf("%d roots are believed", len(r.RootsDER()))
	}
}

// ownCA opens an authority of the mesh's own, and answers its root.
func ownCA(t *testing.T) (*ca.CA, *x509.Certificate) {
	t.Helper()
	c, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: issuertest.TrustDomain, Leaf: 100 * time.Second}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(c.RootsDER()[0])
	if err != nil {
		t.Fatal(err)
	}
	return c, root
}

// keepOwn has the control plane keep a certificate of its own.
func (r *rig) keepOwn() {
	r.t.Helper()
	r.cfg.Self = issuertest.ID("control")
	key, err := svid.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := svid.Request(key, r.cfg.Self)
	if err != nil {
		r.t.Fatal(err)
	}
	issued, err := r.Sign(r.t.Context(), csr, r.cfg.Self, 0, r.now)
	if err == nil {
		err = r.KeepOwn(key, issued.Chain)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestToAnother: a mesh goes over from one issuer to another, and to an authority of its own, without a certificate that somebody does not
// believe: as long as the control plane can prove itself the new root is acknowledged first.
func TestToAnother(t *testing.T) {
	for _, back := range []bool{false, true} {
		r := newRig(t, nil)
		old := r.must()
		r.keepOwn()
		next := issuertest.NewTree(t, "second")
		root := next.Root
		var c *ca.CA
		if back {
			c, root = ownCA(t)
			r.cfg.Issuer = own.Issuer{CA: c}
		} else {
			r.fake.set(func() { r.fake.tree, r.fake.roots = next, []*x509.Certificate{next.Root} })
		}
		r.open()
		behind := ca.Standing{Behind: []string{"default/cart-1"}, Lapses: r.now.Add(80 * time.Second)}
		r.step(ca.Announced, behind)
		if _, err := r.sign(); !errors.Is(err, external.ErrNotNow) {
			t.Fatalf("back %v: signed before the root is acknowledged: %v", back, err)
		}
		if len(r.RootsDER()) != 2 || r.believed(old) != nil {
			t.Fatalf("back %v: %d roots are believed", back, len(r.RootsDER()))
		}
		r.open()
		r.now = r.now.Add(60 * time.Second)
		r.step(ca.Announced, behind)
		r.step(ca.Signing, ca.Standing{})
		chain := r.must()
		if !ca.IssuedBy(chain[len(chain)-1], root) || r.believed(chain) != nil || r.believed(old) != nil {
			t.Errorf("back %v: %v", back, chain[0].Issuer)
		}
		if back {
			if err := r.RotateRoot(r.now); !errors.Is(err, ca.ErrNotOurs) || !strings.Contains(err.Error(), "start the control plane again") {
				t.Errorf("a rotation while it goes back: %v", err)
			}
			if over, err := external.Over(r.cfg.Dir, c.RootsDER()); over || err != nil {
				t.Errorf("over while the old root is believed: %v", err)
			}
		}
		r.now = r.now.Add(100 * time.Second)
		r.step(ca.Steady, ca.Standing{})
		if len(r.RootsDER()) != 1 {
			t.Errorf("back %v: %d roots are believed", back, len(r.RootsDER()))
		}
		if back {
			if over, err := external.Over(r.cfg.Dir, c.RootsDER()); !over || err != nil {
				t.Errorf("not over: %v", err)
			}
		}
	}
}

// TestLapse: who is away is waited for until the first certificate of those who are here is about to end; and where the control plane cannot
// prove itself nobody can acknowledge anything.
func TestLapse(t *testing.T) {
	r := newRig(t, nil)
	r.keepOwn()
	next := issuertest.NewTree(t, "second")
	r.fake.set(func() { r.fake.tree, r.fake.roots = next, []*x509.Certificate{next.Root} })
	r.open()
	behind := ca.Standing{Behind: []string{"default/away-1"}, Lapses: r.now.Add(80 * time.Second)}
	r.step(ca.Announced, behind)
	r.now = r.now.Add(69 * time.Second)
	r.step(ca.Announced, behind)
	r.now = r.now.Add(2 * time.Second)
	r.step(ca.Signing, behind)
	r.must()

	r = newRig(t, nil)
	r.must()
	r.fake.set(func() { r.fake.tree, r.fake.roots = next, []*x509.Certificate{next.Root} })
	r.open()
	if chain := r.must(); r.believed(chain) != nil {
		t.Error("without a certificate of its own the control plane waits for an acknowledgement that cannot come")
	}
}

// TestTrustDomain: it is remembered, and changes only when the one before is an alias.
func TestTrustDomain(t *testing.T) {
	r := newRig(t, nil)
	stage := r.Status(r.now, ca.Standing{}).Stage
	if known, err := external.TrustDomain(r.cfg.Dir); err != nil || known != issuertest.TrustDomain {
		t.Errorf("known: %q, %v", known, err)
	}
	r.cfg.TrustDomain = "new.example"
	if _, err := external.Open(t.Context(), r.cfg, r.now); err == nil || !strings.Contains(err.Error(), "trustDomainAliases") {
		t.Fatalf("another one: %v", err)
	}
	r.cfg.Aliases = []string{issuertest.TrustDomain}
	r.open()
	if s := r.Status(r.now, ca.Standing{}); s.Stage != stage+1 || s.Renew.IsZero() || r.TrustDomain() != "new.example" {
		t.Errorf("after the change: %+v", s)
	}
	if _, err := r.sign(); err == nil {
		t.Error("it signs for the trust domain of before")
	}
	r.cfg.Aliases = nil
	r.open()
}
