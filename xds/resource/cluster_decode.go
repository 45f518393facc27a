package resource

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// defaultConnectTimeout is Envoy's.
const defaultConnectTimeout = 5 * time.Second

// DecodeCluster reads a packed Envoy cluster.
func DecodeCluster(a *anypb.Any) (*model.Cluster, error) {
	var m clusterv3.Cluster
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	if err := only("", &m, "name", "type", "eds_cluster_config", "connect_timeout", "lb_policy", "metadata"); err != nil {
		return nil, err
	}
	name, err := model.ParsePortName(m.GetName())
	if err != nil {
		return nil, refuse("name", "%s", clip(err.Error()))
	}
	if m.GetType() != clusterv3.Cluster_EDS || m.GetClusterType() != nil {
		return nil, refuse("type", "%s is not run by Tulle, EDS is", m.GetType())
	}
	if err := edsOverADS(&m); err != nil {
		return nil, err
	}
	if m.GetLbPolicy() != clusterv3.Cluster_LEAST_REQUEST {
		return nil, refuse("lb_policy", "%s is not run by Tulle, LEAST_REQUEST is", m.GetLbPolicy())
	}
	c := &model.Cluster{Name: name, ConnectTimeout: defaultConnectTimeout}
	if m.GetConnectTimeout() != nil {
		if c.ConnectTimeout, err = duration("connect_timeout", m.GetConnectTimeout()); err != nil {
			return nil, err
		}
	}
	if c.ConnectTimeout == 0 {
		return nil, refuse("connect_timeout", "is not more than 0")
	}
	var facts tullepb.ClusterFacts
	if _, err := unpackFacts("", m.GetMetadata(), &facts); err != nil {
		return nil, err
	}
	c.Protocol, err = protocol("metadata.protocol", facts.GetProtocol())
	return c, err
}

// edsOverADS refuses endpoints from anywhere else than the stream that brought the cluster.
func edsOverADS(m *clusterv3.Cluster) error {
	e := m.GetEdsClusterConfig()
	if err := only("eds_cluster_config", e, "eds_config", "service_name"); err != nil {
		return err
	}
	if s := e.GetServiceName(); s != "" && s != m.GetName() {
		return refuse("eds_cluster_config.service_name", "%q is not the cluster's own name", clip(s))
	}
	if err := only("eds_cluster_config.eds_config", e.GetEdsConfig(), "ads", "resource_api_version"); err != nil {
		return err
	}
	if e.GetEdsConfig().GetAds() == nil {
		return refuse("eds_cluster_config.eds_config", "is not ads")
	}
	return nil
}

// duration reads a duration of at least 0 that fits in time.Duration.
func duration(path string, d *durationpb.Duration) (time.Duration, error) {
	v := d.AsDuration()
	if err := d.CheckValid(); err != nil {
		return 0, refuse(path, "is not a valid duration")
	}
	if back := durationpb.New(v); v < 0 || back.GetSeconds() != d.GetSeconds() || back.GetNanos() != d.GetNanos() {
		return 0, refuse(path, "is negative or too long")
	}
	return v, nil
}
