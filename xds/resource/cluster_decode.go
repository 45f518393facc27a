package resource

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// DecodeCluster reads a packed Envoy cluster. Its endpoints come over the stream that brought it, and no other way.
func DecodeCluster(a *anypb.Any) (*model.Cluster, error) {
	var m clusterv3.Cluster
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	c, err := readCluster(&m)
	if err != nil {
		return nil, err
	}
	if err := overlay("", m.GetMetadata(), c); err != nil {
		return nil, err
	}
	if c.ConnectTimeout <= 0 {
		return nil, refuse("connect_timeout", "is not more than 0")
	}
	return c, nil
}

// readCluster reads what Envoy's fields say.
func readCluster(m *clusterv3.Cluster) (*model.Cluster, error) {
	c, _, err := envoy.Cluster("", m)
	if err != nil {
		return nil, err
	}
	if m.GetType() != clusterv3.Cluster_EDS {
		return nil, refuse("type", "%s is not run for a cluster of the mesh, EDS is", m.GetType())
	}
	if c.Name, err = model.ParsePortName(m.GetName()); err != nil {
		return nil, refuse("name", "%s", clip(err.Error()))
	}
	return c, nil
}
