// Package trust is whom the mesh believes: it has the authority move from one root to the next as the mesh allows, keeps what
// was revoked, knows what every workload proves itself with, and raises an alarm before anything ends. It signs nothing (control/ca)
// and sends nothing (control/push): it is told who has acknowledged what, and tells when whom the mesh believes has changed. Safe for
// concurrent use; one goroutine, ended by Close. Start reading at Config, then Keeper.Look.
package trust

import (
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
)

// Authority is who signs; *ca.CA and *external.Authority are.
type Authority interface {
	TrustDomain() string
	Leaf() time.Duration     // the longest life of a certificate
	Backdate() time.Duration // a certificate begins so long before it is made, at most
	RootsDER() [][]byte
	Status(now time.Time, m ca.Standing) ca.Status
	Step(now time.Time, m ca.Standing) (moved bool, err error)
	Mend() ([]string, error)

	RotateRoot(now time.Time) error
	RotateIntermediate(now time.Time) error
	RotateLeaves(now time.Time) error
	Rollback() error
	Force() error
}

// Config of a Keeper; all but Log, Now, Every and Own are needed.
type Config struct {
	CA    Authority
	Store store.Store // of revocations
	// Behind answers the connected proxies, "namespace/workload", that have not acknowledged whom the mesh believes now, and
	// all that are connected.
	Behind func() (behind, connected []string)
	// Announced answers the workloads that the mesh knows, "namespace/workload".
	Announced func() []string
	// Own answers what the control plane proves itself with, and why that is not renewed, nil if it is; may be nil.
	Own func() (*svid.SVID, error)
	// Others answers what the mesh believes besides its own trust domain: those that count as it, and federated ones, by name. nil:
	// nothing. Whoever it has changed for calls Again.
	Others func() (aliases []string, federated []Federated)
	// Changed is called when whom the mesh believes is different, with what that is now. It must have Behind answer accordingly
	// when it returns.
	Changed func(t *svid.Trust)

	Now   func() time.Time // nil: time.Now
	Every time.Duration    // between two looks; 0: a twentieth of a certificate's life, a second at most
	Log   *slog.Logger
}

// Keeper keeps whom the mesh believes.
type Keeper struct {
	cfg  Config
	stop context.CancelFunc
	done sync.WaitGroup

	looking sync.Mutex // one look at a time; taken before mu

	mu      sync.Mutex
	holders map[string]*holder // by workload
	revoked []Revocation       // in the order of At
	trust   *svid.Trust
	told    map[string]time.Time // alarms, and when they were said last
	alarms  []Alarm
	mended  time.Time // when a file of the authority was written again last
	lost    []string  // which
	broken  error     // why they could not be; nil: they were
	// stepping is why the last step could not be taken.
	stepping error
}

// Times of a Keeper.
const (
	mostEvery   = time.Second
	leastEvery  = 50 * time.Millisecond
	replacedIn  = 5 * time.Second // after it was revoked, where a workload can attest again
	filesEvery  = 5 * time.Second // and what other control planes have revoked
	alarmsEvery = 5 * time.Second
	mendedFor   = time.Hour // for so long an alarm tells of files that were written again
	maxHolders  = 20_000
	alarmLeft   = 0.3 // of a life
	clockAlarm  = 5 * time.Second
	showLag     = 1500 * time.Millisecond // a proxy says once a second what it shows
	stuckFor    = 10 * time.Second
	renewsIn    = 2 * time.Minute // a proxy has renewed its certificate by then, when it is asked to
	alarmsAgain = 10 * time.Minute
)

// Start begins to keep; ctx bounds the reading of what is stored. Changed is called before it returns.
func Start(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Every <= 0 {
		cfg.Every = max(leastEvery, min(mostEvery, cfg.CA.Leaf()/20))
	}
	k := &Keeper{cfg: cfg, holders: map[string]*holder{}, told: map[string]time.Time{}}
	list, err := k.stored(ctx)
	if err != nil {
		return nil, err
	}
	k.revoked = list
	if err := k.publish(); err != nil {
		return nil, err
	}
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	k.done.Go(func() { k.run(ctx) })
	return k, nil
}

// Close ends the looking and waits for it.
func (k *Keeper) Close() {
	k.stop()
	k.done.Wait()
}

