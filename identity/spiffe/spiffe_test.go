package spiffe_test

import (
	"crypto/x509"
	"net/url"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

func TestParseID(t *testing.T) {
	id, err := spiffe.ParseID("spiffe://tulle.local/ns/default/sa/cart")
	if err != nil {
		t.Fatal(err)
	}
	want := spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "cart"}
	if id != want || id.URL().String() != id.String() {
		t.Fatalf("got %v, URL %v", id, id.URL())
	}
	for _, bad := range []string{
		"", "cart", "https://tulle.local/ns/a/sa/b", "spiffe://tulle.local/ns/a/sa", "spiffe://Tulle/ns/a/sa/b",
		"spiffe://tulle.local/ns//sa/b", "spiffe://tulle.local/ns/../sa/b", "spiffe://tulle.local/ns/a/sa/b/",
		"spiffe://tulle.local:80/ns/a/sa/b", "spiffe://u@tulle.local/ns/a/sa/b", "spiffe://tulle.local/ns/a%2f/sa/b",
		"spiffe://tulle.local/ns/a/sa/b?x", "spiffe://tulle.local/ns/a/sa/b#x",
	} {
		if id, err := spiffe.ParseID(bad); err == nil {
			t.Errorf("%q: accepted as %v", bad, id)
		}
	}
}

// FuzzParseID: whatever we accept, go-spiffe accepts and reads the same way.
func FuzzParseID(f *testing.F) {
	f.Add("spiffe://tulle.local/ns/default/sa/cart")
	f.Add("spiffe://a/ns/./sa/b")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := spiffe.ParseID(s)
		if err != nil {
			return
		}
		if id.String() != s {
			t.Fatalf("%q became %q", s, id)
		}
		other, err := spiffeid.FromString(s)
		if err != nil {
			t.Fatalf("go-spiffe refuses %q: %v", s, err)
		}
		if other.TrustDomain().Name() != id.TrustDomain || other.Path() != "/ns/"+id.Namespace+"/sa/"+id.ServiceAccount {
			t.Fatalf("%q: go-spiffe reads %v", s, other)
		}
	})
}

func TestFromCertificate(t *testing.T) {
	u := func(s string) *url.URL {
		v, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	one := u("spiffe://tulle.local/ns/default/sa/cart")
	if _, err := spiffe.FromCertificate(&x509.Certificate{URIs: []*url.URL{one}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*x509.Certificate{
		"none": {}, "two": {URIs: []*url.URL{one, one}}, "CA": {URIs: []*url.URL{one}, IsCA: true},
		"https": {URIs: []*url.URL{u("https://x/")}},
	} {
		if _, err := spiffe.FromCertificate(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
