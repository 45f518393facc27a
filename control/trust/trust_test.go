package trust_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

var cart = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "cart"}

// rig is a keeper whose clock stands still, and a mesh that is what a test says.
type rig struct {
	*trust.Keeper
	t     *testing.T
	ca    *ca.CA
	store store.Store

	mu                sync.Mutex
	now               time.Time
	behind, connected []string
	announced         []string
	told              []*svid.Trust
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Now().Truncate(time.Second), store: mem.New(100)}
	t.Cleanup(func() { r.store.Close() })
	var err error
	r.ca, err = ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), Leaf: 100 * time.Second}, r.now)
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	r.Keeper, err = trust.Start(r.t.Context(), trust.Config{CA: r.ca, Store: r.store, Every: time.Hour,
		Now:       func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		Behind:    func() (behind, connected []string) { return r.behind, r.connected },
		Announced: func() []string { return r.announced },
		Changed:   func(t *svid.Trust) { r.told = append(r.told, t) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.Close)
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	r.now = r.now.Add(d)
	r.mu.Unlock()
}

// join has a workload connect and show a new certificate; it answers that.
func (r *rig) join(workload string, starts int, ahead time.Duration, failing string) [][]byte {
	r.t.Helper()
	key, err := svid.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	issued, err := r.ca.SignKey(&key.PublicKey, cart, 0, r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Shown(workload, starts, cart.String(), issued.Chain, r.now.Add(ahead), failing)
	return issued.Chain
}

func (r *rig) phase(want ca.Phase) {
	r.t.Helper()
	r.Look()
	if got := r.Report().Rotation.Phase; got != want {
		r.t.Fatalf("the phase is %s, want %s", got, want)
	}
}

func (r *rig) alarm(what, message string) {
	r.t.Helper()
	for _, a := range r.Report().Alarms {
		if strings.Contains(a.What, what) && strings.Contains(a.Message, message) {
			return
		}
	}
	r.t.Errorf("no alarm about %q with %q: %+v", what, message, r.Report().Alarms)
}

// TestWhoStandsInTheWay: a proxy that has not acknowledged, one that is away with a certificate that is still valid, one that the
// registry waits for after a restart; and who shows a certificate of the old root.
func TestWhoStandsInTheWay(t *testing.T) {
	r := newRig(t)
	r.connected = []string{"default/cart-1"}
	r.join("default/cart-1", 0, 0, "")
	if err := r.Rotate(trust.Rotate{Root: true}); err != nil {
		t.Fatal(err)
	}
	if m := r.told[len(r.told)-1].Model; len(m.Bundles[0].Roots) != 2 {
		t.Errorf("told: %+v", m)
	}
	r.behind = r.connected
	r.phase(ca.Announced)
	r.pass(11 * time.Second)
	r.alarm("rotation", "default/cart-1 has not acknowledged")
	r.behind, r.connected = nil, nil
	r.Left("default/cart-1", 0, false)
	r.phase(ca.Announced)
	r.announced = []string{"default/web-1"}
	if w := r.Report().Rotation.Waits; len(w) != 2 || w[1].Who != "default/web-1" {
		t.Errorf("waits for %+v", w)
	}
	r.announced = nil
	r.pass(90 * time.Second) // the certificate has ended
	r.phase(ca.Signing)
	if m := r.told[len(r.told)-1].Model; m.Renew == 0 {
		t.Error("nobody is asked to renew")
	}

	if err := r.Rotate(trust.Rotate{Rollback: true}); err != nil {
		t.Fatal(err)
	}
	r.connected = []string{"default/cart-1"}
	r.join("default/cart-1", 0, 0, "") // signed by the new root, just before it goes
	r.phase(ca.Announced)
	r.pass(99 * time.Second)
	if w := r.Report().Rotation.Waits; len(w) != 2 || w[0].Who != "default/cart-1" || w[1].End.IsZero() {
		t.Errorf("waits for %+v", w)
	}
	r.join("default/cart-1", 0, 0, "")
	r.phase(ca.Announced)
	r.pass(time.Second)
	r.phase(ca.Steady)
	r.Left("default/cart-1", 0, true)
	if n := len(r.Report().Workloads); n != 0 {
		t.Errorf("%d workloads after a goodbye", n)
	}
}

// TestReplacedProxy: what the proxy before says, or that it is gone, does not count once there is a newer one.
func TestReplacedProxy(t *testing.T) {
	r := newRig(t)
	r.join("default/cart-1", 0, 0, "")
	r.pass(time.Second)
	chain := r.join("default/cart-1", 1, 0, "")
	r.join("default/cart-1", 0, 0, "")
	r.Left("default/cart-1", 0, true)
	w := r.Report().Workloads
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil || len(w) != 1 || !w[0].Connected || w[0].Chain[2].Serial != leaf.SerialNumber.Text(16) {
		t.Errorf("%+v", w)
	}
	r.Shown("default/web-1", 0, "spiffe://tulle.local/ns/default/sa/web", chain, r.now, "")
	r.Shown("default/web-1", 0, cart.String(), [][]byte{[]byte("x")}, r.now, "")
	if n := len(r.Report().Workloads); n != 1 {
		t.Errorf("%d workloads: somebody else's certificate was taken", n)
	}
}

func TestAlarms(t *testing.T) {
	r := newRig(t)
	if a := r.Report().Alarms; len(a) > 0 {
		t.Errorf("at first: %+v", a)
	}
	r.join("default/ahead", 0, time.Minute, "")
	r.alarm("clock of default/ahead", "1m0s ahead")
	r.join("default/failing", 0, 0, "the control plane is away")
	r.alarm("certificate of default/failing", "ends in 1m40s: the control plane is away")
	r.join("default/late", 0, 0, "")
	r.join("default/gone", 0, 0, "")
	r.Left("default/gone", 0, false)
	r.pass(72 * time.Second)
	r.alarm("certificate of default/late", "ends in 28s")
	for _, a := range r.Report().Alarms {
		if strings.Contains(a.What, "gone") {
			t.Errorf("about one that nobody knows any more: %+v", a)
		}
	}
	r.announced = []string{"default/gone"}
	r.alarm("certificate of default/gone", "has not been here for 1m12s")
	if f := r.Report().First; f.Ends.Sub(r.now) != 28*time.Second {
		t.Errorf("the first to end: %+v", f)
	}
	r.announced = nil
	r.pass(300 * 24 * time.Hour)
	r.alarm("intermediate", "ends in")
	r.Look()
	for _, a := range r.Report().Alarms {
		if strings.Contains(a.What, "intermediate") {
			t.Errorf("it was not replaced: %+v", a)
		}
	}
	r.pass(-400 * 24 * time.Hour)
	r.alarm("clock", "begin later")
}

// TestRevoke: who is revoked is refused, by the control plane and in what proxies are told, also after a restart, until he is
// restored; certificates that are made later are not meant.
func TestRevoke(t *testing.T) {
	r := newRig(t)
	parse := func(chain [][]byte) (out []*x509.Certificate) {
		for _, der := range chain {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, c)
		}
		return out
	}
	before := parse(r.join("default/cart-1", 0, 0, ""))
	ctx := t.Context()
	if _, err := r.Revoke(ctx, cart.String(), "stolen"); err != nil {
		t.Fatal(err)
	}
	proxies := func() *svid.Trust { return r.told[len(r.told)-1] }
	if !errors.Is(proxies().Refuses(cart, before), svid.ErrRevoked) || !errors.Is(r.Refuses(cart, nil), svid.ErrRevoked) {
		t.Error("not refused")
	}
	other := cart
	other.ServiceAccount = "web"
	if proxies().Refuses(other, before) != nil || r.Refuses(other, nil) != nil {
		t.Error("somebody else is refused")
	}
	r.Close()
	r.start()
	if !errors.Is(proxies().Refuses(cart, before), svid.ErrRevoked) {
		t.Error("forgotten after a restart")
	}
	r.pass(2 * time.Second)
	after := parse(r.join("default/cart-1", 0, 0, ""))
	if proxies().Refuses(cart, after) != nil {
		t.Error("a certificate that was made later is refused by proxies")
	}
	if list := r.Revoked(); len(list) != 1 || list[0].Reason != "stolen" {
		t.Errorf("%+v", list)
	}
	if was, err := r.Restore(ctx, cart.String()); err != nil || was.Reason != "stolen" || r.Refuses(cart, before) != nil || proxies().Refuses(cart, before) != nil {
		t.Errorf("restored, and refused: %v", err)
	}
	if _, err := r.Restore(ctx, cart.String()); !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), cart.String()+" is not revoked") {
		t.Errorf("restored twice: %v", err)
	}

	serial := before[0].SerialNumber.Text(16)
	if _, err := r.Revoke(ctx, strings.ToUpper(serial), ""); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(proxies().Refuses(cart, before), svid.ErrRevoked) || proxies().Refuses(cart, after) != nil || r.Refuses(cart, nil) != nil {
		t.Error("a serial number: the wrong certificates are refused")
	}
	s := r.ca.Status(r.now, ca.Standing{})
	for what, next := range map[string]string{
		s.Signing.Root.SerialNumber.Text(16): "--root", s.Signing.Intermediate.SerialNumber.Text(16): "--intermediate", "xyz": "neither", "": "neither",
		"spiffe://tulle.local/nobody": "SPIFFE ID", "spiffe://tulle.local/ns/tulle-system/sa/control": "own",
	} {
		if _, err := r.Revoke(ctx, what, ""); !errors.Is(err, trust.ErrInvalid) || !strings.Contains(err.Error(), next) {
			t.Errorf("%q: %v", what, err)
		}
	}
	for i := range 999 {
		if _, err := r.Revoke(ctx, fmt.Sprintf("ab%x", i+16), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Revoke(ctx, "cd", ""); !errors.Is(err, trust.ErrInvalid) || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("one more than there may be: %v", err)
	}
}

