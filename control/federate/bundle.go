package federate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// maxRoots bounds the roots of one trust domain.
const maxRoots = 16

// parse reads a bundle, PEM or SPIFFE's JSON (Trust Domain and Bundle, section 4).
func parse(trustDomain string, text []byte) (Bundle, error) {
	b := Bundle{TrustDomain: trustDomain}
	if len(text) > v1alpha1.MaxBundle {
		return b, fmt.Errorf("the bundle has more than %d bytes", v1alpha1.MaxBundle)
	}
	text = bytes.TrimSpace(text)
	var roots []*x509.Certificate
	if len(text) > 0 && text[0] == '{' {
		td, err := spiffeid.TrustDomainFromString(trustDomain)
		if err != nil {
			return b, err
		}
		read, err := spiffebundle.Parse(td, text)
		if err != nil {
			return b, fmt.Errorf("it is not a SPIFFE bundle: %w", err)
		}
		roots = read.X509Authorities()
		b.Sequence, _ = read.SequenceNumber()
		if hint, ok := read.RefreshHint(); ok {
			b.Hint = int64(hint / time.Second)
		}
	} else {
		var err error
		if roots, err = parsePEM(text); err != nil {
			return b, err
		}
	}
	switch {
	case len(roots) == 0:
		return b, errors.New("the bundle has no roots for X.509-SVIDs")
	case len(roots) > maxRoots:
		return b, fmt.Errorf("the bundle has %d roots: at most %d are believed", len(roots), maxRoots)
	}
	for _, r := range roots {
		if !r.IsCA || !r.BasicConstraintsValid {
			return b, fmt.Errorf("%q in the bundle is not the certificate of an authority", r.Subject)
		}
		b.Roots = append(b.Roots, r.Raw)
	}
	return b, nil
}

func parsePEM(text []byte) (out []*x509.Certificate, err error) {
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("the bundle is neither PEM certificates nor a SPIFFE bundle (JSON)")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the bundle has a PEM block %q, where only certificates belong", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate in the bundle: %w", err)
		}
		out, text = append(out, c), bytes.TrimSpace(rest)
	}
	return out, nil
}

// Marshal answers a bundle in SPIFFE's form; hint is how often it is to be asked for, 0: it does not say.
func Marshal(trustDomain string, roots [][]byte, sequence uint64, hint time.Duration) ([]byte, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, err
	}
	b := spiffebundle.New(td)
	b.SetSequenceNumber(sequence)
	if hint > 0 {
		b.SetRefreshHint(hint)
	}
	for _, der := range roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		b.AddX509Authority(c)
	}
	return b.Marshal()
}
