// Package failure is the one table of what can go wrong in the data plane and what is said then. Nothing else
// chooses a status code, a metric label or an operator's hint. A failure is a value; see Failure.
package failure

// Reason is why an exchange or a connection failed or was refused.
type Reason uint8

// Reasons. The order is not part of any format; the label in the table is.
const (
	None             Reason = iota
	BadRequest              // the downstream's message breaks HTTP
	HeadTooLarge            // request head over the limit
	NotHTTP                 // bytes that are not HTTP on a port that is declared HTTP
	NoRoute                 // no route matches
	NoBackend               // the route has no backend, or the one chosen does not resolve
	UnknownService          // a virtual address that no service has
	UnknownPort             // the service has no such port
	NoEndpoint              // the service has no live endpoint
	ConnectFailed           // no connection to any endpoint that was tried
	ConnectTimeout          // likewise, in time
	TLSFailed               // the handshake with the peer failed
	PeerIdentity            // the peer proved another identity than expected
	UpstreamReset           // the upstream ended before its response was complete
	UpstreamProtocol        // the upstream's message breaks HTTP
	RefusedStream           // the upstream took no notice of the request (GOAWAY, REFUSED_STREAM)
	RequestTimeout          // route's request timeout
	AttemptTimeout          // route's attempt timeout
	IdleTimeout             // nothing moved for too long
	DownstreamGone          // the client went away first
	OwnPort                 // passthrough to a port of Tulle itself
	LinkLocal               // passthrough to a link-local address
	Draining                // this proxy is about to end
	Overload                // a bound was reached
	Unavailable             // what is needed is not known and the control plane cannot be asked
	Internal                // a broken invariant; a bug
	reasonCount
)

// Side is who caused a failure.
type Side uint8

// Sides.
const (
	Downstream Side = iota
	Upstream
	Us
)

// Failure is one failure as a value.
type Failure struct {
	Reason Reason
	Cause  error // may be nil
}

func (f *Failure) Error() string {
	if f.Cause != nil {
		return f.Reason.Label() + ": " + f.Cause.Error()
	}
	return f.Reason.Label()
}

func (f *Failure) Unwrap() error { return f.Cause }
