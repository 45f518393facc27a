// Package kin joins what a workload asks of others to what it was asked for: the requests that leave a program to the one
// that came to it and that they are made for, through x-request-id or the trace id of traceparent, which programs
// forward for traces. So what the first caller has said (how much time is left, how important it is) goes on with them, and
// they end when nobody waits for them any more. It promises that nothing is allocated, that what is kept is bounded by what
// is under way (it lives in the exchanges), and that no lock is held while anybody is called. It never decides what an
// end means.
//
// A Table is shared by all loops of a proxy. Start reading at Table.Open and Table.Join.
package kin

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Said is what goes from a request on to those that are made for it.
type Said struct {
	Deadline time.Duration // loop time (the loops of a process share its origin); 0: none
	Class    model.Class
	Classed  bool // somebody has said Class
	Again    bool // it is a further attempt of a request that was counted before
}

// Key is what requests are joined by; 0: nothing.
type Key uint64

// Names are what a request is called by: the key of its x-request-id, and of the trace and of the span in its traceparent; 0: it
// has none. A program that forwards traceparent as it came, or x-request-id, says with it which request a call is for, also when
// that has been answered: then the call joins nothing. One that writes spans of its own says only which trace, and its call
// joins all of the trace that are open; if its own has been answered before, that cannot be told from theirs.
type Names struct{ ID, Trace, Span Key }

// Names answers those of a request.
func (t *Table) Names(id, traceparent []byte) Names {
	n := Names{ID: t.Key(id)}
	if trace := TraceID(traceparent); trace != nil {
		n.Trace, n.Span = t.Key(trace), t.Key(traceparent[3:52])
	}
	return n
}

// Table is described in the package comment. Safe for concurrent use.
type Table struct {
	seed   maphash.Seed
	shards [shards]shard
}

// MostAlike is how many requests of one identifier are looked at for one that is made for them. Clients choose identifiers, so
// there may be any number; of more than these nobody knows which it is, and nothing is said.
const MostAlike = 256

const (
	shards  = 64
	buckets = 64
	graves  = 64 // names per shard that are known to have ended: the last 4096 in all
)

type shard struct {
	mu       sync.Mutex
	parents  [buckets]*node
	children [buckets]*Child
	ended    [graves]Key
	grave    int // the next of ended
}

// New makes a Table.
func New() *Table { return &Table{seed: maphash.MakeSeed()} }

// Key answers the key of a request's identifier; of an empty one it is 0.
func (t *Table) Key(id []byte) Key {
	if len(id) == 0 {
		return 0
	}
	return max(Key(maphash.Bytes(t.seed, id)), 1)
}

// TraceID answers the trace id in a traceparent (W3C Trace Context, section 3.2), nil if there is none.
func TraceID(traceparent []byte) []byte {
	if len(traceparent) < 55 || traceparent[2] != '-' || traceparent[35] != '-' {
		return nil
	}
	return traceparent[3:35]
}

func (t *Table) at(k Key) (*shard, int) {
	return &t.shards[k%shards], int(k / shards % buckets)
}

// Parent is a request that came to the program. It is embedded in its owner; its zero value is ready.
type Parent struct {
	said  Said
	span  Key
	nodes [2]node
}

// node is a parent under one of its keys.
type node struct {
	key        Key
	parent     *Parent
	prev, next *node
}

// Child is a request that the program makes. It is embedded in its owner; its zero value is ready.
type Child struct {
	key        Key // 0: it has not been joined
	span       Key // 0: it may be for any request of key; else for those of this span
	owner      Owner
	turn       uint64
	prev, next *Child
}

// Owner of a Child is told when nobody waits for it any more: from any goroutine, without a lock, and perhaps after it has
// left. turn is what it gave to Join.
type Owner interface{ Orphaned(turn uint64) }

// Open enters a request that came to the program. Close must follow.
func (t *Table) Open(p *Parent, names Names, said Said) {
	p.said, p.span = said, names.Span
	for i, k := range [2]Key{names.ID, names.Trace} {
		if k == 0 || i == 1 && k == names.ID {
			continue
		}
		n := &p.nodes[i]
		n.key, n.parent = k, p
		s, b := t.at(k)
		s.mu.Lock()
		if n.next = s.parents[b]; n.next != nil {
			n.next.prev = n
		}
		s.parents[b] = n
		s.mu.Unlock()
	}
}

// Close takes the request out. gone says that it has ended without anybody waiting for it: then the owners of those that
// are made for it are told, unless they are made for another one as well. If it has ended in order, what was made for it may
// go on, whatever becomes of others of the same key: nobody can tell whose it is. It goes on with what was said: that has
// travelled on with it.
func (t *Table) Close(p *Parent, gone bool) {
	if k := p.span; k != 0 {
		s, _ := t.at(k)
		s.mu.Lock()
		s.bury(k)
		s.mu.Unlock()
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		k := n.key
		if k == 0 {
			continue
		}
		s, b := t.at(k)
		s.mu.Lock()
		if n.prev != nil {
			n.prev.next = n.next
		} else {
			s.parents[b] = n.next
		}
		if n.next != nil {
			n.next.prev = n.prev
		}
		*n = node{}
		if i == 0 {
			s.bury(k)
		}
		if !gone {
			s.release(b, k, p.span)
		}
		s.mu.Unlock()
		for gone {
			owner, turn := s.orphan(b, k, p.span)
			if owner == nil {
				break
			}
			owner.Orphaned(turn)
		}
	}
}

