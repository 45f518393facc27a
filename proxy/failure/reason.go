// Package failure is the one table of what can go wrong in the data plane and what is said then. Nothing else
// chooses a status code, a metric label or an operator's hint. A failure is a value; see Failure.
package failure

// Reason is why an exchange or a connection failed or was refused.
type Reason uint8

// Reasons. The order is not part of any format; the label in the table is.
const (
	None                  Reason = iota
	BadRequest                   // the downstream's message breaks HTTP
	HeadTooLarge                 // request head over the limit
	NotHTTP                      // bytes that are not HTTP on a port that is declared HTTP
	NoRoute                      // no route matches
	NoBackend                    // the route has no backend, or the one chosen does not resolve
	UnknownService               // a virtual address that no service has
	UnknownPort                  // the service has no such port
	NoEndpoint                   // the service has no live endpoint
	ConnectFailed                // no connection to any endpoint that was tried
	ConnectTimeout               // likewise, in time
	TLSFailed                    // the handshake with the peer failed
	PeerIdentity                 // the peer proved another identity than expected
	UpstreamReset                // the upstream ended before its response was complete
	UpstreamProtocol             // the upstream's message breaks HTTP
	RefusedStream                // the upstream took no notice of the request (GOAWAY, REFUSED_STREAM)
	RequestTimeout               // route's request timeout
	AttemptTimeout               // route's attempt timeout
	IdleTimeout                  // nothing moved for too long
	MaxDuration                  // it lasted as long as it may
	DownstreamGone               // the client went away first
	OwnPort                      // passthrough to a port of Tulle itself
	LinkLocal                    // passthrough to a link-local address
	Draining                     // this proxy is about to end
	Overload                     // a bound was reached
	Unavailable                  // what is needed is not known and the control plane cannot be asked
	Internal                     // a broken invariant; a bug
	TargetTooLong                // request line over the limit
	OldHTTP                      // HTTP/1.0 where it is not accepted
	UpgradeRefused               // an offer to upgrade, or CONNECT, that the listener and the route do not allow
	UpgradeDeclined              // an HTTP/2 client's extended CONNECT was answered by an ordinary response
	UnknownCluster               // the route names a cluster that does not exist
	RequestIncomplete            // the client did not send all of its request in time
	StreamDuration               // the longest time that a stream may last
	Deadline                     // the client's own: grpc-timeout
	Overflow                     // a bound of the cluster was reached
	EndpointUnhealthy            // the endpoint failed its health checks, or was ejected, while it was in use
	RateLimited                  // a rate limit of the workload, route or listener
	Shed                         // the workload has as much to do as it can
	FaultInjected                // the route makes some requests fail
	MirrorBehind                 // the copy of a request took its body too slowly
	RetriedStatus                // the status of a response for which the route asks to try again; of an attempt
	Outrun                       // another attempt of the same request has answered first; of an attempt
	CallerGone                   // the request that this one was made for has ended without waiting for it
	Revoked                      // the certificate that the peer showed was taken out of use
	AuthzDenied                  // the workload's policies do not allow it
	AuthorizerUnavailable        // the external authorizer could not be asked, and nothing may pass without it
	PickFailed                   // the endpoint picker has not said who takes the request, or nobody who may
	PickRefused                  // the endpoint picker has answered the request itself
	PickTooLarge                 // the request's body is longer than the endpoint picker is shown
	TokenMissing                 // the request needs a token and has none
	TokenInvalid                 // the request's token is not valid
	IssuerUnavailable            // the keys of the token's issuer could not be fetched
	MTLSRequired                 // plaintext on a port that takes mutual TLS only, or the other way round
	EgressDenied                 // what is outside of the mesh may not be reached by this workload
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
