package failure

// entry is everything that is said about one reason.
type entry struct {
	label  string // metric label, header value, record; snake_case, part of the format
	side   Side
	retry  retry
	status int    // HTTP status of the answer that the proxy makes
	grpc   int    // gRPC status of the same
	log    string // one line for logs
	hint   string // what the operator does next
}

// retry says when another attempt makes sense.
type retry uint8

const (
	never      retry = iota
	idempotent       // the upstream may have acted on the request
	always           // the upstream surely has not
)

// gRPC status codes used in the table (google.golang.org/grpc/codes, not imported: 20 KB of tables for ten numbers).
const (
	grpcCanceled = 1

	grpcDeadline      = 4
	grpcDenied        = 7
	grpcExhausted     = 8
	grpcUnimplemented = 12
	grpcInternal      = 13
	grpcUnavailable   = 14

	grpcUnauthenticated = 16
)

var table = [reasonCount]entry{
	None: {label: "", side: Us, status: 200, log: "no failure", hint: "nothing to do"},
	BadRequest: {label: "bad_request", side: Downstream, status: 400, grpc: grpcInternal,
		log: "the client's message breaks HTTP", hint: "correct the client: `tulle logs` shows which rule of HTTP its message breaks"},
	HeadTooLarge: {label: "head_too_large", side: Downstream, status: 431, grpc: grpcExhausted,
		log: "the request's head is over the limit", hint: "send fewer or smaller headers (often cookies); the limit is 64 KiB and 200 fields"},
	NotHTTP: {label: "not_http", side: Downstream, status: 400, grpc: grpcInternal,
		log: "bytes that are not HTTP on a port declared HTTP", hint: "declare the port's real protocol (--port PORT/tcp, or appProtocol of its Service), or remove the HTTP route"},
	NoRoute: {label: "no_route", side: Us, status: 404, grpc: grpcUnimplemented,
		log: "no route matches the request", hint: "`tulle routes SERVICE` lists the matches in their order; add a rule without matches to catch the rest"},
	NoBackend: {label: "no_backend", side: Us, status: 500, grpc: grpcUnavailable,
		log: "the route has no backend that resolves", hint: "`tulle get httproute NAME -o yaml`: condition ResolvedRefs names the backend that does not exist"},
	UnknownService: {label: "unknown_service", side: Us, status: 503, grpc: grpcUnavailable,
		log: "no service has this virtual address", hint: "look the name up again: the service was removed, or the client keeps an address from long ago"},
	UnknownPort: {label: "unknown_port", side: Downstream, status: 503, grpc: grpcUnavailable,
		log: "the service has no such port", hint: "`tulle get service NAME` lists its ports; use one of them, or start the workload with --port"},
	NoEndpoint: {label: "no_endpoint", side: Upstream, status: 503, grpc: grpcUnavailable,
		log: "the service has no live endpoint", hint: "`tulle endpoints SERVICE`: start a workload, or see why its readiness check fails"},
	ConnectFailed: {label: "connect_failed", side: Upstream, retry: always, status: 503, grpc: grpcUnavailable,
		log: "no connection to any endpoint that was tried", hint: "`tulle endpoints SERVICE`: is the workload running and does its port accept?"},
	ConnectTimeout: {label: "connect_timeout", side: Upstream, retry: always, status: 504, grpc: grpcUnavailable,
		log: "no connection to any endpoint within the connect timeout", hint: "the endpoint's machine or the network between drops packets; check firewalls and load"},
	TLSFailed: {label: "tls_failed", side: Upstream, retry: always, status: 502, grpc: grpcUnavailable,
		log: "the TLS handshake with the peer failed", hint: "`tulle cert` on both sides: are the certificates in time and from the same trust domain?"},
	PeerIdentity: {label: "peer_identity", side: Upstream, retry: always, status: 502, grpc: grpcUnavailable,
		log: "the peer proved another identity than expected", hint: "another workload took over the address, or somebody poses as the service; `tulle endpoints SERVICE` shows the expected identity"},
	UpstreamReset: {label: "upstream_reset", side: Upstream, retry: idempotent, status: 502, grpc: grpcUnavailable,
		log: "the upstream ended before its response was complete", hint: "the workload crashed or closed the connection: see its own log at this time"},
	UpstreamProtocol: {label: "upstream_protocol", side: Upstream, status: 502, grpc: grpcInternal,
		log: "the upstream's message breaks HTTP", hint: "the workload does not speak HTTP on this port, or its response is malformed"},
	RefusedStream: {label: "refused_stream", side: Upstream, retry: always, status: 503, grpc: grpcUnavailable,
		log: "the upstream took no notice of the request", hint: "the workload is draining or at its stream limit; add instances if it lasts"},
	RequestTimeout: {label: "request_timeout", side: Upstream, status: 504, grpc: grpcDeadline,
		log: "the route's request timeout passed", hint: "`tulle stat` shows the service's p99: raise the route's timeouts.request or make the service faster"},
	AttemptTimeout: {label: "attempt_timeout", side: Upstream, retry: idempotent, status: 504, grpc: grpcDeadline,
		log: "the route's attempt timeout passed", hint: "raise the route's timeouts.backendRequest or make the service faster"},
	IdleTimeout: {label: "idle_timeout", side: Upstream, status: 504, grpc: grpcUnavailable,
		log: "nothing moved for too long", hint: "send keep-alives on long idle streams, or shorten them"},
	MaxDuration: {label: "max_duration", side: Us, status: 504, grpc: grpcUnavailable,
		log: "the connection or stream lasted as long as it may", hint: "raise the configured maximum duration, or have the client connect again"},
	DownstreamGone: {label: "downstream_gone", side: Downstream, status: 499, grpc: grpcCanceled,
		log: "the client went away first", hint: "compare the client's own timeout with the service's p99 in `tulle stat`"},
	EgressDenied: {label: "egress_denied", side: Downstream, status: 403, grpc: grpcDenied,
		log: "outside of the mesh, and not allowed for this workload", hint: "'tulle explain' and the log of the caller's proxy name the mode, rule or policy that refuses it: write an ExternalService for the host, or allow the address in MeshConfig spec.egress; 'tulle get externalservices' shows what there is"},
	OwnPort: {label: "own_port", side: Downstream, status: 403, grpc: grpcDenied,
		log: "passthrough to a port of the mesh itself", hint: "call services by name; ports of proxies and the control plane are not reachable from a workload"},
	LinkLocal: {label: "link_local", side: Downstream, status: 403, grpc: grpcDenied,
		log: "passthrough to a link-local address", hint: "link-local addresses (cloud metadata) are closed to workloads unless the mesh configuration allows them"},
	Draining: {label: "draining", side: Us, retry: always, status: 503, grpc: grpcUnavailable,
		log: "this proxy is about to end", hint: "nothing to do: callers move to other endpoints by themselves"},
	Overload: {label: "overload", side: Us, status: 503, grpc: grpcExhausted,
		log: "a bound was reached", hint: "`tulle stat`: reduce the load on this workload or add instances"},
	Unavailable: {label: "unavailable", side: Us, status: 503, grpc: grpcUnavailable,
		log: "what is needed is not known and the control plane cannot be asked", hint: "`tulle status`: is the control plane running and does this proxy reach it?"},
	TargetTooLong: {label: "target_too_long", side: Downstream, status: 414, grpc: grpcExhausted,
		log: "the request line is over the limit", hint: "send a shorter URL, or its parameters in the body; the limit is that of the whole head, 64 KiB unless configured"},
	OldHTTP: {label: "old_http", side: Downstream, status: 426, grpc: grpcInternal,
		log: "HTTP/1.0 is not accepted here", hint: "use a client that speaks HTTP/1.1, or set accept_http_10 on the listener"},
	UpgradeRefused: {label: "upgrade_refused", side: Downstream, status: 403, grpc: grpcDenied,
		log: "this upgrade, or CONNECT, is not allowed here", hint: "add the protocol to upgrade_configs of the listener or of the route"},
	UpgradeDeclined: {label: "upgrade_declined", side: Upstream, status: 502, grpc: grpcUnavailable,
		log: "the upstream answered the upgrade with an ordinary success", hint: "the program does not speak this protocol at this path: over HTTP/2 its answer would have meant that it does"},
	UnknownCluster: {label: "unknown_cluster", side: Us, status: 503, grpc: grpcUnavailable,
		log: "the route names a cluster that does not exist", hint: "/config_dump lists the clusters: correct the route, or the header that chooses"},
	RequestIncomplete: {label: "request_incomplete", side: Downstream, status: 408, grpc: grpcDeadline,
		log: "the client did not send all of its request in time", hint: "a slow or broken client; raise request_timeout or stream_idle_timeout if it is meant to be slow"},
	EndpointUnhealthy: {label: "endpoint_unhealthy", side: Upstream, status: 503, grpc: grpcUnavailable,
		log: "the endpoint became unhealthy and its connections were closed", hint: "/clusters shows its health_flags; leave close_connections_on_host_health_failure off to let connections go on"},
	StreamDuration: {label: "stream_duration", side: Us, status: 408, grpc: grpcDeadline,
		log: "the longest time that a stream may last has passed", hint: "raise max_stream_duration, or let the client start anew"},
	Deadline: {label: "deadline", side: Upstream, status: 504, grpc: grpcDeadline,
		log: "the client's own deadline (grpc-timeout) has passed", hint: "`tulle stat` shows the method's p99: give the call more time or make the method faster"},
	Overflow: {label: "overflow", side: Us, status: 503, grpc: grpcUnavailable,
		log: "the cluster has as much under way as its circuit breakers allow", hint: "/clusters shows what is counted: add endpoints, or raise the bound in circuit_breakers"},
	RateLimited: {label: "rate_limited", side: Downstream, status: 429, grpc: grpcExhausted,
		log: "more requests than a rate limit allows", hint: "call less often (RateLimit and Retry-After say when, where the limit has headers: true), or raise the limit in the TrafficPolicy"},
	Shed: {label: "shed", side: Us, status: 503, grpc: grpcUnavailable,
		log: "the workload has as much to do as it can", hint: "add instances; classes in the TrafficPolicy say which requests go first"},
	FaultInjected: {label: "fault_injected", side: Us, status: 503, grpc: grpcUnavailable,
		log: "a fault was injected on purpose", hint: "the route has fault injection: take it out of the route when the experiment is over"},
	MirrorBehind: {label: "mirror_behind", side: Upstream, status: 503, grpc: grpcUnavailable,
		log: "the copy of a request took its body too slowly and was given up", hint: "only the copy is lost, the request went on: make the mirror's service faster, or mirror a smaller share"},
	RetriedStatus: {label: "retried_status", side: Upstream, status: 503, grpc: grpcUnavailable,
		log: "the upstream answered with a status for which the route tries again, and then there was nobody left to try", hint: "`tulle endpoints SERVICE`: see the workload's own log for what it answered"},
	Outrun: {label: "outrun", side: Us, status: 503, grpc: grpcCanceled,
		log: "another attempt of the same request was answered first", hint: "nothing to do: the request was hedged; raise `hedging.after` if that happens to many"},
	CallerGone: {label: "caller_gone", side: Downstream, status: 499, grpc: grpcCanceled,
		log: "the request that this one was made for has ended without waiting for it", hint: "compare the timeout of the first caller with the time that the chain of services takes; `tulle explain` shows both"},
	Internal: {label: "internal", side: Us, status: 500, grpc: grpcInternal,
		log: "a broken invariant; a bug", hint: "report it with the proxy's log of this moment"},
	Revoked: {label: "revoked", side: Upstream, retry: always, status: 502, grpc: grpcUnavailable,
		log: "the certificate that the peer showed was taken out of use", hint: "`tulle cert revoked` says when and why; end the workload, or take the revocation back with `tulle cert restore`"},
	AuthzDenied: {label: "authz_denied", side: Downstream, status: 403, grpc: grpcDenied,
		log: "the workload's policies do not allow this", hint: "the log of the workload's proxy names policy and rule, or the nearest one and what was missing; allow the caller in an AuthorizationPolicy"},
	AuthorizerUnavailable: {label: "authorizer_unavailable", side: Us, status: 403, grpc: grpcDenied,
		log: "the external authorizer could not be asked", hint: "see that the service that the AuthorizationPolicy names in spec.external is up and allows this workload; the proxy's log has its error; failOpen lets requests pass meanwhile"},
	PickFailed: {label: "pick_failed", side: Us, retry: always, status: 503, grpc: grpcUnavailable,
		log: "the endpoint picker of the pool has named no endpoint that can take the request", hint: "`tulle get inferencepool NAME -o yaml` names the picker: does it run, does it answer within a second, does it know the pool's endpoints? failureMode FailOpen does without it"},
	PickRefused: {label: "pick_refused", side: Upstream, status: 503, grpc: grpcUnavailable,
		log: "the endpoint picker of the pool has refused the request", hint: "the picker's own log says why: 429 is for load that it sheds, 503 for no endpoint that is ready"},
	PickTooLarge: {label: "pick_too_large", side: Downstream, status: 413, grpc: grpcExhausted,
		log: "the request's body is longer than the endpoint picker of the pool is shown", hint: "send less than 1 MiB, or set failureMode FailOpen on the InferencePool: then such a request goes to any endpoint of it"},
	TokenMissing: {label: "token_missing", side: Downstream, status: 401, grpc: grpcUnauthenticated,
		log: "the request needs a token and has none", hint: "send a token of an issuer that the AuthenticationPolicy names, where it is looked for: by default in `authorization: Bearer`"},
	TokenInvalid: {label: "token_invalid", side: Downstream, status: 401, grpc: grpcUnauthenticated,
		log: "the request's token is not valid", hint: "the log of the workload's proxy and 'tulle explain' name the policy, the issuer and the cause: get a new token, or compare issuer, audiences and keys with the AuthenticationPolicy"},
	IssuerUnavailable: {label: "issuer_unavailable", side: Us, status: 503, grpc: grpcUnavailable,
		log: "the keys of the token's issuer could not be fetched", hint: "the log of the workload's proxy says why; make the issuer reachable from its machine, or give the keys in the AuthenticationPolicy (jwks)"},
	MTLSRequired: {label: "mtls_required", side: Downstream, status: 403, grpc: grpcDenied,
		log: "the port's mode does not take this connection", hint: "call through the mesh or with a certificate of it, or set mode Permissive in an AuthenticationPolicy; the log of the workload's proxy names the caller's address and the policy"},
}

