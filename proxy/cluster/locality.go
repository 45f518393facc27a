package cluster

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
)

// rank is the order in which endpoints are taken: by priority, and within one the nearest first.
type rank struct {
	priority uint32
	far      int
}

func (a rank) compare(b rank) int {
	if n := cmp.Compare(a.priority, b.priority); n != 0 {
		return n
	}
	return a.far - b.far
}

// Distances. Regions to fail over to follow farRegion in their order, then all others.
const (
	sameSubZone = iota
	sameZone
	sameRegion
	farRegion
)

// place is where a caller is, and what it is called.
type place struct {
	locality string
	labels   []model.Label
}

// SetLocality says where the caller is, "region/zone/sub_zone", and which labels it has, for model.LocalityPrefer; "": nobody
// knows, and all endpoints are equally near. Called as Set is.
func (c *Cluster) SetLocality(own string, labels []model.Label) {
	next := &place{own, labels}
	if was := c.own.Swap(next); was == nil && own == "" && len(labels) == 0 || was != nil && reflect.DeepEqual(was, next) {
		return
	}
	c.remake()
}

// nearness answers how far an endpoint is away from the caller.
func (c *Cluster) nearness(b *model.Balancing, m *model.Endpoint) int {
	own := c.own.Load()
	if b.Locality.Mode != model.LocalityPrefer || own == nil {
		return 0
	}
	far := 0
	if own.locality != "" {
		far = distance(own.locality, m.Locality, b.Locality.Failover)
	}
	return unlike(own.labels, m.Labels, b.Locality.Labels)*(farRegion+len(b.Locality.Failover)+1) + far
}

// unlike answers how many of names are left when the first comes that two do not share.
func unlike(own, other []model.Label, names []string) int {
	for i, name := range names {
		at := slices.IndexFunc(own, func(l model.Label) bool { return l.Name == name })
		if at < 0 || !slices.Contains(other, own[at]) {
			return len(names) - i
		}
	}
	return 0
}

func distance(own, other string, failover []model.Failover) int {
	region, rest, _ := strings.Cut(own, "/")
	to, toRest, _ := strings.Cut(other, "/")
	if region != to {
		far := farRegion
		for _, f := range failover {
			if f.From != region && f.From != "*" {
				continue
			}
			if f.To == to {
				return far
			}
			far++
		}
		return farRegion + len(failover)
	}
	zone, sub, _ := strings.Cut(rest, "/")
	toZone, toSub, _ := strings.Cut(toRest, "/")
	switch {
	case zone != toZone:
		return sameRegion
	case sub != toSub:
		return sameZone
	}
	return sameSubZone
}

// group is the endpoints of a level that are picked from together: those of one locality with model.LocalityWeighted,
// otherwise all of the level.
type group struct {
	endpoints []*Endpoint
	weight    uint64             // of the locality
	wheel     *balancer.Wheel    // always
	ring      *balancer.Ring     // RingHash
	table     *balancer.Table    // Maglev
	rotation  *balancer.Rotation // RoundRobin
	reported  *reported          // LeastUtilized
	turns     *atomic.Uint64     // of RoundRobin and LeastUtilized; apart from what is only read
	warmth    warmth
}

// split makes a level's groups.
func split(priority uint32, endpoints []*Endpoint, b *model.Balancing, weights []model.LocalityWeight) []*group {
	if b.Locality.Mode != model.LocalityWeighted {
		return []*group{newGroup(endpoints, nil, b)}
	}
	shares := map[string]uint64{}
	for _, w := range weights {
		if w.Priority == priority && w.Weight > 0 {
			shares[w.Locality] = uint64(w.Weight)
		}
	}
	parts := map[string][]*Endpoint{}
	var order []string
	var rest []*Endpoint // of localities that have a weight
	for _, e := range endpoints {
		l, ok := shareOf(e.Model().Locality, shares)
		if !ok {
			continue
		}
		if parts[l] == nil {
			order = append(order, l)
		}
		parts[l] = append(parts[l], e)
		rest = append(rest, e)
	}
	if len(rest) == 0 { // nobody has said anything about these
		return []*group{newGroup(endpoints, nil, b)}
	}
	if b.Policy == model.RingHash || b.Policy == model.Maglev { // one hash goes to one place
		return []*group{newGroup(rest, scaled(rest, parts, shares), b)}
	}
	slices.Sort(order)
	var out []*group
	for _, l := range order {
		g := newGroup(parts[l], nil, b)
		g.weight = shares[l]
		out = append(out, g)
	}
	return out
}