// TestShows: of what is revoked it is known who shows it; of what nobody shows, which names come near.
func TestShows(t *testing.T) {
	r := newRig(t)
	chain := r.join("default/cart-1", 0, 0, "")
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	serial := leaf.SerialNumber.Text(16)
	for what, want := range map[string]string{
		cart.String(): "[default/cart-1] []", serial: "[default/cart-1] []", "spiffe://tulle.local/ns/default/sa/crat": "[] [" + cart.String() + "]",
		"spiffe://tulle.local/ns/default/sa/payment": "[] []", serial[:len(serial)-1]: "[] [" + serial + "]", "77": "[] []",
	} {
		done, err := r.Revoke(t.Context(), what, "")
		if err != nil {
			t.Fatal(err)
		}
		workloads, near := r.Shows(done)
		if got := fmt.Sprint(workloads, near); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		list := r.Report().Workloads[0].Chain
		if last := list[len(list)-1]; last.Role != "leaf" || (last.Note == "REVOKED") != (len(workloads) > 0) {
			t.Errorf("%s: the leaf is %+v", what, last)
		}
		if _, err := r.Restore(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}

	// Who has no other certificate comes with the revoked one again and again; he is told of until he comes no more.
	if _, err := r.Revoke(t.Context(), serial, ""); err != nil {
		t.Fatal(err)
	}
	r.Left("default/cart-1", 0, false)
	for range 4 {
		if err := r.Refuses(cart, []*x509.Certificate{leaf}); !errors.Is(err, svid.ErrCertificate) {
			t.Fatal(err)
		}
		if a := r.Report().Alarms; r.Report().Workloads[0].Refused.IsZero() || len(a) > 0 {
			t.Fatalf("at once: %+v", a)
		}
		r.pass(time.Second)
	}
	r.pass(3 * time.Second)
	r.alarm("certificate of default/cart-1", "start it with a new one")
	r.pass(15 * time.Second)
	if a := r.Report().Alarms; len(a) > 0 {
		t.Errorf("he has ended: %+v", a)
	}
}
