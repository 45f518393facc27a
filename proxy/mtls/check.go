package mtls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/secret"
)

// check is a model.Validation that can be asked. It runs in VerifyConnection, which crypto/tls calls for full and for
// resumed handshakes alike: a session is worth no more than its certificates are now.
type check struct {
	m      *model.Validation
	roots  *secret.Slot // nil: the system's, or none
	crl    *secret.Slot // nil: none but what roots have
	sans   []san
	hashes [][sha256.Size]byte
	spki   [][sha256.Size]byte
	usage  x509.ExtKeyUsage
	chains chains
}

func newCheck(m *model.Validation, s Secrets, usage x509.ExtKeyUsage) (k *check, err error) {
	k = &check{m: m, usage: usage}
	if m.Roots != (model.SecretRef{}) {
		if k.roots, err = slotOf(s, m.Roots, func(m *secret.Material) bool { return m.Pool != nil }, "trusted root"); err != nil {
			return nil, err
		}
	}
	if m.CRL != (model.SecretRef{}) {
		if k.crl, err = slotOf(s, m.CRL, func(m *secret.Material) bool { return m.CRLs != nil }, "revocation list"); err != nil {
			return nil, err
		}
	}
	chains := k.roots != nil || m.System
	switch {
	case !chains && len(m.SANs) > 0:
		return nil, errors.New("TLS: names of certificates are compared, and nothing verifies the certificates; give trusted roots")
	case !chains && k.crl != nil:
		return nil, errors.New("TLS: a revocation list without trusted roots; give them")
	}
	for i := range m.SANs {
		one, err := newSAN(&m.SANs[i])
		if err != nil {
			return nil, err
		}
		k.sans = append(k.sans, one)
	}
	for _, h := range m.Hashes {
		b, err := hex.DecodeString(strings.ReplaceAll(h, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("TLS: certificate hash %q is no SHA-256 in hexadecimal", h)
		}
		k.hashes = append(k.hashes, [sha256.Size]byte(b))
	}
	for _, h := range m.SPKI {
		b, err := base64.StdEncoding.DecodeString(h)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("TLS: public key hash %q is no SHA-256 in base64", h)
		}
		k.spki = append(k.spki, [sha256.Size]byte(b))
	}
	return k, nil
}

func (k *check) ready() bool {
	return (k.roots == nil || k.roots.Current() != nil) && (k.crl == nil || k.crl.Current() != nil)
}

// accept reports why a peer is refused. host, if not empty, must be named by its certificate.
func (k *check) accept(certs []*x509.Certificate, host string, now time.Time) error {
	if k.m.AcceptUntrusted {
		return nil
	}
	if err := k.verify(certs, host, now); err != nil {
		return &identityError{err}
	}
	return nil
}

// proven reports whether a peer holds to everything.
func (k *check) proven(certs []*x509.Certificate, host string, now time.Time) bool {
	pins := len(k.hashes)+len(k.spki) > 0
	return (k.roots != nil || k.m.System || pins) && k.verify(certs, host, now) == nil
}

func (k *check) verify(certs []*x509.Certificate, host string, now time.Time) error {
	if len(certs) == 0 {
		return errors.New("peer sent no certificate")
	}
	leaf := certs[0]
	if k.roots != nil || k.m.System {
		if err := k.chain(certs, now); err != nil {
			return err
		}
	}
	if len(k.hashes)+len(k.spki) > 0 && !slices.Contains(k.hashes, sha256.Sum256(leaf.Raw)) &&
		!slices.Contains(k.spki, sha256.Sum256(leaf.RawSubjectPublicKeyInfo)) {
		return errors.New("peer's certificate is none of those that are pinned")
	}
	if host != "" {
		if err := leaf.VerifyHostname(host); err != nil {
			return err
		}
	}
	if len(k.sans) > 0 && !slices.ContainsFunc(k.sans, func(s san) bool { return s.in(leaf) }) {
		return errors.New("peer's certificate has none of the names that are accepted")
	}
	return nil
}

// far is when nothing has expired yet that was made not to expire.
var far = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// chain verifies that the certificates lead to a root, and that none of them is revoked.
func (k *check) chain(certs []*x509.Certificate, now time.Time) error {
	opts := x509.VerifyOptions{CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{k.usage}}
	var lists []*x509.RevocationList
	if k.crl != nil {
		m := k.crl.Current()
		if m == nil || m.CRLs == nil {
			return errNotYet
		}
		lists = append(lists, m.CRLs...)
	}
	var roots *secret.Material
	if k.roots != nil {
		roots = k.roots.Current()
		if roots == nil || roots.Pool == nil {
			return errNotYet
		}
		opts.Roots = roots.Pool
		lists = append(lists, roots.CRLs...)
	}
	if lists == nil && !k.m.AllowExpired {
		return k.chains.verify(certs, opts, roots)
	}
	if k.m.AllowExpired {
		certs = agelessAll(certs)
		if roots != nil {
			opts.Roots = x509.NewCertPool()
			for _, c := range agelessAll(roots.Roots) {
				opts.Roots.AddCert(c)
			}
		}
	}
	found, err := follow(certs, opts)
	if err != nil || lists == nil {
		return err
	}
	for _, chain := range found {
		if err = revoked(chain, lists, now, k.m.AllowExpired); err == nil {
			return nil
		}
	}
	return err
}

// agelessAll answers copies of certs that are valid at any time. Signatures are verified over the bytes that were signed,
// which stay as they are.
func agelessAll(certs []*x509.Certificate) []*x509.Certificate {
	all := make([]*x509.Certificate, len(certs))
	for i, c := range certs {
		copied := *c
		copied.NotBefore, copied.NotAfter = time.Time{}, far
		all[i] = &copied
	}
	return all
}

// approvedChains leaves out chains with keys that FIPS 140-3 does not allow.
func approvedChains(found [][]*x509.Certificate) ([][]*x509.Certificate, error) {
	found = slices.DeleteFunc(found, func(chain []*x509.Certificate) bool {
		return slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return !approved(c) })
	})
	if len(found) == 0 {
		return nil, errors.New("peer's certificate has a key that FIPS 140-3 does not allow")
	}
	return found, nil
}

// approved repeats what crypto/tls asks of keys in FIPS mode where it verifies chains itself.
func approved(c *x509.Certificate) bool {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return true
	}
	return false
}

// revoked reports why a chain is not accepted: every certificate but the root needs a list of its issuer's, in force and
// signed by it, that does not have it (as OpenSSL's CRL_CHECK_ALL).
func revoked(chain []*x509.Certificate, lists []*x509.RevocationList, now time.Time, expired bool) error {
	for i, c := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		known := false
		for _, l := range lists {
			if !bytes.Equal(l.RawIssuer, issuer.RawSubject) || l.CheckSignatureFrom(issuer) != nil {
				continue
			}
			if !expired && (now.Before(l.ThisUpdate) || !l.NextUpdate.IsZero() && now.After(l.NextUpdate)) {
				continue
			}
			known = true
			if slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
				return e.SerialNumber.Cmp(c.SerialNumber) == 0 && e.ReasonCode != 8 // removeFromCRL
			}) {
				return fmt.Errorf("the certificate %q with serial number %x is revoked", c.Subject.CommonName, c.SerialNumber)
			}
		}
		if !known {
			return fmt.Errorf("there is no revocation list in force of %q; renew it", issuer.Subject.CommonName)
		}
	}
	return nil
}
