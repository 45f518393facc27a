package model

import (
	"cmp"
	"slices"
)

// Labels by which a workload says where it is. Kubernetes gives the first two to nodes.
const (
	LabelRegion  = "topology.kubernetes.io/region"
	LabelZone    = "topology.kubernetes.io/zone"
	LabelSubZone = "topology.tulle.dev/sub-zone"
)

// LocalityOf answers the locality ("region/zone/sub_zone", each of which may be empty) that labels say; "": none.
func LocalityOf(labels map[string]string) string {
	if labels[LabelRegion]+labels[LabelZone]+labels[LabelSubZone] == "" {
		return ""
	}
	return labels[LabelRegion] + "/" + labels[LabelZone] + "/" + labels[LabelSubZone]
}

// LabelsOf answers a map as labels, sorted by name.
func LabelsOf(m map[string]string) []Label {
	var out []Label
	for name, value := range m {
		out = append(out, Label{name, value})
	}
	slices.SortFunc(out, func(a, b Label) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
