// Package delta is the incremental xDS protocol (docs: xds_protocol, "Incremental xDS") as two state machines,
// Client and Server, each for one aggregated stream at a time. They are pure: messages in, messages out; who
// drives them owns the stream, the lock and the clock. Neither is safe for concurrent use. Start reading at
// Client.
package delta

import (
	"maps"
	"slices"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Short names of the wire's messages.
type (
	Request  = discovery.DeltaDiscoveryRequest
	Response = discovery.DeltaDiscoveryResponse
	Resource = discovery.Resource
)

// Wildcard asks for every resource of a type.
const Wildcard = "*"

// set of names.
type set map[string]struct{}

func (s set) has(n string) bool { _, ok := s[n]; return ok }
func (s set) sorted() []string  { return slices.Sorted(maps.Keys(s)) }
