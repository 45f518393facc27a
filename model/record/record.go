// Package record is the decision record: what was decided about one exchange or connection, and why. The
// exchange fills it as it goes; metrics, access log, tap and explain are views of it, and nothing else
// measures a request. A Record is fixed in size and is reused, so it holds no pointer that outlives the
// exchange except interned strings. Pure.
package record

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Direction is the side of the workload that the exchange was seen on.
type Direction uint8

// Directions.
const (
	Outbound Direction = iota // the workload is the caller
	Inbound                   // the workload is the server
)

// MaxAttempts is how many attempts a record remembers; later ones are only counted.
const MaxAttempts = 4

// Attempt is one try.
type Attempt struct {
	Workload string         // endpoint picked
	Address  netip.AddrPort // where it was
	From     int            // out of how many
	Reason   string         // failure.Reason label, "" when it answered
	Start    time.Duration  // loop time
	End      time.Duration
}

// Record is what happened.
type Record struct {
	Direction Direction
	Wall      time.Time     // when it began
	Start     time.Duration // loop time when the head was complete
	Head      time.Duration // loop time when the response head was there, 0 if never
	End       time.Duration

	Protocol    model.Protocol
	TCP         bool // a relayed connection, not an exchange
	Mirror      bool // a copy of an exchange: nobody got its response
	Passthrough bool // to an address outside the mesh
	MTLS        bool

	Source        model.ServiceName // from the peer's identity when inbound; zero: outside the mesh
	SourceID      string            // SPIFFE ID
	From          netip.Addr        // the other end of the connection, when inbound
	Published     bool              // inbound: it came in through a published port
	Federated     bool              // inbound: SourceID is another mesh's
	Destination   model.ServiceName // zero: outside the mesh
	DestinationID string            // SPIFFE ID proven by the peer
	Port          uint16
	Wanted        netip.AddrPort // address the program asked for

	Route   string // model.Route.Name
	Rule    int
	Backend model.PortName

	Method    string // interned
	Path      []byte // valid until the record is handed on
	Authority []byte
	RequestID []byte
	Named     []byte // what policies and tokens look at, as decision.AppendNamed and AppendToken write it; likewise
	Status    int
	GRPC      int // grpc-status, -1 none
	Reason    string

	Decision Decision // of the workload's policies

	Attempts  [MaxAttempts]Attempt
	NAttempts int
	Nth       int // which attempt of its caller's proxy this is; 0: the first, or nobody has said

	RequestBytes  int64 // bodies; for TCP what the downstream sent
	ResponseBytes int64
}

// Reset makes r ready for its next use.
func (r *Record) Reset() { *r = Record{GRPC: -1} }
