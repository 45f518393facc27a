package v1alpha1

import (
	"fmt"

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

// Bounds of a Service.
const maxServicePorts = 100

// AppProtocols answers what may stand in appProtocol, and the mesh's own word for it.
func AppProtocols() map[string]string {
	return map[string]string{
		"http": "http", "grpc": "grpc", "tcp": "tcp", "tls": "tls",
		"https": "tls", "kubernetes.io/h2c": "http", "kubernetes.io/ws": "http", "kubernetes.io/wss": "tls",
	}
}

func defaultService(s *Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = "ClusterIP"
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = "TCP"
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func (c *check) service(s *Service) {
	if s.Spec.Type != "ClusterIP" {
		c.fail("spec.type", "%q is not supported: write ClusterIP or leave it out (to let callers from outside in, see 'tulle run --publish')", s.Spec.Type)
	}
	for k, v := range s.Spec.Selector {
		if !qualified(k) || !labelValue(v) {
			c.fail("spec.selector", "%q: %q is not a label", k, v)
		}
	}
	if n := len(s.Spec.Ports); n == 0 || n > maxServicePorts {
		c.fail("spec.ports", "has %d ports: write 1 to %d", n, maxServicePorts)
		return
	}
	names, numbers := map[string]bool{}, map[int32]bool{}
	for i, p := range s.Spec.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		switch {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			c.fail(at+".name", "is missing: a Service with several ports names each of them")
		case p.Name != "" && !label(p.Name):
			c.fail(at+".name", "%q is not the name of a port: at most 63 of a-z, 0-9 and '-'", p.Name)
		case p.Name != "" && names[p.Name]:
			c.fail(at+".name", "%q is used twice", p.Name)
		}
		if numbers[p.Port] {
			c.fail(at+".port", "%d is used twice", p.Port)
		}
		names[p.Name], numbers[p.Port] = true, true
		c.servicePort(at, p)
	}
}

func (c *check) servicePort(at string, p ServicePort) {
	if p.Port < 1 || p.Port > 65535 {
		c.fail(at+".port", "%d is not a port: write 1 to 65535", p.Port)
	}
	if p.Protocol != "TCP" {
		c.fail(at+".protocol", "%q is not supported: write TCP or leave it out", p.Protocol)
	}
	if p.AppProtocol != nil && AppProtocols()[*p.AppProtocol] == "" {
		c.fail(at+".appProtocol", "%q is not known: write http, grpc, tcp or tls, or leave it out to have it found out", *p.AppProtocol)
	}
	switch t := p.TargetPort; {
	case t.Type == intstr.Int && (t.IntVal < 1 || t.IntVal > 65535) && p.Port >= 1 && p.Port <= 65535:
		c.fail(at+".targetPort", "%d is not a port: write 1 to 65535, or the name of a port", t.IntVal)
	case t.Type == intstr.String && !only(t.StrVal, lower+digits+"-", lower+digits, 15):
		c.fail(at+".targetPort", "%q is not the name of a port: at most 15 of a-z, 0-9 and '-'", t.StrVal)
	}
}
