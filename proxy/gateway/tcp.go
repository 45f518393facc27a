package gateway

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// relay looks for a server and hands the connection to a relay. Meanwhile the client's bytes wait in the kernel.
func (s *session) relay() {
	t := s.chain.model.TCP
	s.decide()
	s.phase = awaitServer
	rec := &record.Record{}
	rec.Reset()
	rec.Direction, rec.TCP, rec.Protocol, rec.Wanted = record.Inbound, true, model.ProtocolTCP, s.seen.Destination
	rec.MTLS = s.about.Peer() != nil
	rec.Start, rec.Wall = s.w.loop.Now(), s.w.loop.Wall()
	s.conn.SetHandler(s)
	s.conn.Pause()
	to := choose(t.Clusters, s.w.rnd.Uint64())
	name := to.Cluster
	rec.Backend, rec.Destination, rec.Port = name, name.Service, name.Port
	c := s.w.g.cluster(name)
	switch {
	case s.w.relays.Full():
		s.unserved(rec, failure.Overload)
	case c == nil:
		s.unserved(rec, failure.UnknownCluster)
	case !s.turned && c.Model().Discovery == model.DiscoveryOriginal:
		s.unserved(rec, failure.NoEndpoint) // it would be sent to ourselves
	case !s.count(c):
		s.unserved(rec, failure.Overflow)
	default:
		s.find(c, to.Subset, rec)
	}
}

// count counts the connection to a server of c that the session is about to have, until its end, if c may have one more.
// Nothing ever gives a relayed connection back to who waits, so nobody waits.
func (s *session) count(c *cluster.Cluster) bool {
	b := c.Breaker(model.PriorityDefault)
	if b != nil {
		if !b.Take(cluster.Connections) {
			return false
		}
		s.breaker = b
	}
	return true
}

// choose picks by weight.
func choose(all []model.WeightedCluster, rnd uint64) *model.WeightedCluster {
	var sum uint64
	for i := range all {
		sum += uint64(all[i].Weight)
	}
	if sum == 0 {
		return &all[0]
	}
	for at := rnd % sum; ; all = all[1:] {
		if w := uint64(all[0].Weight); at < w {
			return &all[0]
		} else {
			at -= w
		}
	}
}

// find asks for a connection to an endpoint of c.
func (s *session) find(c *cluster.Cluster, subset []model.Label, rec *record.Record) {
	t := s.chain.model.TCP
	wish := relay.Wish{Attempts: int(max(t.MaxConnectAttempts, 1)), Subset: subset}
	if t.HashSource {
		wish.Source = s.seen.Source.Addr()
	}
	s.search = relay.FindAs(wish, s.w.loop, relay.Fresh{Loop: s.w.loop, Header: s.sendProxy}, c, s.w.rnd, rec, func(up loop.Conn, ep *cluster.Endpoint, f *failure.Failure) {
		s.search = nil
		if f != nil {
			s.unserved(rec, f.Reason)
			return
		}
		s.phase = served
		s.w.relays.Start(s.conn, up, rec, relay.Options{Endpoint: ep, Idle: t.IdleTimeout, MaxDuration: t.MaxDuration, Ended: s.relayed})
	})
}

// relayed is the end of a relay.
func (s *session) relayed(rec *record.Record) {
	s.tell(rec)
	s.over()
}

// tell writes a connection to the chain's access logs.
func (s *session) tell(rec *record.Record) {
	e := observe.Entry{Record: rec, Conn: &s.about}
	if n := rec.NAttempts; n > 0 && n <= record.MaxAttempts {
		e.Upstream = rec.Attempts[n-1].Address
	}
	s.chain.logs.Put(&e)
}

// unserved ends a connection that no server was found for.
func (s *session) unserved(rec *record.Record, why failure.Reason) {
	rec.Reason, rec.End = why.Label(), s.w.loop.Now()
	s.w.recorder.Done(rec)
	s.tell(rec)
	s.phase = served
	s.conn.Reset()
}

// sendProxy answers what a connection to an endpoint begins with: the PROXY protocol, where its cluster wants it.
func (s *session) sendProxy(t *pool.Target) []byte {
	if c := t.Cluster; c != nil && c.SendProxy != 0 {
		return []byte(proxyproto.Out(c.SendProxy, s.seen.Source, s.seen.Destination))
	}
	return nil
}
