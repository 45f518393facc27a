package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/token"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Config of a Ring. Everything has a default.
type Config struct {
	Log   *slog.Logger                                                    // nil: silent
	Fetch func(ctx context.Context, m *model.TokenIssuer) ([]byte, error) // answers a key set; nil: over HTTPS (Fetch)
	Every time.Duration                                                   // keys are fetched again; default 5 min
	Least time.Duration                                                   // between two fetches that a token with an unknown key asks for; default 10 s
	// Changed runs after a key of an issuer is not its key any more, or its first keys have come, on a goroutine of the ring; it must be
	// quick. nil: nobody is told.
	Changed func()
	Again   time.Duration // after a fetch that failed, doubled up to a minute; default 1 s
}

// maxWaiting is how many requests may wait for the keys of one issuer.
const maxWaiting = 1024

// Ring is the keys of all issuers that a proxy believes.
type Ring struct {
	cfg   Config
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex
	sources map[sourceKey]*Source
}

type sourceKey struct{ issuer, keys, url, file string }

// NewRing makes one without keys.
func NewRing(cfg Config) *Ring {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Fetch == nil {
		cfg.Fetch = Fetch
	}
	for _, d := range []struct {
		at *time.Duration
		is time.Duration
	}{{&cfg.Every, 5 * time.Minute}, {&cfg.Least, 10 * time.Second}, {&cfg.Again, time.Second}} {
		if *d.at <= 0 {
			*d.at = d.is
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Ring{cfg: cfg, ctx: ctx, stop: stop, sources: map[sourceKey]*Source{}}
}

// Close ends fetching and waits for it.
func (r *Ring) Close() {
	r.stop()
	r.tasks.Wait()
}

// source answers where an issuer's keys come from, also into fresh: the one that there is, so that keys outlive a change of policies, or
// a new one, which does not fetch before keep.
func (r *Ring) source(m *model.TokenIssuer, fresh map[sourceKey]*Source) (*Source, error) {
	k := sourceKey{m.Issuer, m.Keys, m.KeysURL, m.KeysFile}
	if s := fresh[k]; s != nil {
		return s, nil
	}
	r.mu.Lock()
	s := r.sources[k]
	r.mu.Unlock()
	if s == nil {
		s = &Source{ring: r, model: m, demand: make(chan struct{}, 1)}
		if m.Keys != "" {
			keys, err := token.ParseKeys([]byte(m.Keys))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			s.keys.Store(keys)
		}
	}
	fresh[k] = s
	return s, nil
}

// keep begins to fetch what is new and ends what is not wanted any more.
func (r *Ring) keep(sources map[sourceKey]*Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range r.sources {
		if sources[k] == nil && s.stop != nil {
			s.stop()
		}
	}
	for k, s := range sources {
		if r.sources[k] == nil && s.fetched() && r.ctx.Err() == nil {
			ctx, stop := context.WithCancel(r.ctx)
			s.stop, s.fetching = stop, true
			r.tasks.Go(func() { s.follow(ctx) })
		}
	}
	r.sources = sources
}

// Source is the keys of one issuer.
type Source struct {
	ring   *Ring
	model  *model.TokenIssuer
	keys   atomic.Pointer[token.Keys] // nil: none have come yet
	demand chan struct{}
	stop   context.CancelFunc

	mu       sync.Mutex
	fetching bool
	last     time.Time // a fetch ended
	waiting  []waiting
}

type waiting struct {
	on   loop.Loop
	then func()
}

func (s *Source) fetched() bool { return s.model.Keys == "" }

// wanted reports whether newer keys may come soon: they are being fetched, or may be.
func (s *Source) wanted() bool {
	if !s.fetched() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetching || time.Since(s.last) >= s.ring.cfg.Least
}

// Wait has keys fetched and then runs on the loop, whatever came of it; false: too many wait already, and it never runs. Whoever
// waits has a bound of his own.
func (s *Source) Wait(on loop.Loop, then func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= maxWaiting {
		return false
	}
	s.waiting = append(s.waiting, waiting{on, then})
	if !s.fetching {
		s.fetching = true // by follow, in a moment: nobody asks again meanwhile
		select {
		case s.demand <- struct{}{}:
		default:
		}
	}
	return true
}

// follow fetches keys until ctx ends.
func (s *Source) follow(ctx context.Context) {
	cfg := &s.ring.cfg
	wait := cfg.Again
	for {
		next := cfg.Every
		if s.model.KeysFile != "" {
			next = min(next, fileEvery)
		}
		if err := s.fetch(ctx); err != nil && ctx.Err() == nil {
			next = wait
			wait = min(2*wait, time.Minute)
			cfg.Log.Warn("the keys of an issuer could not be fetched; those before stay in use", "issuer", s.model.Issuer, "policy", s.model.Name, "error", err)
		} else {
			wait = cfg.Again
		}
		s.tell()
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			s.tell()
			return
		case <-t.C:
		case <-s.demand:
			t.Stop()
		}
		s.mu.Lock()
		s.fetching = true
		s.mu.Unlock()
	}
}

// tell wakes who waits.
func (s *Source) tell() {
	s.mu.Lock()
	s.fetching, s.last = false, time.Now()
	all := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, w := range all {
		w.on.Post(w.then) // refused by a loop that has ended: so has the request
	}
}

func (s *Source) fetch(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, fetchTimeout)
	defer stop()
	text, err := s.ring.cfg.Fetch(ctx, s.model)
	if err != nil {
		return err
	}
	keys, err := token.ParseKeys(text)
	if err != nil {
		return err
	}
	if before := s.keys.Swap(keys); s.ring.cfg.Changed != nil && (before == nil || !before.Within(keys)) {
		s.ring.cfg.Changed()
	}
	return nil
}

// fileEvery is how often a file with keys is read.
const fileEvery = 15 * time.Second

// fetchTimeout bounds discovery and fetch together.
const fetchTimeout = 10 * time.Second

var errNotSafe = errors.New("keys are fetched by https, or by http from this machine")
