// Package federate keeps the bundles of other trust domains: it reads them where MeshConfig says (in itself, in a file, at a SPIFFE
// bundle endpoint), again and again, and keeps the last good one, in the store too. It promises that a bundle that cannot be read or
// fetched changes nothing, that everything it takes has a bound, and that a bundle is of one trust domain alone. Whom the mesh then
// believes is said by control/trust, and who gets in by policies. It also serves the mesh's own bundle (Endpoint). Safe for concurrent use;
// one goroutine for each federated trust domain, ended by Close. Start reading at Config, then Keeper.Configure.
package federate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
)

// Times. What an endpoint says (spiffe_refresh_hint) is kept between leastEvery and mostEvery.
const (
	leastEvery   = time.Second
	usualEvery   = 5 * time.Minute // where it says nothing (SPIFFE Federation, section 5.2.1)
	mostEvery    = time.Hour
	fileEvery    = 5 * time.Second
	firstRetry   = time.Second
	mostRetry    = time.Minute
	fetchTimeout = 10 * time.Second
	storedAgain  = 10 * time.Minute // the age of a bundle in the store is right within this
	storeTimeout = 5 * time.Second
)

// kind is what bundles are stored as.
const kind = "FederatedBundle"

// Config of a Keeper; Store is needed.
type Config struct {
	Store store.Store // of the last good bundles
	// Own answers whom the mesh believes, nil while that is not known: what an endpoint of https_spiffe of another trust domain may be
	// verified with as well. May be nil.
	Own func() *model.Trust
	Now func() time.Time // nil: time.Now
	Log *slog.Logger
}

// Bundle is what is known of a federated trust domain.
type Bundle struct {
	TrustDomain string    `json:"trustDomain"`
	Roots       [][]byte  `json:"roots"` // DER
	Sequence    uint64    `json:"sequence,omitempty"`
	Hint        int64     `json:"hint,omitempty"` // seconds; how often it wants to be asked for
	From        string    `json:"from"`           // "MeshConfig", a path, an address
	Fetched     time.Time `json:"fetched"`        // when it was read last
	Failing     string    `json:"-"`              // why it could not be read again; "": it was
	Since       time.Time `json:"-"`              // of Failing
}

// Keeper keeps them.
type Keeper struct {
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	configuring sync.Mutex // one Configure at a time; taken before mu

	mu      sync.Mutex
	aliases []string
	mesh    string // the trust domain that MeshConfig says
	follows map[string]*follow
	changed func()
}

// follow is one trust domain that is followed.
type follow struct {
	spec v1alpha1.Federation
	stop context.CancelFunc
	last Bundle // no Roots: nothing is known yet
}

// New makes a Keeper that knows nothing.
func New(cfg Config) *Keeper {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg, follows: map[string]*follow{}}
	k.ctx, k.stop = context.WithCancel(context.Background())
	return k
}

// Changed has f called after what Others answers is something else, from any goroutine.
func (k *Keeper) Changed(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = f
}

// Close ends all following and waits for it.
func (k *Keeper) Close() {
	k.stop()
	k.done.Wait()
}

