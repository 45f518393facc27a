// Package external is the authority of a mesh whose certificates somebody else signs (control/ca/issuer): Vault, step-ca, an
// intermediate in a file. It holds every answer against its request, asks again where that may help, and decides which of the
// issuer's roots count: a root that is new there is believed first, and what leads to it is handed to a workload only when every
// proxy has acknowledged it; one that the issuer has no more is believed until the last certificate below it has ended. It
// has no key. What it knows of roots outlives the process; with the issuer away what workloads have stays in force. Safe for
// concurrent use; one goroutine, ended by Close. Start reading at Open, then Sign, then Step.
package external

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/own"
	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Config of an authority; all but Aliases, Before and Log are needed.
type Config struct {
	Issuer      issuer.Issuer
	Dir         string // what is known of roots is kept there; made with mode 0700
	TrustDomain string
	Self        spiffe.ID     // the control plane's own identity
	Aliases     []string      // trust domains that the mesh believes as its own: one that it had goes on as TrustDomain
	Leaf        time.Duration // how long identities are valid, at most
	// Before signs until every proxy believes a root of Issuer: the mesh's own authority, where it had one. nil: there was none.
	Before issuer.Issuer
	Log    *slog.Logger
}

// Bounds.
const (
	signWait   = 10 * time.Second // of one certificate, tries and all
	tries      = 4
	firstRetry = 100 * time.Millisecond // doubled each time, with jitter
	maxSigning = 64                     // certificates that are waited for at a time
	rootsWait  = 10 * time.Second
	mostEvery  = time.Minute // between two looks at the issuer's roots
	leastEvery = time.Second
)

// ErrNotNow is in the error for a certificate that cannot be had now, and may be later: the issuer does not answer, or says no
// for a reason that is not the workload's.
var ErrNotNow = errors.New("no certificate can be had now")

// ErrNameless is the answer to a request without a name: an issuer that is not ours takes the name from the request.
var ErrNameless = errors.New("the certificate request carries no SPIFFE ID")

// Authority is an open authority.
type Authority struct {
	cfg     Config
	log     *slog.Logger
	stop    context.CancelFunc
	done    sync.WaitGroup
	signing chan struct{} // holds one for each certificate that is waited for
	look    chan struct{} // holds one: the issuer's roots are to be looked at soon

	before []*x509.Certificate // roots of cfg.Before

	mu      sync.Mutex
	state   state
	listed  []*x509.Certificate // roots, as the issuer has answered last; nil: not yet
	last    ca.Line             // of the certificate that was signed last
	failing failure             // of signing
	blind   failure             // of looking at roots
}

// failure is why something does not go well, and since when; the zero value: it does.
type failure struct {
	err         error
	since, last time.Time
}

func (f *failure) note(err error, now time.Time) {
	if err == nil {
		*f = failure{}
		return
	}
	if f.err == nil {
		f.since = now
	}
	f.err, f.last = err, now
}

// Open answers the authority. Where nothing is known yet it waits for ctx for the issuer's roots.
func Open(ctx context.Context, cfg Config, now time.Time) (*Authority, error) {
	if cfg.Leaf < ca.ShortestLeaf {
		return nil, fmt.Errorf("lifetime of identities %s: give %s at least", cfg.Leaf, ca.ShortestLeaf)
	}
	probe := spiffe.ID{TrustDomain: cfg.TrustDomain, Namespace: "default", ServiceAccount: "probe"}
	if err := probe.Validate(); err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, log: cfg.Log, signing: make(chan struct{}, maxSigning), look: make(chan struct{}, 1)}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	kept, err := load(cfg.Dir)
	if err != nil {
		return nil, err
	}
	a.state = kept
	if err := a.rename(now); err != nil {
		return nil, err
	}
	if cfg.Before != nil {
		before, err := cfg.Before.Roots(ctx)
		if err != nil {
			return nil, err
		}
		a.before = before
	}
	roots, err := a.firstRoots(ctx)
	switch {
	case err == nil:
		err = a.begin(roots, now)
	case len(a.state.Roots) > 0:
		a.log.Warn("the issuer's roots cannot be looked at; those known stay in force", "error", err)
		a.blind.note(err, now)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	a.done.Go(func() { a.run(run) })
	return a, nil
}

// Close ends the looking, waits for it, and closes the issuers.
func (a *Authority) Close() {
	a.stop()
	a.done.Wait()
	a.cfg.Issuer.Close()
	if a.cfg.Before != nil {
		a.cfg.Before.Close()
	}
}

