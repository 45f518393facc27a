package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Files of the authority in its folder: of each generation its root, the root's key, the root as signed by the one before,
// and the intermediate with its key in one file, so that both change at once. What the state does not name is nobody's.
const stateFile = "state.json"

func rootFile(n int) string         { return numbered("root%s.pem", n) }
func rootKeyFile(n int) string      { return numbered("root%s-key.pem", n) }
func intermediateFile(n int) string { return numbered("intermediate%s.pem", n) }
func crossFile(n int) string        { return numbered("cross%s.pem", n) }
func formerFile(n int) string       { return numbered("former%s.pem", n) }

// numbered leaves the number of the first generation out.
func numbered(name string, n int) string {
	if n == 1 {
		return fmt.Sprintf(name, "")
	}
	return fmt.Sprintf(name, fmt.Sprintf("-%d", n))
}

// DefaultTrustDomain is that of an authority made for no particular one.
const DefaultTrustDomain = "tulle.local"

// Open answers the authority kept in cfg.Dir, and makes one on the first start. One process at a time may use the folder. An
// authority of another trust domain is refused.
func Open(cfg Config, now time.Time) (*CA, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	// A folder under its final name is whole: it got that name in one step.
	_, err := os.Stat(cfg.Dir)
	first, domain := errors.Is(err, fs.ErrNotExist), cfg.TrustDomain
	if domain == "" {
		domain = DefaultTrustDomain
	}
	probe := spiffe.ID{TrustDomain: domain, Namespace: "default", ServiceAccount: "probe"}
	if err := probe.Validate(); err != nil {
		return nil, err
	}
	if first {
		if err := create(cfg, domain, now); err != nil {
			return nil, fmt.Errorf("make the mesh CA: %w", err)
		}
	}
	c := &CA{cfg: cfg, dir: cfg.Dir}
	if err := c.load(now); err != nil {
		if errors.Is(err, errExposed) {
			return nil, fmt.Errorf("read the mesh CA: %w", err)
		}
		return nil, fmt.Errorf("read the mesh CA: %w: restore %s from a copy, or remove it for a new CA and start every workload again", err, cfg.Dir)
	}
	if cfg.TrustDomain != "" && c.trustDomain != cfg.TrustDomain && slices.Contains(cfg.Aliases, c.trustDomain) {
		s := c.state
		s.TrustDomain, s.Stage, s.Renew = cfg.TrustDomain, s.Stage+1, now // everybody gets a certificate of the new one soon
		if err := c.keep(s); err != nil {
			return nil, err
		}
		c.trustDomain = cfg.TrustDomain
	}
	if err := c.rename(now); err != nil {
		return nil, err
	}
	if cfg.TrustDomain != "" && c.trustDomain != cfg.TrustDomain {
		return nil, fmt.Errorf("the mesh CA in %s is of trust domain %s, not %s: start with that one, name it in spec.trustDomainAliases of MeshConfig for the mesh to change its trust domain, or start with another data folder",
			cfg.Dir, c.trustDomain, cfg.TrustDomain)
	}
	if _, err := c.renewMiddle(c.signing(), now); err != nil {
		return nil, err
	}
	// A broken authority is found at the start.
	if err := c.rehearse(c.signing(), now, c.signing().root.cert); err != nil {
		return nil, fmt.Errorf("the mesh CA in %s signs what does not verify (for trust domain %s): %w", cfg.Dir, c.trustDomain, err)
	}
	return c, sweep(c.dir, c.state)
}

