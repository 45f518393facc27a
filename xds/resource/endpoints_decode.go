package resource

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// DecodeEndpoints reads a packed assignment. The order of the endpoints is that of the message.
func DecodeEndpoints(a *anypb.Any) (*model.Endpoints, error) {
	var m endpointv3.ClusterLoadAssignment
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	if err := only("", &m, "cluster_name", "endpoints"); err != nil {
		return nil, err
	}
	name, err := model.ParsePortName(m.GetClusterName())
	if err != nil {
		return nil, refuse("cluster_name", "%s", clip(err.Error()))
	}
	e := &model.Endpoints{Cluster: name}
	if len(m.GetEndpoints()) > 1 {
		return nil, refuse("endpoints", "%d localities, Tulle runs one", len(m.GetEndpoints()))
	}
	for _, loc := range m.GetEndpoints() {
		if err := only("endpoints[0]", loc, "lb_endpoints"); err != nil {
			return nil, err
		}
		for i, lb := range loc.GetLbEndpoints() {
			ep, err := decodeEndpoint(fmt.Sprintf("endpoints[0].lb_endpoints[%d]", i), lb)
			if err != nil {
				return nil, err
			}
			e.Endpoints = append(e.Endpoints, ep)
		}
	}
	return e, nil
}

func decodeEndpoint(path string, lb *endpointv3.LbEndpoint) (ep model.Endpoint, err error) {
	if err := only(path, lb, "endpoint", "health_status", "metadata", "load_balancing_weight"); err != nil {
		return ep, err
	}
	if ep.Address, err = socketAddress(path+".endpoint", lb.GetEndpoint()); err != nil {
		return ep, err
	}
	ep.Weight = 1
	if w := lb.GetLoadBalancingWeight(); w != nil {
		ep.Weight = w.GetValue()
	}
	if ep.Weight == 0 {
		return ep, refuse(path+".load_balancing_weight", "is 0")
	}
	var facts tullepb.EndpointFacts
	ok, err := unpackFacts(path, lb.GetMetadata(), &facts)
	if err != nil {
		return ep, err
	}
	if !ok {
		return ep, refuse(path+".metadata", "has no tulle.v1 facts: endpoints outside the mesh are not run yet")
	}
	if ep.Health, err = health(path, lb.GetHealthStatus(), facts.GetStale()); err != nil {
		return ep, err
	}
	ep.Workload, ep.Namespace, ep.Identity, ep.Version = facts.GetWorkload(), facts.GetNamespace(), facts.GetIdentity(), facts.GetVersion()
	if ep.Port, err = port(path+".metadata.port", facts.GetPort()); err != nil {
		return ep, err
	}
	ep.Learned, err = protocol(path+".metadata.learned", facts.GetLearned())
	return ep, err
}

func socketAddress(path string, e *endpointv3.Endpoint) (netip.AddrPort, error) {
	sa := e.GetAddress().GetSocketAddress()
	if sa == nil {
		return netip.AddrPort{}, refuse(path+".address", "is not a socket_address")
	}
	if err := only(path, e, "address"); err != nil {
		return netip.AddrPort{}, err
	}
	if err := only(path+".address.socket_address", sa, "address", "port_value"); err != nil {
		return netip.AddrPort{}, err
	}
	ip, err := netip.ParseAddr(sa.GetAddress())
	if err != nil {
		return netip.AddrPort{}, refuse(path+".address.socket_address.address", "%q is not an IP address", clip(sa.GetAddress()))
	}
	n, err := port(path+".address.socket_address.port_value", sa.GetPortValue())
	return netip.AddrPortFrom(ip, n), err
}

func health(path string, s corev3.HealthStatus, stale bool) (model.Health, error) {
	switch {
	case s == corev3.HealthStatus_DRAINING:
		return model.Draining, nil
	case s != corev3.HealthStatus_HEALTHY && s != corev3.HealthStatus_UNKNOWN:
		return 0, refuse(path+".health_status", "%s is not run by Tulle", s)
	case stale:
		return model.Stale, nil
	}
	return model.Healthy, nil
}
