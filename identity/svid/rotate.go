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

// Times of a rotation, as parts of the identity's life, and their bounds.
const (
	renewFrom, renewTo = 0.5, 0.6 // of its life, somewhere between
	alarmLeft          = 0.3      // of its life: then a failed renewal is an alarm

	minRetry, maxRetry     = 50 * time.Millisecond, time.Minute
	firstRetry, laterRetry = 1. / 50, 1. / 10 // of its life; the first at most a second

	leastFetch, mostFetch = time.Second, 15 * time.Second // one try, a fifth of its life
	fetchPart             = 1. / 5

	// Where Trust asks for a new identity, one is obtained within this part of its life, and this time at most.
	hurry     = 1. / 20
	mostHurry = 30 * time.Second

	// Certificates that are obtained because the one before was revoked are so far apart; the first is obtained at once.
	betweenRevoked = 5 * time.Second
)

// Config of a Rotator; Fetch is needed.
type Config struct {
	Fetch Fetch
	Clock *Clock // nil: the machine's
	Log   *slog.Logger
}

// Rotator is a Source that renews itself. The identity in force stays until there is a newer one, also past
// its end: whoever talks to us then refuses it and says so.
type Rotator struct {
	cfg     Config
	log     *slog.Logger
	current atomic.Pointer[SVID]
	failure atomic.Pointer[Failure]
	failed  atomic.Uint64
	wake    chan struct{} // holds one: when the next renewal is due has changed
	stop    context.CancelFunc
	done    sync.WaitGroup

	replaced time.Time // run's: when the last certificate was obtained because the one before was revoked

	telling sync.Mutex // a call of told; also taken to change current
	told    func(*SVID)
}

// Failure is why an identity is not renewed, and since when.
type Failure struct {
	Err   error
	Since time.Time
}

// NewRotator obtains the first identity, bounded by ctx, and renews it until Close.
func NewRotator(ctx context.Context, cfg Config) (*Rotator, error) {
	first, err := cfg.Fetch(ctx, nil)
	if err != nil {
		return nil, err
	}
	return resume(ctx, first, cfg), nil
}

// Resume goes on with an identity that was obtained before, and renews it when that is due until Close.
func Resume(now *SVID, cfg Config) *Rotator { return resume(context.Background(), now, cfg) }

func resume(ctx context.Context, now *SVID, cfg Config) *Rotator {
	r := &Rotator{cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
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

// Believe changes whom the identity in force, and every later one, believes. A new one is obtained soon if t asks for that, at once if
// t takes the certificate of the one in force, but not the identity, out of use.
func (r *Rotator) Believe(t *Trust) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.set(r.Current().Believing(t))
	r.hasten()
}

// Judged takes what the control plane said when s was shown to it: why that proves nothing, whereupon another one is obtained at once,
// or nil when s was taken. What it said of an identity that is no longer in force is of no interest.
func (r *Rotator) Judged(s *SVID, refused error) {
	r.telling.Lock()
	defer r.telling.Unlock()
	now := r.Current()
	if now.Certificate.Leaf != s.Certificate.Leaf || (now.Refused == nil) == (refused == nil) {
		return
	}
	next := *now
	next.Refused = refused
	r.set(&next)
	r.hasten()
}

// hasten has the time of the next renewal looked at again: the clock, or the trust, has changed.
func (r *Rotator) hasten() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// set puts an identity in force. The caller holds telling.
func (r *Rotator) set(s *SVID) {
	r.current.Store(s)
	if r.told != nil {
		r.told(s)
	}
}

// Current is part of Source.
func (r *Rotator) Current() *SVID { return r.current.Load() }

// Now is part of Timed.
func (r *Rotator) Now() time.Time { return r.cfg.Clock.Now() }

// Clock answers the mesh's clock as it is known here.
func (r *Rotator) Clock() *Clock { return r.cfg.Clock }

// Failing answers why the last renewal failed, nil if it did not; and how many have.
func (r *Rotator) Failing() (*Failure, uint64) { return r.failure.Load(), r.failed.Load() }

// Close ends the renewing and waits for it. The identity in force stays readable.
func (r *Rotator) Close() {
	r.stop()
	r.done.Wait()
}

func (r *Rotator) run(ctx context.Context) {
	for ctx.Err() == nil {
		if r.await(ctx); ctx.Err() == nil {
			r.renew(ctx)
		}
	}
}

// await waits until a renewal is due.
func (r *Rotator) await(ctx context.Context) {
	s, part, soon := r.Current(), renewFrom+(renewTo-renewFrom)*rand.Float64(), rand.Float64()
	for first := r.Now(); ; {
		due := r.due(s, part, first.Add(time.Duration(soon*min(hurry*float64(s.Life()), float64(mostHurry)))))
		t := time.NewTimer(min(max(0, due.Sub(r.Now())), maxRetry)) // timers stand still while the machine sleeps
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-r.wake: // the trust is another one
			t.Stop()
			s, first = r.Current(), r.Now()
		case <-t.C:
			if !r.Now().Before(due) {
				return
			}
		}
	}
}

