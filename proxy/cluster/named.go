package cluster

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/tulle-mesh/tulle/model"
)

// Endpoints by name, for sessions (model.Session): a client brings a number that names the endpoint which it had before.

// NameOf answers the number that names an endpoint, the same in every proxy: of a workload of the mesh for as long as it has
// that name, wherever it is; of another one, of its address. It tells nobody where the endpoint is.
func NameOf(m *model.Endpoint) uint64 {
	var room [256]byte
	b := room[:0]
	if m.Identity != "" && m.Workload != "" {
		b = append(append(append(b, m.Namespace...), 0), m.Workload...)
	} else {
		b = m.Address.AppendTo(b)
	}
	return xxhash.Sum64(binary.BigEndian.AppendUint16(append(b, 0), m.Port))
}

// Named answers the endpoint of that name, if it is in force and takes requests; otherwise nil, and out of how many there
// are. One that cools down is answered: it may be well again, and whoever has a session with it has nothing elsewhere. It
// allocates once per set of endpoints.
func (c *Cluster) Named(name uint64) (ep *Endpoint, from int) {
	s := c.set.Load()
	all := s.names.Load()
	if all == nil {
		m := make(map[uint64]*Endpoint, len(s.all))
		for _, e := range s.all {
			m[NameOf(e.Model())] = e
		}
		s.names.Store(&m)
		all = &m
	}
	ep = (*all)[name]
	if ep == nil || ep.Gone() || ep.Model().Health == model.Draining || !ep.is(wellOrDegraded) {
		return nil, s.whole.usable
	}
	return ep, s.whole.usable
}
