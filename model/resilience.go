package model

import "time"

// RetryOn is a set of conditions on which a request is sent again.
type RetryOn uint32

// Conditions. What has surely not been acted on (no connection, refused stream, GOAWAY beyond it) is in RetryUntouched; all
// others may have been, so they hold only for idempotent methods (RFC 9110 section 9.2.2), for requests with
// Idempotency-Key, and with Retry.AnyMethod.
const (
	RetryUntouched RetryOn = 1 << iota // connect-failure, refused-stream
	RetryReset                         // the stream or connection broke before a response head
	RetryTimeout                       // an attempt's own timeout
	RetryGateway                       // 502, 503, 504
	Retry5xx                           // 500 to 599, and RetryReset
	Retry4xx                           // retriable-4xx: 409
	RetryStatuses                      // Retry.Statuses
	RetryGRPC                          // Retry.GRPC
)

// Retry is how often, when and after what wait a request is sent again. No request is sent again after any of its
// response has gone to the client.
type Retry struct {
	On       RetryOn
	Statuses []uint16 // with RetryStatuses
	GRPC     uint32   // with RetryGRPC: bit n is grpc-status n
	// Attempts besides the first; 0: none.
	Attempts uint32
	// Base and Max of the wait before attempt n+1: uniform between 0 and Base·(2^n−1), at most Max (Envoy's full jitter).
	// Base 0: the wait is learned (docs/design/retries.md), and clamped by Least and Max.
	Base, Max time.Duration
	Least     time.Duration // no wait is shorter
	// AnyMethod: requests of any method may be sent again though they may have been acted on. The user has said that
	// acting twice does no harm.
	AnyMethod bool
	// RetryAfter is honoured up to this: at least so long is waited, and a response that asks for more goes to the client.
	// 0: it is not looked at.
	RetryAfter time.Duration
	// AfterFields are the response fields that say it, the first that does counts; empty: retry-after.
	AfterFields []AfterField
	// OtherHosts: endpoints that have failed this request are not picked again while there are others.
	OtherHosts bool
}

// AfterField is a response field that says when to come again.
type AfterField struct {
	Name string // lower case
	Unix bool   // its value is a time, in seconds since 1970, and not how many seconds to wait
}

// Budget bounds how much retries may add to what a cluster is sent, in this proxy and, by what the proxies behind it say
// about their own, along a whole chain of services. Its zero value is the mesh's own: 20 percent, and 10 at least. Attempts
// that have reached nobody (no connection, or a server that is about to end) are not counted.
type Budget struct {
	Percent uint32 // of the requests of the last ten seconds
	Least   uint32 // retries in ten seconds that are allowed whatever Percent says
	// UnderWay: Percent is of the requests that are under way or wait for a connection, and Least of the retries that are;
	// those that reached nobody count, and no other bound of retries holds (Envoy's retry_budget).
	UnderWay bool
	Off      bool // there is no budget
}

// Hedge sends a second attempt before the first has answered; the first response head wins and the other attempt is
// cancelled. Only requests that may be sent again are hedged, within the Budget.
type Hedge struct {
	After time.Duration // without a response head; 0: Quantile
	// Quantile of the cluster's own response times, in thousandths (950), after which it is sent; with After as the least.
	Quantile uint32
	Most     uint32 // attempts under way at once; default 2
}

// Class is how important a request is; those of a lower class are shed first.
type Class uint8

// Classes. What nobody has said about is ClassDefault.
const (
	ClassDefault Class = iota
	ClassCritical
	ClassBatch
)

// ClassRule gives requests a class. The first rule of a table that holds decides, on the first proxy of a request's way;
// later ones keep what it said.
type ClassRule struct {
	Match Match
	From  []string // services of callers ("shop.default"); empty: all
	Class Class
}

