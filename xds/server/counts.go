package server

import (
	"sync/atomic"

	"github.com/tulle-mesh/tulle/xds/resource"
)

// counted are the types of resources that are counted by themselves; a peer may ask for others, which are counted together.
var counted = [...]struct{ typ, name string }{
	{resource.TypeService, "Service"}, {resource.TypeRouteTable, "RouteTable"}, {resource.TypeCluster, "Cluster"},
	{resource.TypeEndpoints, "Endpoints"}, {resource.TypeSecurity, "Security"}, {resource.TypeTrust, "Trust"},
}

// Count is how often resources of a type were sent to proxies (responses), and refused by them.
type Count struct {
	Type          string // "Cluster"; "other"
	Pushes, Nacks uint64
}

// counts is what the streams of a service count.
type counts struct {
	pushes, nacks [len(counted) + 1]atomic.Uint64
}

// kindOf is where a type is counted.
func kindOf(typ string) int {
	for i := range counted {
		if counted[i].typ == typ {
			return i
		}
	}
	return len(counted)
}

// Counts answers them, in a fixed order.
func (s *Service) Counts() (out []Count) {
	for i := range len(counted) + 1 {
		name := "other"
		if i < len(counted) {
			name = counted[i].name
		}
		out = append(out, Count{name, s.counts.pushes[i].Load(), s.counts.nacks[i].Load()})
	}
	return out
}
