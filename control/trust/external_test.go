package trust_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/external"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/pemfile"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// TestSomebodyElseSigns: a keeper of an authority that is not ours says who signs, and raises its alarms; what was made before a
// revocation is out whenever it begins.
func TestSomebodyElseSigns(t *testing.T) {
	dir := t.TempDir()
	cfg := pemfile.Config{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Roots: filepath.Join(dir, "roots.pem"), TrustDomain: issuertest.TrustDomain, Dir: filepath.Join(dir, "kept")}
	tree := issuertest.NewTree(t, "their root")
	tree.Middle("their intermediate", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) }) // of two
	for path, text := range map[string][]byte{cfg.Cert: tree.ChainPEM(), cfg.Key: tree.KeyPEM(), cfg.Roots: tree.RootPEM()} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := pemfile.Open(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, err := external.Open(t.Context(), external.Config{Issuer: files, Dir: filepath.Join(dir, "issuer"), TrustDomain: issuertest.TrustDomain, Leaf: 100 * time.Second}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	store := mem.New(100)
	t.Cleanup(func() { store.Close() })
	var mu sync.Mutex
	now := time.Now()
	var told *svid.Trust
	k, err := trust.Start(t.Context(), trust.Config{CA: a, Store: store, Every: time.Hour,
		Now:    func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		Behind: func() (behind, connected []string) { return nil, []string{"default/cart-1"} }, Announced: func() []string { return nil },
		Changed: func(t *svid.Trust) { told = t }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)

	if r := k.Report(); !strings.Contains(r.Issuer, cfg.Cert) || len(r.Alarms) != 0 || len(r.Authorities) != 1 { // nothing is signed yet
		t.Errorf("at first: %+v", r)
	}
	request, _ := issuertest.Request(t, "cart")
	issued, err := a.Sign(t.Context(), request.CSR, request.ID, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	k.Shown("default/cart-1", 0, request.ID.String(), issued.Chain, now, "")
	r := k.Report()
	if len(r.Authorities) != 2 || len(r.Workloads) != 1 || len(r.Workloads[0].Chain) != 3 || r.Workloads[0].Chain[0].Subject != "their root" || r.Workloads[0].Chain[1].Role != "intermediate" {
		t.Errorf("%+v", r)
	}
	if err := k.Rotate(trust.Rotate{Root: true}); err == nil || !strings.Contains(err.Error(), cfg.Cert) {
		t.Errorf("rotating what is not ours: %v", err)
	}
	if err := os.WriteFile(cfg.Cert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Refresh(t.Context())
	mu.Lock()
	now = now.Add(40 * time.Minute)
	mu.Unlock()
	for _, want := range []string{"intermediate certificate", "files of the issuer"} {
		found := false
		for _, x := range k.Report().Alarms {
			found = found || x.What == want && x.Left > 0 && strings.Contains(x.Message, cfg.Cert)
		}
		if !found {
			t.Errorf("no alarm about the %s: %+v", want, k.Report().Alarms)
		}
	}

	fresh, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	fresh.NotBefore = now.Add(-time.Second) // an issuer may not backdate
	if _, err := k.Revoke(t.Context(), request.ID.String(), "stolen"); err != nil {
		t.Fatal(err)
	}
	if err := told.Refuses(request.ID, []*x509.Certificate{fresh}); err == nil {
		t.Error("a certificate of just before the revocation is believed")
	}
}
