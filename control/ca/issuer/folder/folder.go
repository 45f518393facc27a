// Package folder is whoever serves a folder as an issuer: requests appear there as files, and what he has signed is put beside them. A
// person with openssl can, a script, or cert-manager; docs/guides/issuers.md says how. For a request NAME there are NAME.csr (PKCS #10, PEM, with
// the SPIFFE ID as its only name), NAME.yaml (the same as a CertificateRequest of cert-manager), then NAME.crt (PEM, leaf first) or
// NAME.refused (one line why). Requests that nobody answers are bounded, told of, and removed when nobody waits any more. Safe for
// concurrent use; no goroutine. Start reading at Issuer.Sign.
package folder

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/web"
)

// Config of an issuer; Dir and Roots are needed.
type Config struct {
	Dir   string // made with mode 0700 where it is not there
	Roots string // file: the roots of whoever signs, PEM; read again for every answer
	// Ref is the issuer in the CertificateRequest, "name" or "kind/name"; "": Issuer/tulle.
	Ref string
}

// Bounds.
const (
	maxOpen   = 1000             // requests that wait for an answer
	maxAnswer = 64 << 10         // bytes
	forget    = 10 * time.Minute // a request that nobody has asked about for so long is removed
	keepFor   = time.Hour        // one that was answered is removed so long after
	tellAfter = 30 * time.Second // a request has waited

	firstLook, lastLook = 50 * time.Millisecond, 500 * time.Millisecond
)

// Issuer is an open one.
type Issuer struct {
	cfg Config

	mu      sync.Mutex
	open    map[string]*waiting // by name
	tidied  time.Time
	blocked error // why requests cannot be written; nil: they can
}

// waiting is a request that has no good answer yet.
type waiting struct {
	since, asked time.Time
	bad          string // what is wrong with the answer; "": there is none
}

// New makes an issuer.
func New(cfg Config) (*Issuer, error) {
	if cfg.Dir == "" || cfg.Roots == "" {
		return nil, errors.New("csr-files: a folder (--issuer-folder), and a file with the roots of whoever signs (--issuer-roots), are needed")
	}
	if cfg.Ref == "" {
		cfg.Ref = "Issuer/tulle"
	}
	if _, err := issuer.ReadRoots(cfg.Roots); err != nil {
		return nil, fmt.Errorf("csr-files: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("csr-files: %w", err)
	}
	return &Issuer{cfg: cfg, open: map[string]*waiting{}}, nil
}

// Name implements issuer.Issuer.
func (i *Issuer) Name() string { return "whoever serves the folder " + i.cfg.Dir }

// Close implements issuer.Issuer.
func (i *Issuer) Close() {}

// Roots implements issuer.Issuer.
func (i *Issuer) Roots(context.Context) ([]*x509.Certificate, error) {
	roots, err := issuer.ReadRoots(i.cfg.Roots)
	if err != nil {
		return nil, &issuer.Error{Issuer: i.Name(), What: "read its roots", Err: err}
	}
	return roots, nil
}

// name answers the name of a request's files: who, and which request.
func name(r issuer.Request) string {
	sum := sha256.Sum256(r.CSR)
	return fmt.Sprintf("%.60s.%.60s.%s", r.ID.Namespace, r.ID.ServiceAccount, hex.EncodeToString(sum[:8]))
}

func (i *Issuer) path(name, kind string) string { return filepath.Join(i.cfg.Dir, name+kind) }

// Sign implements issuer.Issuer: it waits for the answer. A request that is asked about again is the same one.
func (i *Issuer) Sign(ctx context.Context, r issuer.Request) (*ca.Issued, error) {
	what := "sign " + r.ID.String()
	wrong := func(err error, next string) error {
		return &issuer.Error{Issuer: i.Name(), What: what, Err: err, Next: next}
	}
	if _, err := r.Parse(); err != nil {
		return nil, wrong(err, "")
	}
	n, begin := name(r), time.Now()
	if err := i.ask(n, r); err != nil {
		return nil, wrong(err, "")
	}
	for look := firstLook; ; look = min(2*look, lastLook) {
		r.Now = r.Now.Add(time.Since(begin))
		begin = time.Now()
		issued, err := i.answer(n, r)
		if issued != nil || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return i.done(n, issued, err, wrong)
		}
		t := time.NewTimer(look)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, &issuer.Error{Issuer: i.Name(), What: what, Err: fmt.Errorf("the request %s is not answered yet", i.path(n, ".csr")),
				Next: "sign it, and put the certificate into " + i.path(n, ".crt"), Again: true}
		case <-t.C:
		}
	}
}

// ask writes the request, unless it is there.
func (i *Issuer) ask(n string, r issuer.Request) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	i.tidy(now)
	w := i.open[n]
	if w == nil {
		if len(i.open) >= maxOpen {
			return fmt.Errorf("%d requests wait there without an answer: sign them, or remove them", len(i.open))
		}
		w = &waiting{since: now}
		if st, err := os.Stat(i.path(n, ".csr")); err == nil {
			w.since = st.ModTime() // of before a restart
		}
		i.open[n] = w
	}
	w.asked = now
	if _, err := os.Stat(i.path(n, ".csr")); err == nil {
		return nil
	}
	err := ca.KeepFile(i.cfg.Dir, n+".yaml", 0o644, i.manifest(n, r))
	if err == nil {
		err = ca.KeepFile(i.cfg.Dir, n+".csr", 0o644, issuer.EncodeCSR(r.CSR)) // last: who sees it finds the other
	}
	i.blocked = err
	return err
}