// create makes the authority beside its folder and renames it into place.
func create(cfg Config, domain string, now time.Time) error {
	c := &CA{cfg: cfg, trustDomain: domain}
	g, err := c.newGeneration(1, nil, now)
	if err != nil {
		return err
	}
	parent := filepath.Dir(cfg.Dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if stale, err := filepath.Glob(cfg.Dir + ".new-*"); err == nil {
		for _, s := range stale { // of a start that was killed
			os.RemoveAll(s)
		}
	}
	tmp, err := os.MkdirTemp(parent, filepath.Base(cfg.Dir)+".new-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := saveGeneration(tmp, g); err != nil {
		return err
	}
	if err := saveState(tmp, state{Stage: 1, Phase: Steady, Current: 1, Made: 1, Since: now}); err != nil {
		return err
	}
	if err := os.Rename(tmp, cfg.Dir); err != nil {
		return err
	}
	return syncDir(parent)
}

// load reads the state and what it names.
func (c *CA) load(now time.Time) (err error) {
	text, err := os.ReadFile(filepath.Join(c.dir, stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist): // made by a version that knew no stages
		c.state = state{Stage: 1, Phase: Steady, Current: 1, Made: 1}
		if newest := newestGeneration(c.dir); newest > 1 {
			return fmt.Errorf("%s is not there, and there is a root %d", filepath.Join(c.dir, stateFile), newest)
		}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(text, &c.state); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(c.dir, stateFile), err)
		}
	}
	if c.now, err = c.loadGeneration(c.state.Current, now); err != nil {
		return err
	}
	c.now.cross = nil // left behind by a kill at the end of a rotation
	if c.state.Next > 0 {
		if c.next, err = c.loadGeneration(c.state.Next, now); err != nil {
			return err
		}
	}
	if (c.next == nil) != (c.state.Phase == Steady) {
		return fmt.Errorf("%s: phase %q with next root %d", filepath.Join(c.dir, stateFile), c.state.Phase, c.state.Next)
	}
	if c.state.TrustDomain != "" {
		c.trustDomain = c.state.TrustDomain
	}
	for _, n := range c.state.Past {
		f, err := loadFormer(c.dir, n)
		if err != nil {
			continue // only join tokens of before need it
		}
		c.past = append(c.past, f)
	}
	return nil
}

// rename replaces intermediates that are of another trust domain than the authority, which has got another one since. The roots stay:
// whoever believes them for the old one believes them for the new one, once it is told of that.
func (c *CA) rename(now time.Time) error {
	for _, g := range []*generation{c.now, c.next} {
		if g == nil || slices.Equal(g.issuer.cert.PermittedURIDomains, []string{c.trustDomain}) {
			continue
		}
		if g.root.key == nil {
			return fmt.Errorf("the mesh CA cannot sign for trust domain %s: %w", c.trustDomain, ErrNoRootKey)
		}
		if err := c.newMiddle(g, now); err != nil {
			return err
		}
	}
	return nil
}

// newestGeneration answers the highest number in the names of roots, 0 if there are none.
func newestGeneration(dir string) (n int) {
	list, _ := filepath.Glob(filepath.Join(dir, "root-*.pem")) // the pattern is good
	for _, path := range list {
		k := 0
		if _, err := fmt.Sscanf(filepath.Base(path), "root-%d.pem", &k); err == nil {
			n = max(n, k)
		}
	}
	return n
}

// loadGeneration reads a generation. Without the root's key it signs until the intermediate ends; with it an intermediate that
// is missing is made anew.
func (c *CA) loadGeneration(n int, now time.Time) (*generation, error) {
	g, dir := &generation{n: n}, c.dir
	if err := c.loadRoot(g); err != nil {
		return nil, err
	}
	both, err := readSecret(filepath.Join(dir, intermediateFile(n)))
	switch {
	case errors.Is(err, fs.ErrNotExist) && g.root.key != nil:
		if err := c.newMiddle(g, now); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if g.issuer, err = parse(both); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, intermediateFile(n)), err)
		}
	}
	cross, err := os.ReadFile(filepath.Join(dir, crossFile(n)))
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err == nil {
		g.cross, err = parseOne(cross)
	}
	return g, err
}

func (c *CA) loadRoot(g *generation) error {
	path := filepath.Join(c.dir, rootFile(g.n))
	rootPEM, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rootKey, err := readSecret(filepath.Join(c.dir, rootKeyFile(g.n)))
	switch {
	case errors.Is(err, fs.ErrNotExist): // kept elsewhere, or lost
		g.root.cert, err = parseOne(rootPEM)
	case err == nil:
		g.root, err = parse(append(rootPEM, rootKey...))
	default:
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	uris := g.root.cert.URIs
	if len(uris) != 1 || uris[0].Scheme != "spiffe" {
		return fmt.Errorf("%s: the root certificate names no trust domain", path)
	}
	c.trustDomain = uris[0].Host
	return nil
}

func loadFormer(dir string, n int) (*former, error) {
	text, err := os.ReadFile(filepath.Join(dir, formerFile(n)))
	if err != nil {
		return nil, err
	}
	f := &former{n: n}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no certificate in it")
	}
	if f.root, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, err
	}
	if block, _ = pem.Decode(rest); block != nil {
		f.cross, err = x509.ParseCertificate(block.Bytes)
	}
	return f, err
}

