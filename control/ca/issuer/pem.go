package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tulle-mesh/tulle/control/ca"
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

// ReadRoots reads the roots in a PEM file; path "" has none.
func ReadRoots(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := Certificates(text)
	if err == nil {
		list, err = RootsOf(list)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// ReadSecret reads a file that holds one secret, without the white space around it; one that others can read is refused.
func ReadSecret(path string) (string, error) {
	text, err := ca.ReadSecret(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("%s: one line with the secret is expected in it", path)
	}
	return secret, nil
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
