// Package pemfile is an authority whose intermediate somebody gives in files: its certificate with those above it, its key, and the
// roots. They are checked when they are read, and read again when they change. New files sign only below a root that every proxy
// believes; until then those before do, which are kept for that (mode 0600), also over a restart. Files that are no good change
// nothing, and are told of. Safe for concurrent use; no goroutine. Start reading at Open, then Issuer.Sign.
package pemfile

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
)

// Config of an issuer; all but Log are needed.
type Config struct {
	Cert        string // file: the intermediate, then those between it and the root, PEM
	Key         string // file: its private key, PEM, mode 0600
	Roots       string // file: the roots to believe, PEM; the intermediate leads to one of them
	TrustDomain string
	Dir         string // what signs is kept there
	Log         *slog.Logger
}

// Issuer is an open one.
type Issuer struct {
	cfg Config

	mu     sync.Mutex
	files  *pair    // as they are, or were when they were good last
	force  *pair    // that signs
	sum    [32]byte // of the files as they were read last
	broken error    // why those are not good; nil: they are
	since  time.Time
}

// Open reads and checks the files.
func Open(cfg Config, now time.Time) (*Issuer, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	i := &Issuer{cfg: cfg}
	text, err := i.read()
	if err != nil {
		return nil, i.wrong("read the files", err)
	}
	if i.files, err = text.check(cfg, now); err != nil {
		return nil, i.wrong("read the files", err)
	}
	i.sum, i.force = text.sum(), i.files
	if kept, err := loadPair(cfg, now); err == nil && !bytes.Equal(kept.chain[0].Raw, i.files.chain[0].Raw) {
		i.force = kept // until every proxy believes the root of the files
	} else if err := i.files.save(cfg.Dir); err != nil {
		return nil, i.wrong("keep what signs", err)
	}
	return i, nil
}

// Name implements issuer.Issuer.
func (i *Issuer) Name() string { return "the intermediate in " + i.cfg.Cert }

// Close implements issuer.Issuer.
func (i *Issuer) Close() {}

func (i *Issuer) wrong(what string, err error) error {
	return &issuer.Error{Issuer: i.Name(), What: what, Err: err}
}

// texts are the files.
type texts struct{ cert, key, roots []byte }

func (i *Issuer) read() (t texts, err error) {
	if t.cert, err = os.ReadFile(i.cfg.Cert); err != nil {
		return t, err
	}
	if t.key, err = ca.ReadSecret(i.cfg.Key); err != nil {
		return t, err
	}
	t.roots, err = os.ReadFile(i.cfg.Roots)
	return t, err
}

func (t texts) sum() [32]byte {
	return sha256.Sum256(bytes.Join([][]byte{t.cert, t.key, t.roots}, []byte{0}))
}

// reload takes the files if they have changed. The caller holds mu.
func (i *Issuer) reload(now time.Time) {
	t, err := i.read()
	if err == nil && t.sum() == i.sum {
		i.broken = nil
		return
	}
	var next *pair
	if err == nil {
		next, err = t.check(i.cfg, now)
	}
	if err != nil {
		if i.broken == nil {
			i.since = now
			i.cfg.Log.Warn("files of the issuer are not good; those before stay in force", "error", err)
		}
		i.broken = err
		return
	}
	i.files, i.sum, i.broken = next, t.sum(), nil
	i.cfg.Log.Info("the issuer's files have changed", "intermediate", next.chain[0].Subject.String(), "ends", next.end(), "root", next.root.Subject.String())
}

// Roots implements issuer.Issuer.
func (i *Issuer) Roots(context.Context) ([]*x509.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reload(time.Now())
	list := append([]*x509.Certificate{}, i.files.roots...)
	if !issuer.Holds(list, i.force.root) {
		list = append(list, i.force.root)
	}
	return list, nil
}

// Sign implements issuer.Issuer.
func (i *Issuer) Sign(_ context.Context, r issuer.Request) (*ca.Issued, error) {
	what := "sign " + r.ID.String()
	req, err := r.Parse()
	if err != nil {
		return nil, i.wrong(what, err)
	}
	p, err := i.choose(r)
	if err != nil {
		return nil, i.wrong(what, err)
	}
	issued, err := p.sign(req.PublicKey, r)
	if err != nil {
		return nil, i.wrong(what, err)
	}
	return issued, nil
}

// choose answers what signs: the files, unless not every proxy believes their root yet.
func (i *Issuer) choose(r issuer.Request) (*pair, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reload(r.Now)
	if i.force == i.files || len(r.Below) > 0 && !issuer.Holds(r.Below, i.files.root) && issuer.Holds(r.Below, i.force.root) && r.Now.Before(i.force.end()) {
		return i.force, nil
	}
	if err := i.files.save(i.cfg.Dir); err != nil {
		return nil, fmt.Errorf("keep what signs: %w", err)
	}
	i.force = i.files
	return i.force, nil
}

// sign answers a certificate for a key.
func (p *pair) sign(key crypto.PublicKey, r issuer.Request) (*ca.Issued, error) {
	leaf := ca.LeafTemplate(r.ID, r.Now, r.TTL)
	if end := p.end(); leaf.NotAfter.After(end) {
		leaf.NotAfter = end
	}
	if !r.Now.Before(leaf.NotAfter) {
		return nil, fmt.Errorf("it has ended at %s: put a new one, with its key, in its place", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if leaf.NotBefore.Before(p.chain[0].NotBefore) {
		leaf.NotBefore = p.chain[0].NotBefore
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, p.chain[0], key, p.key)
	if err != nil {
		return nil, errors.New("the certificate cannot be signed with its key")
	}
	out := &ca.Issued{Chain: append([][]byte{der}, issuer.Chain(p.chain)...)}
	made, err := x509.ParseCertificate(der)
	if err == nil {
		out.NotBefore, out.NotAfter = made.NotBefore, made.NotAfter
	}
	return out, err
}

// alarmPart is the part of a certificate's life that is left when an alarm is raised.
const alarmPart = 0.3

// Warnings implements issuer.Warner.
func (i *Issuer) Warnings(now time.Time) (list []ca.Warning) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.broken != nil {
		left := i.force.end().Sub(now)
		list = append(list, ca.Warning{What: "files of the issuer", Left: left,
			Message: fmt.Sprintf("for %s: %v; the intermediate before signs, and ends in %s", now.Sub(i.since).Round(time.Second), i.broken, left.Round(time.Second))})
	}
	for _, c := range i.force.chain[1:] { // of the intermediate itself, and of the root, the mesh's own alarms tell
		left := c.NotAfter.Sub(now)
		if left < time.Duration(alarmPart*float64(c.NotAfter.Sub(c.NotBefore))) {
			list = append(list, ca.Warning{What: "certificate above the intermediate", Left: left,
				Message: fmt.Sprintf("%s in %s ends in %s: put a new one in its place", c.Subject, i.cfg.Cert, left.Round(time.Second))})
		}
	}
	return list
}