// manifest answers the request as cert-manager takes it.
func (i *Issuer) manifest(n string, r issuer.Request) []byte {
	kind, ref, ok := strings.Cut(i.cfg.Ref, "/")
	if !ok {
		kind, ref = "Issuer", kind
	}
	sum := sha256.Sum256(r.CSR)
	return fmt.Appendf(nil, `# The certificate, with the intermediates behind it, belongs into %[1]s.crt; a refusal, one line, into %[1]s.refused.
apiVersion: cert-manager.io/v1
kind: CertificateRequest
metadata:
  name: tulle-%[2]s
  annotations:
    tulle.dev/spiffe-id: %[3]q
spec:
  request: %[4]s
  duration: %[5]s
  isCA: false
  usages: [digital signature, server auth, client auth]
  issuerRef: {kind: %[6]q, name: %[7]q, group: cert-manager.io}
`, n, hex.EncodeToString(sum[:8]), r.ID.String(), base64.StdEncoding.EncodeToString(issuer.EncodeCSR(r.CSR)), r.TTL.Round(time.Second), kind, ref)
}

// refused is in the error of a request that was refused.
var errRefused = errors.New("it was refused")

// answer reads what was put beside a request; fs.ErrNotExist: nothing yet.
func (i *Issuer) answer(n string, r issuer.Request) (*ca.Issued, error) {
	if text, err := readFile(i.path(n, ".refused")); err == nil {
		return nil, fmt.Errorf("%w: %s", errRefused, web.Line(string(text)))
	}
	text, err := readFile(i.path(n, ".crt"))
	if err != nil {
		return nil, err
	}
	list, err := issuer.Certificates(text)
	if err != nil {
		return nil, i.settled(n, err)
	}
	issued := &ca.Issued{Chain: issuer.Chain(list), NotBefore: list[0].NotBefore, NotAfter: list[0].NotAfter}
	roots, err := issuer.ReadRoots(i.cfg.Roots)
	if err == nil {
		_, _, err = issuer.Check(issued, r, roots)
	}
	if err != nil && !errors.Is(err, issuer.ErrUnknownRoot) {
		return nil, i.settled(n, err)
	}
	return issued, nil // whether its root counts is not decided here
}

// readFile reads an answer, of a bounded size. One that is being written, and is empty so far, is not there yet.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("more than %d bytes are in it", maxAnswer)
	case len(strings.TrimSpace(string(text))) == 0:
		return nil, fs.ErrNotExist
	}
	return text, nil
}

// settle is how old a bad answer has to be: until then somebody may still be writing it.
const settle = 2 * time.Second

// settled answers err once the answer that it is about is old enough, fs.ErrNotExist before.
func (i *Issuer) settled(n string, err error) error {
	if st, serr := os.Stat(i.path(n, ".crt")); serr == nil && time.Since(st.ModTime()) < settle {
		return fs.ErrNotExist
	}
	return err
}

// done notes that a request was answered, well or badly. A bad answer is put aside, so that another can be given.
func (i *Issuer) done(n string, issued *ca.Issued, err error, wrong func(error, string) error) (*ca.Issued, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.open[n]
	if err == nil {
		delete(i.open, n)
		return issued, nil
	}
	if w != nil {
		w.bad = err.Error()
	}
	if errors.Is(err, errRefused) {
		return nil, wrong(err, "remove "+i.path(n, ".refused")+" for another answer")
	}
	crt := i.path(n, ".crt")
	if os.Rename(crt, crt+".bad") == nil {
		err = fmt.Errorf("%w (it is called %s.bad now)", err, n+".crt")
	}
	return nil, wrong(fmt.Errorf("%s is no good: %w", crt, err), "sign the request again")
}

// tidyEvery is how often the folder is looked through.
const tidyEvery = time.Minute

// tidy removes what nobody waits for. The caller holds mu.
func (i *Issuer) tidy(now time.Time) {
	if now.Sub(i.tidied) < tidyEvery {
		return
	}
	i.tidied = now
	entries, err := os.ReadDir(i.cfg.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		n, ok := strings.CutSuffix(e.Name(), ".csr")
		st, err := e.Info()
		if !ok || err != nil {
			continue
		}
		since, limit := st.ModTime(), keepFor
		if w := i.open[n]; w != nil {
			since, limit = w.asked, forget
		} else if _, err := os.Stat(i.path(n, ".crt")); err != nil {
			limit = forget // of before a restart
		}
		if now.Sub(since) < limit {
			continue
		}
		delete(i.open, n)
		for _, kind := range []string{".csr", ".yaml", ".crt", ".crt.bad", ".refused"} {
			_ = os.Remove(i.path(n, kind)) // most are not there
		}
	}
}

// Warnings implements issuer.Warner.
func (i *Issuer) Warnings(now time.Time) (list []ca.Warning) {
	i.mu.Lock()
	defer i.mu.Unlock()
	count, oldest, name := 0, now, ""
	for n, w := range i.open {
		if now.Sub(w.asked) >= forget {
			continue
		}
		count++
		if w.since.Before(oldest) || name == "" {
			oldest, name = w.since, n
		}
	}
	if count > 0 && now.Sub(oldest) >= tellAfter {
		message := fmt.Sprintf("%d wait for an answer in %s, the oldest, %s.csr, for %s: sign it, and put the certificate into %s.crt; what workloads have stays in force",
			count, i.cfg.Dir, name, now.Sub(oldest).Round(time.Second), name)
		if bad := i.open[name].bad; bad != "" {
			message += "; its last answer was no good: " + bad
		}
		list = append(list, ca.Warning{What: "certificate requests", First: true, Message: message})
	}
	if i.blocked != nil {
		list = append(list, ca.Warning{What: "certificate requests", First: true, Message: fmt.Sprintf("none can be written to %s: %v", i.cfg.Dir, i.blocked)})
	}
	return list
}
