package router

import (
	"math"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/tulle-mesh/tulle/model"
)

// Stick answers the backend of whoever has this hash, nil if the route has none (weighted rendezvous hashing: each backend
// draws for everybody, by its weight and both their names, and the highest draw wins). Backend i has weight i / sum of
// weights of all users. When weights change, users move only from backends whose share shrinks to those whose share grows,
// and only as many as have to: nobody leaves a backend whose share grows. It allocates nothing.
func (r *Route) Stick(hash uint64) *model.Backend {
	switch len(r.sums) {
	case 0:
		return nil
	case 1:
		return &r.Backends[0]
	}
	best, at := -1.0, 0
	for i := range r.Backends {
		w := r.Backends[i].Weight
		if w == 0 {
			continue
		}
		u := (float64(mix(hash^r.names[i])>>11) + 0.5) / (1 << 53) // above 0, below 1
		if draw := float64(w) / -math.Log(u); draw > best {
			best, at = draw, i
		}
	}
	return &r.Backends[at]
}

// Named answers the backend whose NameOf is name, nil if there is none.
func (r *Route) Named(name uint64) *model.Backend {
	for i := range r.names {
		if r.names[i] == name {
			return &r.Backends[i]
		}
	}
	return nil
}

// NameOf answers a number that names a backend of the route, for as long as the route has it, wherever it stands and
// whatever its weight, in every proxy; 0 for what is no backend of it.
func (r *Route) NameOf(b *model.Backend) uint64 {
	for i := range r.names {
		if &r.Backends[i] == b {
			return r.names[i]
		}
	}
	return 0
}

// nameBackends names the backends by where they are; of several that are alike the later ones also by their number.
func (r *Route) nameBackends() {
	seen := map[string]int{}
	r.names = make([]uint64, len(r.Backends))
	for i := range r.Backends {
		b := &r.Backends[i]
		name := b.Cluster.String()
		for _, l := range b.Subset {
			name += "\x00" + l.Name + "\x01" + l.Value
		}
		if seen[name]++; seen[name] > 1 {
			name += "\x02" + strconv.Itoa(seen[name])
		}
		r.names[i] = max(xxhash.Sum64String(name), 1)
	}
}

// mix makes of a number one that looks like chance (the end of splitmix64).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
