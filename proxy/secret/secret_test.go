package secret_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/secret"
)

// pair makes a certificate and its key.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func bytes(b []byte) model.Material   { return model.Material{Bytes: b} }
func file(name string) model.Material { return model.Material{File: name} }

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nameIn answers the DNS name of a slot's certificate.
func nameIn(s *secret.Slot) string {
	if m := s.Current(); m != nil && m.Certificate != nil {
		return m.Certificate.Leaf.DNSNames[0]
	}
	return ""
}

func TestParse(t *testing.T) {
	cert, key := pair(t, "a")
	_, other := pair(t, "b")
	missing := filepath.Join(t.TempDir(), "none.pem")
	for want, s := range map[string]*model.Secret{
		"":                                  {Certificate: bytes(cert), Key: bytes(key), Roots: bytes(slices.Concat(cert, cert))},
		"without the other":                 {Certificate: bytes(cert)},
		"does not match":                    {Certificate: bytes(cert), Key: bytes(other)},
		"holds neither":                     {},
		"no PEM block of type CERT":         {Roots: bytes(key)},
		"no PEM block of type X509":         {CRL: bytes(cert)},
		`"n": private key: stat ` + missing: {Name: "n", Certificate: bytes(cert), Key: file(missing)},
		"trusted roots in " + missing:       {Roots: file(missing)},
		"trusted roots: x509":               {Roots: bytes(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")}))},
		"revocation list: x509":             {CRL: bytes(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("junk")}))},
	} {
		m, err := secret.Parse(s)
		switch {
		case want == "" && (err != nil || m.Certificate == nil || len(m.Roots) != 2 || m.Pool == nil):
			t.Errorf("%+v, %v", m, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %q", err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "BEGIN") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("an error with material, or of two lines: %v", err)
		}
	}
}

// TestLinks: Kubernetes replaces files by turning one link.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"1", "2"} {
		cert, key := pair(t, v)
		_ = os.Mkdir(filepath.Join(dir, v), 0o700)
		write(t, filepath.Join(dir, v, "tls.crt"), cert)
		write(t, filepath.Join(dir, v, "tls.key"), key)
	}
	turn := func(to string) {
		if err := errors.Join(os.Symlink(to, filepath.Join(dir, "next")), os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	turn("1")
	changed := 0
	s := secret.New(secret.Config{Every: time.Hour, Changed: func() { changed++ }})
	defer s.Close()
	in := model.SecretRef{Inline: &model.Secret{Certificate: file(filepath.Join(dir, "..data/tls.crt")), Key: file(filepath.Join(dir, "..data/tls.key")), WatchDirectory: dir}}
	slot, err := s.Slot(in)
	if err != nil || nameIn(slot) != "1" {
		t.Fatal(nameIn(slot), err)
	}
	s.Check()
	if changed != 0 {
		t.Error("nothing changed, and Changed was called")
	}
	turn("2")
	s.Check()
	if nameIn(slot) != "2" || changed != 1 {
		t.Errorf("%q after the link was turned, Changed %d times", nameIn(slot), changed)
	}
}

// TestWatch: the Store looks by itself.
func TestWatch(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ca.pem")
	one, _ := pair(t, "1")
	two, _ := pair(t, "2")
	write(t, name, one)
	told := make(chan struct{}, 10)
	s := secret.New(secret.Config{Every: time.Millisecond, Changed: func() { told <- struct{}{} }})
	defer s.Close()
	slot, err := s.Slot(model.SecretRef{Inline: &model.Secret{Roots: file(name)}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, two)
	<-told
	for slot.Current().Roots[0].DNSNames[0] != "2" { // poll: the first half of a write may have been seen
		<-told
	}
}

// TestSDS: secrets by name come, change, and stay when a change is wrong.
func TestSDS(t *testing.T) {
	var wanted []string
	var log strings.Builder
	s := secret.New(secret.Config{Every: time.Hour, Want: func(n string) { wanted = append(wanted, n) }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer s.Close()
	slot, err := s.Slot(model.SecretRef{SDS: "own"})
	again, _ := s.Slot(model.SecretRef{SDS: "own"})
	if err != nil || slot.Current() != nil || again != slot || !slices.Equal(wanted, []string{"own"}) {
		t.Fatalf("%v, %v, wanted %v", slot, err, wanted)
	}
	cert, key := pair(t, "1")
	if err := s.Update([]model.Secret{{Name: "own", Certificate: bytes(cert), Key: bytes(key)}}); err != nil || nameIn(slot) != "1" {
		t.Fatalf("%q, %v", nameIn(slot), err)
	}
	cert2, key2 := pair(t, "2")
	err = s.Update([]model.Secret{{Name: "own", Certificate: bytes(cert2), Key: bytes(key)}, {Name: "other", Certificate: bytes(cert2), Key: bytes(key2)}})
	other, _ := s.Slot(model.SecretRef{SDS: "other"})
	if err == nil || !strings.Contains(err.Error(), `secret "own"`) || nameIn(slot) != "1" || nameIn(other) != "2" || len(wanted) != 1 {
		t.Errorf("%v; own %q, other %q, wanted %v", err, nameIn(slot), nameIn(other), wanted)
	}
	s.Remove("own")
	if fresh, _ := s.Slot(model.SecretRef{SDS: "own"}); fresh == slot || fresh.Current() != nil || nameIn(slot) != "1" || len(wanted) != 2 {
		t.Errorf("after its removal: %v, in use %q, wanted %v", fresh.Current(), nameIn(slot), wanted)
	}
	if none, err := s.Slot(model.SecretRef{}); none != nil || err != nil {
		t.Errorf("the zero ref: %v, %v", none, err)
	}
}

// TestForgotten: files of contexts that are gone are not looked at any more.
func TestForgotten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ca.pem")
	one, _ := pair(t, "1")
	write(t, name, one)
	changed := 0
	s := secret.New(secret.Config{Every: time.Hour, Changed: func() { changed++ }})
	defer s.Close()
	if _, err := s.Slot(model.SecretRef{Inline: &model.Secret{Roots: file(name)}}); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC()
	two, _ := pair(t, "2")
	write(t, name, two)
	if s.Check(); changed != 0 {
		t.Error("a file that nobody uses was read again")
	}
}
