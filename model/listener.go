package model

import (
	"net/netip"
	"time"
)

// Listener is where a proxy without a workload (tulle proxy --bootstrap) accepts connections. It is Envoy's listener
// within the subset of docs/reference/xds.md; a Listener that was decoded can be run.
type Listener struct {
	Name      string
	Addresses []netip.AddrPort // at least one; port 0: any free port
	// ProxyProtocol: connections begin with a PROXY header, version 1 or 2; without one they are refused.
	ProxyProtocol *AcceptProxyProtocol
	// OriginalDestination: the kernel turned the connections to us; the address asked for is the one before.
	OriginalDestination bool
	// Inspect looks at the first bytes for a ClientHello: SNI, ALPN and transport protocol are known to Match.
	Inspect bool
	// InspectTimeout is how long ProxyProtocol and Inspect may wait for bytes; 0: no bound. Envoy's default is 15 s.
	InspectTimeout time.Duration
	// ContinueOnTimeout: a connection that stays silent is served all the same; otherwise it is closed.
	ContinueOnTimeout bool
	Chains            []Chain
	Default           *Chain // where no chain matches; nil: the connection is closed
	// MaxConnections at a time, over all loops; 0: no bound but the process's descriptors.
	MaxConnections uint32
	Backlog        uint32      // of the sockets; 0: the system's
	AccessLogs     []AccessLog // for connections that no chain has served
}

// AcceptProxyProtocol is how a listener reads PROXY headers.
type AcceptProxyProtocol struct {
	AllowWithout bool // connections without a header are served as they are
	V1, V2       bool // which versions are accepted
}

// Chain is what happens to the connections that its Match holds for. Exactly one of HTTP and TCP is not nil.
type Chain struct {
	Name             string
	Match            ChainMatch
	TLS              *ServerTLS    // nil: plain
	HandshakeTimeout time.Duration // 0: 15 s
	MaxConnections   uint32        // at a time, over all loops; 0: no bound
	ConnectionRate   *RateLimit    // of new ones; nil: no bound
	HTTP             *HTTP
	TCP              *TCP
}

// ChainMatch holds when every part of it holds; an empty part holds always. Which chain wins follows Envoy's rules:
// destination port, destination prefix (longest), server name (exact, then longest wildcard), transport, application
// protocols, direct source prefix, source type, source prefix, source port; a part once decided is never revisited.
type ChainMatch struct {
	DestinationPort uint16
	Destinations    []netip.Prefix
	ServerNames     []string // lower case; "*.example.com" is a wildcard
	Transport       string   // "tls" or "raw_buffer"
	ALPN            []string
	DirectSources   []netip.Prefix
	SourceType      SourceType
	Sources         []netip.Prefix
	SourcePorts     []uint16
}

// SourceType is where a connection may come from.
type SourceType uint8

// Source types.
const (
	SourceAny SourceType = iota
	SourceLocal
	SourceExternal
)

// TCP relays the bytes of a chain's connections.
type TCP struct {
	StatPrefix  string
	Clusters    []WeightedCluster // at least one
	IdleTimeout time.Duration     // without a byte in either direction; 0: none. Envoy's default is 1 h
	// MaxDuration of a connection; 0: no bound.
	MaxDuration time.Duration
	// MaxConnectAttempts to endpoints before the connection is given up; 0: 1.
	MaxConnectAttempts uint32
	// HashSource: RingHash and Maglev hash the client's address; otherwise chance decides.
	HashSource bool
	AccessLogs []AccessLog
}

// WeightedCluster is a cluster and its share. Weights add up to more than 0.
type WeightedCluster struct {
	Cluster PortName
	Weight  uint32
	Subset  []Label // as a Backend's
}

// AccessLog is a file that one line per exchange or connection is written to.
type AccessLog struct {
	Path   string // a file, or "/dev/stdout", "/dev/stderr"
	Format string // Envoy's command operators, with its line end; "" is Envoy's default format
	// JSON: one object per line with these members in order; Format is then "".
	JSON []LogField
	// OmitEmpty: an operator without a value writes nothing instead of "-" (JSON: the member is left out).
	OmitEmpty bool
}

// LogField is one member of a JSON access log: Name with the value of the operators in Format, or Members.
type LogField struct {
	Name    string
	Format  string
	Members []LogField // not nil: an object
}
