package external

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// ownFile has the control plane's own certificate, those above it, and its key.
const ownFile = "own.pem"

// KeepOwn keeps what the control plane proves itself with, so that it can start again while its issuer is away, or signs below a root that
// does not count yet.
func (a *Authority) KeepOwn(key *ecdsa.PrivateKey, chain [][]byte) error {
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return errors.New("the control plane's own key cannot be written")
	}
	if err := ca.KeepFile(a.cfg.Dir, ownFile, 0o600, append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)); err != nil {
		return fmt.Errorf("the control plane's own certificate cannot be kept: %w", err)
	}
	return nil
}

// Own answers what was kept, if it is of id, in time, and leads to a root that every proxy believes; nil otherwise.
func (a *Authority) Own(id spiffe.ID, now time.Time) (*ecdsa.PrivateKey, [][]byte) {
	path := filepath.Join(a.cfg.Dir, ownFile)
	text, err := ca.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var key *ecdsa.PrivateKey
	var chain []*x509.Certificate
	if err == nil {
		key, chain, err = parseOwn(text)
	}
	if err == nil {
		_, counting, _ := a.signer()
		pool := x509.NewCertPool()
		for _, c := range counting {
			pool.AddCert(c)
		}
		var is spiffe.ID
		if is, err = svid.Verify(chain, pool, now, x509.ExtKeyUsageServerAuth); err == nil && is != id {
			err = fmt.Errorf("it is of %s", is)
		}
	}
	if err == nil && !key.PublicKey.Equal(chain[0].PublicKey) {
		err = errors.New("the key is another one's")
	}
	if err != nil {
		a.log.Info("what the control plane proved itself with before is no use", "error", err)
		_ = os.Remove(path) // it is replaced soon
		return nil, nil
	}
	return key, issuer.Chain(chain)
}

func parseOwn(text []byte) (key *ecdsa.PrivateKey, chain []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" {
			parsed, _ := x509.ParsePKCS8PrivateKey(block.Bytes) // nil: told below
			key, _ = parsed.(*ecdsa.PrivateKey)
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		chain = append(chain, c)
	}
	if key == nil || len(chain) == 0 {
		return nil, nil, errors.New("no key or no certificate is in it")
	}
	return key, chain, nil
}