func (k *Keeper) run(ctx context.Context) {
	tick := time.NewTicker(k.cfg.Every)
	defer tick.Stop()
	files, alarms := time.Now(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(files) >= filesEvery {
			files = time.Now()
			k.mend()
			k.reload(ctx)
		}
		k.Look()
		if time.Since(alarms) >= min(alarmsEvery, k.cfg.CA.Leaf()/10) {
			alarms = time.Now()
			k.raise(k.Report())
		}
	}
}

// Look takes the next step of a rotation if the mesh allows it.
func (k *Keeper) Look() {
	k.looking.Lock()
	defer k.looking.Unlock()
	now := k.cfg.Now()
	var m ca.Standing
	if k.cfg.CA.Status(now, m).Phase != ca.Steady {
		m = k.standing(now)
	}
	moved, err := k.cfg.CA.Step(now, m)
	if err == nil && moved {
		s := k.cfg.CA.Status(now, ca.Standing{})
		k.cfg.Log.Info("the mesh's roots: next stage", "stage", s.Stage, "phase", string(s.Phase), "back", s.Back, "signs", s.Signing.Root.Subject.CommonName)
		err = k.publish()
	}
	k.mu.Lock()
	k.stepping = err
	k.mu.Unlock()
}

// Act does something to the authority, and tells the mesh.
func (k *Keeper) act(f func(now time.Time) error) error {
	k.looking.Lock()
	defer k.looking.Unlock()
	if err := f(k.cfg.Now()); err != nil {
		return err
	}
	return k.publish()
}

// publish makes whom the mesh believes anew and tells it.
func (k *Keeper) publish() error {
	m := k.model()
	t, err := svid.NewTrust(k.cfg.CA.TrustDomain(), m)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.trust = t
	k.mu.Unlock()
	k.cfg.Changed(t)
	return nil
}

// Again makes whom the mesh believes anew, because what Others answers has changed.
func (k *Keeper) Again() {
	if err := k.act(func(time.Time) error { return nil }); err != nil {
		k.cfg.Log.Error("whom the mesh believes cannot be changed, what it believed before stays in force", "error", err)
	}
}

// others adds what the mesh believes besides its own trust domain to m, whose first bundle is its own.
func (k *Keeper) others(m *model.Trust) {
	if k.cfg.Others == nil {
		return
	}
	aliases, federated := k.cfg.Others()
	own := m.Bundles[0]
	for _, d := range aliases {
		m.Bundles = append(m.Bundles, model.TrustBundle{TrustDomain: d, Roots: own.Roots, Alias: true})
	}
	for _, f := range federated {
		if f.TrustDomain != own.TrustDomain && !slices.Contains(aliases, f.TrustDomain) && len(f.Roots) > 0 {
			m.Bundles = append(m.Bundles, model.TrustBundle{TrustDomain: f.TrustDomain, Roots: f.Roots})
		}
	}
}

