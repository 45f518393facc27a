package v1alpha1

import (
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Service is v1 Service as far as a mesh of plain machines gives it a meaning: a selector and ports. The type
// is Tulle's own, since k8s.io/api/core/v1 brings three hundred others into every process.
type Service struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       ServiceSpec   `json:"spec,omitempty"`
	Status     ServiceStatus `json:"status,omitempty"`
}

// ServiceSpec selects workloads and names the ports that they answer on.
type ServiceSpec struct {
	// Type is ClusterIP or absent.
	Type string `json:"type,omitempty"`
	// Selector compares the labels of workloads; all must be equal. "service" and "version" are set by
	// `tulle run`. Empty: workloads that registered under the service's own name.
	Selector map[string]string `json:"selector,omitempty"`
	Ports    []ServicePort     `json:"ports,omitempty"`
}

// ServicePort is one port of a service.
type ServicePort struct {
	// Name is needed when there is more than one port.
	Name string `json:"name,omitempty"`
	// Protocol is TCP, the default.
	Protocol string `json:"protocol,omitempty"`
	// AppProtocol says what is spoken: http, grpc, tcp or tls (kubernetes.io/h2c and https are read too).
	AppProtocol *string `json:"appProtocol,omitempty"`
	Port        int32   `json:"port"`
	// TargetPort is the workload's port, by number or by the name that the workload gave it. Default: Port.
	TargetPort intstr.IntOrString `json:"targetPort,omitempty"`
}

// ServiceStatus is what the control plane says about a service.
type ServiceStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}
