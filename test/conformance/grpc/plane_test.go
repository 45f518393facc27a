//go:build conformance

package grpc

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// plane is a control plane that cannot make up its mind: state of the world, and a new state every 50 ms. Every state
// sends all requests to the same server.
type plane struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	l        net.Listener
	server   int // port of the interop server
	accepted atomic.Int64
	refused  atomic.Int64
	reason   atomic.Value // string, of the last refusal
}

const (
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

func newPlane(t *testing.T, server int) *plane {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{l: l, server: server}
	s := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	return p
}

func (p *plane) port() int { return p.l.Addr().(*net.TCPAddr).Port }

// StreamAggregatedResources implements ADS.
func (p *plane) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	asked := make(chan *discoveryv3.DiscoveryRequest)
	go func() {
		defer close(asked)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case asked <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	wanted := map[string]bool{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for version := 1; ; {
		select {
		case r, ok := <-asked:
			if !ok {
				return nil
			}
			p.count(r)
			if r.ResponseNonce != "" || wanted[r.TypeUrl] {
				continue
			}
			wanted[r.TypeUrl] = true
		case <-tick.C:
			version++
		}
		for kind := range wanted {
			if err := stream.Send(p.state(kind, version)); err != nil {
				return err
			}
		}
	}
}

func (p *plane) count(r *discoveryv3.DiscoveryRequest) {
	switch {
	case r.ErrorDetail != nil:
		p.refused.Add(1)
		p.reason.Store(r.ErrorDetail.Message)
	case r.ResponseNonce != "":
		p.accepted.Add(1)
	}
}

// state is everything of a kind, in one of two forms.
func (p *plane) state(kind string, version int) *discoveryv3.DiscoveryResponse {
	var resource proto.Message
	switch kind {
	case endpointType:
		resource = p.endpoints(version)
	case routeType:
		resource = routes(version)
	default:
		return &discoveryv3.DiscoveryResponse{VersionInfo: fmt.Sprint(version), Nonce: fmt.Sprint(version), TypeUrl: kind}
	}
	packed, err := anypb.New(resource)
	if err != nil {
		panic(err) // our own message
	}
	return &discoveryv3.DiscoveryResponse{VersionInfo: fmt.Sprint(version), Nonce: fmt.Sprint(version), TypeUrl: kind, Resources: []*anypb.Any{packed}}
}

// endpoints are the server, with another weight each time, and sometimes beside one that takes nothing.
func (p *plane) endpoints(version int) *endpointv3.ClusterLoadAssignment {
	at := func(port int, health corev3.HealthStatus, weight int) *endpointv3.LbEndpoint {
		return &endpointv3.LbEndpoint{
			HealthStatus: health, LoadBalancingWeight: wrapperspb.UInt32(uint32(weight)),
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
			}}}}},
		}
	}
	all := []*endpointv3.LbEndpoint{at(p.server, corev3.HealthStatus_HEALTHY, 1+version%7)}
	if version%2 == 0 {
		all = append(all, at(9, corev3.HealthStatus_UNHEALTHY, 1))
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: "interop", Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: all}},
		// One unhealthy of two is half: without this all would be picked.
		Policy: &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(200)},
	}
}

func routes(version int) *routev3.RouteConfiguration {
	to := func(prefix string) *routev3.Route {
		return &routev3.Route{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: prefix}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "interop"}, Timeout: durationpb.New(0),
			}},
		}
	}
	host := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{to("/")}}
	if version%2 == 0 {
		host.Routes = []*routev3.Route{to(fmt.Sprintf("/new-in-%d", version)), to("/grpc.testing"), to("/")}
	}
	hosts := []*routev3.VirtualHost{host}
	if version%3 == 0 {
		hosts = append(hosts, &routev3.VirtualHost{Name: "other", Domains: []string{fmt.Sprintf("v%d.example", version)}, Routes: []*routev3.Route{to("/")}})
	}
	return &routev3.RouteConfiguration{Name: "interop", VirtualHosts: hosts}
}
