// Package exchange is one request and its response on their way through the proxy: filters, route, endpoint,
// connection, attempts, bodies in both directions, and what is remembered. It promises that every exchange that
// began ends exactly once, with a response or with the downstream's stream reset, and with one decision record;
// that no byte is held that flow control does not bound; and that nothing is allocated per request in the steady
// state. It never parses or formats a wire format and never touches a socket.
//
// An Exchange belongs to one loop. Start reading at Worker.Begin (request.go), which is the story of a request.
package exchange

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/kin"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// Origin is what is known about the connection that requests come from. All its exchanges share it and none
// changes it.
type Origin struct {
	Direction record.Direction
	Source    model.ServiceName // the caller; zero: outside the mesh
	SourceID  string            // SPIFFE ID of the caller
	MTLS      bool              // the caller proved SourceID on this connection
	Mesh      bool              // the other end is a proxy of the mesh, so its tulle-* fields are believed
	Publish   bool              // came in through --publish, from outside the mesh: the program is told by x-forwarded-for
	Remote    netip.AddrPort    // the caller's address
	Wanted    netip.AddrPort    // where the caller wanted to go

	Service model.PortName // the service port asked for; inbound: this workload's

	// Destination routes the requests of an outbound connection.
	Destination Destination
	// Program is where an inbound connection's requests go, when Destination is nil: no routing, one endpoint.
	Program  netip.AddrPort
	Protocol model.Protocol // what is known to be spoken on the port
	// ConnectTimeout to the program; 0: the pool's.
	ConnectTimeout time.Duration
	// Gate says how much the program, or the chain, takes; nil: everything.
	Gate *admission.Gate
	// Toll says how much the program, which calls, may send to Destination; it is asked where the table says anything about that
	// (model.RouteTable.Outbound). nil: everything.
	Toll *admission.Gate
	// From is where connections to the program start, so that it sees its caller's address; zero: anywhere.
	From netip.Addr

	// Policies are asked about every request, which comes from Caller: required with it. nil: everything is allowed.
	Policies *policy.InForce
	// Refuse is what every request is answered; None: they are served. There need be no Destination then.
	// Refused is what the records say about why; nil: nothing.
	Refuse  failure.Reason
	Refused *record.Decision
	// Tokens says which requests need a token, and whose are believed; nil: none is looked at.
	Tokens *token.InForce
	Caller *policy.Caller

	// HTTP is how the requests of a foreign listener's chain are treated (gateway.go); nil: a sidecar's ways. Conn is
	// required with it, Logs may be nil.
	HTTP *model.HTTP
	Conn *observe.Connection // of this connection alone
	// Turned: Wanted is where the client wanted to go before its connection was turned to us, not where we listen.
	Turned bool
	Logs   *observe.Logs // of the chain
	Fault  *router.Fault // HTTP.Fault, compiled; nil: it does nothing
}

// Observer takes the record of every exchange that ended, exactly once (observe.Recorder). The record is reused
// after Done has returned.
type Observer interface {
	Done(r *record.Record)
}

// Config of a Worker. Loop, Pool and Observer are required.
type Config struct {
	Loop     loop.Loop
	Pool     *pool.Pool
	Observer Observer     // this loop's
	Log      *slog.Logger // of tokens that are refused; nil: silent
	// Unproven bounds the lines about them, of all workers together; nil: of this one.
	Unproven *policy.Lines
	Seed     uint64 // of the loop's pseudo-random choices
	// Attempts is how many attempts one exchange may make at most; default 5.
	Attempts int
	// Routes counts what is under way on routes that have bounds of their own, for all workers; nil: for this one alone.
	Routes *cluster.RouteBreakers
	// Egress decides about requests to ExternalServices; nil: all may go.
	Egress Egress
	// Kin joins what the program asks of others to what it is asked for, and Spent is what a request comes to below it; both are
	// of all workers together. nil: nothing is joined, or told.
	Kin   *kin.Table
	Spent *cluster.Spent
	// Pick asks an endpoint picker (model.Picker) about a request, as extproc.Client does; nil: nobody can be asked.
	Pick func(q *model.PickQuestion, then func(*model.PickAnswer, error)) bool
	// Replay is how many bytes of a request body are kept for another attempt; default 64 KiB.
	Replay int
	// Consult asks external authorizers; nil: what needs one is refused, unless its policy says otherwise.
	Consult Consult
}

// Egress decides about requests to ports of ExternalServices. For any goroutine; it must be quick.
type Egress interface {
	// Paths reports whether policies about a port look at requests: their paths are made one spelling then.
	Paths(to model.PortName) bool
	// Request decides about a request, which a describes; the rest of a, who asks, is filled in. called is the port that the program
	// asked for. What policies say is written to d; where none is asked d stays as it is.
	// Where something else refuses, d says what. id is the request's, for the log.
	Request(called, to model.PortName, a *authz.Attributes, d *record.Decision, id []byte) failure.Reason
}

// Client is the downstream side of an exchange: one stream of a connection.
type Client interface {
	// Head sends a response head, 1xx included. A 101, or 2xx to CONNECT, begins a tunnel.
	Head(h *message.Head, end bool)
	// Data sends body bytes and answers how many were taken; Exchange.Writable is called when the rest fits.
	// end counts only when everything was taken.
	Data(p []byte, end bool) int
	// Trailers ends the response.
	Trailers(h *message.Head)
	// Consumed says that n bytes of the request body have been passed on.
	Consumed(n int)
	// Abort ends a response that cannot be completed so that the client can see it.
	Abort(reason failure.Reason)
	// Finished is the last call: the exchange is over and must not be used any more.
	Finished()
}
