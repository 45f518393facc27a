package registry

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Times of DESIGN 5, "Who is alive".
const (
	Grace     = 2 * time.Second  // from a broken session to the end of its workload
	StartHold = 10 * time.Second // after a start, in which nothing expires
	StaleHold = 10 * time.Minute // how long a stale workload stays when nothing is heard of it
)

// SessionID names one session; it is never used twice.
type SessionID uint64

// core decides who is alive. It is a state machine without clock, lock and I/O: every input has the time.
// Inputs answer nothing but refusals; what changed is gathered in dirty (namespaces) and touched (keys of
// workloads to be stored or deleted).
type core struct {
	hold      time.Time // nothing expires before
	workloads map[string]*entry
	sessions  map[SessionID]string
	dirty     map[string]bool
	touched   map[string]bool
}

// entry is one workload.
type entry struct {
	w        Workload
	session  SessionID // 0: none
	deadline time.Time // of Lost and Stale
	under    []standby // oldest first
}

// standby is the session of a proxy that another one of the same supervisor is replacing, or has replaced, and that is
// there still: it counts again if the newer one breaks off.
type standby struct {
	session SessionID
	w       Workload
}

// maxUnder bounds the proxies of one workload that are replaced at the same time: one drains, one has just crashed.
const maxUnder = 4

func newCore(hold time.Time) *core {
	return &core{
		hold: hold, workloads: map[string]*entry{}, sessions: map[SessionID]string{},
		dirty: map[string]bool{}, touched: map[string]bool{},
	}
}

// restore takes over what was stored before the start: endpoints still, until their sessions return or the
// hold ends.
func (c *core) restore(w Workload, now time.Time) {
	if w.State == Starting {
		c.touched[w.Key()] = true // no endpoint, so not to be kept; it will announce itself
		return
	}
	w.State, w.Since = Lost, now
	c.workloads[w.Key()] = &entry{w: w, deadline: c.hold}
	c.dirty[w.Namespace] = true
}

// join begins a session. A newer session of the same identity replaces the older one: for good if it is of the same
// proxy (or of another supervisor), else as long as it lasts.
func (c *core) join(id SessionID, w Workload, now time.Time) error {
	key := w.Key()
	e := &entry{session: id}
	if old := c.workloads[key]; old != nil {
		if old.session != 0 && old.w.Identity != w.Identity {
			return fmt.Errorf("workload %s is announced by %s already: choose another name", key, old.w.Identity)
		}
		w.Since = old.w.Since
		if old.w.State != w.State {
			w.Since = now
		}
		e.under = c.replace(old, &w)
	} else {
		w.Since = now
	}
	e.w = w
	c.workloads[key] = e
	c.sessions[id] = key
	c.mark(&w)
	return nil
}

// replace answers the sessions that stand under a new one, of w, and ends the others. What the proxy before has learned
// about the program stays known: the program is the same.
func (c *core) replace(old *entry, w *Workload) (under []standby) {
	for _, s := range append(old.under, standby{old.session, old.w}) {
		if s.session != 0 && s.w.PID == w.PID && s.w.Starts != w.Starts {
			under = append(under, s)
		} else {
			delete(c.sessions, s.session)
		}
	}
	for ; len(under) > maxUnder; under = under[1:] {
		delete(c.sessions, under[0].session)
	}
	if old.w.PID != w.PID {
		return under
	}
	w.Ports = slices.Clone(w.Ports)
	for i := range w.Ports {
		p := &w.Ports[i]
		for _, o := range old.w.Ports {
			if o.Target == p.Target && p.Learned == model.ProtocolUnknown {
				p.Learned = o.Learned
			}
		}
	}
	return under
}

// of answers the entry of a session, nil when it has none (any more), or another one counts.
func (c *core) of(id SessionID) *entry {
	if e := c.workloads[c.sessions[id]]; e != nil && e.session == id {
		return e
	}
	return nil
}

