package resource

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// EncodeCluster makes an EDS cluster whose endpoints come over the same stream.
func EncodeCluster(c *model.Cluster) (*clusterv3.Cluster, error) {
	if c.ConnectTimeout <= 0 {
		return nil, fmt.Errorf("cluster %s: connect timeout %v is not more than 0", c.Name, c.ConnectTimeout)
	}
	md, err := packFacts(&tullepb.ClusterFacts{Protocol: protocolName(c.Protocol)})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                 c.Name.String(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
		}},
		ConnectTimeout: durationpb.New(c.ConnectTimeout),
		LbPolicy:       clusterv3.Cluster_LEAST_REQUEST,
		Metadata:       md,
	}, nil
}
