// Package server is the control plane's end of the connection to proxies: delta xDS over aggregated streams,
// and sessions. It knows the protocols and who the peer is; what there is to tell comes from a Source, what
// sessions say goes to a Sessions. Each stream has one goroutine that sends and one that receives, both ended
// with the stream; Register makes no goroutine of its own. Safe for concurrent use. Start reading at Config.
package server

import (
	"context"
	"log/slog"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// Resource is a resource as it is sent. It is immutable: many streams send the same one.
type Resource struct {
	Version string // differs when Body does
	Body    *anypb.Any
}

// Source is where resources come from. All methods are called from the goroutines of streams, concurrently.
type Source interface {
	// Open is told of a new stream, before anything else of it; from then on the source calls Touch.
	Open(s *Stream)
	// Close is told of its end; nothing of it follows.
	Close(s *Stream)
	// Subscribe and Unsubscribe are told what a stream asks for, by type URL.
	Subscribe(s *Stream, typ string, names []string)
	Unsubscribe(s *Stream, typ string, names []string)
	// All answers the names of a type that the peer of s may see, for a wildcard.
	All(s *Stream, typ string) []string
	// Get answers a resource as it is now, nil when it does not exist.
	Get(s *Stream, typ, name string) *Resource
	// Acked is called when a stream has acknowledged something; see Stream.Standing.
	Acked(s *Stream)
	// Revision is what a response says its content is as of.
	Revision() uint64
}

// Config of the service; Source is needed.
type Config struct {
	Source   Source
	Sessions Sessions // nil: no session is accepted
	Recall   Recall   // nil: proxies are asked nothing
	// Known answers whom the mesh knows a peer as (svid.Trust.Canonical); nil: as what it has proven.
	Known func(spiffe.ID) spiffe.ID
	Log   *slog.Logger
}

// Service serves both protocols.
type Service struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	tullepb.UnimplementedSessionServer
	cfg    Config
	counts counts
}

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg}
}

// Register adds the service to a gRPC server made with Options.
func (s *Service) Register(g grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	tullepb.RegisterSessionServer(g, s)
}

// Options are those of a server without a look at its connections later (NewConnections).
func Options(src svid.Source) []grpc.ServerOption { return NewConnections(src, nil).Options() }

// Peer answers who is at the other end, an Unauthenticated error when it proved nothing.
func Peer(ctx context.Context) (spiffe.ID, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			if id := svid.PeerID(info.State); !id.IsZero() {
				return id, nil
			}
		}
	}
	return spiffe.ID{}, status.Error(codes.Unauthenticated, "a certificate of this mesh is needed; attest first")
}

func (s *Service) peer(ctx context.Context) (spiffe.ID, error) {
	id, err := Peer(ctx)
	if err == nil && s.cfg.Known != nil {
		id = s.cfg.Known(id)
	}
	return id, err
}

// DeltaAggregatedResources serves one stream.
func (s *Service) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	id, err := s.peer(g.Context())
	if err != nil {
		return err
	}
	return newStream(id, s.cfg.Source, &s.counts, s.cfg.Log).serve(g)
}

// StreamAggregatedResources is the older protocol.
func (s *Service) StreamAggregatedResources(discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return status.Error(codes.Unimplemented, "only the delta protocol is served: DeltaAggregatedResources")
}
