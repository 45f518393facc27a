package cluster

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model/recovery"
)

// How long failures last is learned here (docs/design/retries.md): of the cluster, from a failure until any of its endpoints
// succeeds, and of its endpoints, from a failure of one until the same one succeeds. A success costs two loads while
// nothing is failing.

// Clock is what an outage is timed with: a loop.
type Clock interface {
	Now() time.Duration
	Wall() time.Time
}

// outage is a stretch of time in which nothing has succeeded. Its zero value is none.
type outage struct {
	since  atomic.Int64  // loop time of its first failure, plus 1; 0: there is none
	latest atomic.Int64  // of its latest failure
	ended  atomic.Uint64 // how many were ended by a success
}

// unasked is for how long nobody may have asked, besides as long as the outage had lasted before: when it has ended is then
// not known well enough to learn from, and another failure is of another outage.
const unasked = time.Second

func (o *outage) stale(since int64, now time.Duration) bool {
	latest := o.latest.Load()
	return int64(now)-latest > latest-since+int64(unasked)
}

// begin notes a failure.
func (o *outage) begin(now time.Duration) {
	if since := o.since.Load(); since == 0 || o.stale(since, now) {
		o.since.CompareAndSwap(since, int64(now)+1)
	}
	o.latest.Store(int64(now))
}

// end notes a success of what has begun at some time, and answers how long the outage has lasted that it ends, if it does:
// what had begun before the outage says nothing about it. It was over at some time since its latest failure; the middle is
// taken.
func (o *outage) end(now, began time.Duration) (lasted time.Duration, over bool) {
	since := o.since.Load()
	if since == 0 || int64(began) < since-1 {
		return 0, false
	}
	stale := o.stale(since, now)
	if !o.since.CompareAndSwap(since, 0) {
		return 0, false
	}
	if o.ended.Add(1); stale {
		return 0, false
	}
	latest := time.Duration(o.latest.Load())
	return max(now-time.Duration(since-1)-max(now-latest, 0)/2, 0), true
}

// lasts answers for how long there has been an outage; 0: there is none.
func (o *outage) lasts(now time.Duration) time.Duration {
	since := o.since.Load()
	if since == 0 || o.stale(since, now) {
		return 0
	}
	return max(now-time.Duration(since-1), 1)
}

// Failed says that the endpoint has failed an attempt in a way that speaks of it or its machine: no connection, one that
// broke, no answer in time, 502 to 504.
func (e *Endpoint) Failed(clock Clock) {
	now := clock.Now()
	e.outage.begin(now)
	if e.cluster != nil {
		e.cluster.recovery.outage.begin(now)
	}
}

// Succeeded says that the endpoint has answered an attempt that had begun at loop time began.
func (e *Endpoint) Succeeded(clock Clock, began time.Duration) {
	if e.cluster == nil || e.outage.since.Load()|e.cluster.recovery.outage.since.Load() == 0 {
		return
	}
	now, r := clock.Now(), &e.cluster.recovery
	if lasted, over := e.outage.end(now, began); over {
		r.note(clock.Wall(), lasted, false)
	}
	if lasted, over := r.outage.end(now, began); over {
		r.note(clock.Wall(), lasted, true)
	}
}

// Recovery is what is learned about how long the failures of a cluster last. Safe for concurrent use.
type Recovery struct {
	outage             outage
	whole, one         atomic.Pointer[recovery.Law] // of the service and of its endpoints; nil: too little is known
	mu                 sync.Mutex
	fresh, own, shared recovery.Learned  // not taken yet; all that was seen here; what the control plane knows
	last               []recovery.Outage // not taken yet
	planned            [2]float64        // weights that the laws were made of
}

// MaxOutages is how many outages are kept until they are taken; of more the last ones.
const MaxOutages = 4

// shortest is from when on an outage is told one by one; shorter ones are in the sketch.
const shortest = 50 * time.Millisecond

// Recovery answers what was learned about the cluster.
func (c *Cluster) Recovery() *Recovery { return &c.recovery }

// Wait answers how long to wait at loop time now before a request is sent again, n of whose attempts have failed, and which
// may make left more; most bounds it, 0: recovery.Most. random is uniform over uint64. ok is false while too little was learned. Nothing is allocated.
func (r *Recovery) Wait(now time.Duration, left int, most time.Duration, random uint64) (d time.Duration, ok bool) {
	l := r.whole.Load()
	if l == nil {
		return 0, false
	}
	return l.Wait(&recovery.Question{Down: r.outage.lasts(now), Left: left, Most: most, Random: random}), true
}

