package model

import "time"

// RouteTable decides what happens to the requests for one port of a service. Routes are in order of
// precedence (Gateway API: exact path, longest prefix, method, number of header and query matches, age, name):
// the first that matches decides. A table without a route answers no_route. In a table with Hosts the request's
// authority selects one of them first, and Routes is empty.
type RouteTable struct {
	Name PortName
	// Caller is the namespace whose callers alone this table is for, since they have consumer routes there (GAMMA); "": everyone
	// who has no table of his own.
	Caller string
	Routes []Route
	Hosts  []VirtualHost
	// IgnorePort of the authority when it is compared with the hosts' domains.
	IgnorePort bool
	// AnyCluster: in a file, a route may name a cluster that is not there, and answers 503.
	AnyCluster bool

	// Relay is tried, in order, for connections that are not HTTP; empty: they go to the port's own cluster.
	Relay   []RelayRoute
	Classes []ClassRule
	// Inbound is what the proxies of the port's own workloads do, whoever routed the request to them.
	Inbound *Inbound
	// Outbound is what the proxy of each workload that calls holds its own requests and connections to the port to; of Inbound it has
	// Limits and ConnectionRate.
	Outbound *Inbound
	// Outside is what the proxies of the port's own workloads hold what these send outside the mesh to; likewise, of bytes.
	Outside *Inbound
}

// ResourceName answers the name that the table travels under: "reviews.default:9080", or "reviews.default:9080@shop".
func (t *RouteTable) ResourceName() string { return t.Name.For(t.Caller) }

// RelayRoute sends whole connections somewhere (TCPRoute, TLSRoute). The first that holds decides.
type RelayRoute struct {
	Name string // "TCPRoute/default/db"
	Rule int
	// SNI of a ClientHello, lower case, "*.suffix" for names below it; empty: every connection.
	SNI      []string
	Backends []Backend // without filters; empty: the connection is reset
	Fault    *Fault    // Delay, AbortShare with Reset, Rate
	// Idle and MaxDuration end a connection on which nothing moves, or that is as old; 0: no bound.
	Idle, MaxDuration time.Duration
	// Fallback takes the connection where no endpoint of the backend can. nil: it is reset.
	Fallback *Backend
}

// VirtualHost is the routes of some domains. Exact domains win over "*.suffix", those over "prefix.*", and "*" is
// last; the longest wildcard wins (Envoy's rules). No two hosts of a table share a domain.
type VirtualHost struct {
	Name    string
	Domains []string // lower case
	Routes  []Route
	Filters []Filter // run after those of the route
}

// Route is one match of one rule, and what to do then.
type Route struct {
	Name     string // "HTTPRoute/default/cart", or "Service/default/cart" where no route is attached
	Rule     int    // index of the rule in its route
	Match    Match
	Filters  []Filter
	Backends []Backend // weights add up to more than 0, or the list is empty: then the answer is 500 no_backend
	Timeouts Timeouts

	Direct   *Direct   // answered here, without a backend
	Redirect *Redirect // likewise
	Rewrite  Rewrite   // of what the backend is told
	Mirrors  []Mirror
	CORS     *CORS
	Fault    *Fault
	Session  *Session
	// Sticky keeps who has the same values here with the same backend while weights change (weighted rendezvous hashing);
	// a request that has none of them is sent by chance.
	Sticky   []HashKey
	Priority Priority  // whose Breakers bound it
	Hash     []HashKey // what RingHash and Maglev hash; empty: at random
	Retry    *Retry    // nil: the mesh's own way, which is safe; of a foreign listener: none
	Hedge    *Hedge
	Breakers *Breakers // of this route alone, besides the cluster's
	// Fallback takes the request where a breaker refuses it or no endpoint can take it.
	Fallback *Backend
	// Limits are kept by the proxies of the port's own workloads, besides RouteTable.Inbound's.
	Limits   []RateLimit
	Upgrades []string // protocols that may be upgraded to here, besides the listener's
	// FromField names the request field whose value is the cluster, "" for Backends. An unknown cluster answers 503.
	FromField string
}

// Direct is a response made here.
type Direct struct {
	Status int
	Body   []byte
}