func (c *core) mark(w *Workload) {
	c.dirty[w.Namespace], c.touched[w.Key()] = true, true
}

func (c *core) ready(id SessionID, ready bool, now time.Time) {
	e := c.of(id)
	state := Starting
	if ready {
		state = Live
	}
	if e == nil || e.w.State == state {
		return
	}
	e.w.State, e.w.Since = state, now
	c.mark(&e.w)
}

func (c *core) learned(id SessionID, port uint16, p model.Protocol) {
	e := c.of(id)
	if e == nil {
		return
	}
	for i := range e.w.Ports {
		if e.w.Ports[i].Target == port && e.w.Ports[i].Learned != p {
			e.w.Ports = slices.Clone(e.w.Ports) // what was published is not changed
			e.w.Ports[i].Learned = p
			c.mark(&e.w)
		}
	}
}

// goodbye is the stated end of a workload, whichever of its proxies says it. (One that has been replaced says nothing.)
func (c *core) goodbye(id SessionID) {
	if e := c.workloads[c.sessions[id]]; e != nil {
		c.remove(e)
	}
}

func (c *core) remove(e *entry) {
	for _, s := range e.under {
		delete(c.sessions, s.session)
	}
	delete(c.sessions, e.session)
	delete(c.workloads, e.w.Key())
	c.mark(&e.w)
}

// broken is the end of a session without a goodbye.
func (c *core) broken(id SessionID, now time.Time) {
	e := c.workloads[c.sessions[id]]
	if e == nil {
		return
	}
	if e.session != id {
		delete(c.sessions, id)
		e.under = slices.DeleteFunc(e.under, func(s standby) bool { return s.session == id })
		return
	}
	if n := len(e.under); n > 0 { // the proxy before is there still, and knows more than we do
		delete(c.sessions, id)
		e.session, e.w, e.under = e.under[n-1].session, e.under[n-1].w, e.under[:n-1]
		c.mark(&e.w)
		return
	}
	if e.w.State == Starting {
		c.remove(e)
		return
	}
	delete(c.sessions, id)
	e.session, e.w.State, e.w.Since = 0, Lost, now
	e.deadline = later(now.Add(Grace), c.hold)
	c.mark(&e.w)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expire ends what is due. When several workloads of a service are lost, and they are more than a third of it,
// it is more likely that we cannot see them than that they are dead: those that are due become stale.
func (c *core) expire(now time.Time) {
	lost, all := map[model.ServiceName]int{}, map[model.ServiceName]int{}
	var due []*entry
	for _, e := range c.workloads {
		name := model.ServiceName{Namespace: e.w.Namespace, Name: e.w.Service}
		if e.w.State != Starting {
			all[name]++
		}
		if e.w.State == Lost || e.w.State == Stale {
			lost[name]++
			if !e.deadline.After(now) {
				due = append(due, e)
			}
		}
	}
	for _, e := range due {
		name := model.ServiceName{Namespace: e.w.Namespace, Name: e.w.Service}
		if e.w.State == Lost && lost[name] > 1 && 3*lost[name] > all[name] {
			e.w.State, e.w.Since, e.deadline = Stale, now, now.Add(StaleHold)
			c.mark(&e.w)
			continue
		}
		c.remove(e)
	}
}

// next answers when expire has something to do; the zero time for never.
func (c *core) next() time.Time {
	var t time.Time
	for _, e := range c.workloads {
		if !e.deadline.IsZero() && (e.w.State == Lost || e.w.State == Stale) && (t.IsZero() || e.deadline.Before(t)) {
			t = e.deadline
		}
	}
	return t
}

// list answers copies of the workloads of a namespace, in order of their names.
func (c *core) list(namespace string) []*Workload {
	var out []*Workload
	for _, key := range slices.Sorted(maps.Keys(c.workloads)) {
		if e := c.workloads[key]; e.w.Namespace == namespace {
			w := e.w
			out = append(out, &w)
		}
	}
	return out
}
