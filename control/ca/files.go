package ca

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

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Files of the authority in its folder. One file holds the intermediate and its key, so that both change at once.
const (
	rootFile         = "root.pem"
	rootKeyFile      = "root-key.pem"
	intermediateFile = "intermediate.pem"
)

// DefaultTrustDomain is that of an authority made for no particular one.
const DefaultTrustDomain = "tulle.local"

// Open answers the authority kept in dir, and makes one for trustDomain on the first start. One process at a
// time may use dir. An authority of another trust domain is refused; "" takes the one that is there.
func Open(dir, trustDomain string, now time.Time) (*CA, error) {
	// A folder under its final name is whole: it got that name in one step.
	_, err := os.Stat(dir)
	first, given := errors.Is(err, fs.ErrNotExist), trustDomain != ""
	if !given {
		trustDomain = DefaultTrustDomain
	}
	probe := spiffe.ID{TrustDomain: trustDomain, Namespace: "default", ServiceAccount: "probe"}
	if err := probe.Validate(); err != nil {
		return nil, err
	}
	if first {
		if err := create(dir, trustDomain, now); err != nil {
			return nil, fmt.Errorf("make the mesh CA: %w", err)
		}
	}
	c, err := load(dir)
	if err != nil {
		if errors.Is(err, errExposed) {
			return nil, fmt.Errorf("read the mesh CA: %w", err)
		}
		return nil, fmt.Errorf("read the mesh CA: %w: restore %s from a copy, or remove it for a new CA and start every workload again", err, dir)
	}
	if !given {
		probe.TrustDomain = c.trustDomain
	} else if c.trustDomain != trustDomain {
		return nil, fmt.Errorf("the mesh CA in %s is of trust domain %s, not %s: start with that one, or with another data folder",
			dir, c.trustDomain, trustDomain)
	}
	return c, c.check(probe, now)
}

// check signs a certificate and verifies it, so that a broken authority is found at the start.
func (c *CA) check(id spiffe.ID, now time.Time) error {
	issued, err := c.SignKey(&c.root.key.PublicKey, id, time.Minute, now)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	between.AddCert(c.issuer.cert)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: c.Roots(), Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return fmt.Errorf("the mesh CA in %s signs what does not verify (for trust domain %s): %w", c.dir, c.trustDomain, err)
	}
	return nil
}

// create makes the authority beside dir and renames it into place.
func create(dir, trustDomain string, now time.Time) error {
	root, err := newRoot(trustDomain, now)
	if err != nil {
		return err
	}
	between, err := newIntermediate(root, trustDomain, now)
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if stale, err := filepath.Glob(dir + ".new-*"); err == nil {
		for _, s := range stale { // of a start that was killed
			os.RemoveAll(s)
		}
	}
	tmp, err := os.MkdirTemp(parent, filepath.Base(dir)+".new-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := writeFile(filepath.Join(tmp, rootFile), 0o644, certPEM(root)); err != nil {
		return err
	}
	key, err := keyPEM(root)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(tmp, rootKeyFile), 0o600, key); err != nil {
		return err
	}
	if err := saveIntermediate(tmp, between); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(parent)
}

func load(dir string) (*CA, error) {
	rootPEM, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, err
	}
	rootKey, err := readSecret(filepath.Join(dir, rootKeyFile))
	if err != nil {
		return nil, err
	}
	both, err := readSecret(filepath.Join(dir, intermediateFile))
	if err != nil {
		return nil, err
	}
	c := &CA{dir: dir}
	if c.root, err = parse(append(rootPEM, rootKey...)); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, rootFile), err)
	}
	if c.issuer, err = parse(both); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, intermediateFile), err)
	}
	if len(c.root.cert.URIs) != 1 || c.root.cert.URIs[0].Scheme != "spiffe" {
		return nil, fmt.Errorf("%s: the root certificate names no trust domain", filepath.Join(dir, rootFile))
	}
	c.trustDomain = c.root.cert.URIs[0].Host
	return c, nil
}

var errExposed = errors.New("holds a private key")

// readSecret refuses a key that others can read.
func readSecret(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s %w and has mode %#o: set it with 'chmod 600 %[1]s'", path, errExposed, st.Mode().Perm())
	}
	return os.ReadFile(path)
}

func saveIntermediate(dir string, a authority) error {
	key, err := keyPEM(a)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, intermediateFile)
	if err := writeFile(path+".new", 0o600, append(certPEM(a), key...)); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

func parse(text []byte) (authority, error) {
	var a authority
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return a, err
			}
			a.cert = cert
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return a, err
			}
			a.key, _ = key.(*ecdsa.PrivateKey)
		}
	}
	if a.cert == nil || a.key == nil {
		return a, errors.New("no certificate with an ECDSA key in it")
	}
	if !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return a, errors.New("the key is not that of the certificate")
	}
	return a, nil
}

func certPEM(a authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func keyPEM(a authority) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// writeFile makes path with exactly mode and has it on disk when it answers.
func writeFile(path string, mode os.FileMode, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