// Check answers the first of the federations whose bundle, as it is written, cannot be read, and why.
func Check(list []v1alpha1.Federation) (int, error) {
	for i := range list {
		if list[i].Bundle == "" {
			continue
		}
		if _, err := parse(list[i].TrustDomain, []byte(list[i].Bundle)); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// Configure takes what MeshConfig says, nil for nothing. What is the same as before goes on. Bundles that are written in it, and those
// that are stored, are known when it returns; it waits for nothing else.
func (k *Keeper) Configure(spec *v1alpha1.MeshConfigSpec) {
	if spec == nil {
		spec = &v1alpha1.MeshConfigSpec{}
	}
	k.configuring.Lock()
	defer k.configuring.Unlock()
	k.mu.Lock()
	moved := k.mesh != spec.TrustDomain || !slices.Equal(k.aliases, spec.TrustDomainAliases)
	k.mesh, k.aliases = spec.TrustDomain, slices.Clone(spec.TrustDomainAliases)
	wanted := map[string]v1alpha1.Federation{}
	for _, f := range spec.Federation {
		wanted[f.TrustDomain] = f
	}
	for name, f := range k.follows {
		if w, ok := wanted[name]; ok && reflect.DeepEqual(w, f.spec) {
			delete(wanted, name)
			continue
		}
		f.stop()
		delete(k.follows, name)
		moved = true
	}
	k.mu.Unlock()
	for name, w := range wanted {
		f := &follow{spec: w}
		var ctx context.Context
		ctx, f.stop = context.WithCancel(k.ctx)
		f.last = k.first(&w)
		k.mu.Lock()
		k.follows[name] = f
		k.mu.Unlock()
		k.done.Go(func() { k.run(ctx, f) })
		moved = true
	}
	k.mu.Lock()
	changed := k.changed
	k.mu.Unlock()
	if moved && changed != nil {
		changed()
	}
}

// first answers what is known without asking anybody.
func (k *Keeper) first(f *v1alpha1.Federation) (b Bundle) {
	ctx, cancel := context.WithTimeout(k.ctx, storeTimeout)
	defer cancel()
	if f.Endpoint != nil || f.BundleFile != "" {
		if o, err := k.cfg.Store.Get(ctx, store.Key{Kind: kind, Name: f.TrustDomain}); err == nil {
			if err := json.Unmarshal(o.Value, &b); err == nil && b.TrustDomain == f.TrustDomain && b.From == source(f) {
				return b
			}
		}
	}
	if f.Bundle == "" {
		return Bundle{}
	}
	b, err := parse(f.TrustDomain, []byte(f.Bundle))
	if err != nil { // only an older or newer control plane can have stored it
		k.cfg.Log.Error("a bundle in MeshConfig cannot be read", "trust_domain", f.TrustDomain, "error", err)
		return Bundle{}
	}
	b.From, b.Fetched = "MeshConfig", k.cfg.Now()
	return b
}

// source says where a bundle comes from.
func source(f *v1alpha1.Federation) string {
	if f.Endpoint != nil {
		return f.Endpoint.URL
	}
	return cmp.Or(f.BundleFile, "MeshConfig")
}

// run follows one trust domain until ctx ends.
func (k *Keeper) run(ctx context.Context, f *follow) {
	if f.spec.Endpoint == nil && f.spec.BundleFile == "" {
		return
	}
	stored := time.Time{}
	for retry := firstRetry; ; {
		b, err := k.read(ctx, f)
		if ctx.Err() != nil {
			return
		}
		var wait time.Duration
		if err != nil {
			k.failed(f, err)
			wait, retry = retry, min(2*retry, mostRetry)
		} else {
			retry = firstRetry
			wait = every(f, b)
			if k.take(f, b) || b.Fetched.Sub(stored) >= storedAgain {
				stored = b.Fetched
				k.store(ctx, b)
			}
		}
		t := time.NewTimer(time.Duration(float64(wait) * (0.8 + 0.2*rand.Float64())))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func every(f *follow, b Bundle) time.Duration {
	switch {
	case f.spec.Endpoint == nil:
		return fileEvery
	case b.Hint <= 0:
		return usualEvery
	}
	return time.Duration(min(max(b.Hint, int64(leastEvery/time.Second)), int64(mostEvery/time.Second))) * time.Second
}

// read obtains a bundle anew.
func (k *Keeper) read(ctx context.Context, f *follow) (b Bundle, err error) {
	if f.spec.BundleFile != "" && (f.spec.Endpoint == nil || !k.knows(f)) {
		text, err := readFile(f.spec.BundleFile)
		if err == nil {
			b, err = parse(f.spec.TrustDomain, text)
		}
		if err != nil || f.spec.Endpoint == nil {
			b.From, b.Fetched = f.spec.BundleFile, k.cfg.Now()
			return b, err
		}
		b.From, b.Fetched = f.spec.BundleFile, k.cfg.Now()
		k.take(f, b) // until the endpoint has answered, which may have to be verified with it
	}
	text, err := k.fetch(ctx, f)
	if err == nil {
		b, err = parse(f.spec.TrustDomain, text)
	}
	if err != nil {
		return b, fmt.Errorf("%s: %w", f.spec.Endpoint.URL, err)
	}
	b.From, b.Fetched = f.spec.Endpoint.URL, k.cfg.Now()
	return b, nil
}

func (k *Keeper) knows(f *follow) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(f.last.Roots) > 0
}

// readFile reads what may be no bundle at all.
func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > v1alpha1.MaxBundle {
		return nil, fmt.Errorf("%s is not a file of %d bytes at most", path, v1alpha1.MaxBundle)
	}
	return os.ReadFile(path)
}

// take puts a bundle in force; it reports whether it is another one.
func (k *Keeper) take(f *follow, b Bundle) bool {
	k.mu.Lock()
	if k.follows[f.spec.TrustDomain] != f { // it was taken out meanwhile
		k.mu.Unlock()
		return false
	}
	moved := !slices.EqualFunc(f.last.Roots, b.Roots, bytes.Equal)
	recovered := f.last.Failing != ""
	f.last = b
	changed := k.changed
	k.mu.Unlock()
	if moved || recovered {
		k.cfg.Log.Info("bundle of a federated trust domain", "trust_domain", b.TrustDomain, "from", b.From, "roots", len(b.Roots), "sequence", b.Sequence)
	}
	if moved && changed != nil {
		changed()
	}
	return moved
}

// failed notes that a bundle could not be read again.
func (k *Keeper) failed(f *follow, err error) {
	k.mu.Lock()
	first := f.last.Failing == ""
	if first {
		f.last.Since = k.cfg.Now()
	}
	f.last.Failing = err.Error()
	known := len(f.last.Roots) > 0
	k.mu.Unlock()
	if first {
		what := "the bundle of a federated trust domain cannot be read again; the last one stays in force, and it is tried again"
		if !known {
			what = "the bundle of a federated trust domain cannot be read; nobody of it is believed until it can, and it is tried again"
		}
		k.cfg.Log.Warn(what, "trust_domain", f.spec.TrustDomain, "error", err)
	}
}

func (k *Keeper) store(ctx context.Context, b Bundle) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	value, err := json.Marshal(b)
	if err == nil {
		_, err = k.cfg.Store.Put(ctx, store.Object{Key: store.Key{Kind: kind, Name: b.TrustDomain}, Value: value}, store.Any)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		k.cfg.Log.Warn("the bundle of a federated trust domain is not kept for the next start", "trust_domain", b.TrustDomain, "error", err)
	}
}

// Aliases answers the trust domains that count as own, which is the mesh's: the aliases that MeshConfig names, and the one that is
// about to be the mesh's own.
func (k *Keeper) Aliases(own string) (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.aliases, own) && k.mesh != own {
		return nil // of another mesh's MeshConfig: what it names is none of ours
	}
	for _, d := range append([]string{k.mesh}, k.aliases...) {
		if d != "" && d != own && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// Bundles answers what is known, by trust domain, of those too of which nothing is.
func (k *Keeper) Bundles() []Bundle {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []Bundle{}
	for name, f := range k.follows {
		b := f.last
		b.TrustDomain = name
		b.From = cmp.Or(b.From, source(&f.spec))
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Bundle) int { return cmp.Compare(a.TrustDomain, b.TrustDomain) })
	return out
}
