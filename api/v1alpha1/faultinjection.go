package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
)

// FaultInjection makes some of the requests of a rule slow or fail, to see what their callers make of it. A rule names it
// as a filter: {type: ExtensionRef, extensionRef: {group: tulle.dev, kind: FaultInjection, name: ...}}. TCPRoutes and TLSRoutes
// have no filters; TargetRefs names them.
type FaultInjection struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       FaultInjectionSpec `json:"spec,omitempty"`
	Status     UsedStatus         `json:"status,omitempty"`
}

// UsedStatus is what the control plane says about what rules of routes refer to.
type UsedStatus struct {
	// Routes are the rules that it bears on: "HTTPRoute/cart, rule 0".
	Routes []string `json:"routes,omitempty"`
	// Conditions are Accepted (False with reason NotAttached where no route uses it) and Programmed.
	Conditions []Condition `json:"conditions,omitempty"`
}

// FaultInjectionSpec needs at least one of Delay, Abort and Bandwidth; each is drawn apart from the others.
type FaultInjectionSpec struct {
	// TargetRefs are TCPRoutes and TLSRoutes, or rules of them, whose connections are concerned. Then Abort can only reset, and
	// there are no Headers. Of several objects that name a rule the first by its name counts.
	TargetRefs []PolicyTarget `json:"targetRefs,omitempty"`
	// Delay lets requests wait before they are sent.
	Delay *FaultDelay `json:"delay,omitempty"`
	// Abort answers requests instead of sending them.
	Abort *FaultAbort `json:"abort,omitempty"`
	// Bandwidth slows the bodies of responses.
	Bandwidth *FaultBandwidth `json:"bandwidth,omitempty"`
	// Headers that a request must have to be concerned; all of them. Without any every request is.
	Headers []HTTPHeaderMatch `json:"headers,omitempty"`
}

// FaultShare is how many of the requests are concerned; at most one of its fields is given.
type FaultShare struct {
	// Percent of the requests, 0 to 100. Default 100.
	Percent *int32 `json:"percent,omitempty"`
	// Fraction of the requests, for less than a percent. The denominator's default is 100.
	Fraction *Fraction `json:"fraction,omitempty"`
}

// FaultDelay is a wait.
type FaultDelay struct {
	// Duration of the wait, such as 500ms; the request's own timeout counts on.
	Duration   GatewayDuration `json:"duration"`
	FaultShare `json:",inline"`
}

// FaultAbort is an answer, or none.
type FaultAbort struct {
	// HTTPStatus that is answered, 200 to 599. Default 503, unless Reset.
	HTTPStatus *int32 `json:"httpStatus,omitempty"`
	// GRPCStatus that gRPC calls are answered, by its name, such as unavailable. Default: what HTTPStatus means in gRPC.
	GRPCStatus *string `json:"grpcStatus,omitempty"`
	// Reset breaks the stream, or with HTTP/1.1 the connection, instead of answering.
	Reset      bool `json:"reset,omitempty"`
	FaultShare `json:",inline"`
}

// FaultBandwidth is a speed.
type FaultBandwidth struct {
	// BytesPerSecond of a response's body, at least 1.
	BytesPerSecond int64 `json:"bytesPerSecond"`
	FaultShare     `json:",inline"`
}

// DefaultAbortStatus of FaultAbort.
const DefaultAbortStatus = 503

// GRPCStatus answers the number of a gRPC status by its name.
func GRPCStatus(name string) (int, bool) {
	i := slices.Index(GRPCStatuses(), name)
	return i, i >= 0
}

func defaultFaultInjection(f *FaultInjection) {
	share := func(s *FaultShare) {
		if s.Fraction == nil {
			s.Percent = or(s.Percent, 100)
		} else {
			s.Fraction.Denominator = or(s.Fraction.Denominator, 100)
		}
	}
	if d := f.Spec.Delay; d != nil {
		share(&d.FaultShare)
	}
	if a := f.Spec.Abort; a != nil {
		if share(&a.FaultShare); !a.Reset {
			a.HTTPStatus = or(a.HTTPStatus, DefaultAbortStatus)
		}
	}
	if b := f.Spec.Bandwidth; b != nil {
		share(&b.FaultShare)
	}
	for i := range f.Spec.Headers {
		f.Spec.Headers[i].Type = or(f.Spec.Headers[i].Type, HeaderMatchExact)
	}
}

func (c *check) faultInjection(f *FaultInjection) {
	s := &f.Spec
	if s.Delay == nil && s.Abort == nil && s.Bandwidth == nil {
		c.fail("spec", "does nothing: write delay, abort or bandwidth")
	}
	c.faultTargets(s)
	if d := s.Delay; d != nil {
		if c.duration("spec.delay.duration", &d.Duration) == 0 {
			c.fail("spec.delay.duration", "is no wait: write for example 500ms")
		}
		c.share("spec.delay", d.Percent, d.Fraction)
	}
	if a := s.Abort; a != nil {
		c.abort(a)
	}
	if b := s.Bandwidth; b != nil {
		if b.BytesPerSecond < 1 {
			c.fail("spec.bandwidth.bytesPerSecond", "%d is less than 1", b.BytesPerSecond)
		}
		c.share("spec.bandwidth", b.Percent, b.Fraction)
	}
	if len(s.Headers) > maxFields {
		c.fail("spec.headers", "has %d entries: at most %d", len(s.Headers), maxFields)
	}
	seen := map[string]bool{}
	for k, h := range s.Headers {
		at := fmt.Sprintf("spec.headers[%d]", k)
		c.field(at, string(h.Name), seen, strings.ToLower)
		c.fieldValue(at, string(*h.Type), h.Value, maxHeaderValue)
	}
}

// faultTargets checks what a fault of relayed connections can be.
func (c *check) faultTargets(s *FaultInjectionSpec) {
	if n := len(s.TargetRefs); n > maxTargets {
		c.fail("spec.targetRefs", "has %d entries: at most %d", n, maxTargets)
	}
	for i, t := range s.TargetRefs {
		at := fmt.Sprintf("spec.targetRefs[%d]", i)
		if t.Kind != "TCPRoute" && t.Kind != "TLSRoute" {
			c.fail(at+".kind", "%q is not TCPRoute or TLSRoute: HTTPRoutes and GRPCRoutes name the fault as a filter (ExtensionRef)", t.Kind)
			continue
		}
		c.target(at, t)
	}
	if len(s.TargetRefs) > 0 && s.Abort != nil && !s.Abort.Reset {
		c.fail("spec.abort", "a connection cannot be answered: write reset: true")
	}
	if len(s.TargetRefs) > 0 && len(s.Headers) > 0 {
		c.fail("spec.headers", "a connection has none: remove them, or targetRefs")
	}
}

func (c *check) abort(a *FaultAbort) {
	switch n := value(a.HTTPStatus, DefaultAbortStatus); {
	case a.Reset && (a.HTTPStatus != nil || a.GRPCStatus != nil):
		c.fail("spec.abort.reset", "answers nothing: remove httpStatus and grpcStatus, or reset")
	case n < 200 || n > 599:
		c.fail("spec.abort.httpStatus", "%d is not the status of an answer: write 200 to 599", n)
	}
	if a.GRPCStatus != nil {
		if n, ok := GRPCStatus(*a.GRPCStatus); !ok || n == 0 {
			c.fail("spec.abort.grpcStatus", "%q is not a failure of gRPC: write for example unavailable or deadline-exceeded", *a.GRPCStatus)
		}
	}
	c.share("spec.abort", a.Percent, a.Fraction)
}
