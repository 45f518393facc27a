package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxRoots bounds the roots of one issuer.
const maxRoots = 16

// Certificates reads the certificates in a PEM text, in their order; other blocks are refused.
func Certificates(text []byte) (list []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a %s is in it, and only certificates are expected", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate (PEM) is in it")
	}
	return list, nil
}

// RootsOf answers the roots among certificates: authorities that have signed themselves, each once.
func RootsOf(list []*x509.Certificate) (roots []*x509.Certificate, err error) {
	for _, c := range list {
		if selfSigned(c) && c.IsCA && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil && !Holds(roots, c) {
			roots = append(roots, c)
		}
	}
	switch {
	case len(roots) == 0:
		return nil, errors.New("no root, a certificate that has signed itself, is among them")
	case len(roots) > maxRoots:
		return nil, fmt.Errorf("%d roots are among them, at most %d are taken", len(roots), maxRoots)
	}
	return roots, nil
}

// Holds reports whether c is in a list.
func Holds(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, x := range list {
		if bytes.Equal(x.Raw, c.Raw) {
			return true
		}
	}
	return false
}

// EncodeCSR answers a request (DER) as PEM.
func EncodeCSR(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// Chain answers certificates as an issuer answers them.
func Chain(list []*x509.Certificate) (out [][]byte) {
	for _, c := range list {
		out = append(out, c.Raw)
	}
	return out
}
