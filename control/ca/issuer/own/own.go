// Package own is the mesh's own authority as an Issuer. It signs with what is in memory and waits for nothing. Safe for concurrent
// use. Start reading at Issuer.
package own

import (
	"context"
	"crypto/x509"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
)

// Issuer is an own authority.
type Issuer struct{ CA *ca.CA }

// Name implements issuer.Issuer.
func (Issuer) Name() string { return "the mesh's own authority" }

// Sign implements issuer.Issuer.
func (i Issuer) Sign(_ context.Context, r issuer.Request) (*ca.Issued, error) {
	issued, err := i.CA.Sign(r.CSR, r.ID, r.TTL, r.Now)
	if err != nil {
		return nil, &issuer.Error{Issuer: i.Name(), What: "sign " + r.ID.String(), Err: err}
	}
	return issued, nil
}

// Roots implements issuer.Issuer.
func (i Issuer) Roots(context.Context) (list []*x509.Certificate, err error) {
	for _, der := range i.CA.RootsDER() {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &issuer.Error{Issuer: i.Name(), What: "read the roots", Err: err}
		}
		list = append(list, c)
	}
	return list, nil
}

// Close implements issuer.Issuer.
func (Issuer) Close() {}
