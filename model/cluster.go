package model

import (
	"net/netip"
	"time"
)

// Cluster is the place that requests are sent to: one port of a service, or, without a control plane, whatever an
// Envoy cluster describes. The zero values of everything below ConnectTimeout are what the mesh uses.
type Cluster struct {
	Name           PortName
	Protocol       Protocol      // declared, or ProtocolUnknown
	ConnectTimeout time.Duration // to one endpoint, TCP and TLS together; more than 0

	Discovery Discovery
	// Hosts are the endpoints of DiscoveryStrictDNS and DiscoveryLogicalDNS (one), by name.
	Hosts []Host
	// Localities are the weights of theirs.
	Localities []LocalityWeight
	DNS        DNSOptions
	// Original: see DiscoveryOriginal.
	Original OriginalOptions

	Balancing    Balancing
	Upstream     UpstreamHTTP
	TLS          *ClientTLS  // nil: plain; not used for endpoints with an Identity
	SendProxy    uint8       // version of the PROXY header that is sent, 0: none
	Breakers     [2]Breakers // by Priority
	Budget       Budget      // of retries
	HealthChecks []HealthCheck
	Outlier      *Outlier      // nil: nobody is ejected
	KeepAlive    bool          // TCP keep-alive with the system's times
	IdleTimeout  time.Duration // of connections without a request; 0: the pool's default
	MaxRequests  uint32        // per connection; 0: no bound
	MaxDuration  time.Duration // of a connection; 0: no bound
	// CloseOnHealthFailure ends the connections to an endpoint that becomes unhealthy.
	CloseOnHealthFailure bool
	// Recovery is what all proxies have learned about how long its failures last: the wire form of a recovery.Learned; nil:
	// nothing.
	Recovery []byte
	// Picker says which endpoint takes a request; nil: Balancing alone does.
	Picker *Picker
}

// Discovery is where endpoints come from.
type Discovery uint8

// Kinds of discovery.
const (
	DiscoveryEDS        Discovery = iota // somebody calls SetEndpoints
	DiscoveryStatic                      // likewise, once
	DiscoveryStrictDNS                   // every address of every host
	DiscoveryLogicalDNS                  // one address of the one host, the latest; old connections stay
	DiscoveryOriginal                    // the address that the downstream wanted
)

// Host is an endpoint by name.
type Host struct {
	Name     string // resolved
	Port     uint16
	Weight   uint32
	Priority uint32
	Locality string
	// CheckPort and Labels as an Endpoint's.
	CheckPort uint16
	Labels    []Label
}

// DNSOptions of a cluster.
type DNSOptions struct {
	Refresh    time.Duration // default 5 s
	RespectTTL bool
	Family     DNSFamily
}

// DNSFamily is which addresses are asked for.
type DNSFamily uint8

// Families, as Envoy names them. DNSAuto is IPv6 if there is any, else IPv4.
const (
	DNSAuto DNSFamily = iota
	DNSV4Only
	DNSV6Only
	DNSV4Preferred
	DNSAll
)

// OriginalOptions of a cluster with DiscoveryOriginal.
type OriginalOptions struct {
	Header string        // a request field that names the address instead, lower case; "": none is believed
	Port   uint16        // instead of the wanted one; 0: the wanted one
	Clean  time.Duration // endpoints unused for this long are forgotten; default 5 s
}

// Balancing is which endpoint takes a request.
type Balancing struct {
	Policy        LBPolicy
	ChoiceCount   uint32   // LeastRequest: default 2
	MinRing       uint64   // RingHash: default 1024
	MaxRing       uint64   // RingHash: default 8 M
	TableSize     uint64   // Maglev: default 65537, prime
	Panic         *float64 // percent healthy below which all are picked; nil: 50
	Overprovision uint32   // percent, for priorities; 0: 140

	EWMA        EWMA        // with PeakEWMA
	Utilization Utilization // with LeastUtilized
	SlowStart   SlowStart   // not with RingHash, Maglev and LeastUtilized
	Locality    LocalityOptions
	// Subsets says which Backend.Subset means something here; nil: every one, and one without endpoints takes no request.
	Subsets *Subsets
	// Shards: endpoints own parts of what is hashed; nil: each takes any request.
	Shards *Shards
}

// Subsets are Envoy's lb_subset_config.
type Subsets struct {
	Selectors [][]string // sets of label names, each sorted: a Backend.Subset that names exactly those is looked for
	Fallback  SubsetFallback
	Default   []Label // with SubsetDefault, sorted by name
}