// firstRoots asks for the roots, until ctx ends where nothing is known without.
func (a *Authority) firstRoots(ctx context.Context) ([]*x509.Certificate, error) {
	for retry := firstRetry; ; retry = min(2*retry, time.Second) {
		one, cancel := context.WithTimeout(ctx, rootsWait)
		roots, err := a.cfg.Issuer.Roots(one)
		cancel()
		if err == nil || len(a.state.Roots) > 0 || !issuer.Again(err) || !pause(ctx, retry) {
			return roots, err
		}
	}
}

// pause waits for about d; it reports whether ctx lasts.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(time.Duration(float64(d) * (0.7 + 0.6*rand.Float64())))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// begin takes the roots of the start.
func (a *Authority) begin(roots []*x509.Certificate, now time.Time) error {
	a.listed = roots
	s := a.state.clone()
	if len(s.Roots) == 0 {
		s = state{TrustDomain: a.cfg.TrustDomain, Stage: 1, Since: now}
		if a.cfg.Before != nil {
			for _, c := range a.before {
				s.Roots = append(s.Roots, root{cert: c, DER: c.Raw, Acked: true, Ends: now.Add(a.cfg.Leaf)})
			}
			a.log.Info("the mesh's own authority signs until every proxy believes the new issuer", "issuer", a.cfg.Issuer.Name())
		}
		for _, c := range roots {
			s.Roots = append(s.Roots, root{cert: c, DER: c.Raw, Listed: true, Acked: a.cfg.Before == nil})
		}
		return a.keep(s)
	}
	if !slices.ContainsFunc(s.Roots, func(r root) bool {
		return r.Acked && (issuer.Holds(roots, r.cert) || issuer.Holds(a.before, r.cert))
	}) {
		if key, _ := a.Own(a.cfg.Self, now); key != nil { // proxies still believe us, so they can acknowledge: Step has them do it
			a.log.Info("the issuer is another one than before: it signs when every proxy believes its roots; until then certificates stay as they are", "issuer", a.cfg.Issuer.Name())
			return nil
		}
		// Nobody can sign what the mesh believes, so nobody could acknowledge anything.
		a.log.Warn("the issuer has none of the roots that the mesh believes: its own are believed at once; proxies of other machines need new join tokens", "issuer", a.cfg.Issuer.Name())
		for _, c := range roots {
			s.Roots = append(s.Roots, root{cert: c, DER: c.Raw, Listed: true, Acked: true})
		}
		s.Stage, s.Since = s.Stage+1, now
		return a.keep(s)
	}
	return nil
}

// run looks at the issuer's roots from time to time, and when somebody asks for it.
func (a *Authority) run(ctx context.Context) {
	every := min(max(a.cfg.Leaf/20, leastEvery), mostEvery)
	for {
		t := time.NewTimer(time.Duration(float64(every) * (0.8 + 0.4*rand.Float64())))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-a.look:
			t.Stop()
		case <-t.C:
		}
		a.Refresh(ctx)
	}
}

// Refresh looks at the issuer's roots; Step takes what is new.
func (a *Authority) Refresh(ctx context.Context) {
	one, cancel := context.WithTimeout(ctx, rootsWait)
	defer cancel()
	roots, err := a.cfg.Issuer.Roots(one)
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.blind.err == nil {
		a.log.Warn("the issuer's roots cannot be looked at; those known stay in force", "error", err)
	}
	a.blind.note(err, time.Now())
	if err == nil {
		a.listed = roots
	}
}

// TrustDomain answers the trust domain of every identity that is signed.
func (a *Authority) TrustDomain() string { return a.cfg.TrustDomain }

// Leaf answers for how long identities are valid, at most.
func (a *Authority) Leaf() time.Duration { return a.cfg.Leaf }

// Backdate answers how long before it is made a certificate may begin and still count as made then: that is known of our own
// authority alone.
func (a *Authority) Backdate() time.Duration {
	if _, ok := a.cfg.Issuer.(own.Issuer); ok {
		return ca.Backdate
	}
	return 0
}

// Sign has a certificate signed for id and the key of a request (DER), valid for ttl from now (0: as configured, which is also
// the most). The request must prove its key and carry id as its only name. It answers ErrNotNow where the issuer is the reason.
func (a *Authority) Sign(ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, now time.Time) (*ca.Issued, error) {
	if err := a.Admit(csr, id); err != nil {
		return nil, err
	}
	if ttl <= 0 || ttl > a.cfg.Leaf {
		ttl = a.cfg.Leaf
	}
	ctx, cancel := context.WithTimeout(ctx, signWait)
	defer cancel()
	select {
	case a.signing <- struct{}{}:
		defer func() { <-a.signing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %d others wait for %s already", ErrNotNow, maxSigning, a.cfg.Issuer.Name())
	}
	r := issuer.Request{CSR: csr, ID: id, TTL: issuer.Ask(ttl), Now: now}
	by, below, most := a.signer()
	r.Below = below
	issued, err := a.try(ctx, by, &r, most)
	if err == nil {
		issued, err = a.accept(by, issued, r)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failing.note(err, now); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotNow, err)
	}
	return issued, nil
}

