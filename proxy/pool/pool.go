// Package pool keeps the upstream connections of one loop and one source identity: HTTP/2 over mTLS to the
// proxies of other workloads, HTTP/1.1 keep-alive and h2c to programs. It promises that a request waits for a
// connection only while one is being made, that the number of waiters, connections and idle connections is
// bounded, and that two identities never share a connection (each has its own Pool). It never chooses an
// endpoint and never retries.
//
// A Pool belongs to its loop; nothing is safe for concurrent use. Start reading at Pool.Get.
package pool

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// Kind of connection.
type Kind uint8

// Kinds.
const (
	Mesh  Kind = iota // HTTP/2 over mTLS to the proxy in front of a workload
	HTTP1             // HTTP/1.1 in the clear
	H2C               // HTTP/2 in the clear, prior knowledge
)

// Target is where a connection goes. It is comparable: targets that are equal share connections.
type Target struct {
	Kind      Kind
	Address   netip.AddrPort
	Source    netip.Addr // bound before the connect, when valid (programs see their caller's address)
	Workload  string     // Mesh: whose proxy
	Namespace string
	Port      uint16 // Mesh: the workload's own port
	Identity  string // Mesh: SPIFFE ID the peer must prove
}

// MeshTarget is where the proxy in front of e is.
func MeshTarget(e *model.Endpoint) Target {
	return Target{Kind: Mesh, Address: e.Address, Workload: e.Workload, Namespace: e.Namespace, Port: e.Port, Identity: e.Identity}
}

// Config of a Pool. Loop is required, Mesh too when mesh targets are used; everything else has a default.
type Config struct {
	Loop loop.Loop
	// Mesh starts a blank mTLS connection to t on the pool's loop (loop.Dial and mtls.Client). h.Opened is called when the
	// handshake is done and the peer's identity is proven, h.Closed when it failed; a *failure.Failure among the
	// error's causes says why.
	Mesh func(t *Target, timeout time.Duration, h loop.Handler) loop.Conn
	// Socket makes sockets towards programs, for example inside a network namespace; nil: ordinary ones.
	Socket func(v6 bool) (fd int, err error)

	Shared         upstream.Shared
	ConnectTimeout time.Duration // default 5 s, where Get gives none
	IdleTimeout    time.Duration // of HTTP/1.1 and h2c connections without a request; default 60 s
	MeshIdle       time.Duration // of mesh connections without a request; default 10 min
	SpareTimeout   time.Duration // of a spare blank connection; default 30 s
	MaxIdle        int           // idle HTTP/1.1 connections per target; default 128
	MaxConns       int           // connections per target; default 4096
	MaxWaiters     int           // requests that wait for a connection, per target; default 4096
}

// Waiter is embedded by who waits for a connection; Owner is set once.
type Waiter struct {
	Owner interface {
		// Connected gives c, which is Free: the owner opens its request on it before it returns.
		Connected(c upstream.Conn)
		// Unconnected: no connection could be made.
		Unconnected(f *failure.Failure)
	}
	at         *host
	prev, next *Waiter
}

// Waiting reports whether w is in a queue.
func (w *Waiter) Waiting() bool { return w.at != nil }
