package resource

import (
	"cmp"
	"fmt"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// DecodeEndpoints reads a packed assignment. The endpoints are in the model's order, whatever that of the message is.
func DecodeEndpoints(a *anypb.Any) (*model.Endpoints, error) {
	var m endpointv3.ClusterLoadAssignment
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	e, err := readEndpoints(&m)
	if err != nil {
		return nil, err
	}
	at := 0
	for i, l := range m.GetEndpoints() {
		if i == 0 {
			if err := overlay("endpoints[0]", l.GetMetadata(), e); err != nil {
				return nil, err
			}
		}
		for k, lb := range l.GetLbEndpoints() {
			p := fmt.Sprintf("endpoints[%d].lb_endpoints[%d]", i, k)
			if err := overlay(p, lb.GetMetadata(), &e.Endpoints[at]); err != nil {
				return nil, err
			}
			if ep := &e.Endpoints[at]; ep.Weight == 0 {
				return nil, refuse(p+".load_balancing_weight", "is 0")
			} else if ep.Identity != "" && ep.Port == 0 {
				return nil, refuse(p+".metadata.port", "0 is not a port")
			}
			at++
		}
	}
	slices.SortStableFunc(e.Endpoints, inOrder)
	return e, nil
}

// readEndpoints reads what Envoy's fields say.
func readEndpoints(m *endpointv3.ClusterLoadAssignment) (*model.Endpoints, error) {
	e, err := envoy.Endpoints("", m)
	if err != nil {
		return nil, err
	}
	if e.Cluster, err = model.ParsePortName(m.GetClusterName()); err != nil {
		return nil, refuse("cluster_name", "%s", clip(err.Error()))
	}
	return e, nil
}

// inOrder is by namespace, workload and port, then by what tells endpoints that are no workload's apart.
func inOrder(a, b model.Endpoint) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Port, b.Port), a.Address.Compare(b.Address),
		cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality, b.Locality))
}