// Admit reports what is wrong with a request before anybody is asked.
func (a *Authority) Admit(csr []byte, id spiffe.ID) error {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return fmt.Errorf("certificate request for %s: %w", id, err)
	}
	if err := req.CheckSignature(); err != nil {
		return fmt.Errorf("certificate request for %s: its signature does not prove the key: %w", id, err)
	}
	if err := id.Validate(); err != nil {
		return err
	}
	if id.TrustDomain != a.cfg.TrustDomain {
		return fmt.Errorf("%s is not of the trust domain %s", id, a.cfg.TrustDomain)
	}
	if key, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
		return fmt.Errorf("certificate request for %s: the key must be ECDSA on P-256 or P-384", id)
	}
	others := len(req.DNSNames) + len(req.EmailAddresses) + len(req.IPAddresses)
	switch {
	case len(req.URIs)+others == 0:
		return fmt.Errorf("%w: it must have %s, for %s", ErrNameless, id, a.cfg.Issuer.Name())
	case others > 0 || len(req.URIs) != 1 || req.URIs[0].String() != id.String():
		return fmt.Errorf("certificate request for %s asks for other names", id)
	}
	return nil
}

// signer answers who signs now, the roots that every proxy believes, and how often somebody is asked: many ask again by
// themselves, so while nothing is answered it is once for each.
func (a *Authority) signer() (by issuer.Issuer, below []*x509.Certificate, most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	most = tries
	if a.failing.err != nil {
		most = 1
	}
	theirs, before := false, false
	for _, r := range a.state.Roots {
		if r.Acked {
			below, theirs, before = append(below, r.cert), theirs || r.Listed, before || issuer.Holds(a.before, r.cert)
		}
	}
	if before && !theirs {
		return a.cfg.Before, below, most
	}
	return a.cfg.Issuer, below, most
}

// try asks until it has an answer, trying again is no use, or ctx ends.
func (a *Authority) try(ctx context.Context, by issuer.Issuer, r *issuer.Request, most int) (*ca.Issued, error) {
	for n, retry := 1, firstRetry; ; n, retry = n+1, 2*retry {
		begin := time.Now()
		issued, err := by.Sign(ctx, *r)
		r.Now = r.Now.Add(time.Since(begin)) // it is checked by when it was answered
		if err == nil || n == most || !issuer.Again(err) || !pause(ctx, retry) {
			return issued, err
		}
	}
}

// accept holds an answer against the request and the roots that every proxy believes.
func (a *Authority) accept(by issuer.Issuer, issued *ca.Issued, r issuer.Request) (*ca.Issued, error) {
	wrong := func(err error) error {
		return &issuer.Error{Issuer: by.Name(), What: "sign " + r.ID.String(), Err: err}
	}
	out, below, err := issuer.Check(issued, r, r.Below)
	if errors.Is(err, issuer.ErrUnknownRoot) {
		select {
		case a.look <- struct{}{}:
		default:
		}
		return nil, wrong(a.early(issued, r))
	}
	if err != nil {
		return nil, wrong(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = ca.Line{Root: below}
	if len(out.Chain) > 1 {
		a.last.Intermediate, _ = x509.ParseCertificate(out.Chain[1]) // Check has read it
	}
	for i := range a.state.Roots { // of roots that are listed the end is taken when they are not any more
		if x := &a.state.Roots[i]; x.cert.Equal(below) && !x.Listed && x.Ends.Before(out.NotAfter) {
			s := a.state.clone()
			s.Roots[i].Ends = out.NotAfter
			if err := a.keep(s); err != nil {
				return nil, wrong(err)
			}
		}
	}
	return out, nil
}

// early says why an answer that leads to no root that counts is not handed on.
func (a *Authority) early(issued *ca.Issued, r issuer.Request) error {
	a.mu.Lock()
	known := append([]*x509.Certificate{}, a.listed...)
	for _, x := range a.state.Roots {
		known = append(known, x.cert)
	}
	a.mu.Unlock()
	if len(known) > 0 {
		if _, below, err := issuer.Check(issued, r, known); err == nil {
			return fmt.Errorf("what it signs leads to the root %q, which not every proxy has acknowledged yet: 'tulle cert' shows who is waited for; the certificate before stays in force", below.Subject)
		} else if !errors.Is(err, issuer.ErrUnknownRoot) {
			return err
		}
	}
	return errors.New("what it signs leads to a root that it does not list: list the new root beside the old one there")
}