// due answers when s is renewed: after a part of its life, soon if the mesh asks for it or it has yet to begin, at once if it is revoked.
func (r *Rotator) due(s *SVID, part float64, soon time.Time) time.Time {
	if s.Revoked() != nil {
		now := r.Now()
		if wait := betweenRevoked - now.Sub(r.replaced); wait > 0 && wait <= betweenRevoked {
			return now.Add(wait)
		}
		return now
	}
	if s.NotBefore.After(r.Now()) {
		return r.Now()
	}
	at := s.made().Add(time.Duration(part * float64(s.Life())))
	if s.Trust != nil && s.made().Before(time.Unix(s.Trust.Model.Renew, 0)) && soon.Before(at) {
		return soon
	}
	return at
}

// renew tries until it has a new identity, or the one in force, which was revoked, is good again.
func (r *Rotator) renew(ctx context.Context) {
	life := float64(r.Current().Life())
	most := min(max(time.Duration(life*laterRetry), minRetry), maxRetry)
	retry := min(max(time.Duration(life*firstRetry), minRetry), time.Second, most)
	for first := retry; ; {
		revoked := r.Current().Revoked() != nil
		next, err := r.try(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.failure.Store(nil)
			r.telling.Lock()
			r.set(next.Believing(r.Current().Trust))
			r.telling.Unlock()
			if revoked {
				r.replaced = r.Now()
				r.log.Warn("the certificate was revoked; another one is in force", "id", next.ID.String(), "serial", next.Certificate.Leaf.SerialNumber.Text(16))
			}
			return
		}
		r.complain(err, retry)
		changed := r.pause(ctx, retry, revoked)
		switch {
		case ctx.Err() != nil:
			return
		case changed && revoked:
			r.failure.Store(nil)
			return
		case changed:
			retry = first
		default:
			retry = min(2*retry, most)
		}
	}
}

// pause waits for about so long, or until the identity in force is revoked, or is so no more; it reports whether that has changed.
func (r *Rotator) pause(ctx context.Context, about time.Duration, revoked bool) (changed bool) {
	t := time.NewTimer(time.Duration(float64(about) * (0.7 + 0.6*rand.Float64())))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return false
		case <-r.wake:
			if (r.Current().Revoked() != nil) != revoked {
				return true
			}
		}
	}
}

// complain says that a renewal failed, and how long that does no harm.
func (r *Rotator) complain(err error, retry time.Duration) {
	now := r.Current()
	at := r.Now()
	since := at
	if f := r.failure.Load(); f != nil {
		since = f.Since
	}
	r.failure.Store(&Failure{Err: err, Since: since})
	r.failed.Add(1)
	left := now.NotAfter.Sub(at)
	level, what := slog.LevelWarn, "identity not renewed; the one before stays in force"
	switch {
	case left <= 0:
		level, what = slog.LevelError, "the identity has ended and could not be renewed, nobody believes this workload: have the control plane back, or start the workload again with a new join token"
	case now.Revoked() != nil:
		level, what = slog.LevelError, "the certificate was revoked and another one could not be had: nobody talks to this workload"
	case left < time.Duration(alarmLeft*float64(now.Life())):
		what = "alarm: the identity is about to end and could not be renewed"
	}
	r.log.Log(context.Background(), level, what, "id", now.ID.String(), "left", left.Round(time.Second).String(), "until", now.NotAfter,
		"failing_for", at.Sub(since).Round(time.Second).String(), "error", err, "retry", retry.String())
}

func (r *Rotator) try(ctx context.Context) (*SVID, error) {
	now := r.Current()
	limit := min(max(time.Duration(fetchPart*float64(now.Life())), leastFetch), mostFetch)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	next, err := r.cfg.Fetch(ctx, now)
	if err == nil && next.ID != now.ID && (now.Trust == nil || now.Trust.Canonical(next.ID) != now.Trust.Canonical(now.ID)) {
		err = fmt.Errorf("the new identity is %s, not %s", next.ID, now.ID)
	}
	return next, err
}
