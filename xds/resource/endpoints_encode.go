package resource

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

// maxPriority is Envoy's.
const maxPriority = 127

// EncodeEndpoints makes an assignment with one entry for each priority and locality.
func EncodeEndpoints(e *model.Endpoints) (*endpointv3.ClusterLoadAssignment, error) {
	m := &endpointv3.ClusterLoadAssignment{ClusterName: e.Cluster.String()}
	if e.Overprovision > 0 {
		m.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(e.Overprovision)}
	}
	type place struct {
		priority uint32
		locality string
	}
	places := map[place]*endpointv3.LocalityLbEndpoints{}
	order := map[*endpointv3.LocalityLbEndpoints][]*model.Endpoint{}
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		p := place{min(ep.Priority, maxPriority), ep.Locality}
		l := places[p]
		if l == nil {
			l = &endpointv3.LocalityLbEndpoints{Priority: p.priority, Locality: encodeLocality(p.locality), LoadBalancingWeight: encodeShare(e.Localities, p.priority, p.locality)}
			places[p], m.Endpoints = l, append(m.Endpoints, l)
		}
		if !ep.Address.IsValid() || ep.Address.Port() == 0 || ep.Weight == 0 {
			return nil, fmt.Errorf("endpoints %s: workload %s/%s: address %s or weight %d is not valid", e.Cluster, ep.Namespace, ep.Workload, ep.Address, ep.Weight)
		}
		l.LbEndpoints, order[l] = append(l.LbEndpoints, encodeEndpoint(ep)), append(order[l], ep)
	}
	if len(m.Endpoints) == 0 && len(e.Localities) > 0 {
		m.Endpoints = []*endpointv3.LocalityLbEndpoints{{}}
	}
	got, err := readEndpoints(m)
	if err != nil {
		return nil, fmt.Errorf("endpoints %s: what was written is refused: %w", e.Cluster, err)
	}
	at := 0
	for _, l := range m.Endpoints {
		for k, lb := range l.LbEndpoints {
			if lb.Metadata, err = withFacts(order[l][k], &got.Endpoints[at]); err != nil {
				return nil, fmt.Errorf("endpoints %s: %w", e.Cluster, err)
			}
			at++
		}
	}
	if len(m.Endpoints) > 0 {
		got.Endpoints = e.Endpoints
		if m.Endpoints[0].Metadata, err = withFacts(e, got); err != nil {
			return nil, fmt.Errorf("endpoints %s: %w", e.Cluster, err)
		}
	}
	return m, nil
}

// encodeShare answers what a locality's own weight is, nil if it has none: Envoy has no weights of whole regions and zones.
func encodeShare(all []model.LocalityWeight, priority uint32, locality string) *wrapperspb.UInt32Value {
	for _, w := range all {
		if w.Weight > 0 && w.Priority == priority && strings.TrimRight(w.Locality, "/") == strings.TrimRight(locality, "/") {
			return wrapperspb.UInt32(w.Weight)
		}
	}
	return nil
}

// encodeLocality answers nil for what is not "region/zone/sub_zone".
func encodeLocality(s string) *corev3.Locality {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return nil
	}
	return &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}

func encodeEndpoint(ep *model.Endpoint) *endpointv3.LbEndpoint {
	health := corev3.HealthStatus_HEALTHY
	switch ep.Health {
	case model.Draining:
		health = corev3.HealthStatus_DRAINING
	case model.Unhealthy:
		health = corev3.HealthStatus_UNHEALTHY
	case model.Degraded:
		health = corev3.HealthStatus_DEGRADED
	}
	e := &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ep.Address.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ep.Address.Port())}}}}}
	if ep.Identity == "" {
		e.Hostname = ep.Workload
	}
	if ep.CheckPort > 0 {
		e.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{PortValue: uint32(ep.CheckPort)}
	}
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: e}, HealthStatus: health, LoadBalancingWeight: wrapperspb.UInt32(ep.Weight)}
}
