package model

import (
	"net/netip"
	"time"
)

// Picker is who says which endpoint of a cluster takes a request: an endpoint picker of Gateway API's inference extension
// (proposal 004-endpoint-picker-protocol), which is asked by Envoy's protocol of external processing before the first
// attempt.
type Picker struct {
	Cluster  PortName      // the port of the service that is asked
	FailOpen bool          // where it does not answer, or names nobody who may take the request: the cluster's balancing picks
	Timeout  time.Duration // from the whole request to the whole answer; 0: DefaultPickTimeout
	MaxBody  uint32        // bytes of a request's body; a longer one is not shown; 0: DefaultPickBody
}

// Defaults of a Picker. A picker that has gone is known at once; the time is for one that hangs. Whoever picks by what is asked
// has to have all of it: 1 MiB is Envoy's own bound of what it holds of a request.
const (
	DefaultPickTimeout = time.Second
	DefaultPickBody    = 1 << 20
)

// PickQuestion is what a picker is asked about one request. It is not changed once it was asked.
type PickQuestion struct {
	Picker    PortName
	Timeout   time.Duration
	Fields    []Header // pseudo fields first, names in lower case
	Body      []byte
	HasBody   bool     // else Body is empty, and the request has none that could be shown
	Endpoints []string // who may be picked, as "ip:port"; nil: it is not said
}

// PickAnswer is what a picker has said.
type PickAnswer struct {
	Endpoints []netip.AddrPort // in the order in which they are to be tried
	Set       []Header         // fields of the request, lower case: they replace those of the same name
	Remove    []string
	Body      []byte // in the place of the request's, if Rewritten
	Rewritten bool
	// Status of an answer that the picker has made itself, 0: none; Text is its body.
	Status int
	Text   []byte
	// Served tells the picker who has answered, and with what status, or with "" and 0 that nobody has. It has to be called
	// once, from anywhere, and does not wait; nil: nobody wants to know.
	Served func(endpoint string, status int)
}

// Bounds of a PickAnswer.
const (
	MaxPicked     = 64
	MaxPickFields = 64
	MaxPickText   = 4096
)
