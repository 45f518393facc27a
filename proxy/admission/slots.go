package admission

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/limit"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// slots are the requests at work at once, of a limit that is learned. Counting is atomic; the limit is looked at by
// whichever loop ends a request when it is due, one at a time.
type slots struct {
	limit    atomic.Int64
	inflight atomic.Int64
	busiest  atomic.Int64 // in this window
	sum, n   atomic.Int64 // of latencies, ns
	since    atomic.Int64 // requests that began before do not count
	due      atomic.Int64
	base     atomic.Int64    // what an unhurried request takes, ns
	waits    [3]atomic.Int64 // by class, in all lanes
	tenants  tenants
	round    atomic.Uint32 // of best
	lanes    atomic.Pointer[[]*lane]

	looking atomic.Bool // somebody has control
	control limit.Adaptive

	mu  sync.Mutex // of set and lanes
	set *model.Adaptive
}

// configure puts settings in force. The same again change nothing of what was learned.
func (s *slots) configure(m *model.Adaptive, g *Gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set != nil && sameBounds(s.set, m) {
		s.set = m
		return
	}
	s.set = m
	for !s.looking.CompareAndSwap(false, true) { // whoever has it is about to be done
	}
	now := time.Duration(s.since.Load())
	s.control = limit.NewAdaptive(settings(m), now, maphash.String(g.seed, "probe"))
	s.publish()
	s.looking.Store(false)
}

func sameBounds(a, b *model.Adaptive) bool {
	x, y := *a, *b
	x.Queue, y.Queue, x.Fair, y.Fair = 0, 0, nil, nil
	return x == y
}

func settings(m *model.Adaptive) limit.Settings {
	return limit.Settings{Least: int(m.Least), Most: int(m.Most), Interval: m.Interval, Tolerance: m.Tolerance, ProbeEvery: m.Probe}
}

func (s *slots) publish() {
	s.limit.Store(int64(s.control.Limit()))
	s.since.Store(int64(s.control.Since()))
	s.due.Store(int64(s.control.Due()))
	s.base.Store(int64(s.control.Base()))
}

// take counts one more at work, if there is room for its class.
func (s *slots) take(c model.Class, now time.Duration) bool {
	if int64(now) >= s.due.Load() {
		s.look(now) // nothing may have ended for a while
	}
	most := int64(limit.Share(c, int(s.limit.Load())))
	for {
		n := s.inflight.Load()
		if n >= most {
			return false
		}
		if s.inflight.CompareAndSwap(n, n+1) {
			for b := s.busiest.Load(); n+1 > b && !s.busiest.CompareAndSwap(b, n+1); b = s.busiest.Load() {
			}
			return true
		}
	}
}

// give counts one less, that began then. One that has failed tells something of the server only if it took longer than an
// unhurried one: it may have been given up because it took so long.
func (s *slots) give(began, now time.Duration, failed bool) {
	s.inflight.Add(-1)
	if took := int64(now - began); int64(began) >= s.since.Load() && (!failed || took > s.base.Load()) {
		s.sum.Add(took)
		s.n.Add(1)
	}
	if int64(now) >= s.due.Load() {
		s.look(now)
	}
	if s.waiting() > 0 {
		s.next()
	}
}

// waiting answers how many wait in all lanes.
func (s *slots) waiting() (n int64) {
	for c := range s.waits {
		n += s.waits[c].Load()
	}
	return n
}

// before reports whether somebody waits who goes before one of a class that comes now, or has waited for his turn.
func (s *slots) before(c model.Class) bool {
	for _, other := range classOrder {
		if s.waits[other].Load() > 0 {
			return true
		}
		if other == c {
			return false
		}
	}
	return false
}

// classOrder is who goes first.
var classOrder = [...]model.Class{model.ClassCritical, model.ClassDefault, model.ClassBatch}

// look brings the limit up to date, unless somebody is at it.
func (s *slots) look(now time.Duration) {
	if !s.looking.CompareAndSwap(false, true) {
		return
	}
	if now >= s.control.Due() {
		w := limit.Window{Count: int(s.n.Load()), Busiest: int(s.busiest.Load())}
		if w.Count > 0 {
			w.Mean = time.Duration(s.sum.Load() / int64(w.Count))
		}
		if _, over := s.control.Update(w, now); over {
			s.sum.Store(0) // what another loop adds meanwhile is lost, or counts for the next window
			s.n.Store(0)
			s.busiest.Store(s.inflight.Load())
		}
		s.publish()
	}
	s.looking.Store(false)
}

// next wakes the lane of who is next.
func (s *slots) next() {
	if l, _, _ := s.best(); l != nil {
		l.wake()
	}
}

// best answers the lane of who is next, his class and when in virtual time he may begin; nil: nobody waits.
func (s *slots) best() (next *lane, class model.Class, start int64) {
	all := s.lanes.Load()
	if all == nil {
		return nil, 0, 0
	}
	first := int(s.round.Add(1)) // of those who are alike another one every time: a tenant may wait in several lanes
	for _, c := range classOrder {
		for i := range *all {
			l := (*all)[(first+i)%len(*all)]
			active := l.active[c].Load()
			if active == 0 {
				continue
			}
			if _, at := limit.First(active, &s.tenants); next == nil || at < start {
				next, start = l, at
			}
		}
		if next != nil {
			return next, c, start
		}
	}
	return nil, 0, 0
}

