package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/tulle-mesh/tulle/model"
)

// Endpoints reads an assignment as EDS brings it.
func Endpoints(path string, m *endpointv3.ClusterLoadAssignment) (*model.Endpoints, error) {
	if err := known(path, m); err != nil {
		return nil, err
	}
	if m.GetClusterName() == "" {
		return nil, refuse(join(path, "cluster_name"), "is missing")
	}
	e, _, err := endpoints(path, m, m.GetClusterName(), false)
	return e, err
}

// endpoints reads an assignment: of addresses, or of host names.
func endpoints(path string, m *endpointv3.ClusterLoadAssignment, name string, byName bool) (*model.Endpoints, []model.Host, error) {
	e := &model.Endpoints{Cluster: model.Free(name), Overprovision: m.GetPolicy().GetOverprovisioningFactor().GetValue()}
	var hosts []model.Host
	for i, l := range m.GetEndpoints() {
		p := at(join(path, "endpoints"), i)
		if l.GetPriority() > 127 {
			return nil, nil, refuse(join(p, "priority"), "%d is more than 127", l.GetPriority())
		}
		locality := ""
		if g := l.GetLocality(); g != nil {
			locality = g.GetRegion() + "/" + g.GetZone() + "/" + g.GetSubZone()
		}
		if w := l.GetLoadBalancingWeight().GetValue(); w > 0 {
			e.Localities = append(e.Localities, model.LocalityWeight{Locality: locality, Priority: l.GetPriority(), Weight: w})
		}
		for k, lb := range l.GetLbEndpoints() {
			p := at(join(p, "lb_endpoints"), k)
			ep, host, err := endpoint(p, lb, byName)
			if err != nil {
				return nil, nil, err
			}
			if host != nil {
				host.Weight, host.Priority, host.Locality, host.Labels = ep.Weight, l.GetPriority(), locality, ep.Labels
				hosts = append(hosts, *host)
				continue
			}
			ep.Priority, ep.Locality = l.GetPriority(), locality
			e.Endpoints = append(e.Endpoints, ep)
		}
	}
	return e, hosts, nil
}

func endpoint(path string, lb *endpointv3.LbEndpoint, byName bool) (ep model.Endpoint, host *model.Host, err error) {
	if ep.Weight = numberOr(lb.GetLoadBalancingWeight(), 1); ep.Weight == 0 {
		return ep, nil, refuse(join(path, "load_balancing_weight"), "is 0")
	}
	ep.Labels = endpointLabels(lb.GetMetadata())
	switch s := lb.GetHealthStatus(); s {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
	case corev3.HealthStatus_DRAINING:
		ep.Health = model.Draining
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		ep.Health = model.Unhealthy
	case corev3.HealthStatus_DEGRADED:
		ep.Health = model.Degraded
	default:
		return ep, nil, refuse(join(path, "health_status"), "%s %s", s, notRun)
	}
	p := join(path, "endpoint")
	e := lb.GetEndpoint()
	if e == nil {
		return ep, nil, refuse(p, "is missing")
	}
	if ep.CheckPort, err = portNumber(join(p, "health_check_config.port_value"), e.GetHealthCheckConfig().GetPortValue()); err != nil {
		return ep, nil, err
	}
	ep.Workload = e.GetHostname()
	if s := e.GetAddress().GetSocketAddress(); byName && s != nil {
		q := join(p, "address.socket_address")
		port, err := portOf(q, s)
		if err == nil && (s.GetAddress() == "" || port == 0) {
			err = refuse(q, "needs a name and a port")
		}
		return ep, &model.Host{Name: s.GetAddress(), Port: port, CheckPort: ep.CheckPort}, err
	}
	if ep.Address, err = address(join(p, "address"), e.GetAddress()); err == nil && ep.Address.Port() == 0 {
		err = refuse(join(p, "address.socket_address.port_value"), "is 0")
	}
	return ep, nil, err
}
