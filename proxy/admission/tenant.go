package admission

import (
	"sync"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/proxy/limit"
)

// tenants are who share the turns at a gate, in all its loops: limit.Shares by start-time fair queueing. The virtual time is
// where the request began that had its turn last; who has not waited for a while begins there too, so nobody saves turns up,
// and nobody owes more than one.
//
// There are limit.Tenants of them. Who comes when none is free shares one with another, whichever his hash says: the two
// have one share together, and no third gets less by it.
type tenants struct {
	now   atomic.Int64 // virtual
	keys  [limit.Tenants]atomic.Uint64
	ends  [limit.Tenants]atomic.Int64 // virtual, of his last request
	waits [limit.Tenants]atomic.Int64 // requests of his, in all lanes
	mu    sync.Mutex                  // of making one
}

// turnCost is what a request of weight 1 adds to virtual time.
const turnCost = 1 << 16

// ways in which a hash may be kept.
const tenantWays = 8

// find answers the tenant of a hash.
func (t *tenants) find(hash uint64) int {
	if hash == 0 {
		hash = 1
	}
	for i := range uint64(tenantWays) {
		if at := (hash + i) % limit.Tenants; t.keys[at].Load() == hash {
			return int(at)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now.Load()
	free := -1
	for i := range uint64(tenantWays) {
		at := int((hash + i) % limit.Tenants)
		switch key := t.keys[at].Load(); {
		case key == hash:
			return at
		case free < 0 && (key == 0 || t.waits[at].Load() == 0 && t.ends[at].Load() <= now):
			free = at
		}
	}
	if free < 0 {
		return int(hash % limit.Tenants)
	}
	t.ends[free].Store(0)
	t.keys[free].Store(hash)
	return free
}

// Start implements limit.Shares, for who waits.
func (t *tenants) Start(tenant int) int64 { return t.ends[tenant].Load() }

// waiting notes that n more requests of a tenant wait. The first one's start stays as it is then, however far virtual time goes
// on without him.
func (t *tenants) waiting(tenant int, n int64) {
	if t.waits[tenant].Add(n) == 1 && n > 0 {
		raise(&t.ends[tenant], t.now.Load())
	}
}

// charge notes that a request of a tenant has had its turn.
func (t *tenants) charge(tenant int, weight uint32) {
	cost := turnCost / int64(max(weight, 1))
	raise(&t.now, t.ends[tenant].Add(cost)-cost)
}

// raise makes v at least to.
func raise(v *atomic.Int64, to int64) {
	for now := v.Load(); now < to && !v.CompareAndSwap(now, to); now = v.Load() {
	}
}
