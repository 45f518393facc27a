package issuer_test

import (
	"bytes"
	"crypto/x509"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
)

// FuzzCheck: whatever an issuer answers, what passes is for the key and the ID of the request, and leads to one of its roots.
func FuzzCheck(f *testing.F) {
	tree := issuertest.NewTree(f, "root")
	tree.Middle("middle")
	r, key := issuertest.Request(f, "cart")
	leaf := ca.LeafTemplate(r.ID, r.Now, r.TTL)
	good := issuertest.PEM(tree.Sign(leaf, &key.PublicKey), tree.Chain[0])
	other := ca.LeafTemplate(issuertest.ID("bank"), r.Now, r.TTL)
	for _, text := range [][]byte{nil, good, issuertest.PEM(tree.Sign(other, &key.PublicKey), tree.Chain[0]), tree.RootPEM(), append(good, tree.RootPEM()...), good[:len(good)-9], tree.KeyPEM()} {
		f.Add(text)
	}
	roots := []*x509.Certificate{tree.Root}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := issuer.Certificates(text)
		if err != nil {
			return
		}
		out, root, err := issuer.Check(&ca.Issued{Chain: issuer.Chain(list)}, r, roots)
		if err != nil {
			return
		}
		c, err := x509.ParseCertificate(out.Chain[0])
		if err != nil || !key.PublicKey.Equal(c.PublicKey) || len(c.URIs) != 1 || c.URIs[0].String() != r.ID.String() || c.IsCA || !root.Equal(tree.Root) || c.NotAfter.After(r.Now.Add(r.TTL+time.Minute*6)) {
			t.Errorf("passed: %v", err)
		}
		if bytes.Equal(out.Chain[len(out.Chain)-1], tree.Root.Raw) {
			t.Error("the root is handed on")
		}
	})
}

// TestAsk: no certificate that passes is valid for longer than a life that was asked for with Ask.
func TestAsk(t *testing.T) {
	tree := issuertest.NewTree(t, "root")
	r, key := issuertest.Request(t, "cart")
	for _, life := range []time.Duration{5 * time.Second, time.Minute, time.Hour, 8 * time.Hour} {
		r.TTL = issuer.Ask(life)
		for valid, good := range map[time.Duration]bool{r.TTL: true, r.TTL + time.Second/2: true, life + time.Second: false} {
			c := ca.LeafTemplate(r.ID, r.Now, valid)
			_, _, err := issuer.Check(&ca.Issued{Chain: [][]byte{tree.Sign(c, &key.PublicKey).Raw}}, r, []*x509.Certificate{tree.Root})
			if good != (err == nil) {
				t.Errorf("life %s, valid for %s: %v", life, valid, err)
			}
		}
	}
}