func (r Reason) entry() *entry {
	if r >= reasonCount {
		return &table[Internal]
	}
	return &table[r]
}

// Label answers the name used in metrics, records, logs and the tulle-reason header: snake_case, "" for None.
func (r Reason) Label() string { return r.entry().label }

// String answers Label, or "none".
func (r Reason) String() string {
	if r == None {
		return "none"
	}
	return r.Label()
}

// Side answers who caused it.
func (r Reason) Side() Side { return r.entry().side }

// Retryable reports whether another attempt may be made: for any request if Untouched, otherwise only for an
// idempotent one (RFC 9110 section 9.2.2).
func (r Reason) Retryable() bool { return r.entry().retry != never }

// Untouched reports whether the upstream surely has not acted on the request, so that even one that is not
// idempotent may be sent again.
func (r Reason) Untouched() bool { return r.entry().retry == always }

// Status answers the HTTP status of the proxy's own answer.
func (r Reason) Status() int { return r.entry().status }

// GRPC answers the gRPC status of the proxy's own answer (sent with HTTP status 200).
func (r Reason) GRPC() int { return r.entry().grpc }

// Log answers one line for logs and for the body of the proxy's own answer.
func (r Reason) Log() string { return r.entry().log }

// Hint answers what the operator does next.
func (r Reason) Hint() string { return r.entry().hint }

// Doc answers the documentation anchor, relative to the repository.
func (r Reason) Doc() string { return "docs/reference/failures.md#" + r.String() }

// ParseReason is the inverse of Label; ok is false for a label that no reason has.
func ParseReason(label string) (r Reason, ok bool) {
	for i := range table {
		if table[i].label == label {
			return Reason(i), true
		}
	}
	return Internal, false
}

// All answers every reason but None, in the order of the table.
func All() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := None + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}

// String answers "downstream", "upstream" or "us".
func (s Side) String() string {
	switch s {
	case Downstream:
		return "downstream"
	case Upstream:
		return "upstream"
	}
	return "us"
}
