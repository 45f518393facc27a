package ca_test

import (
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"crypto/x509"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/internal/testenv"
)

// rig is an authority with lives of seconds and a clock of its own.
type rig struct {
	*ca.CA
	t   *testing.T
	cfg ca.Config
	now time.Time
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Now().Truncate(time.Second), cfg: ca.Config{Dir: filepath.Join(t.TempDir(), "ca"),
		Root: 60 * time.Second, Intermediate: 30 * time.Second, Leaf: 10 * time.Second}}
	r.restart()
	return r
}

func (r *rig) restart() {
	r.t.Helper()
	var err error
	if r.CA, err = ca.Open(r.cfg, r.now); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) sign() *ca.Issued {
	r.t.Helper()
	issued, err := r.Sign(request(r.t, newKey(r.t)), cart, 0, r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	return issued
}

// step takes a step, if it may, and answers the phase.
func (r *rig) step(m ca.Standing) ca.Phase {
	r.t.Helper()
	if _, err := r.Step(r.now, m); err != nil {
		r.t.Fatal(err)
	}
	return r.Status(r.now, m).Phase
}

func (r *rig) want(what string, got, want ca.Phase) {
	r.t.Helper()
	if got != want {
		r.t.Fatalf("%s: the phase is %s, want %s", what, got, want)
	}
}

// believes reports, by go-spiffe, whether whoever knows a bundle believes a chain.
func (r *rig) believes(bundle []byte, issued *ca.Issued) error {
	var chain []*x509.Certificate
	for _, der := range issued.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			r.t.Fatal(err)
		}
		chain = append(chain, c)
	}
	b, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString("tulle.local"), bundle)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _, err = x509svid.Verify(chain, b, x509svid.WithTime(r.now))
	return err
}

// TestStages: a root is replaced stage by stage. Whatever was signed by either is believed by whoever knows the bundle of any
// stage, the one before a step and the one after it; each stage outlives a restart; somebody who does not acknowledge stops it.
func TestStages(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		r := newRig(t)
		again := func() {
			if restarts {
				r.restart()
			}
		}
		first, old := r.RootsPEM(), r.sign()
		r.want("at first", r.step(ca.Standing{}), ca.Steady)
		if err := r.RotateRoot(r.now); err != nil {
			t.Fatal(err)
		}
		again()
		if err := r.RotateRoot(r.now); !errors.Is(err, ca.ErrUnderWay) {
			t.Errorf("a second rotation: %v", err)
		}
		stuck := ca.Standing{Behind: []string{"default/cart-1"}}
		r.want("somebody has not acknowledged", r.step(stuck), ca.Announced)
		if w := r.Status(r.now, stuck).Waits; len(w) != 1 || w[0].Who != "default/cart-1" {
			t.Errorf("waits for %+v", w)
		}
		both := r.RootsPEM()
		if err := r.believes(both, r.sign()); err != nil {
			t.Error(err)
		}
		r.want("all have acknowledged", r.step(ca.Standing{}), ca.Signing)
		again()
		next := r.sign()
		if len(next.Chain) != 3 {
			t.Fatalf("a chain of %d, without the cross-signed root", len(next.Chain))
		}
		newOnly := r.RootsPEM()[:len(r.RootsPEM())-len(first)] // the one that signs comes first
		for what, err := range map[string]error{"old by both": r.believes(both, old), "new by both": r.believes(both, next), "new by the old": r.believes(first, next),
			"new by the new": r.believes(newOnly, next)} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if r.believes(newOnly, old) == nil {
			t.Error("the new root alone believes what the old one has signed")
		}
		opensslVerify(t, first, next)
		opensslVerify(t, newOnly, next)
		r.want("some show old certificates", r.step(ca.Standing{Held: []string{"default/web-1"}}), ca.Signing)
		r.now = r.now.Add(9 * time.Second)
		r.want("old certificates may be valid", r.step(ca.Standing{}), ca.Signing)
		r.now = r.now.Add(time.Second)
		r.want("somebody has not acknowledged that the new one signs", r.step(stuck), ca.Signing)
		r.want("all is renewed", r.step(ca.Standing{}), ca.Steady)
		again()
		if string(r.RootsPEM()) != string(newOnly) {
			t.Error("the old root is still believed")
		}
		if last := r.sign(); len(last.Chain) != 2 || r.believes(newOnly, last) != nil {
			t.Errorf("a chain of %d", len(last.Chain))
		}
		// A join token may pin the old root: what a control plane shows leads from there to the new one.
		shown := &ca.Issued{Chain: append(r.sign().Chain, r.Pinnable()...)}
		if err := r.believes(first, shown); err != nil {
			t.Errorf("by the root of before: %v", err)
		}
		list, err := filepath.Glob(filepath.Join(r.cfg.Dir, "*"))
		if err != nil || len(list) != 5 { // root, key, intermediate, former, state
			t.Errorf("files: %v", list)
		}
	}
}

