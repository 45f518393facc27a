package model

import (
	"net/netip"
	"time"
)

// Protocol says what is spoken on a port.
type Protocol uint8

// The first five are declared by a user; the last three are learned by the proxy beside the server
// (docs/design/sniff.md). A declared protocol always wins over a learned one.
const (
	ProtocolUnknown    Protocol = iota
	ProtocolHTTP                // HTTP/1.1 or HTTP/2, and nothing else is accepted
	ProtocolGRPC                // HTTP/2 with gRPC
	ProtocolTCP                 // opaque bytes
	ProtocolTLS                 // the application's own TLS, opaque but for its SNI
	LearnedHTTP                 // the server answered a valid HTTP response
	LearnedClientFirst          // opaque, the client spoke first
	LearnedServerFirst          // opaque, the server spoke first
)

var protocolNames = [...]string{"unknown", "http", "grpc", "tcp", "tls", "learned-http", "learned-client-first", "learned-server-first"}

// String answers the name used in flags ("http", "grpc", "tcp", "tls") and on the wire.
func (p Protocol) String() string {
	if int(p) < len(protocolNames) {
		return protocolNames[p]
	}
	return "unknown"
}

// ParseProtocol is the inverse of String; ok is false for a name that String never answers.
func ParseProtocol(s string) (p Protocol, ok bool) {
	for i, n := range protocolNames {
		if n == s {
			return Protocol(i), true
		}
	}
	return ProtocolUnknown, false
}

// Declared reports whether a user declared p.
func (p Protocol) Declared() bool { return p >= ProtocolHTTP && p <= ProtocolTLS }

// HTTP reports whether p is carried as HTTP exchanges.
func (p Protocol) HTTP() bool { return p == ProtocolHTTP || p == ProtocolGRPC || p == LearnedHTTP }

// Service is a name that workloads answer to: its virtual addresses and its ports. It is what DNS and the
// outbound listener need to know.
type Service struct {
	Name  ServiceName
	VIP4  netip.Addr // from 198.18.0.0/15, the same across restarts
	VIP6  netip.Addr // from fd74:756c:6c65::/64
	Ports []ServicePort
}

// ServicePort is one port of a service.
type ServicePort struct {
	Name     string
	Port     uint16
	Protocol Protocol // declared, or ProtocolUnknown
}

// FindPort answers the port with number n.
func (s *Service) FindPort(n uint16) (ServicePort, bool) {
	for _, p := range s.Ports {
		if p.Port == n {
			return p, true
		}
	}
	return ServicePort{}, false
}

// Cluster is one port of a service as the place that requests are sent to.
type Cluster struct {
	Name           PortName
	Protocol       Protocol      // declared, or ProtocolUnknown
	ConnectTimeout time.Duration // to one endpoint, TCP and TLS together; more than 0
}

// Health says whether an endpoint takes new work.
type Health uint8

// Health values.
const (
	Healthy  Health = iota
	Draining        // finishes what it has, takes nothing new
	Stale           // its lease would have ended but too many would have ended with it (DESIGN 5, "Who is alive")
)

// Endpoint is one workload's port behind a cluster.
type Endpoint struct {
	Workload  string         // unique in its namespace, for example "cart-v1-7f3kq"
	Namespace string         // of the workload
	Address   netip.AddrPort // mesh-inbound address of the proxy in front of it
	Port      uint16         // the workload's own port, named in the SNI
	Identity  string         // SPIFFE ID that the proxy in front of it must prove
	Version   string
	Weight    uint32 // 1 unless given
	Health    Health
	Learned   Protocol // one of the Learned values, or ProtocolUnknown
}

// Endpoints is the set of endpoints of a cluster, ordered by Namespace, Workload and Port.
type Endpoints struct {
	Cluster   PortName
	Endpoints []Endpoint
}
