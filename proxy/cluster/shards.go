package cluster

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// Shards: endpoints own slots of what requests are hashed to (model.Shards). Each set of endpoints that own a slot together is a
// view of its own, made with the generation, so that health, levels, panic and policies mean among the owners what they mean
// among all. While a slot changes hands both announce it, and both get its requests.

// shard gives v, which is of members, the views of its slots' owners.
func (c *Cluster) shard(s *set, v *view, members []*Endpoint, b *model.Balancing) {
	o := b.Shards
	if o == nil || o.Slots == 0 || o.Slots > model.MaxSlots {
		return
	}
	if b.Policy == model.RingHash || b.Policy == model.Maglev { // refused where it is written: the hash has told the slot already
		other := *b
		other.Policy = model.Random
		b = &other
	}
	v.slots = make([]*view, o.Slots)
	type edge struct {
		at   uint32
		who  int
		more int // 1: owns from here on; -1: no longer
	}
	var edges []edge
	for i, e := range members {
		for _, r := range owned(e.Model(), o) {
			edges = append(edges, edge{r.First, i, 1}, edge{r.Last + 1, i, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	claims := map[int]int{} // of members that own the slots at hand, by how many of their ranges
	known := map[string]*view{}
	for i, e := range edges {
		if claims[e.who] += e.more; claims[e.who] == 0 {
			delete(claims, e.who)
		}
		till := o.Slots
		if i+1 < len(edges) {
			till = edges[i+1].at
		}
		if till == e.at || len(claims) == 0 {
			continue
		}
		owners, key := make([]int, 0, len(claims)), []byte(nil)
		for who := range claims {
			owners = append(owners, who)
		}
		slices.Sort(owners)
		for _, who := range owners {
			key = binary.AppendUvarint(key, uint64(who))
		}
		part := known[string(key)]
		if part == nil {
			part = &view{}
			of := make([]*Endpoint, len(owners))
			for k, who := range owners {
				of[k] = members[who]
			}
			c.fill(s, part, of, b)
			known[string(key)], v.parts = part, append(v.parts, part)
		}
		for slot := e.at; slot < till; slot++ {
			v.slots[slot] = part
		}
	}
}

// owned answers what an endpoint says it owns; nothing if that cannot be read, which the control plane has said.
func owned(m *model.Endpoint, o *model.Shards) []model.SlotRange {
	for _, l := range m.Labels {
		if l.Name == o.Label {
			ranges, err := model.ParseShards(l.Value, o.Slots)
			if err != nil {
				return nil
			}
			return ranges
		}
	}
	return nil
}

// owners answers the view of who owns the request's slot; nil: nobody may take it.
func (v *view) owners(ch *Choice, o *model.Shards) *view {
	if v.slots == nil {
		return v
	}
	if ch.Hashed {
		if part := v.slots[ch.Hash%uint64(len(v.slots))]; part != nil {
			return part
		}
	}
	if o != nil && o.Any {
		return v
	}
	return nil
}

// Owns reports whether an endpoint may take a request as far as shards go: where there are none, or the request's slot has no owner
// and anybody may, every endpoint does.
func (c *Cluster) Owns(e *Endpoint, ch *Choice) bool {
	o := c.model.Load().Balancing.Shards
	if o == nil {
		return true
	}
	v := c.set.Load().whole
	part := v.owners(ch, o)
	switch part {
	case v:
		return true
	case nil:
		return false
	}
	return slices.ContainsFunc(part.levels, func(l *level) bool { return slices.Contains(l.endpoints, e) })
}
