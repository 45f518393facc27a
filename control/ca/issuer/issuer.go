// Package issuer is who signs the certificates of a mesh: its own authority, or somebody else's. An Issuer is asked with a request
// that carries exactly one name; what it answers is believed only after Check, which holds it against the request. Nothing here
// decides whom the mesh believes (control/ca/external does). Issuers are safe for concurrent use, hold no lock while they wait for
// somebody, and never name a secret in an error. issuertest is the contract of all of them. Start reading at Issuer.
package issuer

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Issuer signs certificates of workloads.
type Issuer interface {
	// Name says in a few words who it is and where, without a secret: "step-ca at https://ca:9000, provisioner mesh".
	Name() string
	// Sign has a certificate signed. It waits for ctx at most, does not try again by itself, and answers an *Error.
	Sign(ctx context.Context, r Request) (*ca.Issued, error)
	// Roots answers the roots below which it signs, now or soon; never none without an error, which is an *Error.
	Roots(ctx context.Context) ([]*x509.Certificate, error)
	// Close ends what it has started.
	Close()
}

// Request is for one certificate.
type Request struct {
	CSR []byte        // DER (PKCS #10); proves its key, and carries ID as its only name
	ID  spiffe.ID     // that the certificate is for
	TTL time.Duration // how long it is to be valid from Now on, at most
	Now time.Time
	// Below are the roots that every workload believes. An issuer that can choose signs below one of them; empty: any will do.
	Below []*x509.Certificate
}

// Parse reads the certificate request, which has to be signed with its own key.
func (r Request) Parse() (*x509.CertificateRequest, error) {
	req, err := x509.ParseCertificateRequest(r.CSR)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	return req, nil
}

// Warner is an Issuer that knows what will hurt.
type Warner interface {
	// Warnings answers quickly and from memory.
	Warnings(now time.Time) []ca.Warning
}

// Error is why an issuer did not do what it was asked. It is one line: who, what, why, and what to do next.
type Error struct {
	Issuer string // its Name
	What   string // that was to be done: "sign spiffe://..."
	Err    error
	Next   string // what somebody can do about it; "": nothing is known
	// Again: it may go well at once, when it is tried again: nobody answered, or somebody is overloaded.
	Again bool
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: %v", e.Issuer, e.What, e.Err)
	if e.Next != "" {
		text += ": " + e.Next
	}
	return text
}

// Unwrap answers the cause.
func (e *Error) Unwrap() error { return e.Err }

// Again reports whether trying again soon may help.
func Again(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Again
}

// Bounds of an answer.
const (
	maxChain = 8        // certificates
	maxBytes = 32 << 10 // of all of them
)

// ErrUnknownRoot is in the error for a chain that leads to none of the roots.
var ErrUnknownRoot = errors.New("leads to no root of the issuer")

// Check holds what an issuer has answered against the request, and answers it as it is handed on: leaf first, each certificate signed by
// the next, without the root; and the root that it leads to, one of roots. The key must be the request's, the ID exactly ours
// and the only name; it is no authority, is for clients and servers, has begun, and ends no later than was asked for.
func Check(issued *ca.Issued, r Request, roots []*x509.Certificate) (*ca.Issued, *x509.Certificate, error) {
	chain, err := read(issued)
	if err != nil {
		return nil, nil, err
	}
	leaf := chain[0]
	if err := checkLeaf(leaf, r); err != nil {
		return nil, nil, err
	}
	between, pool := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	for _, c := range roots {
		pool.AddCert(c)
	}
	// One usage at a time: Verify is content with any of several.
	var paths [][]*x509.Certificate
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		paths, err = leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: r.Now, KeyUsages: []x509.ExtKeyUsage{usage}})
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
			return nil, nil, fmt.Errorf("the chain answered %w: %w", ErrUnknownRoot, err)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("the chain answered is not good: %w", err)
		}
	}
	best := shortest(paths)
	out := &ca.Issued{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	for _, c := range best[:len(best)-1] {
		out.Chain = append(out.Chain, c.Raw)
	}
	// What leads from there to older roots goes along: who believes only those finds a way too.
	for _, c := range chain[1:] {
		if !holds(out.Chain, c.Raw) && !selfSigned(c) {
			out.Chain = append(out.Chain, c.Raw)
		}
	}
	return out, best[len(best)-1], nil
}

func read(issued *ca.Issued) (chain []*x509.Certificate, err error) {
	if issued == nil || len(issued.Chain) == 0 {
		return nil, errors.New("no certificate was answered")
	}
	size := 0
	for _, der := range issued.Chain {
		size += len(der)
	}
	if len(issued.Chain) > maxChain || size > maxBytes {
		return nil, fmt.Errorf("%d certificates with %d bytes were answered, at most %d and %d are taken", len(issued.Chain), size, maxChain, maxBytes)
	}
	for _, der := range issued.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("a certificate answered cannot be read: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// slack is by how much a certificate may end later than was asked for: clocks differ, and seconds are rounded.
func slack(ttl time.Duration) time.Duration { return max(time.Second, min(time.Minute, ttl/10)) }

// Ask answers the lifetime to ask for, so that no certificate that Check lets pass is valid for longer than life.
func Ask(life time.Duration) time.Duration { return max(time.Second, life-slack(life)) }

func checkLeaf(leaf *x509.Certificate, r Request) error {
	req, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return fmt.Errorf("the request cannot be read: %w", err)
	}
	key, ok := leaf.PublicKey.(interface{ Equal(x any) bool })
	same := ok && key.Equal(req.PublicKey)
	if !same {
		same = bytes.Equal(leaf.RawSubjectPublicKeyInfo, req.RawSubjectPublicKeyInfo)
	}
	id, idErr := spiffe.FromCertificate(leaf)
	switch {
	case !same:
		return errors.New("the certificate answered is for another key")
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("the certificate answered is one for signing, not an identity")
	case idErr != nil:
		return fmt.Errorf("the certificate answered has the names %v, and must have %s alone: %w", names(leaf), r.ID, idErr)
	case id != r.ID || len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses) > 0:
		return fmt.Errorf("the certificate answered has the names %v, and must have %s alone", names(leaf), r.ID)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0: // X.509-SVID section 4.3
		return errors.New("the certificate answered is not for digital signatures (key usage)")
	case leaf.NotBefore.After(r.Now):
		return fmt.Errorf("the certificate answered begins at %s, in %s: compare the clocks", leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotBefore.Sub(r.Now).Round(time.Second))
	case !r.Now.Before(leaf.NotAfter):
		return fmt.Errorf("the certificate answered has ended at %s: compare the clocks", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotAfter.After(r.Now.Add(r.TTL + slack(r.TTL))):
		return fmt.Errorf("the certificate answered is valid until %s, for %s longer than was asked for: have the issuer heed the lifetime that is asked for, or bound it there",
			leaf.NotAfter.UTC().Format(time.RFC3339), leaf.NotAfter.Sub(r.Now.Add(r.TTL)).Round(time.Second))
	}
	return nil
}

func names(c *x509.Certificate) (list []string) {
	for _, u := range c.URIs {
		list = append(list, u.String())
	}
	list = append(append(list, c.DNSNames...), c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}

func shortest(paths [][]*x509.Certificate) (best []*x509.Certificate) {
	for _, p := range paths {
		if best == nil || len(p) < len(best) {
			best = p
		}
	}
	return best
}

func holds(chain [][]byte, der []byte) bool {
	for _, c := range chain {
		if bytes.Equal(c, der) {
			return true
		}
	}
	return false
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }
