package v1alpha1

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
)

// Rollout shifts the weight of one rule from one of its two backends to the other, step by step, as long as the callers'
// proxies see that the new one is good, and takes it back to 0 where it is not; there it stays until this part changes. The weights
// that the rule says itself have no effect meanwhile. How it is decided: package control/rollout.
type Rollout struct {
	// Canary is the name of the Service, one of the rule's two backendRefs, that gets more. The other is the stable one.
	Canary string `json:"canary,omitempty"`
	// Steps are the canary's share in percent, 1 to 100, each more than the one before; 1 to 20. Default 5, 25, 50, 100.
	Steps []int32 `json:"steps,omitempty"`
	// Interval is the least time of a step: 1s to 10m, default 1m.
	Interval Duration `json:"interval,omitempty"`
	// Requests is how many the canary must have had in a step before the next: 1 to 1000000, default 100.
	Requests *int32 `json:"requests,omitempty"`
	// Success: which share must not fail.
	Success *RolloutSuccess `json:"success,omitempty"`
	// Latency: how slow it may be; none unless it is said.
	Latency *RolloutLatency `json:"latency,omitempty"`
	// Revision is any text, 128 bytes at most; another one begins the rollout anew, for the same Service with a new program.
	Revision string `json:"revision,omitempty"`
}

// RolloutSuccess bounds the share of requests that do not fail, in percent. What fails is what `tulle stat` counts.
type RolloutSuccess struct {
	Least *float64 `json:"least,omitempty"` // 0 to 100, default 99
	Worse *float64 `json:"worse,omitempty"` // than the stable one's, in percentage points: 0 to 100, default 1
}

// RolloutLatency bounds the time below which 99 of 100 requests stay.
type RolloutLatency struct {
	Most   Duration `json:"most,omitempty"`   // 1ms to 10m
	Factor *float64 `json:"factor,omitempty"` // times the stable one's: 1 to 100
}

const (
	maxSteps    = 20
	maxRevision = 128
)

func defaultRollout(r *Rollout) {
	if r == nil {
		return
	}
	if r.Steps == nil {
		r.Steps = []int32{5, 25, 50, 100}
	}
	text(&r.Interval, "1m")
	r.Requests = or(r.Requests, 100)
	if r.Success == nil {
		r.Success = &RolloutSuccess{}
	}
	r.Success.Least, r.Success.Worse = or(r.Success.Least, 99), or(r.Success.Worse, 1)
}

func (c *check) rollout(at string, r *Rollout) {
	if r == nil {
		return
	}
	if !label(r.Canary) {
		c.fail(at+".canary", "%q is not the name of a Service: write that of the backend which is new", r.Canary)
	}
	if n := len(r.Steps); n < 1 || n > maxSteps {
		c.fail(at+".steps", "has %d entries: write 1 to %d shares in percent, such as [5, 25, 50, 100]", n, maxSteps)
	}
	for i, s := range r.Steps {
		c.between(fmt.Sprintf("%s.steps[%d]", at, i), int64(s), 1, 100)
		if i > 0 && s <= r.Steps[i-1] {
			c.fail(fmt.Sprintf("%s.steps[%d]", at, i), "%d is not more than the step before it: shares rise", s)
		}
	}
	c.span(at+".interval", r.Interval, time.Second, 10*time.Minute)
	c.between(at+".requests", int64(*r.Requests), 1, 1_000_000)
	c.within100(at+".success.least", r.Success.Least, 0)
	c.within100(at+".success.worse", r.Success.Worse, 0)
	if l := r.Latency; l != nil {
		if l.Most == "" && l.Factor == nil {
			c.fail(at+".latency", "says nothing: write most or factor, or remove it")
		}
		c.span(at+".latency.most", l.Most, time.Millisecond, 10*time.Minute)
		c.within100(at+".latency.factor", l.Factor, 1)
	}
	if len(r.Revision) > maxRevision || strings.ContainsFunc(r.Revision, unicode.IsControl) {
		c.fail(at+".revision", "has %d bytes, or a control character: write at most %d bytes of text", len(r.Revision), maxRevision)
	}
}

// within100 checks a number that may be left out.
func (c *check) within100(at string, v *float64, least float64) {
	if v != nil && (math.IsNaN(*v) || *v < least || *v > 100) {
		c.fail(at, "%g is out of bounds: write %g to 100", *v, least)
	}
}

// oneRule checks that a rollout is about one rule.
func (c *check) oneRule(p *TrafficPolicySpec) {
	if p.Rollout == nil {
		return
	}
	if len(p.TargetRefs) != 1 {
		c.fail("spec.rollout", "is about one rule, and targetRefs has %d entries: write a policy for each", len(p.TargetRefs))
		return
	}
	if t := p.TargetRefs[0]; (t.Kind == "HTTPRoute" || t.Kind == "GRPCRoute") && t.SectionName == "" {
		c.fail("spec.targetRefs[0].sectionName", "is missing: a rollout is about one rule; write the rule's name")
	}
}
