package issuertest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Tree is an authority for tests, as somebody else would make it: a root, and intermediates below it.
type Tree struct {
	t       testing.TB
	Root    *x509.Certificate
	RootKey *ecdsa.PrivateKey
	Chain   []*x509.Certificate // the lowest intermediate first; empty: the root signs
	Key     *ecdsa.PrivateKey   // of what signs
}

// NewTree makes a root for ten hours.
func NewTree(t testing.TB, name string) *Tree {
	x := &Tree{t: t}
	c := authority(name)
	x.Root, x.RootKey = x.issue(c, nil, nil)
	x.Key = x.RootKey
	return x
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(9 * time.Hour)}
}

// issue makes a key and a certificate for it.
func (x *Tree) issue(c, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	x.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		x.t.Fatal(err)
	}
	if parent == nil {
		parent, by = c, key
	}
	return x.sign(c, parent, &key.PublicKey, by), key
}

func (x *Tree) sign(c, parent *x509.Certificate, key crypto.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	x.t.Helper()
	if c.SerialNumber == nil {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			x.t.Fatal(err)
		}
		c.SerialNumber = n
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, by)
	if err != nil {
		x.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		x.t.Fatal(err)
	}
	return out
}

// Middle has a new intermediate sign, directly below the root.
func (x *Tree) Middle(name string, change ...func(*x509.Certificate)) {
	x.Chain, x.Key = nil, x.RootKey
	x.Below(name, change...)
}

// Below has a new intermediate sign, below the one that signs now.
func (x *Tree) Below(name string, change ...func(*x509.Certificate)) {
	c := authority(name)
	for _, f := range change {
		f(c)
	}
	parent := x.Root
	if len(x.Chain) > 0 {
		parent = x.Chain[0]
	}
	cert, key := x.issue(c, parent, x.Key)
	x.Chain, x.Key = append([]*x509.Certificate{cert}, x.Chain...), key
}

// OtherKey takes a key that is not that of the certificate.
func (x *Tree) OtherKey() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		x.t.Fatal(err)
	}
	x.Key = key
}

// WithRootOf answers x with the root of another tree.
func (x *Tree) WithRootOf(other *Tree) *Tree {
	out := *x
	out.Root = other.Root
	return &out
}

// Sign has a certificate signed.
func (x *Tree) Sign(c *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	parent := x.Root
	if len(x.Chain) > 0 {
		parent = x.Chain[0]
	}
	return x.sign(c, parent, key, x.Key)
}

// RootPEM answers the root.
func (x *Tree) RootPEM() []byte { return PEM(x.Root) }

// ChainPEM answers the intermediates, the lowest first.
func (x *Tree) ChainPEM() []byte { return PEM(x.Chain...) }

// KeyPEM answers the key of what signs.
func (x *Tree) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(x.Key)
	if err != nil {
		x.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// PEM answers certificates as text.
func PEM(list ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range list {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer takes everything
	}
	return b.Bytes()
}