// Adaptive bounds how many requests a workload works on at once, by what their latency says about its queue
// (docs/design/overload.md).
type Adaptive struct {
	Least, Most uint32        // of the limit; 0: 4 and 10000
	Queue       time.Duration // how long a request may wait for its turn; 0: not at all
	// Fair says who has turns alike, in a class, while requests wait; nil: callers.
	Fair *Fair

	// What follows has Envoy's names in xds/envoy; 0 is what docs/design/overload.md says.
	Interval  time.Duration // how often the limit is looked at
	Probe     time.Duration // how often it is measured how long an unhurried request takes
	Tolerance float64       // how many times as long requests may take
}

// Fair is whose requests have turns alike: a tenant who sends many does not keep others from theirs.
type Fair struct {
	By      []RateKey // what tells tenants apart; empty: the caller. RateByFixed and RateByCluster mean nothing
	Weights []TenantWeight
}

// TenantWeight gives a tenant as many turns as so many others. It is for one key: a caller ("shop.default") or a header's value.
type TenantWeight struct {
	Tenant string
	Weight uint32
}

// RateLimit bounds requests or bytes by a token bucket.
type RateLimit struct {
	Name  string // in metrics, headers and explanations
	Match *Match // nil: every request
	// By says which requests share a bucket; empty: all do. At most MaxBuckets are kept, the least used go first.
	By []RateKey
	// Requests (with Bytes: bytes of bodies, both ways) per Window, and at most Burst at once; Burst 0: Requests.
	Requests uint32
	Window   time.Duration
	Burst    uint32
	Bytes    bool
	// Headers: answers carry the RateLimit fields of draft-ietf-httpapi-ratelimit-headers.
	Headers bool
	// Status of a refusal; 0: 429.
	Status int
	// Scope: limits of several routes that have the same one share what they count; "": the route's own.
	Scope string
	// Shadow: nothing is refused, only counted.
	Shadow bool

	// Global asks a rate-limit service (envoy.service.ratelimit.v3) instead of a bucket here.
	Global *GlobalLimit
}

// MaxBuckets of one RateLimit with By, per proxy.
const MaxBuckets = 10000

// RateKeyKind is what requests are told apart by.
type RateKeyKind uint8

// Kinds.
const (
	RateByCaller  RateKeyKind = iota // service of the caller
	RateByAddress                    // of the caller
	RateByHeader                     // Name
	RateByPath
	RateByMethod
	RateByFixed   // Value, for Global descriptors
	RateByCluster // that the request goes to, for Global descriptors
)

// RateKey is one thing that requests are told apart by.
type RateKey struct {
	Kind  RateKeyKind
	Name  string // of the header, lower case
	Key   string // of the descriptor's entry; "": Envoy's for that kind
	Value string // RateByFixed
	// Optional: where the header is not there, the rest of the descriptor is asked about all the same.
	Optional bool
}

// GlobalLimit says whom to ask.
type GlobalLimit struct {
	Cluster PortName // of the service; its zero value is the control plane's own
	Domain  string
	Timeout time.Duration // default 20 ms
	Closed  bool          // requests are refused while the service does not answer
}

// RateQuestion is what a rate-limit service is asked about one request.
type RateQuestion struct {
	Cluster     PortName // whom; its zero value is the control plane
	Domain      string
	Descriptors []Descriptor
	Timeout     time.Duration // more than 0
}

// Descriptor names what is counted: its entries in their order.
type Descriptor []DescriptorEntry

// DescriptorEntry is one part of a name.
type DescriptorEntry struct{ Key, Value string }

// RateAnswer is what the service says, for each descriptor of the question in its order.
type RateAnswer struct{ Descriptors []DescriptorAnswer }

// DescriptorAnswer is about one descriptor. The service may say no more than Over.
type DescriptorAnswer struct {
	Over     bool
	Requests uint32 // of the limit; 0: there is none, or it is not said
	Window   time.Duration
	Left     uint32
	Reset    time.Duration // until there are more
}

// Inbound is what a workload's own proxy does with the requests for it.
type Inbound struct {
	Adaptive       *Adaptive
	MaxConnections uint32 // of callers; 0: no bound
	MaxRequests    uint32 // at work at once; 0: no bound
	Limits         []RateLimit
	ConnectionRate *RateLimit // of new connections; By and Match are not used
}
