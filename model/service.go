package model

import "net/netip"

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
	// Consumers are the namespaces whose callers have route tables of their own for this service (RouteTable.Caller), sorted.
	Consumers []string
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