// Rewrite changes what the backend is told; its zero value changes nothing. Of the path one thing is changed at most.
type Rewrite struct {
	Prefix       string // replaces the matched prefix (the whole path of an exact match) when HasPrefix
	HasPrefix    bool
	PrefixText   bool   // Prefix is put before the rest as text (Envoy); else whole path elements are replaced (Gateway API)
	Path         string // replaces the whole path; "": does not
	Pattern      string // RE2: what it matches of the path is replaced by Replacement; "": none
	Replacement  string // \1 is the first group
	Host         string // replaces the authority
	AutoHost     bool   // the name of the picked endpoint replaces the authority
	AppendXFHost bool   // x-forwarded-host tells the original one
}

// Label is a name and value that workloads have.
type Label struct{ Name, Value string }

// HashKind is what a HashKey looks at.
type HashKind uint8

// Kinds.
const (
	HashHeader HashKind = iota
	HashCookie
	HashSourceIP
	HashQuery
	HashPath
)

// HashKey is one thing that is hashed. Keys are combined; after a Terminal one that was there, the rest is not looked at.
type HashKey struct {
	Kind     HashKind
	Name     string        // of the header (lower case), cookie or query parameter; HashPath: "/users/{id}", see PathKey
	TTL      time.Duration // HashCookie: when it is not there, it is set for this long (0: a session) if Generate
	Generate bool
	Path     string // of the generated cookie
	Terminal bool
}

// Timeouts of a route; 0 is none.
type Timeouts struct {
	Request    time.Duration // from the end of the request's head to the end of the response
	Attempt    time.Duration // one attempt, from its pick to the end of its response head
	Idle       time.Duration // nothing moves on the stream; 0: the listener's
	MaxStream  time.Duration // of a stream, whatever moves
	GRPCMax    time.Duration // the longest grpc-timeout that is granted; see GRPCTimeout
	GRPCOffset time.Duration // taken off grpc-timeout
	// GRPCTimeout: grpc-timeout bounds the stream, at most GRPCMax if that is not 0. In the mesh it always does.
	GRPCTimeout bool
}

// Backend is one weighted target of a route. Its filters run after those of the route.
type Backend struct {
	Cluster PortName
	Weight  uint32
	Filters []Filter
	Subset  []Label // only endpoints that have all of these; empty: every endpoint of Cluster
	Invalid bool    // its reference does not resolve: its share of the requests is answered 500 no_backend
}

// PathKind says how a path is compared.
type PathKind uint8

// Path kinds. Prefix compares whole path elements (Gateway API PathPrefix); Regex is RE2, anchored at both ends.
const (
	PathPrefix PathKind = iota
	PathExact
	PathRegex
)

// Match holds when every part of it holds. Its zero value with Path "/" matches every request.
type Match struct {
	PathKind PathKind
	Path     string       // "/" with PathPrefix matches all
	Method   string       // "" matches all
	Headers  []FieldMatch // names in lower case
	Query    []FieldMatch
	GRPC     bool // gRPC requests only
	Connect  bool // CONNECT requests only; Path is not looked at
	// PathPrefixText compares Path as text instead of by whole elements (Envoy's prefix); with PathPrefix only.
	PathPrefixText bool
	IgnoreCase     bool   // of the path
	Fraction       uint32 // of a million of the requests; 0: all
}

// FieldMatch compares one header or query parameter.
type FieldMatch struct {
	Name  string
	Value string
	Regex bool // RE2, anchored at both ends

	Kind       FieldMatchKind // other than by value; Regex is then false
	Invert     bool           // holds when it would not
	IgnoreCase bool
	From, To   int64 // FieldRange: From <= value < To
}

// FieldMatchKind is how a field is compared.
type FieldMatchKind uint8

// Kinds.
const (
	FieldValue FieldMatchKind = iota // with Value, as Regex says
	FieldPresent
	FieldPrefix
	FieldSuffix
	FieldContains
	FieldRange
)

// FilterKind names a filter.
type FilterKind uint8

// Filter kinds.
const (
	FilterRequestHeaders FilterKind = iota
	FilterResponseHeaders
)

// Filter is one step that an exchange passes through.
type Filter struct {
	Kind    FilterKind
	Headers HeaderChange // for the two header filters
}

// HeaderChange removes, then sets, then adds. Names keep the case in which the user wrote them.
type HeaderChange struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// Header is a name and a value.
type Header struct{ Name, Value string }
