package workload

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/identity/svid"
)

// FetchX509SVID implements pb.SpiffeWorkloadAPIServer.
func (s *Server) FetchX509SVID(_ *pb.X509SVIDRequest, to grpc.ServerStreamingServer[pb.X509SVIDResponse]) error {
	var last *pb.X509SVIDResponse
	return s.follow(to.Context(), func(now *svid.SVID) error {
		m, err := answer(now)
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		if proto.Equal(m, last) { // what has changed is nothing that programs are told, revocations for example
			return nil
		}
		last = m
		return to.Send(m)
	})
}

// FetchX509Bundles implements pb.SpiffeWorkloadAPIServer.
func (s *Server) FetchX509Bundles(_ *pb.X509BundlesRequest, to grpc.ServerStreamingServer[pb.X509BundlesResponse]) error {
	var last *pb.X509BundlesResponse
	return s.follow(to.Context(), func(now *svid.SVID) error {
		m := &pb.X509BundlesResponse{Bundles: bundles(now)}
		if proto.Equal(m, last) {
			return nil
		}
		last = m
		return to.Send(m)
	})
}

var errNoJWT = status.Error(codes.Unimplemented, "this mesh's authority signs no JWT-SVIDs: use X.509-SVIDs (FetchX509SVID)")

// FetchJWTSVID implements pb.SpiffeWorkloadAPIServer; likewise below.
func (s *Server) FetchJWTSVID(context.Context, *pb.JWTSVIDRequest) (*pb.JWTSVIDResponse, error) {
	return nil, errNoJWT
}

// FetchJWTBundles implements pb.SpiffeWorkloadAPIServer.
func (s *Server) FetchJWTBundles(*pb.JWTBundlesRequest, grpc.ServerStreamingServer[pb.JWTBundlesResponse]) error {
	return errNoJWT
}

// ValidateJWTSVID implements pb.SpiffeWorkloadAPIServer.
func (s *Server) ValidateJWTSVID(context.Context, *pb.ValidateJWTSVIDRequest) (*pb.ValidateJWTSVIDResponse, error) {
	return nil, errNoJWT
}

// answer is what a program is told of its identity.
func answer(now *svid.SVID) (*pb.X509SVIDResponse, error) {
	key, err := x509.MarshalPKCS8PrivateKey(now.Certificate.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("the program's key: %w", err)
	}
	own := "spiffe://" + now.ID.TrustDomain
	others := bundles(now)
	bundle := others[own]
	delete(others, own)
	return &pb.X509SVIDResponse{FederatedBundles: others, Svids: []*pb.X509SVID{{
		SpiffeId: now.ID.String(), X509Svid: bytes.Join(now.Certificate.Certificate, nil), X509SvidKey: key, Bundle: bundle}}}, nil
}

// bundles answers the roots that are believed, by the ID of their trust domain.
func bundles(now *svid.SVID) map[string][]byte {
	out := map[string][]byte{}
	if now.Trust != nil {
		for _, b := range now.Trust.Model.Bundles {
			out["spiffe://"+b.TrustDomain] = bytes.Join(b.Roots, nil)
		}
		return out
	}
	var own []byte
	for block, rest := pem.Decode(now.RootsPEM); block != nil; block, rest = pem.Decode(rest) {
		own = append(own, block.Bytes...)
	}
	out["spiffe://"+now.ID.TrustDomain] = own
	return out
}