func (k *Keeper) model() *model.Trust {
	now := k.cfg.Now()
	s := k.cfg.CA.Status(now, ca.Standing{})
	m := &model.Trust{Stage: s.Stage, Bundles: []model.TrustBundle{{TrustDomain: k.cfg.CA.TrustDomain(), Roots: k.cfg.CA.RootsDER()}}}
	k.others(m)
	if !s.Renew.IsZero() {
		m.Renew = s.Renew.Unix() + 1
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.revoked {
		if now.Before(r.Until) {
			m.Revoked = append(m.Revoked, r.model(k.cfg.CA.Backdate()))
		}
	}
	return m
}

// Trust answers whom the mesh believes.
func (k *Keeper) Trust() *svid.Trust {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trust
}

// Model answers it as it travels: snapshot.Snapshot.Trust.
func (k *Keeper) Model() *model.Trust { return k.Trust().Model }

// Rotate is what somebody wants done to the authority; at most one of the first three is set.
type Rotate struct {
	Root         bool `json:"root,omitempty"`
	Intermediate bool `json:"intermediate,omitempty"`
	Leaves       bool `json:"leaves,omitempty"`
	Rollback     bool `json:"rollback,omitempty"`
	Force        bool `json:"force,omitempty"` // take the next step of a root's rotation whoever stands in its way
}

// Rotate does it.
func (k *Keeper) Rotate(r Rotate) error {
	return k.act(func(now time.Time) error {
		switch {
		case r.Rollback:
			if err := k.cfg.CA.Rollback(); err != nil || !r.Force {
				return err
			}
			return k.cfg.CA.Force()
		case r.Root:
			err := k.cfg.CA.RotateRoot(now)
			if err == nil && r.Force {
				err = k.cfg.CA.Force()
			}
			return err
		case r.Intermediate:
			return k.cfg.CA.RotateIntermediate(now)
		case r.Leaves:
			return k.cfg.CA.RotateLeaves(now)
		}
		return k.cfg.CA.Force()
	})
}

// holder is what is known of what a workload proves itself with.
type holder struct {
	id        spiffe.ID
	chain     []*x509.Certificate // leaf first
	starts    int                 // of the proxy that has said so
	connected bool
	since     time.Time // of connected
	ahead     time.Duration
	failing   string

	comes, comesSince time.Time // with a leaf that was revoked: last, and since when again and again
}

// ends answers when the holder's certificate does.
func (h *holder) ends() time.Time { return h.chain[0].NotAfter }

// Shown takes what a proxy says that its workload proves itself with. What is another's identity, or nothing that can be read, is
// not taken.
func (k *Keeper) Shown(workload string, starts int, peer string, chain [][]byte, wall time.Time, failing string) {
	h := &holder{starts: starts, connected: true, since: k.cfg.Now(), ahead: wall.Sub(k.cfg.Now()), failing: failing}
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			k.cfg.Log.Warn("a proxy shows a certificate that cannot be read", "workload", workload, "error", err)
			return
		}
		h.chain = append(h.chain, c)
	}
	var err error
	if h.id, err = spiffe.FromCertificate(h.chain[0]); err != nil || k.Trust().Canonical(h.id).String() != peer {
		k.cfg.Log.Warn("a proxy shows a certificate that is not its own", "workload", workload, "peer", peer, "error", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.holders[workload]
	switch {
	case old != nil && old.starts > starts: // of the proxy that is about to go
		return
	case old == nil && len(k.holders) >= maxHolders:
		return // it is not in listings; the end of every certificate is waited for all the same
	}
	if old != nil && old.connected && old.starts == starts {
		h.since = old.since
	}
	k.holders[workload] = h
}

// Left takes that a proxy's session is over; said reports whether the workload has ended with it.
func (k *Keeper) Left(workload string, starts int, said bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.holders[workload]
	switch {
	case h == nil || h.starts != starts:
	case said:
		delete(k.holders, workload)
	default:
		h.connected, h.since = false, k.cfg.Now()
	}
}

// standing answers how the mesh stands to the authority's stage. Who is not connected and may come back with a certificate
// that is still valid has not acknowledged anything.
func (k *Keeper) standing(now time.Time) (m ca.Standing) {
	behind, connected := k.cfg.Behind()
	m.Behind = behind
	there := map[string]bool{}
	for _, w := range connected {
		there[w] = true
	}
	for _, w := range k.cfg.Announced() {
		if !there[w] {
			m.Behind, there[w] = append(m.Behind, w), true
		}
	}
	s := k.cfg.CA.Status(now, ca.Standing{})
	if k.cfg.Own != nil {
		own, _ := k.cfg.Own()
		m.Lapses = own.NotAfter
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for w, h := range k.holders {
		switch {
		case !now.Before(h.ends()):
			if !h.connected {
				delete(k.holders, w)
			}
		case !there[w]:
			m.Behind = append(m.Behind, w)
		case s.SignedByOther(h.chain):
			m.Held = append(m.Held, w)
		}
		if h.connected && now.Before(h.ends()) && (m.Lapses.IsZero() || h.ends().Before(m.Lapses)) {
			m.Lapses = h.ends()
		}
	}
	slices.Sort(m.Behind)
	m.Behind = slices.Compact(m.Behind)
	slices.Sort(m.Held)
	return m
}

// mend writes files of the authority again that somebody has removed or changed.
func (k *Keeper) mend() {
	names, err := k.cfg.CA.Mend()
	if len(names) == 0 && err == nil {
		return
	}
	k.cfg.Log.Warn("files of the mesh CA were missing or changed; they are written again from memory", "files", names, "error", err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mended, k.lost, k.broken = k.cfg.Now(), names, err
}
