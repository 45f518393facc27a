package cluster

import (
	"slices"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
)

// view is the endpoints of a generation that a request may go to: all of them, or those that have the labels it asks for
// (model.Backend.Subset). It is made once; a request only looks it up.
type view struct {
	labels []model.Label
	levels []*level // by priority and, within it, by nearness; those that have endpoints
	usable int      // endpoints of all levels
	plan   atomic.Pointer[plan]
	used   atomic.Bool // a subset: by a request
	slots  []*view     // by slot: of its owners; nil: it has none, or there are no shards (shards.go)
	parts  []*view     // those of slots, each once
}

// MaxSubsets bounds the subsets of one generation that are kept. Routes say which there are, so more are many routes of the
// past.
const MaxSubsets = 256

// view makes a set's view of the endpoints that have labels; nil: of all. c.mu is held, or nobody else knows s.
func (c *Cluster) view(s *set, labels []model.Label) *view {
	v := &view{labels: labels}
	b := &c.model.Load().Balancing
	var members []*Endpoint
	for _, e := range s.all {
		if m := e.Model(); m.Health != model.Draining && hasAll(m.Labels, labels) {
			members = append(members, e)
		}
	}
	c.fill(s, v, members, b)
	c.shard(s, v, members, b)
	return v
}

// fill makes v the view of members, by level.
func (c *Cluster) fill(s *set, v *view, members []*Endpoint, b *model.Balancing) {
	byLevel := map[rank][]*Endpoint{}
	var ranks []rank
	for _, e := range members {
		v.usable++
		m := e.Model()
		r := rank{m.Priority, c.nearness(b, m)}
		if byLevel[r] == nil {
			ranks = append(ranks, r)
		}
		byLevel[r] = append(byLevel[r], e)
	}
	slices.SortFunc(ranks, rank.compare)
	for _, r := range ranks {
		v.levels = append(v.levels, newLevel(r.priority, byLevel[r], b, s.localities))
	}
	v.replan(s, b)
}

// hasAll reports whether labels have all of want.
func hasAll(labels, want []model.Label) bool {
	for _, w := range want {
		if !slices.Contains(labels, w) {
			return false
		}
	}
	return true
}

// subset answers the view of a set that a request with these labels sees; nil: no endpoint fits. Nothing is allocated
// but when they are asked for the first time.
func (c *Cluster) subset(s *set, labels []model.Label) *view {
	if len(labels) == 0 {
		return s.whole
	}
	if o := c.model.Load().Balancing.Subsets; o != nil {
		return c.selected(s, o, labels)
	}
	return c.known(s, labels)
}

// selected is subset where only some sets of labels select (Envoy's lb_subset_config).
func (c *Cluster) selected(s *set, o *model.Subsets, labels []model.Label) *view {
	if slices.ContainsFunc(o.Selectors, func(keys []string) bool { return names(labels, keys) }) {
		if v := c.known(s, labels); v.usable > 0 {
			return v
		}
	}
	switch o.Fallback {
	case model.SubsetAny:
		return s.whole
	case model.SubsetDefault:
		if len(o.Default) == 0 {
			return s.whole
		}
		return c.known(s, o.Default)
	}
	return nil
}

// names reports whether labels, which are sorted, name exactly keys.
func names(labels []model.Label, keys []string) bool {
	if len(labels) != len(keys) {
		return false
	}
	for i := range keys {
		if labels[i].Name != keys[i] {
			return false
		}
	}
	return true
}

// known answers a subset's view, made if it is the first time.
func (c *Cluster) known(s *set, labels []model.Label) *view {
	var buf [256]byte
	key := appendKey(buf[:0], labels)
	v := s.subsets()[string(key)]
	if v == nil {
		v = c.addSubset(s, labels)
	}
	if !v.used.Load() {
		v.used.Store(true)
	}
	return v
}

// appendKey appends what tells labels apart from others.
func appendKey(b []byte, labels []model.Label) []byte {
	for _, l := range labels {
		b = append(append(append(append(b, l.Name...), 0), l.Value...), 0)
	}
	return b
}

func (c *Cluster) addSubset(s *set, labels []model.Label) *view {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := string(appendKey(nil, labels))
	was := s.subsets()
	if v := was[key]; v != nil {
		return v
	}
	next := make(map[string]*view, len(was)+1)
	if len(was) < MaxSubsets {
		for k, v := range was {
			next[k] = v
		}
	}
	next[key] = c.view(s, slices.Clone(labels))
	s.parts.Store(&next)
	return next[key]
}

// inherit makes for s, which nobody else knows yet, the subsets that requests have asked old for, so that the first
// request after a change does not have to.
func (c *Cluster) inherit(s, old *set) {
	next := map[string]*view{}
	for k, v := range old.subsets() {
		if v.used.Load() {
			next[k] = c.view(s, v.labels)
		}
	}
	if len(next) > 0 {
		s.parts.Store(&next)
	}
}

// views calls f for every view of s.
func (s *set) views(f func(*view)) {
	each := func(v *view) {
		f(v)
		for _, part := range v.parts {
			f(part)
		}
	}
	each(s.whole)
	for _, v := range s.subsets() {
		each(v)
	}
}

func (s *set) subsets() map[string]*view {
	if m := s.parts.Load(); m != nil {
		return *m
	}
	return nil
}
