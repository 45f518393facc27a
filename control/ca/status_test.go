package ca_test

import (
	"crypto/x509"
	"testing"

	"github.com/tulle-mesh/tulle/control/ca"
)

// TestIssuedBy: where certificates have no key identifiers, names and signatures decide.
func TestIssuedBy(t *testing.T) {
	root, other := &x509.Certificate{RawSubject: []byte("root")}, &x509.Certificate{RawSubject: []byte("other")}
	leaf := &x509.Certificate{RawIssuer: []byte("root")}
	if ca.IssuedBy(leaf, other) || ca.IssuedBy(leaf, root) { // the latter has its name and has not signed it
		t.Error("signed by whoever has no key identifier")
	}
	leaf.AuthorityKeyId, root.SubjectKeyId, other.SubjectKeyId = []byte{1}, []byte{1}, []byte{2}
	if !ca.IssuedBy(leaf, root) || ca.IssuedBy(leaf, other) {
		t.Error("key identifiers do not decide")
	}
}
