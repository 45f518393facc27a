// Package secret holds the key material of a proxy: given in place, read from files and read again when they change, or
// told by SDS. Whoever uses a secret holds its Slot and asks it at every handshake, so that a new certificate needs no
// new configuration and closes no connection. What cannot be parsed never replaces what could: the old material stays in
// force, and one line is logged. Nothing here ever logs, prints or dumps material.
//
// A Store and its Slots are safe for concurrent use. Start reading at Store.
package secret

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
)

// maxFile bounds what is read of one file, in bytes.
const maxFile = 4 << 20

// Material is a secret, parsed. Immutable.
type Material struct {
	Name        string                 // of SDS; "" given in place
	Certificate *tls.Certificate       // nil: none; Leaf is set, and the key belongs to it
	Roots       []*x509.Certificate    // empty: none
	Pool        *x509.CertPool         // of Roots; nil: none
	CRLs        []*x509.RevocationList // empty: none
}

// Slot is where a secret's current material is.
type Slot struct {
	now atomic.Pointer[Material]

	// The rest belongs to the Store.
	source model.Secret
	files  []stamp // what the files were when they were last looked at
	broken bool    // a line about it was logged
}

// Current answers the material in force; nil: SDS has not told it yet.
func (s *Slot) Current() *Material { return s.now.Load() }

// Parse reads the files that s names and parses everything. An error names the secret and the file.
func Parse(s *model.Secret) (*Material, error) {
	m := &Material{Name: s.Name}
	if s.Certificate.IsZero() != s.Key.IsZero() {
		return nil, fail(s, "has a certificate chain or a private key without the other; give both")
	}
	if !s.Certificate.IsZero() {
		chain, err := read(s.Certificate)
		if err != nil {
			return nil, fail(s, "certificate chain: %w", err)
		}
		key, err := read(s.Key)
		if err != nil {
			return nil, fail(s, "private key: %w", err)
		}
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return nil, fail(s, "certificate chain%s and private key%s: %w", in(s.Certificate), in(s.Key), err)
		}
		m.Certificate = &pair
	}
	if !s.Roots.IsZero() {
		if err := m.readRoots(s); err != nil {
			return nil, err
		}
	}
	if !s.CRL.IsZero() {
		if err := m.readCRL(s); err != nil {
			return nil, err
		}
	}
	if m.Certificate == nil && m.Pool == nil && m.CRLs == nil {
		return nil, fail(s, "holds neither a certificate, nor trusted roots, nor a revocation list")
	}
	return m, nil
}

func (m *Material) readRoots(s *model.Secret) error {
	m.Pool = x509.NewCertPool()
	err := blocks(s.Roots, "CERTIFICATE", func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		if err == nil {
			m.Roots = append(m.Roots, c)
			m.Pool.AddCert(c)
		}
		return err
	})
	if err != nil {
		return fail(s, "trusted roots%s: %w", in(s.Roots), err)
	}
	return nil
}

func (m *Material) readCRL(s *model.Secret) error {
	err := blocks(s.CRL, "X509 CRL", func(der []byte) error {
		l, err := x509.ParseRevocationList(der)
		m.CRLs = append(m.CRLs, l)
		return err
	})
	if err != nil {
		return fail(s, "revocation list%s: %w", in(s.CRL), err)
	}
	return nil
}

// blocks gives every PEM block of kind to f; there must be one.
func blocks(m model.Material, kind string, f func(der []byte) error) error {
	rest, err := read(m)
	if err != nil {
		return err
	}
	n := 0
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == kind {
			n++
			if err := f(b.Bytes); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		return errors.New("no PEM block of type " + kind)
	}
	return nil
}

func read(m model.Material) ([]byte, error) {
	if m.File == "" {
		return m.Bytes, nil
	}
	info, err := os.Stat(m.File)
	switch {
	case err != nil:
		return nil, err
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s is larger than %d MiB", m.File, maxFile>>20)
	}
	return os.ReadFile(m.File)
}

// in says where m comes from, for an error.
func in(m model.Material) string {
	if m.File == "" {
		return ""
	}
	return " in " + m.File
}

func fail(s *model.Secret, format string, args ...any) error {
	if s.Name == "" {
		return fmt.Errorf("secret: "+format, args...)
	}
	return fmt.Errorf("secret %q: "+format, append([]any{s.Name}, args...)...)
}