// shareOf answers which share an endpoint's locality has a part in: that of its own, or of the zone or region that it is in.
func shareOf(locality string, shares map[string]uint64) (string, bool) {
	for {
		if shares[locality] > 0 {
			return locality, true
		}
		i := strings.LastIndexByte(locality, '/')
		if i < 0 {
			return "", false
		}
		locality = locality[:i]
	}
}

// scaled answers weights by which each locality has its share, however many endpoints it has.
func scaled(endpoints []*Endpoint, parts map[string][]*Endpoint, shares map[string]uint64) []uint32 {
	out := make([]uint32, len(endpoints))
	var most float64
	exact := make([]float64, len(endpoints))
	for i, e := range endpoints {
		m, sum := e.Model(), 0.0
		l, _ := shareOf(m.Locality, shares)
		for _, o := range parts[l] {
			sum += float64(max(o.Model().Weight, 1))
		}
		exact[i] = float64(shares[l]) * float64(max(m.Weight, 1)) / sum
		most = max(most, exact[i])
	}
	for i, x := range exact {
		out[i] = uint32(max(x/most*(1<<16)+0.5, 1))
	}
	return out
}

// newGroup makes a group; weights nil: the endpoints' own.
func newGroup(endpoints []*Endpoint, weights []uint32, b *model.Balancing) *group {
	g := &group{endpoints: endpoints, turns: &atomic.Uint64{}}
	labels := make([]string, len(endpoints))
	own := weights == nil
	for i, e := range endpoints {
		m := e.Model()
		labels[i] = m.Address.String()
		if own {
			weights = append(weights, m.Weight)
		}
	}
	g.wheel = balancer.NewWheel(weights)
	switch b.Policy {
	case model.RoundRobin:
		g.rotation = balancer.NewRotation(weights)
	case model.RingHash:
		g.ring = balancer.NewRing(labels, weights, b.MinRing, b.MaxRing)
	case model.Maglev:
		g.table = balancer.NewTable(labels, weights, b.TableSize)
	case model.LeastUtilized:
		g.reported = newReported(len(endpoints))
	}
	g.warmth.changed.Store(true)
	return g
}

// sample is how many endpoints of a level are looked at for its load: with more, as many, beginning anywhere.
const sample = 32

// load answers how many requests are under way for each unit of weight of the level's endpoints that are well; ok is false if there are
// none of them.
func (l *level) load(rnd uint64) (each float64, ok bool) {
	n := len(l.endpoints)
	from := 0
	if n > sample {
		from = int(rnd % uint64(n))
	}
	var busy int64
	var weight uint64
	for k := range min(n, sample) {
		e := l.endpoints[(from+k)%n]
		if e.is(well) {
			busy += e.inflight.Load()
			weight += uint64(max(e.model.Load().Weight, 1))
		}
	}
	if weight == 0 {
		return 0, false
	}
	return float64(busy) / float64(weight), true
}

// spill answers the level that a request goes to instead of first because first is busy: the nearest of the same priority whose
// load is below at, or, when all of them are busy, the least busy one.
func (v *view) spill(first int, at uint32, rnd uint64) int {
	best, least := first, -1.0
	for i := first; i < len(v.levels) && v.levels[i].priority == v.levels[first].priority; i++ {
		each, ok := v.levels[i].load(rnd)
		switch {
		case !ok:
		case each < float64(at):
			return i
		case least < 0 || each < least:
			best, least = i, each
		}
	}
	return best
}
