package model

import "time"

// HTTP serves the exchanges of a chain's connections: Envoy's http_connection_manager within the subset of
// docs/reference/xds.md. Times are as configured, 0 is "none" unless said; the decoder fills in Envoy's defaults.
type HTTP struct {
	StatPrefix string
	Codec      Codec
	Routes     *RouteTable // inline; nil: RDS
	RDS        string      // name of the route table, with Routes nil

	IdleTimeout       time.Duration // of a connection without a request; Envoy's default 1 h
	MaxDuration       time.Duration // of a connection, then it is drained
	MaxRequests       uint32        // per connection, then it is drained; 0: no bound
	HeadTimeout       time.Duration // request_headers_timeout: from the first byte of a head to its end
	RequestTimeout    time.Duration // until the request is complete
	StreamIdleTimeout time.Duration // nothing moves on a stream; Envoy's default 5 min
	MaxStreamDuration time.Duration
	DrainTimeout      time.Duration // between GOAWAY and the end; Envoy's default 5 s
	MaxHead           int           // bytes of a request's head; Envoy's default 60 KiB
	MaxFields         int           // Envoy's default 100

	HTTP1 HTTP1Options
	HTTP2 HTTP2Options

	ServerName   string // of the field "server"; Envoy's default "envoy"
	ServerHeader ServerHeader
	Via          string // appended to "via"; "": nothing

	UseRemoteAddress  bool   // the peer is an edge client: its address is appended to x-forwarded-for and it is the client
	XFFTrustedHops    uint32 // proxies before us that are believed
	SkipXFFAppend     bool
	XFCC              XFCC
	XFCCDetails       XFCCDetails
	RequestID         bool // one is made where there is none (Envoy's default)
	KeepRequestID     bool // preserve_external_request_id: an edge client's is believed
	RequestIDResponse bool // always_set_request_id_in_response
	NormalizePath     bool // RFC 3986 section 6, before routing and onwards
	MergeSlashes      bool
	EscapedSlashes    EscapedSlashes
	StripAnyHostPort  bool
	Upgrades          []string // protocols, lower case, that may be upgraded to; "connect" for CONNECT
	AccessLogs        []AccessLog

	// Inbound is what the chain takes; nil: everything. A route's limit counts instead of one of the same name here.
	Inbound *Inbound
	Global  *GlobalLimit // who is asked where a route's limit names nobody; nil: nobody, and such limits do not hold

	GRPCWeb bool // filter envoy.filters.http.grpc_web: gRPC-Web clients are bridged to gRPC
	// Filters without which what a route says of their subject has no effect. Fault and Session are what routes get that say
	// nothing; nil: there is no such filter.
	CORS    bool
	Fault   *Fault
	Session *Session
}

// Codec is which versions of HTTP a listener speaks.
type Codec uint8

// Codecs. CodecAuto follows ALPN, else the first bytes.
const (
	CodecAuto Codec = iota
	CodecHTTP1
	CodecHTTP2
)

// HTTP1Options of either side.
type HTTP1Options struct {
	AcceptHTTP10  bool
	DefaultHost   string // for HTTP/1.0 requests without Host
	AllowTrailers bool   // enable_trailers; otherwise trailers are dropped
	AbsoluteURL   bool   // allow_absolute_url (Envoy's default): absolute-form is accepted from clients
	PreserveCase  bool   // preserve_case formatter: header case survives an HTTP/1.1 hop, as it does without
}

// HTTP2Options of either side; 0 is the engine's default.
type HTTP2Options struct {
	MaxStreams       uint32
	Window           uint32 // of a stream, bytes
	ConnectionWindow uint32
	HeaderTable      uint32
	AllowConnect     bool          // RFC 8441
	KeepAlive        time.Duration // interval of PINGs
	KeepAliveTimeout time.Duration
}

// ServerHeader is what happens to the response field "server".
type ServerHeader uint8

// Server header transformations.
const (
	ServerOverwrite ServerHeader = iota
	ServerAppendIfAbsent
	ServerPassThrough
)

// XFCC is what happens to x-forwarded-client-cert.
type XFCC uint8

// XFCC handling, as Envoy names it.
const (
	XFCCSanitize XFCC = iota
	XFCCForwardOnly
	XFCCAppendForward
	XFCCSanitizeSet
	XFCCAlwaysForwardOnly
)

// XFCCDetails is what is told about the client's certificate besides By and Hash.
type XFCCDetails struct{ Subject, Cert, Chain, DNS, URI bool }

// EscapedSlashes is what happens to %2F and %5C in a path.
type EscapedSlashes uint8

// Actions on escaped slashes.
const (
	EscapedKeep EscapedSlashes = iota
	EscapedReject
	EscapedRedirect
	EscapedForward // unescaped, and on
)