// SubsetFallback is what a request gets that asks for no subset that exists here.
type SubsetFallback uint8

// Fallbacks.
const (
	SubsetNone    SubsetFallback = iota // no endpoint
	SubsetAny                           // any endpoint
	SubsetDefault                       // one of the default subset, if it has any
)

// EWMA are the settings of PeakEWMA (Finagle's: the product of the peak-sensitive moving average of an endpoint's response
// times and of its requests under way; the lower of two drawn at random takes the request).
type EWMA struct {
	Decay time.Duration // 1/e of an observation is left after it; default 10 s
	Start time.Duration // taken for the response time of an endpoint that has not answered yet; default 30 ms
}

// Utilization are the settings of LeastUtilized: weights follow from what endpoints report about themselves (ORCA:
// endpoint-load-metrics in responses), requests a second over utilization (gRFC A58).
type Utilization struct {
	Blackout     time.Duration // after an endpoint's first report, before its weight counts; default 10 s
	Expiry       time.Duration // of a report; default 3 min
	Update       time.Duration // how often weights are made anew; default 1 s, at least 100 ms
	ErrorPenalty float64       // of errors a second over requests a second; 0: 1; less: none
}

// SlowStart gives an endpoint that is new less than its weight for a while; its zero value does not.
type SlowStart struct {
	Window     time.Duration
	Aggression float64 // 1 is linear; 0: 1
	Least      float64 // percent of its weight at the start; 0: 10
}

// LocalityMode is what the caller's own locality means.
type LocalityMode uint8

// Modes. LocalityPrefer: own sub-zone, zone and region come before others, and their load spills over before they fail.
const (
	LocalityIgnore LocalityMode = iota
	LocalityPrefer
	LocalityWeighted // Endpoints.Localities say the shares
)

// LocalityOptions of balancing.
type LocalityOptions struct {
	Mode LocalityMode
	// SpillAt is how many requests under way per endpoint (weight 1), on the average of a locality, send further ones to the
	// next nearest; 0: only lack of healthy endpoints does (Overprovision).
	SpillAt uint32
	// Failover names regions in order, from a region ("*": from any).
	Failover []Failover
	// Labels come before localities: endpoints that share the values of more of these labels with the caller, counted from the
	// first, are nearer.
	Labels []string
}

// Failover is where the requests of a region go when it cannot take them.
type Failover struct{ From, To string }

// LBPolicy is a load-balancing policy.
type LBPolicy uint8

// Policies. The first is the default of the mesh.
const (
	LeastRequest LBPolicy = iota
	RoundRobin
	Random
	RingHash
	Maglev
	PeakEWMA
	LeastUtilized
)

// UpstreamHTTP is how HTTP is spoken to a cluster's endpoints.
type UpstreamHTTP struct {
	Version UpstreamVersion
	HTTP1   HTTP1Options
	HTTP2   HTTP2Options
}

// UpstreamVersion is which version of HTTP is spoken.
type UpstreamVersion uint8

// Versions. UpstreamDefault is HTTP/1.1 for foreign clusters and the client's own inside the mesh.
const (
	UpstreamDefault UpstreamVersion = iota
	UpstreamHTTP1
	UpstreamHTTP2
	UpstreamAuto       // what ALPN says
	UpstreamDownstream // what the client speaks
)

// Priority of a route.
type Priority uint8

// Priorities.
const (
	PriorityDefault Priority = iota
	PriorityHigh
)

// Breakers bound what a cluster has under way, over all loops; 0: no bound but the engine's own. The decoder fills in
// Envoy's defaults (1024 connections, pending requests and requests; no bound of retries).
type Breakers struct {
	Connections uint32 // beyond, requests wait for one of their endpoint's that becomes free; relayed connections are refused
	Pending     uint32 // requests that wait for a connection; more are refused
	Requests    uint32 // requests that have a connection; more are refused
	Retries     uint32 // requests that are further attempts; there are no more
}

// HealthCheckKind is what a health check asks.
type HealthCheckKind uint8

// Kinds.
const (
	CheckHTTP HealthCheckKind = iota
	CheckTCP
	CheckGRPC
)

