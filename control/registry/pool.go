package registry

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// InferencePools are to the registry what Services are: a selector and a port. They have names of their own, which no Service can have.

const poolPrefix = "inferencepool_"

// PoolName answers the name under which an InferencePool is among the services.
func PoolName(pool model.ServiceName) model.ServiceName {
	return model.ServiceName{Namespace: pool.Namespace, Name: poolPrefix + pool.Name}
}

// PoolOf answers the name of the InferencePool that a service is.
func PoolOf(name model.ServiceName) string { return strings.TrimPrefix(name.Name, poolPrefix) }

// IsPool reports whether a service is an InferencePool.
func IsPool(name model.ServiceName) bool { return strings.HasPrefix(name.Name, poolPrefix) }

// ParsePool reads the stored JSON of an InferencePool, which was checked before it was stored. Its first port is that of the
// cluster; the others are further endpoints of the same workloads.
//
// name is PoolName's.
func ParsePool(name model.ServiceName, b []byte) (Definition, error) {
	type port struct {
		Number uint16 `json:"number"`
	}
	var doc struct {
		Spec struct {
			Selector struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			TargetPorts       []port `json:"targetPorts"`
			EndpointPickerRef struct {
				Name        string `json:"name"`
				Port        port   `json:"port"`
				FailureMode string `json:"failureMode"`
			} `json:"endpointPickerRef"`
		} `json:"spec"`
	}
	d := Definition{Name: name}
	if err := json.Unmarshal(b, &doc); err != nil {
		return d, fmt.Errorf("InferencePool %s: %w", name, err)
	}
	if len(doc.Spec.TargetPorts) == 0 {
		return d, fmt.Errorf("InferencePool %s: targetPorts is missing", name)
	}
	d.Selector = doc.Spec.Selector.MatchLabels
	t := Target{Port: doc.Spec.TargetPorts[0].Number}
	for _, p := range doc.Spec.TargetPorts[1:] {
		t.Also = append(t.Also, p.Number)
	}
	r := &doc.Spec.EndpointPickerRef
	d.Ports, d.Targets = []model.ServicePort{{Port: t.Port, Protocol: model.ProtocolHTTP}}, []Target{t}
	d.Picker = &model.Picker{Cluster: model.PortName{Service: model.ServiceName{Namespace: name.Namespace, Name: r.Name}, Port: r.Port.Number},
		FailOpen: r.FailureMode == "FailOpen", Timeout: model.DefaultPickTimeout, MaxBody: model.DefaultPickBody}
	return d, nil
}

// NewService answers a definition as the service that it defines, without addresses and endpoints.
func NewService(d Definition) *Service {
	return &Service{Service: serviceOf(d.Name, d.Ports), Selector: d.Selector, Targets: d.Targets, Picker: d.Picker}
}