var errExposed = errors.New("holds a secret")

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

// file is one file as it ought to be.
type file struct {
	name string
	mode os.FileMode
	text []byte
}

// files answers what a generation is kept in.
func (g *generation) files() ([]file, error) {
	list := []file{{rootFile(g.n), 0o644, certPEM(g.root.cert)}}
	if g.root.key != nil {
		key, err := keyPEM(g.root)
		if err != nil {
			return nil, err
		}
		list = append(list, file{rootKeyFile(g.n), 0o600, key})
	}
	if g.cross != nil {
		list = append(list, file{crossFile(g.n), 0o644, certPEM(g.cross)})
	}
	key, err := keyPEM(g.issuer)
	return append(list, file{intermediateFile(g.n), 0o600, append(certPEM(g.issuer.cert), key...)}), err
}

func saveGeneration(dir string, g *generation) error {
	list, err := g.files()
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := replaceFile(dir, f); err != nil {
			return err
		}
	}
	return nil
}

func saveIntermediate(dir string, n int, a authority) error {
	key, err := keyPEM(a)
	if err != nil {
		return err
	}
	return replaceFile(dir, file{intermediateFile(n), 0o600, append(certPEM(a.cert), key...)})
}

func (f *former) file() file {
	text := certPEM(f.root)
	if f.cross != nil {
		text = append(text, certPEM(f.cross)...)
	}
	return file{formerFile(f.n), 0o644, text}
}

func saveFormer(dir string, f *former) error { return replaceFile(dir, f.file()) }

func (s state) file() (file, error) {
	text, err := json.MarshalIndent(s, "", "  ")
	return file{stateFile, 0o600, append(text, '\n')}, err
}

func saveState(dir string, s state) error {
	f, err := s.file()
	if err != nil {
		return err
	}
	return replaceFile(dir, f)
}

// sweep removes what a state does not name: of a rotation that has ended, or was broken off before it began.
func sweep(dir string, s state) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	keep := []string{stateFile}
	for _, n := range []int{s.Current, s.Next} {
		if n > 0 {
			keep = append(keep, rootFile(n), rootKeyFile(n), intermediateFile(n))
		}
	}
	if s.Next > 0 {
		keep = append(keep, crossFile(s.Next))
	}
	for _, n := range s.Past {
		keep = append(keep, formerFile(n))
	}
	for _, e := range entries {
		ours := false
		for _, kind := range []string{"root", "intermediate", "cross", "former", stateFile + ".new"} {
			ours = ours || strings.HasPrefix(e.Name(), kind)
		}
		if !ours || slices.Contains(keep, e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Mend writes again what is missing in the folder, or is not what is in force, from memory. It answers the names of those
// files, also those that could not be written.
func (c *CA) Mend() (mended []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []file
	for _, g := range []*generation{c.now, c.next} {
		if g == nil {
			continue
		}
		more, err := g.files()
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	for _, f := range c.past {
		list = append(list, f.file())
	}
	st, err := c.state.file()
	if err != nil {
		return nil, err
	}
	for _, f := range append(list, st) {
		text, err := os.ReadFile(filepath.Join(c.dir, f.name))
		if err == nil && bytes.Equal(text, f.text) {
			continue
		}
		mended = append(mended, f.name)
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return mended, err
		}
		if err := replaceFile(c.dir, f); err != nil {
			return mended, err
		}
	}
	return mended, nil
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

func parseOne(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(a authority) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// KeepFile has a file in dir, which is made with mode 0700 where it is not there, in one step.
func KeepFile(dir, name string, mode os.FileMode, text []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return replaceFile(dir, file{name, mode, text})
}

// ReadSecret reads a file with a private key or another secret; one that others can read is refused.
func ReadSecret(path string) ([]byte, error) { return readSecret(path) }

// replaceFile has a file in dir with exactly its mode and text, on disk when it answers, in one step.
func replaceFile(dir string, f file) error {
	path := filepath.Join(dir, f.name)
	if err := writeFile(path+".new", f.mode, f.text); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

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