// pass wakes the next lane if there is room: a lane that was woken has nobody.
func (s *slots) pass() {
	if s.waiting() > 0 && s.inflight.Load() < s.limit.Load() {
		s.next()
	}
}

// lane is the line of those of one loop who wait at a gate. What is not atomic belongs to the loop. It is there from the
// first who waits until nobody has for as long as one may: a gate that is replaced would be kept by it otherwise.
type lane struct {
	of     *Loop
	gate   *Gate
	loop   loop.Loop
	active [3]atomic.Uint64 // by class: limit.Line's, for other loops
	woken  atomic.Bool
	line   limit.Line
	timer  loop.Timer
	run    func()
}

// lane answers the loop's lane at a gate.
func (l *Loop) lane(g *Gate) *lane {
	if a := l.lanes[g]; a != nil {
		return a
	}
	a := &lane{of: l, gate: g, loop: l.loop}
	a.run, a.timer.Expired = a.serve, a.expire
	if l.lanes == nil {
		l.lanes = map[*Gate]*lane{}
	}
	l.lanes[g] = a
	s := &g.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*lane
	if old := s.lanes.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = append(all, a)
	s.lanes.Store(&all)
	return a
}

// end takes a lane away in which nobody waits.
func (l *lane) end() {
	delete(l.of.lanes, l.gate)
	s := &l.gate.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(*s.lanes.Load()), func(o *lane) bool { return o == l })
	s.lanes.Store(&rest)
}

// leastLine is how many may wait at least, however low the limit is.
const leastLine = 16

// line has the request wait for its turn, for Adaptive.Queue at most.
func (t *Ticket) line() Outcome {
	l, g := t.loop.lane(t.gate), t.gate
	now := l.loop.Now()
	most := max(leastLine, int(g.slots.limit.Load()))
	t.waiter.Owner, t.waiter.Tenant = t, g.slots.tenants.find(t.tenant)
	out := l.line.Push(&t.waiter, t.Class, now, most)
	l.changed(&t.waiter, 1)
	if out != nil {
		o := out.Owner.(*Ticket)
		l.changed(out, -1)
		o.unwork()
		if o == t {
			return t.shed()
		}
		o.tell(o.shed())
	}
	if !l.timer.Armed() {
		l.loop.Arm(&l.timer, t.prog.adaptive.Queue)
	}
	if g.slots.inflight.Load() < g.slots.limit.Load() {
		l.wake() // a place came free meanwhile
	}
	return Waiting
}

// changed tells all loops that one waits more, or less.
func (l *lane) changed(w *limit.Waiter, n int64) {
	c, s := w.Class(), &l.gate.slots
	s.tenants.waiting(w.Tenant, n)
	l.active[c%3].Store(l.line.Active(c))
	s.waits[c%3].Add(n)
}

// remove takes a ticket out of the line.
func (l *lane) remove(t *Ticket) {
	l.line.Remove(&t.waiter)
	l.changed(&t.waiter, -1)
}

// wake has the lane look for who may begin, in a turn of its loop. From any goroutine.
func (l *lane) wake() {
	if !l.woken.Swap(true) {
		l.loop.Post(l.run)
	}
}

// ahead is by how many requests a tenant in another loop's lane must be behind one of ours for our lane to let that one go
// first: loops wake each other not for every request.
const ahead = 2 * turnCost

// serve lets begin who may.
func (l *lane) serve() {
	l.woken.Store(false)
	s := &l.gate.slots
	for {
		c, ok := l.line.Best()
		if !ok {
			s.pass() // there may be more room, or who was woken has left
			return
		}
		if other, class, start := s.best(); other != nil && other != l {
			if _, own := limit.First(l.line.Active(c), &s.tenants); class != c || own-start > ahead {
				other.wake()
				return
			}
		}
		if !s.take(c, l.loop.Now()) {
			return
		}
		w := l.line.Pop(&s.tenants)
		t := w.Owner.(*Ticket)
		l.changed(w, -1)
		s.tenants.charge(w.Tenant, t.prog.weight(t.tenant))
		t.slot, t.began = true, l.loop.Now()
		t.Owner.Admitted()
	}
}

// expire sends away who has waited too long.
func (l *lane) expire() {
	now := l.loop.Now()
	queue := time.Duration(0)
	if a := l.gate.now.Load().adaptive; a != nil {
		queue = a.Queue
	}
	for w := l.line.Expired(now - queue); w != nil; w = l.line.Expired(now - queue) {
		t := w.Owner.(*Ticket)
		l.changed(w, -1)
		t.unwork()
		t.tell(t.shed())
	}
	if since, ok := l.line.Oldest(); ok {
		l.loop.Arm(&l.timer, max(since+queue-now, loop.Tick))
		return
	}
	l.end()
}

// unwork gives back what was counted before the request had a turn.
func (t *Ticket) unwork() {
	if t.work {
		t.work = false
		t.gate.atWork.Add(-1)
	}
}
