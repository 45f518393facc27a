// Package ratelimit counts requests for the whole mesh: the rate-limit service that proxies ask where a policy's global
// limit names no other. It knows no policies: each question says which limit it is about and how much that lets through
// (model.LimitKey, RateKeyOfLimit), which the proxies know from their route tables. What one service's proxies ask about is
// counted apart from what another's do. How many buckets are kept is bounded; the fullest goes first. Every replica of the
// control plane counts for itself. Safe for concurrent use. Start reading at Counter.Decide.
package ratelimit

import (
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/internal/rate"
	"github.com/tulle-mesh/tulle/model"
)

// Bounds.
const (
	maxBuckets = 100_000
	looks      = 64 // buckets that are looked at for one to give up
)

// Counter is the buckets.
type Counter struct {
	now func() time.Duration

	mu      sync.Mutex
	buckets map[string]int64 // states of rate.Rate
}

// New makes one; now answers the time on a clock that does not go back.
func New(now func() time.Duration) *Counter {
	return &Counter{now: now, buckets: map[string]int64{}}
}

// Decide answers which limits are reached; of those that are not, hits are taken. A descriptor that names no limit is
// never over it. It implements ratelimit.Decide of package xds/ratelimit.
func (c *Counter) Decide(peer spiffe.ID, q *model.RateQuestion, hits uint32) *model.RateAnswer {
	if peer.IsZero() {
		return nil
	}
	out := &model.RateAnswer{Descriptors: make([]model.DescriptorAnswer, len(q.Descriptors))}
	for i, d := range q.Descriptors {
		r, quota, window, ok := rateOf(d)
		if !ok {
			continue
		}
		a := &out.Descriptors[i]
		a.Requests, a.Window = quota, window
		c.count(keyOf(peer, q.Domain, d), r, hits, a)
	}
	return out
}

// rateOf answers how much a descriptor says its limit lets through.
func rateOf(d model.Descriptor) (r rate.Rate, quota uint32, window time.Duration, ok bool) {
	for _, e := range d {
		if e.Key == model.RateKeyOfLimit {
			n, w, burst, err := model.ParseRate(e.Value)
			return rate.New(n, w, burst), n, w, err == nil
		}
	}
	return r, 0, 0, false
}

// keyOf answers what is counted together. How much is allowed is no part of it: a limit that is changed goes on.
func keyOf(peer spiffe.ID, domain string, d model.Descriptor) string {
	var b strings.Builder
	for _, s := range []string{peer.Namespace, peer.ServiceAccount, domain} {
		b.WriteString(s)
		b.WriteByte(0)
	}
	for _, e := range d {
		if e.Key != model.RateKeyOfLimit {
			b.WriteString(e.Key)
			b.WriteByte(0)
			b.WriteString(e.Value)
			b.WriteByte(0)
		}
	}
	return b.String()
}

func (c *Counter) count(key string, r rate.Rate, hits uint32, a *model.DescriptorAnswer) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	state, known := c.buckets[key]
	if !known && len(c.buckets) >= maxBuckets {
		c.forget()
	}
	next, taken := r.Take(state, now, hits)
	c.buckets[key] = next
	a.Over, a.Left, a.Reset = !taken, r.Left(next, now), r.Full(next, now)
	if !taken {
		a.Reset = r.Wait(next, now, hits)
	}
}

// forget gives up the fullest of some buckets: who it was for has asked for little.
func (c *Counter) forget() {
	least, n := "", 0
	for k, s := range c.buckets {
		if n++; n == 1 || s < c.buckets[least] {
			least = k
		}
		if n == looks {
			break
		}
	}
	delete(c.buckets, least)
}

// Len answers how many buckets are kept.
func (c *Counter) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.buckets)
}
