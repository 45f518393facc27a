package v1alpha1

import "fmt"

// InferencePool is workloads that serve a model, with an endpoint picker that says which of them takes a request: the kind of Gateway
// API's inference extension. An HTTPRoute has it as a backend: {group: inference.networking.k8s.io, kind: InferencePool, name: ...}, in
// its own namespace and without a port. The type is Tulle's own, since the extension's module brings Kubernetes' client with it.
type InferencePool struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       InferencePoolSpec   `json:"spec,omitempty"`
	Status     InferencePoolStatus `json:"status,omitempty"`
}

// InferencePoolSpec is which workloads, and who picks.
type InferencePoolSpec struct {
	// Selector says which workloads of the pool's namespace are in it.
	Selector PoolSelector `json:"selector"`
	// TargetPorts are 1 to 8 ports of the workloads; each is an endpoint.
	TargetPorts []PoolPort `json:"targetPorts"`
	// AppProtocol is `http` or `kubernetes.io/h2c`. Both mean HTTP, in the version that the client speaks. Default: http.
	AppProtocol string `json:"appProtocol,omitempty"`
	// EndpointPickerRef is who picks.
	EndpointPickerRef EndpointPickerRef `json:"endpointPickerRef"`
}

// PoolSelector selects workloads.
type PoolSelector struct {
	// MatchLabels compares the labels of workloads; all must be equal. At least one; "service" and "version" are set by `tulle run`.
	MatchLabels map[string]string `json:"matchLabels"`
}

// PoolPort is a port by number.
type PoolPort struct {
	// Number of the port, 1 to 65535: the one that the program listens on.
	Number int32 `json:"number"`
}

// EndpointPickerRef names an endpoint picker and says what happens without it.
type EndpointPickerRef struct {
	// Group is "", the group of Service.
	Group string `json:"group,omitempty"`
	// Kind is Service, the default.
	Kind string `json:"kind,omitempty"`
	// Name of a Service in the pool's namespace that speaks the endpoint picker protocol (envoy.service.ext_proc.v3, over gRPC).
	Name string `json:"name"`
	// Port of that Service.
	Port *PoolPort `json:"port,omitempty"`
	// FailureMode says what happens to a request for which the picker names no endpoint of the pool, does not answer within a second,
	// or could not be shown all of it (1 MiB): FailClose answers 503 (413 for the latter), FailOpen sends it to any endpoint of the
	// pool, by least requests. Default: FailClose, as the extension has it.
	FailureMode string `json:"failureMode,omitempty"`
}

// InferencePoolStatus is what the control plane says about a pool: an entry per Service whose routes have it as a backend.
type InferencePoolStatus struct {
	Parents []PoolParentStatus `json:"parents,omitempty"`
}

// PoolParentStatus is the conditions Accepted and ResolvedRefs for one Service.
type PoolParentStatus struct {
	ParentRef      ParentRef             `json:"parentRef"`
	ControllerName GatewayControllerName `json:"controllerName,omitempty"`
	Conditions     []Condition           `json:"conditions,omitempty"`
}

// Words of an InferencePool.
const (
	InferenceGroup      = "inference.networking.k8s.io"
	InferenceAPIVersion = InferenceGroup + "/v1"
	InferencePoolKind   = "InferencePool"

	PickerFailOpen  = "FailOpen"
	PickerFailClose = "FailClose"
)

const maxPoolPorts = 8

// IsPool reports whether a backendRef names an InferencePool.
func IsPool(b *BackendObjectRef) bool {
	return value(b.Group, "") == InferenceGroup && value(b.Kind, "") == InferencePoolKind
}

func defaultInferencePool(p *InferencePool) {
	r := &p.Spec.EndpointPickerRef
	if r.Kind == "" {
		r.Kind = "Service"
	}
	if r.FailureMode == "" {
		r.FailureMode = PickerFailClose
	}
	if p.Spec.AppProtocol == "" {
		p.Spec.AppProtocol = "http"
	}
}

func (c *check) inferencePool(p *InferencePool) {
	if len(p.Spec.Selector.MatchLabels) == 0 {
		c.fail("spec.selector.matchLabels", "is missing: write the labels of the pool's workloads, such as {service: %s}", p.Name)
	}
	for k, v := range p.Spec.Selector.MatchLabels {
		if !qualified(k) || !labelValue(v) {
			c.fail("spec.selector.matchLabels", "%q: %q is not a label", k, v)
		}
	}
	if n := len(p.Spec.TargetPorts); n == 0 || n > maxPoolPorts {
		c.fail("spec.targetPorts", "has %d ports: write 1 to %d", n, maxPoolPorts)
	}
	seen := map[int32]bool{}
	for i, t := range p.Spec.TargetPorts {
		at := fmt.Sprintf("spec.targetPorts[%d].number", i)
		c.poolPort(at, t)
		if seen[t.Number] {
			c.fail(at, "%d is there twice", t.Number)
		}
		seen[t.Number] = true
	}
	if a := p.Spec.AppProtocol; a != "http" && a != "kubernetes.io/h2c" {
		c.fail("spec.appProtocol", "%q is not supported: write http or kubernetes.io/h2c", a)
	}
	r := &p.Spec.EndpointPickerRef
	switch {
	case r.Group != "":
		c.fail("spec.endpointPickerRef.group", `%q is not supported: a picker is a Service of the group ""`, r.Group)
	case r.Kind != "Service":
		c.fail("spec.endpointPickerRef.kind", "%q is not supported: a picker is a Service", r.Kind)
	}
	if !label(r.Name) {
		c.fail("spec.endpointPickerRef.name", "%q is not the name of a Service", r.Name)
	}
	if r.Port == nil {
		c.fail("spec.endpointPickerRef.port", "is missing: write the port of Service %s, usually {number: 9002}", r.Name)
	} else {
		c.poolPort("spec.endpointPickerRef.port.number", *r.Port)
	}
	if m := r.FailureMode; m != PickerFailOpen && m != PickerFailClose {
		c.fail("spec.endpointPickerRef.failureMode", "%q is not a failure mode: write %s or %s", m, PickerFailOpen, PickerFailClose)
	}
}

func (c *check) poolPort(at string, p PoolPort) {
	if p.Number < 1 || p.Number > 65535 {
		c.fail(at, "%d is not a port: write 1 to 65535", p.Number)
	}
}
