package svid

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Fetch obtains a new identity, with a new key. It is told the one in force, nil the first time.
type Fetch func(ctx context.Context, now *SVID) (*SVID, error)

// Times of a rotation.
const (
	renewAt    = 0.6 // of the lifetime, spread by ±5 %
	minRetry   = time.Second
	maxRetry   = time.Minute
	fetchLimit = 15 * time.Second // one try
)

// Rotator is a Source that renews itself. The identity in force stays until there is a newer one, also past
// its end: whoever talks to us then refuses it and says so.
type Rotator struct {
	fetch   Fetch
	log     *slog.Logger
	current atomic.Pointer[SVID]
	stop    context.CancelFunc
	done    sync.WaitGroup

	telling sync.Mutex // a call of told; also taken to change current
	told    func(*SVID)
}

// NewRotator obtains the first identity, bounded by ctx, and renews it until Close.
func NewRotator(ctx context.Context, fetch Fetch, log *slog.Logger) (*Rotator, error) {
	first, err := fetch(ctx, nil)
	if err != nil {
		return nil, err
	}
	return resume(ctx, first, fetch, log), nil
}

// Resume goes on with an identity that was obtained before, and renews it when that is due until Close.
func Resume(now *SVID, fetch Fetch, log *slog.Logger) *Rotator {
	return resume(context.Background(), now, fetch, log)
}

func resume(ctx context.Context, now *SVID, fetch Fetch, log *slog.Logger) *Rotator {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Rotator{fetch: fetch, log: log}
	r.current.Store(now)
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.done.Go(func() { r.run(ctx) })
	return r
}

// Tell calls f with the identity in force and then with every later one, one call at a time, before Close has
// returned. It replaces the f before.
func (r *Rotator) Tell(f func(*SVID)) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.told = f
	f(r.Current())
}

func (r *Rotator) set(s *SVID) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.current.Store(s)
	if r.told != nil {
		r.told(s)
	}
}

// Current is part of Source.
func (r *Rotator) Current() *SVID { return r.current.Load() }

// Close ends the renewing and waits for it. The identity in force stays readable.
func (r *Rotator) Close() {
	r.stop()
	r.done.Wait()
}

func (r *Rotator) run(ctx context.Context) {
	wait, retry := untilRenewal(r.Current(), time.Now()), minRetry
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		next, err := r.try(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.log.Warn("identity not renewed; the one before stays in force", "id", r.Current().ID.String(),
				"until", r.Current().NotAfter, "error", err, "retry", retry)
			wait, retry = spread(retry, 0.3), min(2*retry, maxRetry)
		default:
			r.set(next)
			wait, retry = untilRenewal(next, time.Now()), minRetry
		}
	}
}

func (r *Rotator) try(ctx context.Context) (*SVID, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	now := r.Current()
	next, err := r.fetch(ctx, now)
	if err == nil && next.ID != now.ID {
		err = fmt.Errorf("the new identity is %s, not %s", next.ID, now.ID)
	}
	return next, err
}

// untilRenewal answers how long to wait, at least minRetry.
func untilRenewal(s *SVID, now time.Time) time.Duration {
	life := s.NotAfter.Sub(s.NotBefore)
	at := s.NotBefore.Add(spread(time.Duration(renewAt*float64(life)), 0.05))
	return max(minRetry, at.Sub(now))
}

func spread(d time.Duration, by float64) time.Duration {
	return time.Duration(float64(d) * (1 - by + 2*by*rand.Float64()))
}
