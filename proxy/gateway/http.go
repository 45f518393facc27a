package gateway

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// destination is where the requests of a chain go: exchange.Destination. What it answers is read anew for every request,
// so a connection continues when its route table changes.
type destination struct {
	g     *Gateway
	table *table
}

// Routes implements exchange.Destination.
func (d *destination) Routes() *router.Table { return d.table.now.Load() }

// Cluster implements exchange.Destination.
func (d *destination) Cluster(name model.PortName) *cluster.Cluster { return d.g.cluster(name) }

// serve hands the connection to HTTP; alpn is what the handshake agreed on.
func (s *session) serve(alpn string) {
	c := s.chain
	s.decide()
	o := &exchange.Origin{
		Direction: record.Inbound, Remote: s.seen.Source, Wanted: s.seen.Destination, MTLS: s.about.Peer() != nil,
		Protocol: model.ProtocolHTTP, Destination: &c.to, HTTP: c.model.HTTP, Conn: &s.about, Logs: c.logs, Turned: s.turned, Gate: c.gate, Fault: c.fault,
	}
	if o.MTLS {
		o.SourceID = s.peerID()
	}
	h := downstream.ServeChain(s.conn, downstream.Context{Worker: s.w.exchange, Origin: o, Config: c.config, Ended: s.over}, alpn)
	s.drainer, _ = h.(downstream.Drainer)
	s.conn.SetHandler(h)
	if c.retired.Load() || s.w.g.draining.Load() {
		s.drain(downstream.Drainer.Leave) // its first request is served
	}
}

// peerID answers the SPIFFE ID of a client that has shown one, else the subject of its certificate.
func (s *session) peerID() string {
	if c, ok := s.conn.(*mtls.Conn); ok && !c.PeerID().IsZero() {
		return c.PeerID().String()
	}
	return s.about.PeerSubject()
}