// opensslVerify holds a chain against a root with OpenSSL.
func opensslVerify(t *testing.T, root []byte, issued *ca.Issued) {
	t.Helper()
	openssl := testenv.NeedProgram(t, "openssl", "openssl")
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var between []byte
	for _, der := range issued.Chain[1:] {
		between = append(between, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Chain[0]})
	out, err := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", write("root", root), "-untrusted", write("between", between), write("leaf", leaf)).CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

// TestRollback: from each stage a rotation goes back, and nothing that was signed loses its belief before its end.
func TestRollback(t *testing.T) {
	r := newRig(t)
	first := string(r.RootsPEM())
	if err := r.Rollback(); !errors.Is(err, ca.ErrNoneToDo) {
		t.Errorf("nothing to take back: %v", err)
	}
	rotate := func() {
		t.Helper()
		if err := r.RotateRoot(r.now); err != nil {
			t.Fatal(err)
		}
	}
	back := func() {
		t.Helper()
		if err := r.Rollback(); err != nil {
			t.Fatal(err)
		}
		r.restart()
	}
	rotate()
	back()
	r.want("before the new one has signed", r.step(ca.Standing{Behind: []string{"x"}}), ca.Steady)
	rotate()
	r.step(ca.Standing{})
	next := r.sign()
	back()
	r.want("the old one signs again", r.step(ca.Standing{}), ca.Announced)
	if issued := r.sign(); len(issued.Chain) != 2 || r.believes([]byte(first), issued) != nil {
		t.Error("the old one does not sign")
	}
	r.now = r.now.Add(9 * time.Second)
	r.want("what the new one signed may be valid", r.step(ca.Standing{}), ca.Announced)
	if err := r.believes(r.RootsPEM(), next); err != nil {
		t.Error(err)
	}
	r.now = r.now.Add(time.Second)
	r.want("some show it", r.step(ca.Standing{Held: []string{"x"}}), ca.Announced)
	r.want("none do", r.step(ca.Standing{}), ca.Steady)
	if string(r.RootsPEM()) != first {
		t.Error("another root than before")
	}
	rotate()
	if err := r.Force(); err != nil {
		t.Fatal(err)
	}
	stuck := ca.Standing{Behind: []string{"x"}, Held: []string{"y"}}
	r.want("forced", r.step(stuck), ca.Signing)
	r.want("once", r.step(stuck), ca.Signing)
	if err := r.Force(); err != nil {
		t.Fatal(err)
	}
	r.want("forced again", r.step(stuck), ca.Steady)
}

// TestByItself: for ten lives of a root, every 100 ms, somebody signs; what was signed is believed until its end by everybody's
// bundle of a second ago, and no chain ends before its leaf.
func TestByItself(t *testing.T) {
	r := newRig(t)
	type kept struct {
		issued *ca.Issued
		made   time.Time
	}
	var alive []kept
	late := [][]byte{r.RootsPEM()}
	phases := map[ca.Phase]int{}
	roots := map[string]bool{}
	for end := r.now.Add(10 * time.Minute); r.now.Before(end); r.now = r.now.Add(100 * time.Millisecond) {
		phases[r.step(ca.Standing{})]++
		roots[string(r.RootsDER()[0])] = true
		if late = append(late, r.RootsPEM()); len(late) > 10 {
			late = late[1:]
		}
		if r.now.Nanosecond() != 0 {
			continue
		}
		i := r.sign()
		if i.NotAfter.Sub(r.now) < 9*time.Second {
			t.Fatalf("a certificate for %s", i.NotAfter.Sub(r.now))
		}
		alive = append(alive, kept{i, r.now})
		for len(alive) > 0 && !r.now.Before(alive[0].issued.NotAfter) {
			alive = alive[1:]
		}
		for _, k := range alive {
			if err := r.believes(late[0], k.issued); err != nil {
				t.Fatalf("made %s ago, known since a second: %v", r.now.Sub(k.made), err)
			}
		}
	}
	if len(roots) < 10 || phases[ca.Signing] == 0 || phases[ca.Announced] == 0 {
		t.Errorf("%d roots, %v", len(roots), phases)
	}
}

// TestNobodyAcknowledges: then the old root signs until shortly before its end; who knows only that one believes the new one's
// signatures all the same, until it ends.
func TestNobodyAcknowledges(t *testing.T) {
	r := newRig(t)
	stuck := ca.Standing{Behind: []string{"x"}}
	old := r.RootsPEM()
	begun := r.now
	for r.step(stuck) != ca.Signing {
		if r.now = r.now.Add(time.Second); r.now.Sub(begun) > time.Minute {
			t.Fatal("the root has ended")
		}
	}
	if left := 60*time.Second - r.now.Sub(begun); left > 15*time.Second || left < 10*time.Second {
		t.Errorf("gone on with %s left", left)
	}
	if err := r.believes(old, r.sign()); err != nil {
		t.Error(err)
	}
}

// TestMend: what is removed while the authority is open is there again, and it is the same; without its key the root signs no
// intermediate, and says so.
func TestMend(t *testing.T) {
	r := newRig(t)
	if err := r.RotateRoot(r.now); err != nil {
		t.Fatal(err)
	}
	if names, err := r.Mend(); len(names) > 0 || err != nil {
		t.Errorf("nothing is missing: %v, %v", names, err)
	}
	roots := string(r.RootsPEM())
	if err := os.RemoveAll(r.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if names, err := r.Mend(); len(names) != 8 || err != nil {
		t.Errorf("mended %v, %v", names, err)
	}
	r.restart()
	if string(r.RootsPEM()) != roots {
		t.Error("another authority")
	}
	for _, name := range []string{"intermediate.pem", "root-key.pem"} {
		if err := os.Remove(filepath.Join(r.cfg.Dir, name)); err != nil {
			t.Fatal(err)
		}
		r.restart()
		if err := r.believes([]byte(roots), r.sign()); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if err := r.RotateIntermediate(r.now); !errors.Is(err, ca.ErrNoRootKey) {
		t.Errorf("a new intermediate without the root's key: %v", err)
	}
	r.now = r.now.Add(31 * time.Second)
	if _, err := r.Sign(request(t, newKey(t)), cart, 0, r.now); !errors.Is(err, ca.ErrNoRootKey) || !strings.Contains(err.Error(), "restore") {
		t.Errorf("signed by an intermediate that has ended: %v", err)
	}
}

func TestLifetimes(t *testing.T) {
	for _, c := range []ca.Config{{Leaf: time.Second}, {Leaf: time.Minute, Intermediate: 2 * time.Minute}, {Leaf: time.Minute, Intermediate: time.Hour, Root: time.Hour}} {
		c.Dir = filepath.Join(t.TempDir(), "ca")
		if _, err := ca.Open(c, time.Now()); err == nil {
			t.Errorf("opened with %+v", c)
		}
	}
}
