package model

import "time"

// What a route can do besides sending a request on as it is. All of it happens in the caller's proxy, in this order:
// CORS, Fault, Session and Sticky (they bear on the backend), filters, Rewrite, Mirrors.

// PathChangeKind is how a path is changed.
type PathChangeKind uint8

// Kinds.
const (
	PathKeep     PathChangeKind = iota
	PathFull                    // Path replaces the path, the query stays
	PathPrefixed                // Path replaces the matched prefix (the whole path of an exact match)
	PathPattern                 // Path replaces what Pattern matches; \1 is its first group (RE2)
)

// Redirect answers with a Location made of the request's own URL and of what is set here.
type Redirect struct {
	Scheme     string // "": the request's
	Host       string // "": the request's
	Port       uint16 // 0: the scheme's own if Scheme is set, else the request's
	Change     PathChangeKind
	Path       string
	Pattern    string // with PathPattern
	StripQuery bool
	Status     int // 301, 302, 303, 307 or 308
	// AsEnvoy has Envoy's rules where they are not Gateway API's: Path with PathPrefixed replaces text, not whole elements; a
	// query in Path replaces the request's; and a Port of 0 is none with Host, else the request's, unless that is its old
	// scheme's own and the scheme changes.
	AsEnvoy bool
}

// Mirror sends a copy of a share of the requests to another cluster, and what it answers nowhere. It never delays the
// request: a copy whose body falls behind is given up.
type Mirror struct {
	Cluster  PortName
	Fraction uint32 // of a million; 0: all
	Invalid  bool   // its reference does not resolve: nothing is sent
	Suffix   bool   // "-shadow" is put behind the host of the authority, as Envoy does
}

// CORS answers preflight requests (WHATWG Fetch, section 3.2) and tells browsers what they may read.
type CORS struct {
	Origins     []OriginMatch // empty: no origin is allowed
	Methods     []string      // "*" alone: all
	Headers     []string      // "*" alone: all
	Expose      []string      // "*" alone: all
	Credentials bool
	MaxAge      time.Duration // 0: not said; less: 0 is said
	// Forward leaves what comes from other origins to the backend, as Envoy does: preflights go on, and what it answers stays.
	// Otherwise preflights are answered without permission, and nothing but this gives any.
	Forward bool
}

// OriginMatch holds for an origin ("https://shop.example:8443") by exact text, or, with Wildcard, for what begins with
// Prefix and ends with Suffix with at least one character between; Any holds for every origin.
type OriginMatch struct {
	Exact          string
	Prefix, Suffix string
	Wildcard, Any  bool
	Regex          string // RE2, anchored at both ends; instead of the others
}

// Fault makes some of the requests fail or slow, to see what callers make of it. Shares are of a million, drawn apart. Its
// zero value does nothing.
type Fault struct {
	Delay      time.Duration // before the first attempt, within the route's timeouts
	DelayShare uint32
	Status     int // HTTP status that is answered instead
	GRPC       int // grpc-status to gRPC calls; 0 and less: Status translated
	AbortShare uint32
	Reset      bool   // AbortShare resets the stream or connection instead of answering
	Rate       uint64 // bytes a second of the response's body
	RateShare  uint32
	Headers    []FieldMatch // only requests that these hold for; names in lower case
}

// Session keeps a client with the endpoint that its first request went to, for as long as that endpoint takes requests
// (Gateway API: sessionPersistence). What names the endpoint travels with the client, so it survives every change of the
// set of endpoints and of this proxy. With neither Header nor Cookie there is no session.
type Session struct {
	Header   string        // name of the request and response field; "": a cookie
	Cookie   string        // name of the cookie
	Path     string        // of the cookie; "": "/"
	Lifetime time.Duration // a persistent cookie's; 0: it ends with the browser's session
	Absolute time.Duration // the session is not believed after that; 0: no bound
	Idle     time.Duration // likewise without a request for that long; 0: no bound
}