// bury remembers that what has this name has ended.
func (s *shard) bury(k Key) {
	s.ended[s.grave] = k
	s.grave = (s.grave + 1) % graves
}

// hasEnded reports whether a request of this name has ended lately. There may be others of it that are open.
func (t *Table) hasEnded(k Key) bool {
	if k == 0 {
		return false
	}
	s, _ := t.at(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.ended[:], k)
}

// release takes out the children of a key that may be of one with this span.
func (s *shard) release(b int, k, span Key) {
	for c := s.children[b]; c != nil; {
		next := c.next
		if c.key == k && (c.span == 0 || c.span == span) {
			s.unlink(b, c)
		}
		c = next
	}
}

// orphan takes out one child for which nobody is there any more, now that one of this span is not.
func (s *shard) orphan(b int, k, span Key) (Owner, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	some, same := false, false
	for n := s.parents[b]; n != nil && !same; n = n.next {
		if n.key == k {
			some, same = true, n.parent.span == span
		}
	}
	for c := s.children[b]; c != nil; c = c.next {
		if c.key == k && (c.span == 0 && !some || c.span != 0 && c.span == span && !same) {
			owner, turn := c.owner, c.turn
			s.unlink(b, c)
			return owner, turn
		}
	}
	return nil, 0
}

// Join finds what a request of the program is made for, by its identifier or else by its trace, and among those by its span;
// and answers what was said with that: of several that it may be for, the least strict. ok is false if there is none, or
// if its own has ended; otherwise Leave must follow, and owner is told with turn if they all end without waiting for it.
func (t *Table) Join(c *Child, names Names, owner Owner, turn uint64) (said Said, ok bool) {
	over := t.hasEnded(names.Span)
	for i, k := range [2]Key{names.ID, names.Trace} {
		if k == 0 {
			continue
		}
		if i == 1 && !over {
			over = t.hasEnded(names.ID)
		}
		s, b := t.at(k)
		s.mu.Lock()
		said, alike, same := s.find(b, k, names.Span)
		if ok = alike > 0 && alike <= MostAlike && (same || !over); ok {
			c.key, c.span, c.owner, c.turn = k, 0, owner, turn
			if same {
				c.span = names.Span
			}
			s.link(b, c)
		}
		s.mu.Unlock()
		if alike > 0 {
			if !ok {
				said = Said{}
			}
			return said, ok
		}
	}
	return Said{}, false
}

// find answers what was said with the open requests of a key: with those of the span if there are any (same), else with all;
// and how many there are of the key, as far as they are looked at.
func (s *shard) find(b int, k, span Key) (said Said, alike int, same bool) {
	for n := s.parents[b]; n != nil; n = n.next {
		if n.key != k {
			continue
		}
		if alike++; alike > MostAlike {
			return Said{}, alike, false
		}
		switch mine := span != 0 && n.parent.span == span; {
		case alike == 1, mine && !same:
			said, same = n.parent.said, mine
		case mine == same:
			said.loosen(n.parent.said)
		}
	}
	return said, alike, same
}

// link adds a child.
func (s *shard) link(b int, c *Child) {
	c.prev, c.next = nil, s.children[b]
	if c.next != nil {
		c.next.prev = c
	}
	s.children[b] = c
}

// loosen makes s hold for two requests.
func (s *Said) loosen(o Said) {
	if s.Deadline != 0 {
		if s.Deadline = max(s.Deadline, o.Deadline); o.Deadline == 0 {
			s.Deadline = 0
		}
	}
	switch { // nobody's word is as good as default: who copies an identifier makes nobody's requests batch
	case o.Classed && o.Class == model.ClassCritical, s.Classed && s.Class == model.ClassBatch:
		s.Class, s.Classed = o.Class, o.Classed
	case o.Classed && o.Class == model.ClassDefault:
		s.Classed = true
	}
	s.Again = s.Again && o.Again
}

// Leave takes a child out, if it is still in. It may be called for one that was not joined.
func (t *Table) Leave(c *Child) {
	k := c.key
	if k == 0 {
		return
	}
	s, b := t.at(k)
	s.mu.Lock()
	if c.owner != nil {
		s.unlink(b, c)
	}
	c.key = 0
	s.mu.Unlock()
}

// unlink takes c out; its key stays, so that Leave finds the lock.
func (s *shard) unlink(b int, c *Child) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		s.children[b] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.owner, c.prev, c.next = nil, nil, nil
}
