package admission

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/rate"
	"github.com/tulle-mesh/tulle/model"
)

// bucket is one token bucket for all loops: the state of a rate.Rate.
type bucket struct{ state atomic.Int64 }

// take takes n units, if they are there.
func (b *bucket) take(r rate.Rate, now time.Duration, n uint32) bool {
	for {
		s := b.state.Load()
		next, ok := r.Take(s, now, n)
		if !ok {
			return false
		}
		if b.state.CompareAndSwap(s, next) {
			return true
		}
	}
}

// spend takes n units, there or not, and answers how long what is owed takes to come back.
func (b *bucket) spend(r rate.Rate, now time.Duration, n uint32) time.Duration {
	for {
		s := b.state.Load()
		next := r.Spend(s, now, n)
		if b.state.CompareAndSwap(s, next) {
			return r.Wait(next, now, 0)
		}
	}
}

// refund gives n units back.
func (b *bucket) refund(r rate.Rate, n uint32) {
	for {
		s := b.state.Load()
		if b.state.CompareAndSwap(s, r.Refund(s, n)) {
			return
		}
	}
}

// buckets are the buckets of one limit by key. There are at most model.MaxBuckets. The one that goes for a new one is that
// which was used least: whose bucket is full, or nearest to it. As long as there is a full one among those that are looked
// at, nobody gets more by that: a full bucket is what a new one is.
//
// They are in sets; a key's hash says in which. To find one, locks nothing. Only to make one, which happens once for each
// key that comes, takes a mutex, so that no key ever has two.
type buckets struct {
	sets [sets]atomic.Pointer[set]
	mu   sync.Mutex
}

// ways of a set, and how many sets there are.
const (
	ways = 16
	sets = model.MaxBuckets / ways
)

type set struct {
	keys    [ways]atomic.Uint64 // 0: free
	buckets [ways]bucket
}

// find answers the bucket of a key, by its hash, made if it is not there.
func (m *buckets) find(hash uint64) *bucket {
	if hash == 0 {
		hash = 1
	}
	at := &m.sets[hash%sets]
	if s := at.Load(); s != nil {
		if b := s.find(hash); b != nil {
			return b
		}
	}
	return m.make(at, hash)
}

func (s *set) find(hash uint64) *bucket {
	for i := range s.keys {
		if s.keys[i].Load() == hash {
			return &s.buckets[i]
		}
	}
	return nil
}

// make makes a bucket, in place of the one that is nearest to full.
func (m *buckets) make(at *atomic.Pointer[set], hash uint64) *bucket {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := at.Load()
	if s == nil {
		s = &set{}
		at.Store(s)
	}
	if b := s.find(hash); b != nil {
		return b
	}
	best := 0
	for i := range s.keys {
		if s.keys[i].Load() == 0 {
			best = i
			break
		}
		if s.buckets[i].state.Load() < s.buckets[best].state.Load() {
			best = i
		}
	}
	b := &s.buckets[best]
	b.state.Store(0)
	s.keys[best].Store(hash)
	return b
}

// len answers how many there are.
func (m *buckets) len() (n int) {
	for i := range m.sets {
		if s := m.sets[i].Load(); s != nil {
			for k := range s.keys {
				if s.keys[k].Load() != 0 {
					n++
				}
			}
		}
	}
	return n
}
