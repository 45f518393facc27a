package resource

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// EncodeEndpoints makes one assignment with one locality, or none when there is no endpoint.
func EncodeEndpoints(e *model.Endpoints) (*endpointv3.ClusterLoadAssignment, error) {
	m := &endpointv3.ClusterLoadAssignment{ClusterName: e.Cluster.String()}
	if len(e.Endpoints) == 0 {
		return m, nil
	}
	loc := &endpointv3.LocalityLbEndpoints{}
	for i := range e.Endpoints {
		lb, err := encodeEndpoint(&e.Endpoints[i])
		if err != nil {
			return nil, fmt.Errorf("endpoints %s: %w", e.Cluster, err)
		}
		loc.LbEndpoints = append(loc.LbEndpoints, lb)
	}
	m.Endpoints = []*endpointv3.LocalityLbEndpoints{loc}
	return m, nil
}

func encodeEndpoint(ep *model.Endpoint) (*endpointv3.LbEndpoint, error) {
	if !ep.Address.IsValid() || ep.Address.Port() == 0 || ep.Weight == 0 {
		return nil, fmt.Errorf("workload %s/%s: address %s or weight %d is not valid", ep.Namespace, ep.Workload, ep.Address, ep.Weight)
	}
	md, err := packFacts(&tullepb.EndpointFacts{
		Workload: ep.Workload, Namespace: ep.Namespace, Port: uint32(ep.Port), Identity: ep.Identity,
		Version: ep.Version, Stale: ep.Health == model.Stale, Learned: protocolName(ep.Learned),
	})
	if err != nil {
		return nil, err
	}
	health := corev3.HealthStatus_HEALTHY
	if ep.Health == model.Draining {
		health = corev3.HealthStatus_DRAINING
	}
	addr := &corev3.SocketAddress{
		Address:       ep.Address.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ep.Address.Port())},
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: addr}},
		}},
		HealthStatus:        health,
		Metadata:            md,
		LoadBalancingWeight: wrapperspb.UInt32(ep.Weight),
	}, nil
}
