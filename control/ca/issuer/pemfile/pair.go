package pemfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// pair is an intermediate with its key, and what it is below.
type pair struct {
	chain []*x509.Certificate // the intermediate first
	key   crypto.Signer
	roots []*x509.Certificate // all that are to be believed
	root  *x509.Certificate   // that it leads to
}

// end answers when the first certificate above a leaf ends.
func (p *pair) end() time.Time {
	end := p.root.NotAfter
	for _, c := range p.chain {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// check reads the files and says what is wrong with which.
func (t texts) check(cfg Config, now time.Time) (*pair, error) {
	p := &pair{}
	var err error
	if p.chain, err = issuer.Certificates(t.cert); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Cert, err)
	}
	if p.key, err = parseKey(t.key); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Key, err)
	}
	list, err := issuer.Certificates(t.roots)
	if err == nil {
		p.roots, err = issuer.RootsOf(list)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Roots, err)
	}
	middle := p.chain[0]
	public, ok := p.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(middle.PublicKey):
		return nil, fmt.Errorf("%s: the key is not that of the first certificate in %s", cfg.Key, cfg.Cert)
	case !middle.BasicConstraintsValid || !middle.IsCA:
		return nil, fmt.Errorf("%s: %q may not sign certificates: it is no CA (basic constraints)", cfg.Cert, middle.Subject)
	case middle.KeyUsage != 0 && middle.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%s: %q may not sign certificates (key usage)", cfg.Cert, middle.Subject)
	}
	return p, p.rehearse(cfg, now)
}

// rehearse signs a certificate and holds it against the roots.
func (p *pair) rehearse(cfg Config, now time.Time) error {
	for _, c := range append(append([]*x509.Certificate{}, p.chain...), p.roots...) {
		file := cfg.Cert
		if issuer.Holds(p.roots, c) {
			file = cfg.Roots
		}
		switch {
		case now.Before(c.NotBefore):
			return fmt.Errorf("%s: %q begins at %s only", file, c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		case !now.Before(c.NotAfter):
			return fmt.Errorf("%s: %q has ended at %s: put a new one in its place", file, c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id := spiffe.ID{TrustDomain: cfg.TrustDomain, Namespace: "default", ServiceAccount: "probe"}
	p.root = p.roots[0] // for its end; it is looked for now
	for _, c := range p.roots {
		if c.NotAfter.After(p.root.NotAfter) {
			p.root = c
		}
	}
	issued, err := p.sign(&key.PublicKey, issuer.Request{ID: id, TTL: time.Minute, Now: now})
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range p.roots {
		roots.AddCert(c)
	}
	for _, c := range p.chain {
		between.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		paths, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return cfg.explain(err)
		}
		p.root = paths[0][len(paths[0])-1]
	}
	return nil
}

// explain says what is wrong with an intermediate whose signature does not verify.
func (cfg Config) explain(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%s: the intermediate leads to no root in %s: put every certificate between them into the first file, or the right root into the second", cfg.Cert, cfg.Roots)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch e.Reason {
		case x509.TooManyIntermediates:
			return fmt.Errorf("%s: the path length allows no intermediate so far below the root", cfg.Cert)
		case x509.CANotAuthorizedForThisName:
			return fmt.Errorf("%s: its name constraints do not allow the trust domain %s: start with the --trust-domain that they allow, or have an intermediate signed for this one", cfg.Cert, cfg.TrustDomain)
		case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
			return fmt.Errorf("%s: its extended key usage does not allow clients and servers", cfg.Cert)
		}
	}
	return fmt.Errorf("%s: what it signs does not verify against %s: %w", cfg.Cert, cfg.Roots, err)
}

// parseKey reads a private key: PKCS #8, SEC 1 or PKCS #1. Errors do not repeat what is in the file.
func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key has a password: take it off, and keep the file at mode 0600")
		default:
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("the private key cannot be read")
		}
		return signer, nil
	}
	return nil, errors.New("no private key (PEM) is in it")
}

// Files in which what signs is kept.
const keptCert, keptKey, keptRoots = "in-force.pem", "in-force-key.pem", "in-force-roots.pem"

func encode(list []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range list {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer takes everything
	}
	return b.Bytes()
}

// save keeps p; one that is kept in part is not loaded, since its key does not fit.
func (p *pair) save(dir string) error {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return errors.New("the key cannot be written")
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{keptRoots, encode([]*x509.Certificate{p.root})}, {keptCert, encode(p.chain)}, {keptKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}} {
		if err := ca.KeepFile(dir, f.name, 0o600, f.text); err != nil {
			return err
		}
	}
	return nil
}

// loadPair reads what was kept.
func loadPair(cfg Config, now time.Time) (*pair, error) {
	cfg.Cert, cfg.Key, cfg.Roots = filepath.Join(cfg.Dir, keptCert), filepath.Join(cfg.Dir, keptKey), filepath.Join(cfg.Dir, keptRoots)
	if _, err := os.Stat(cfg.Cert); err != nil {
		return nil, err
	}
	t, err := (&Issuer{cfg: cfg}).read()
	if err != nil {
		return nil, err
	}
	return t.check(cfg, now)
}
