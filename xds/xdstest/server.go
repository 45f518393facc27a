// Package xdstest is a control plane in the test's own process: a real server on loopback with mTLS, whose
// resources the test sets. Its methods are safe for concurrent use.
package xdstest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/server"
)

// ID is the identity of the server.
var ID = spiffe.ID{TrustDomain: "tulle.local", Namespace: "tulle-system", ServiceAccount: "control"}

// Server is the control plane.
type Server struct {
	t         testing.TB
	Authority *svidtest.Authority
	Address   string
	sessions  server.Sessions
	identity  svidtest.Fixed

	mu        sync.Mutex
	grpc      *grpc.Server
	listener  net.Listener
	revision  uint64
	resources map[[2]string]*server.Resource
	streams   map[*server.Stream]bool
	asked     map[[2]string]int
}

// New starts a server that ends with the test. sessions may be nil: then every announcement is accepted and
// forgotten.
func New(t testing.TB, sessions server.Sessions) *Server {
	a := svidtest.New(t)
	if sessions == nil {
		sessions = deaf{}
	}
	s := &Server{t: t, Authority: a, identity: a.Issue(ID), sessions: sessions, resources: map[[2]string]*server.Resource{},
		streams: map[*server.Stream]bool{}, asked: map[[2]string]int{}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Revoke takes one certificate out of use, from the next Start on; it is called after Stop.
func (s *Server) Revoke(c *x509.Certificate) {
	s.t.Helper()
	trust, err := svid.NewTrust(ID.TrustDomain, &model.Trust{Revoked: []model.Revocation{{Serial: c.SerialNumber.Bytes()}},
		Bundles: []model.TrustBundle{{TrustDomain: ID.TrustDomain, Roots: [][]byte{s.Authority.Root.Raw}}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.identity.SVID = s.identity.SVID.Believing(trust)
}

// Start listens again after Stop, at the same address.
func (s *Server) Start() {
	addr := s.Address
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Address = l.Addr().String()
	g := grpc.NewServer(server.Options(s.identity)...)
	recall, _ := s.sessions.(server.Recall) // nil: proxies are asked nothing
	server.New(server.Config{Source: s, Sessions: s.sessions, Recall: recall}).Register(g)
	s.mu.Lock()
	s.grpc, s.listener = g, l
	s.mu.Unlock()
	go g.Serve(l) // ended by Stop
}

// Stop breaks every connection. What was set stays.
func (s *Server) Stop() {
	s.mu.Lock()
	g, l := s.grpc, s.listener
	s.mu.Unlock()
	g.Stop()
	l.Close() // also when Serve had not taken it yet
}

// SetService, and the others, say what there is from now on; nil removes.
func (s *Server) SetService(name string, m *model.Service) {
	set(s, resource.TypeService, name, m, resource.EncodeService)
}

// SetRouteTable is like SetService.
func (s *Server) SetRouteTable(name string, m *model.RouteTable) {
	set(s, resource.TypeRouteTable, name, m, resource.EncodeRouteTable)
}

// SetCluster is like SetService.
func (s *Server) SetCluster(name string, m *model.Cluster) {
	set(s, resource.TypeCluster, name, m, resource.EncodeCluster)
}

// SetEndpoints is like SetService.
func (s *Server) SetEndpoints(name string, m *model.Endpoints) {
	set(s, resource.TypeEndpoints, name, m, resource.EncodeEndpoints)
}

// SetRaw sets any message, also one that proxies refuse.
func (s *Server) SetRaw(typ, name string, m proto.Message) {
	set(s, typ, name, &m, func(m *proto.Message) (proto.Message, error) { return *m, nil })
}

func set[M any, P proto.Message](s *Server, typ, name string, m *M, encode func(*M) (P, error)) {
	var r *server.Resource
	if m != nil {
		p, err := encode(m)
		if err != nil {
			s.t.Fatal(err)
		}
		body, err := resource.Pack(p)
		if err != nil {
			s.t.Fatal(err)
		}
		body.TypeUrl = typ
		sum := sha256.Sum256(body.Value)
		r = &server.Resource{Version: hex.EncodeToString(sum[:8]), Body: body}
	}
	s.mu.Lock()
	s.revision++
	s.resources[[2]string{typ, name}] = r
	streams := make([]*server.Stream, 0, len(s.streams))
	for st := range s.streams {
		streams = append(streams, st)
	}
	s.mu.Unlock()
	for _, st := range streams {
		st.Touch(typ, name)
	}
}

// Asked answers how often a resource was subscribed to.
func (s *Server) Asked(typ, name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[[2]string{typ, name}]
}

// Streams answers the streams that are open.
func (s *Server) Streams() []*server.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*server.Stream
	for st := range s.streams {
		out = append(out, st)
	}
	return out
}

// Open, Close and what follows make Server a server.Source.
func (s *Server) Open(st *server.Stream) { s.mu.Lock(); s.streams[st] = true; s.mu.Unlock() }

// Close is part of server.Source.
func (s *Server) Close(st *server.Stream) { s.mu.Lock(); delete(s.streams, st); s.mu.Unlock() }

// Subscribe is part of server.Source.
func (s *Server) Subscribe(_ *server.Stream, typ string, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.asked[[2]string{typ, n}]++
	}
}

// Unsubscribe is part of server.Source.
func (s *Server) Unsubscribe(*server.Stream, string, []string) {}

// All is part of server.Source.
func (s *Server) All(_ *server.Stream, typ string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for k, r := range s.resources {
		if k[0] == typ && r != nil {
			out = append(out, k[1])
		}
	}
	return out
}

// Get is part of server.Source.
func (s *Server) Get(_ *server.Stream, typ, name string) *server.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resources[[2]string{typ, name}]
}

// Acked is part of server.Source.
func (s *Server) Acked(*server.Stream) {}

// Revision is part of server.Source.
func (s *Server) Revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

// deaf accepts every session.
type deaf struct{}

func (deaf) Begin(spiffe.ID, server.Hello) (server.Session, error) { return deaf{}, nil }
func (deaf) Ready(bool)                                            {}
func (deaf) Learned(uint16, model.Protocol)                        {}
func (deaf) Stats([]byte)                                          {}
func (deaf) Shown(server.Proof)                                    {}
func (deaf) Decided(decision.Report)                               {}
func (deaf) Captured(server.Capture)                               {}
func (deaf) Recovered([]recovery.Report)                           {}
func (deaf) Goodbye(context.Context) int                           { return 0 }
func (deaf) End(bool)                                              {}
