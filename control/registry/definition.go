package registry

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/tulle-mesh/tulle/model"
)

// Definition is a service that somebody wrote down: what the registry needs of a v1 Service.
type Definition struct {
	Name     model.ServiceName
	Selector map[string]string // labels of its workloads
	Ports    []model.ServicePort
	Targets  []Target      // as long as Ports
	Picker   *model.Picker // of an InferencePool; else nil
}

// ParseService reads the stored JSON of a v1 Service; what the registry does not need was checked before it
// was stored. Without a selector the workloads announced with its own name are meant.
func ParseService(name model.ServiceName, b []byte) (Definition, error) {
	var doc struct {
		Spec struct {
			Selector map[string]string `json:"selector"`
			Ports    []struct {
				Name        string          `json:"name"`
				Port        uint16          `json:"port"`
				TargetPort  json.RawMessage `json:"targetPort"`
				AppProtocol string          `json:"appProtocol"`
			} `json:"ports"`
		} `json:"spec"`
	}
	d := Definition{Name: name}
	if err := json.Unmarshal(b, &doc); err != nil {
		return d, fmt.Errorf("Service %s: %w", name, err)
	}
	d.Selector = doc.Spec.Selector
	if len(d.Selector) == 0 {
		d.Selector = map[string]string{labelService: name.Name}
	}
	for _, p := range doc.Spec.Ports {
		t := Target{Port: p.Port}
		if len(p.TargetPort) > 0 && string(p.TargetPort) != "null" && json.Unmarshal(p.TargetPort, &t.Port) != nil {
			t.Port = 0
			if err := json.Unmarshal(p.TargetPort, &t.Name); err != nil {
				return d, fmt.Errorf("Service %s: targetPort %s is neither a number nor a name", name, p.TargetPort)
			}
		}
		if t.Port == 0 && t.Name == "" {
			t.Port = p.Port
		}
		d.Ports = append(d.Ports, model.ServicePort{Name: p.Name, Port: p.Port, Protocol: appProtocol(p.AppProtocol)})
		d.Targets = append(d.Targets, t)
	}
	return d, nil
}

// parseExternal reads the stored JSON of an ExternalService. It selects no workload.
func parseExternal(name model.ServiceName, b []byte) (Definition, error) {
	var doc struct {
		Spec struct {
			Ports []struct {
				Name     string `json:"name"`
				Port     uint16 `json:"port"`
				Protocol string `json:"protocol"`
			} `json:"ports"`
		} `json:"spec"`
	}
	d := Definition{Name: name}
	if err := json.Unmarshal(b, &doc); err != nil {
		return d, fmt.Errorf("ExternalService %s: %w", name, err)
	}
	for _, p := range doc.Spec.Ports {
		d.Ports = append(d.Ports, model.ServicePort{Name: p.Name, Port: p.Port, Protocol: appProtocol(p.Protocol)})
		d.Targets = append(d.Targets, Target{Port: p.Port})
	}
	return d, nil
}

// appProtocol reads the names that Kubernetes knows (KEP-3726) besides our own.
func appProtocol(s string) model.Protocol {
	switch s {
	case "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss", "http2", "https":
		if s == "https" {
			return model.ProtocolTLS
		}
		return model.ProtocolHTTP
	}
	if p, ok := model.ParseProtocol(s); ok && p.Declared() {
		return p
	}
	return model.ProtocolUnknown
}

// Labels that every workload has.
const (
	labelService = "service"
	labelVersion = "version"
	labelApp     = "app" // only where the user gave none
)

// labelsOf answers the labels that selectors see.
func labelsOf(w *Workload) map[string]string {
	out := map[string]string{labelApp: w.Service}
	maps.Copy(out, w.Labels)
	out[labelService] = w.Service
	if w.Version != "" {
		out[labelVersion] = w.Version
	}
	return out
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}