// Longer answers how much longer to wait at loop time now, for who has waited since loop time from and has decided at loop
// time asked; 0: no longer. If others have asked in vain since then, it is known what an attempt would tell, and the wait is
// chosen anew, as if it had been one's own that has failed. But nobody waits longer than most altogether.
func (r *Recovery) Longer(now, from, asked time.Duration, left int, most time.Duration, random uint64) time.Duration {
	l, since, latest := r.whole.Load(), r.outage.since.Load(), r.outage.latest.Load()
	if l == nil || since == 0 || latest <= int64(asked) || r.outage.stale(since, now) {
		return 0
	}
	if most <= 0 {
		most = recovery.Most
	}
	wait := l.Wait(&recovery.Question{Down: time.Duration(latest - (since - 1)), Left: left, Most: most, Random: random})
	return max(min(time.Duration(latest)+wait, from+most)-now, 0)
}

// Reopen answers after how long an endpoint that has been failing for down is worth a real request, within least and most
// (0: no bound but those of package recovery). ok is false while too little was learned.
func (r *Recovery) Reopen(down, least, most time.Duration, random uint64) (d time.Duration, ok bool) {
	l := r.one.Load()
	if l == nil {
		return 0, false
	}
	return l.Wait(&recovery.Question{Down: down, Left: reopenings, Least: least, Most: most, Random: random}), true
}

// reopenings is how many probes of an endpoint are thought to be left: they cost one request each.
const reopenings = 4

// Down answers for how long the cluster has had no success since its last failure; 0: the last attempt has succeeded.
func (r *Recovery) Down(now time.Duration) time.Duration { return r.outage.lasts(now) }

// Down answers the same of an endpoint.
func (e *Endpoint) Down(now time.Duration) time.Duration { return e.outage.lasts(now) }

// note adds an outage.
func (r *Recovery) note(at time.Time, lasted time.Duration, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range []*recovery.Learned{&r.fresh, &r.own} {
		if whole {
			l.Service.Add(at, lasted)
		} else {
			l.Endpoint.Add(at, lasted)
		}
	}
	if whole && lasted >= shortest {
		if len(r.last) == MaxOutages {
			r.last = r.last[:copy(r.last, r.last[1:])]
		}
		r.last = append(r.last, recovery.Outage{Ended: at, Lasted: lasted})
	}
	r.relearn()
}

// share takes what the control plane knows of the destination: what all proxies have seen, this one too. What cannot be
// read is of a newer version, or worth nothing.
func (r *Recovery) share(b []byte) {
	l, err := recovery.DecodeLearned(b)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shared = l
	r.relearn()
}

// news is by what share a sketch must have changed for a new law to be made of it, which takes some 100 µs: what fails one
// request in a hundred has many outages a second.
const news = 0.05

// relearn makes the laws: of what is shared and not yet part of it, or of what was seen here while that is more. The caller
// holds mu.
func (r *Recovery) relearn() {
	all := r.shared
	all.Merge(&r.fresh)
	if own := &r.own; own.Service.Weight()+own.Endpoint.Weight() > all.Service.Weight()+all.Endpoint.Weight() {
		all = *own
	}
	for i, s := range []*recovery.Sketch{&all.Service, &all.Endpoint} {
		if w := s.Weight(); math.Abs(w-r.planned[i]) > r.planned[i]*news {
			r.planned[i] = w
			[]*atomic.Pointer[recovery.Law]{&r.whole, &r.one}[i].Store(s.Law())
		}
	}
}

// Take answers what was learned since the last call, for the control plane; ok is false if that is nothing.
func (r *Recovery) Take() (l recovery.Learned, last []recovery.Outage, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fresh.Empty() {
		return l, nil, false
	}
	l, last = r.fresh, r.last
	r.fresh, r.last = recovery.Learned{}, nil
	return l, last, true
}

// Known answers all that is known here.
func (r *Recovery) Known() recovery.Learned {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.shared
	all.Merge(&r.fresh)
	if all.Empty() {
		return r.own
	}
	return all
}
