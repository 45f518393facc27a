// Package client is a proxy's connection to the control plane: one mTLS connection that carries a delta xDS
// stream (what the proxy must know) and a session (what the control plane must know of the proxy). It is
// started once, reconnects by itself with backoff and jitter, asks again for what was asked with the versions
// it has, and keeps every known answer while the control plane is away. Everything that was subscribed is
// delivered to the Sink from one goroutine. All methods of Client are safe for concurrent use and never wait
// for the network, Withdraw aside. Start reading at Config and Sink.
package client

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/model/recovery"
)

// Kind is a kind of resource.
type Kind uint8

// Kinds. The name of a Service is "reviews.default", or one of its virtual addresses ("198.18.0.7"): then the
// answer is the service that has it. The names of the others are "reviews.default:9080".
const (
	KindService Kind = iota
	KindRouteTable
	KindCluster
	KindEndpoints
	KindSecurity // named by the service: "reviews.default"
	KindTrust    // resource.TrustName
	kinds
)

// Sink is told what the control plane answers to subscriptions. Its methods are called from one goroutine, one
// at a time, and must not block for long; a nil value means that the name does not exist (now). A resource
// that cannot be run is refused (nack) and the Sink keeps what it had.
type Sink interface {
	Service(name string, s *model.Service)
	RouteTable(name string, t *model.RouteTable)
	Cluster(name string, c *model.Cluster)
	Endpoints(name string, e *model.Endpoints)
	Security(name string, s *model.Security) error // an error refuses it: the control plane hears so
	Trust(name string, t *model.Trust) error       // likewise
	Connected(up bool)                             // whether the control plane is reachable; first call is not before the first connection
}

// Config of a Client. Address, Identity, Server and Workload are needed.
type Config struct {
	Address  string      // host:port of the control plane's gRPC port
	Identity svid.Source // this proxy's; read again for every connection. One that is judged is told what the control plane says of it
	Server   spiffe.ID   // the identity that the control plane must prove
	Workload Workload    // what this proxy announces in its session
	Clock    *svid.Clock // is told the control plane's time at every connection; may be nil
	Log      *slog.Logger
	// Explain answers what the proxy remembers (a list of flight.Explained as JSON), for the control plane, from a goroutine of the
	// client's; nil: it is not asked.
	Explain func(flight.Question) ([]byte, error)

	// Wait between two attempts to connect: doubles from MinBackoff (default 100 ms) to MaxBackoff (default
	// 3 s), each spread by ±30 %.
	MinBackoff, MaxBackoff time.Duration
	// Dial makes the TCP connection; nil is an ordinary dial. Tests and the simulator give their own.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Workload is what a proxy announces. Name is unique in Namespace.
type Workload struct {
	Name, Namespace, Service, Version string
	ServiceAccount                    string // "" is Service
	Labels                            map[string]string
	Ports                             []Port
	Address                           netip.AddrPort // mesh inbound of the proxy; not valid for a pure client
	Metrics                           netip.AddrPort // of the proxy
	PID                               int            // of the supervisor: whoever ends it ends the workload in order
	Starts                            int            // proxies that it had started before this one
	Proxy                             string         // version of the proxy
}

// Port is one port of the announced workload.
type Port struct {
	Name         string
	Port, Target uint16         // of the service, of the program
	Protocol     model.Protocol // declared, or ProtocolUnknown
}

// State says how a client stands with its control plane.
type State struct {
	Connected bool
	Since     time.Time // of Connected; the zero time before the first connection
	Revision  uint64    // newest revision that was applied
	LastError string    // of the newest attempt to connect, "" after success
}

// New makes a client; it does nothing before Start.
func New(cfg Config) (*Client, error) { return newClient(cfg) }

// Start connects in the background and delivers to sink until Close. It is called once.
func (c *Client) Start(sink Sink) { c.start(sink) }

// Subscribe asks for a resource, now and after every reconnection, until Unsubscribe. Asking twice is asking
// once. The answer comes to the Sink; there is none while the control plane has never been reached.
func (c *Client) Subscribe(kind Kind, name string) { c.subscribe(kind, name) }

// Unsubscribe ends a subscription. An answer that is under way may still be delivered.
func (c *Client) Unsubscribe(kind Kind, name string) { c.unsubscribe(kind, name) }

// SetReady announces the workload as able, or no longer able, to take requests. It starts as not ready.
func (c *Client) SetReady(ready bool) { c.setReady(ready) }

// Learned tells what the server's proxy has learned about the protocol of a port of its program. port is the
// program's own (Port.Target).
func (c *Client) Learned(port uint16, p model.Protocol) { c.learned(port, p) }

// Report sends statistics, opaque here. Only the newest report waits for the connection; it is not sent twice.
func (c *Client) Report(stats []byte) { c.report(stats) }

// Reported reports whether the newest report has been sent.
func (c *Client) Reported() bool { return c.reported() }

// Shown tells what the workload proves itself with (DER, leaf first), and why that could not be renewed last, "" if it could.
// The control plane is told when it has changed, and after every reconnection.
func (c *Client) Shown(chain [][]byte, failing string) { c.shown(chain, failing) }

// Captured tells what the test has found whether the program's traffic goes through this proxy, "": all is well, and since when; closed:
// the workload takes no requests meanwhile. The control plane is told when it has changed, and after every reconnection.
func (c *Client) Captured(broken string, since time.Time, closed bool) {
	c.captured(broken, since, closed)
}

// Recovered tells what was learned about how long failures of destinations last. What waits for the connection is bounded;
// what was learned while it is away may be lost, the proxy itself still knows it.
func (c *Client) Recovered(list []recovery.Report) { c.recovered(list) }

// Decided tells what was let in and what not. What waits for the connection is bounded, what is more is counted with the others.
func (c *Client) Decided(r decision.Report) { c.tellDecisions(r) }

// Withdraw says goodbye: it returns when the proxies of all callers have acknowledged that the workload is
// gone, when the control plane has given up waiting for them (2 s), or when ctx ends. When there is no
// connection it answers at once with an error: then the control plane finds out by itself.
func (c *Client) Withdraw(ctx context.Context) error { return c.withdraw(ctx) }

// Retire says that another proxy of the workload has taken over: nothing about the workload is announced any more, and
// Withdraw does nothing. What is subscribed stays so as long as the connection lasts; it is not made again.
func (c *Client) Retire() { c.retire() }

// State answers how the client stands.
func (c *Client) State() State { return c.state() }

// Close ends the connection and waits for the client's goroutines. The Sink is not called afterwards.
func (c *Client) Close() { c.close() }
