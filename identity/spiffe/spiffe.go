// Package spiffe is who somebody is: SPIFFE IDs of the form that Tulle gives out,
// spiffe://<trust domain>/ns/<namespace>/sa/<service account>. Pure; values are immutable.
package spiffe

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxLength of a SPIFFE ID in bytes (SPIFFE-ID section 2.3).
const maxLength = 2048

// ID is one workload identity. The zero value is nobody.
type ID struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// String answers the URI, "" for nobody.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return "spiffe://" + id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// IsZero reports whether id is nobody.
func (id ID) IsZero() bool { return id == ID{} }

// URL answers the URI for a certificate's subject alternative name.
func (id ID) URL() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.TrustDomain, Path: "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount}
}

// Validate reports what is wrong with id.
func (id ID) Validate() error {
	if !validTrustDomain(id.TrustDomain) {
		return fmt.Errorf("SPIFFE ID: trust domain %q: only a-z, 0-9, '.', '-' and '_' are allowed", id.TrustDomain)
	}
	for what, s := range map[string]string{"namespace": id.Namespace, "service account": id.ServiceAccount} {
		if !validSegment(s) {
			return fmt.Errorf("SPIFFE ID: %s %q: only letters, digits, '.', '-' and '_' are allowed", what, s)
		}
	}
	if n := len(id.String()); n > maxLength {
		return fmt.Errorf("SPIFFE ID: %d bytes is over the limit of %d", n, maxLength)
	}
	return nil
}

// ParseID reads a SPIFFE ID. It is strict: what a certificate says has to be exactly what String writes.
func ParseID(s string) (ID, error) {
	if len(s) > maxLength {
		return ID{}, fmt.Errorf("SPIFFE ID: %d bytes is over the limit of %d", len(s), maxLength)
	}
	rest, ok := strings.CutPrefix(s, "spiffe://")
	if !ok {
		return ID{}, fmt.Errorf("SPIFFE ID %q does not start with spiffe://", s)
	}
	part := strings.Split(rest, "/")
	if len(part) != 5 || part[1] != "ns" || part[3] != "sa" {
		return ID{}, fmt.Errorf("SPIFFE ID %q is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>", s)
	}
	id := ID{TrustDomain: part[0], Namespace: part[2], ServiceAccount: part[4]}
	if err := id.Validate(); err != nil {
		return ID{}, err
	}
	return id, nil
}

// ErrNoID is the answer for a certificate without exactly one URI name (X.509-SVID section 2).
var ErrNoID = errors.New("certificate does not carry exactly one SPIFFE ID")

// FromCertificate answers whom a leaf certificate names. It does not verify the chain.
func FromCertificate(c *x509.Certificate) (ID, error) {
	if len(c.URIs) != 1 {
		return ID{}, ErrNoID
	}
	if c.IsCA {
		return ID{}, errors.New("a CA certificate cannot be used as an SVID")
	}
	return ParseID(c.URIs[0].String())
}

func validTrustDomain(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
	}) < 0
}

func validSegment(s string) bool {
	return s != "" && s != "." && s != ".." && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
	}) < 0
}
