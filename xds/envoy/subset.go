package envoy

import (
	"cmp"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/model"
)

// lbKey is where endpoints and routes say what subsets are made of.
const lbKey = "envoy.lb"

// clusterSubsets reads lb_subset_config. Without it what routes ask for is not looked at, as in Envoy.
func clusterSubsets(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	c.Balancing.Subsets = &model.Subsets{Fallback: model.SubsetAny}
	l := m.GetLbSubsetConfig()
	if l == nil {
		return nil
	}
	path = join(path, "lb_subset_config")
	s := &model.Subsets{}
	c.Balancing.Subsets = s
	switch l.GetFallbackPolicy() {
	case clusterv3.Cluster_LbSubsetConfig_ANY_ENDPOINT:
		s.Fallback = model.SubsetAny
	case clusterv3.Cluster_LbSubsetConfig_DEFAULT_SUBSET:
		s.Fallback = model.SubsetDefault
		s.Default = labelsOf(l.GetDefaultSubset())
		if len(s.Default) == 0 || len(s.Default) != len(l.GetDefaultSubset().GetFields()) {
			return refuse(join(path, "default_subset"), "has no fields, or one that is not text, a number or a truth value")
		}
	}
	for i, sel := range l.GetSubsetSelectors() {
		if len(sel.GetKeys()) == 0 {
			return refuse(join(at(join(path, "subset_selectors"), i), "keys"), "is empty")
		}
		s.Selectors = append(s.Selectors, slices.Compact(slices.Sorted(slices.Values(sel.GetKeys()))))
	}
	if len(s.Selectors) == 0 {
		return refuse(join(path, "subset_selectors"), "is empty")
	}
	return nil
}

// labelsOf reads the values of a struct that can be compared as text, sorted by name.
func labelsOf(m *structpb.Struct) []model.Label {
	var out []model.Label
	for name, v := range m.GetFields() {
		switch v := v.GetKind().(type) {
		case *structpb.Value_StringValue:
			out = append(out, model.Label{Name: name, Value: v.StringValue})
		case *structpb.Value_NumberValue:
			out = append(out, model.Label{Name: name, Value: strconv.FormatFloat(v.NumberValue, 'g', -1, 64)})
		case *structpb.Value_BoolValue:
			out = append(out, model.Label{Name: name, Value: strconv.FormatBool(v.BoolValue)})
		}
	}
	slices.SortFunc(out, func(a, b model.Label) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// endpointLabels reads what an endpoint says for subsets. A value that is a list or an object fits no route.
func endpointLabels(m *corev3.Metadata) []model.Label { return labelsOf(m.GetFilterMetadata()[lbKey]) }

// routeSubset reads metadata_match.
func routeSubset(path string, m *corev3.Metadata) ([]model.Label, error) {
	for name := range m.GetFilterMetadata() {
		if name != lbKey {
			return nil, refuse(join(path, "filter_metadata"), "%q %s: %s is", clip(name), notRun, lbKey)
		}
	}
	s := m.GetFilterMetadata()[lbKey]
	out := labelsOf(s)
	if len(out) != len(s.GetFields()) {
		return nil, refuse(join(path, "filter_metadata."+lbKey), "has a value that is not text, a number or a truth value")
	}
	return out, nil
}

// narrower answers of a route's labels with those of one of its clusters, which win.
func narrower(route, own []model.Label) []model.Label {
	if len(own) == 0 {
		return route
	}
	out := slices.Clone(own)
	for _, l := range route {
		if !slices.ContainsFunc(own, func(o model.Label) bool { return o.Name == l.Name }) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b model.Label) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