// HealthCheck asks every endpoint, in turn, whether it is well.
type HealthCheck struct {
	Kind               HealthCheckKind
	Timeout            time.Duration
	Interval           time.Duration
	NoTrafficInterval  time.Duration // 0: 60 s
	UnhealthyInterval  time.Duration // 0: Interval
	Jitter             time.Duration // at most, added to an interval
	UnhealthyThreshold uint32
	HealthyThreshold   uint32
	ReuseConnection    bool
	Port               uint16 // where the endpoint has no CheckPort; 0: its own

	Path     string        // HTTP
	Host     string        // HTTP: Host; gRPC: authority. "": the cluster's name
	Method   string        // HTTP; "" is GET
	HTTP2    bool          // HTTP
	Statuses []StatusRange // HTTP: healthy ones; empty: 200
	Headers  []Header      // HTTP: added
	Service  string        // gRPC: asked for
	Send     []byte        // TCP: empty: a connection is enough
	Receive  [][]byte      // TCP: must appear, in order
}

// StatusRange is the statuses From to To, To not included.
type StatusRange struct{ From, To int }

// Outlier ejects endpoints that fail real requests. The decoder fills in Envoy's defaults; a threshold of 0 never ejects.
type Outlier struct {
	Consecutive5xx        uint32
	ConsecutiveGateway    uint32
	ConsecutiveLocal      uint32 // local-origin failures, with SplitLocal
	SplitLocal            bool
	Interval              time.Duration
	BaseEjection          time.Duration // times the number of ejections so far
	MaxEjection           time.Duration
	EjectionJitter        time.Duration // at most, added to an ejection
	MaxPercent            uint32        // of a cluster
	AlwaysOne             bool          // one endpoint may be ejected whatever MaxPercent says
	StayEjected           bool          // a health check that is passed does not end an ejection
	Enforce5xx            uint32        // percent
	EnforceGateway        uint32
	EnforceLocal          uint32
	EnforceSuccessRate    uint32
	SuccessMinimumHosts   uint32
	SuccessRequestVolume  uint32
	SuccessStdevFactor    uint32 // thousandths
	EnforceFailurePercent uint32
	// The next two are for SplitLocal.
	EnforceLocalSuccessRate    uint32
	EnforceLocalFailurePercent uint32
	FailureThreshold           uint32 // percent
	FailureMinimumHosts        uint32
	FailureRequestVolume       uint32

	// LatencyFactor ejects an endpoint whose mean response time of an interval is more than so many times the median of
	// all endpoints' means, and more than LatencyLeast; 0: never. Envoy has no such thing.
	LatencyFactor        float64
	LatencyLeast         time.Duration // 0: 10 ms
	LatencyMinimumHosts  uint32        // with LatencyRequestVolume in the interval; 0: 3
	LatencyRequestVolume uint32        // 0: 20

	// Probe: an endpoint whose ejection is over gets one request. A good answer restores it, a failure ejects it for longer;
	// until then it gets no other. Otherwise it gets its full share at once.
	Probe bool
	// Learned, with Probe: how long an ejection lasts follows from how long failures of endpoints were seen to last, at most
	// MaxEjection; until that is known it doubles from half a second, as long as BaseEjection asks for at most.
	Learned bool
}

// Health says whether an endpoint takes new work.
type Health uint8

// Health values.
const (
	Healthy   Health = iota
	Draining         // finishes what it has, takes nothing new
	Stale            // its lease would have ended but too many would have ended with it (DESIGN 5, "Who is alive")
	Unhealthy        // whoever announced it says so
	Degraded         // taken when the healthy ones are not enough
)

// Endpoint is one workload's port behind a cluster, or an address that is no workload's (Identity is then empty).
type Endpoint struct {
	Workload  string         // unique in its namespace, for example "cart-v1-7f3kq"; outside the mesh "" or its host name
	Namespace string         // of the workload
	Address   netip.AddrPort // mesh-inbound address of the proxy in front of it; outside the mesh its own
	Port      uint16         // the workload's own port, named in the SNI
	Identity  string         // SPIFFE ID that the proxy in front of it must prove; "": no workload of the mesh
	Version   string
	Weight    uint32 // 1 unless given
	Health    Health
	Learned   Protocol // one of the Learned values, or ProtocolUnknown

	Priority  uint32 // 0 is tried first
	Locality  string // "region/zone/sub_zone"
	CheckPort uint16 // for health checks; 0: Address's
	Labels    []Label
}

// LocalityWeight is the share of a locality among those of its priority. Endpoints have a part in that of the most exact one
// that they are in; those that are in none get nothing.
type LocalityWeight struct {
	Locality string // "region", "region/zone" or "region/zone/sub_zone"
	Priority uint32
	Weight   uint32
}

// Endpoints is the set of endpoints of a cluster, ordered by Namespace, Workload and Port inside the mesh.
type Endpoints struct {
	Cluster       PortName
	Endpoints     []Endpoint
	Overprovision uint32 // percent; 0: the cluster's
	Localities    []LocalityWeight
}
