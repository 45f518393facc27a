package v1alpha1

import (
	"fmt"
	"strconv"
	"time"
)

// TrafficPolicy says how the requests for a service, or those that a route takes, are treated on their way: balanced,
// bounded in time, tried again, limited. It attaches to what targetRefs names, in its own namespace. Where several say
// something about the same request, each part of spec is taken from the nearest one that has it: the one on the rule of a
// route, on the route, on the port of the service, on the service, then MeshConfig's defaults. timeouts and connections are
// taken value by value. Of two on the same target the older one wins, and the status of the other one says so.
type TrafficPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       TrafficPolicySpec   `json:"spec,omitempty"`
	Status     TrafficPolicyStatus `json:"status,omitempty"`
}

// TrafficPolicySpec is where a policy attaches, and its parts; there is at least one part.
type TrafficPolicySpec struct {
	// TargetRefs are 1 to 16 Services or routes in the policy's namespace.
	TargetRefs   []PolicyTarget `json:"targetRefs,omitempty"`
	TrafficParts `json:",inline"`
}

// TrafficParts are the parts of a policy. nil: the policy says nothing about it. One file per part, of the same name.
type TrafficParts struct {
	// Balancing: which endpoint takes a request (Service).
	Balancing *Balancing `json:"balancing,omitempty"`
	// Hash: what RingHash and Maglev look at (Service, HTTPRoute, GRPCRoute).
	Hash []HashKey `json:"hash,omitempty"`
	// Connections to endpoints (Service).
	Connections *Connections `json:"connections,omitempty"`
	// Breakers: what may be under way, in each calling proxy: to a Service, or by an HTTPRoute or GRPCRoute.
	Breakers *Breakers `json:"breakers,omitempty"`
	// Fallback takes a request where a breaker refuses it or no endpoint can take it, and a connection where no endpoint can (Service,
	// every route).
	Fallback *FallbackRef `json:"fallback,omitempty"`
	// Ejection of endpoints that fail requests (Service).
	Ejection *Ejection `json:"ejection,omitempty"`
	// HealthChecks that calling proxies make (Service). At most one, as other clients of xDS run no more: a program that depends on
	// several things looks at all of them behind one path; another port of it has another policy (sectionName).
	HealthChecks []HealthCheck `json:"healthChecks,omitempty"`
	// Timeouts of a request (Service, HTTPRoute, GRPCRoute), of which idle and stream end connections that are no requests' too (also
	// TCPRoute, TLSRoute; what the mesh has as default does not).
	Timeouts *Timeouts `json:"timeouts,omitempty"`
	// Retries (Service, HTTPRoute, GRPCRoute).
	Retries *Retries `json:"retries,omitempty"`
	// RetryBudget bounds what retries and hedging add to what a Service is sent.
	RetryBudget *RetryBudget `json:"retryBudget,omitempty"`
	// Hedging (Service, HTTPRoute, GRPCRoute).
	Hedging *Hedging `json:"hedging,omitempty"`
	// Sticky keeps who has the same values with the same backend while weights change (HTTPRoute, GRPCRoute).
	Sticky []HashKey `json:"sticky,omitempty"`
	// Session keeps a client with its endpoint (Service, HTTPRoute, GRPCRoute).
	Session *Session `json:"session,omitempty"`
	// Priority: which requests are shed last, and which first (Service). The first entry that holds decides.
	Priority []PriorityRule `json:"priority,omitempty"`
	// RateLimits, kept by each workload's own proxy (Service, HTTPRoute, GRPCRoute).
	RateLimits []RateLimit `json:"rateLimits,omitempty"`
	// Capacity: what one workload takes at a time, kept by its own proxy (Service).
	Capacity *Capacity `json:"capacity,omitempty"`
	// Concurrency: what one workload works on at once, found by measuring (Service).
	Concurrency *Concurrency `json:"concurrency,omitempty"`
	// Rollout shifts weight to a new backend of one rule as long as it is good (HTTPRoute, GRPCRoute, with sectionName).
	Rollout *Rollout `json:"rollout,omitempty"`
}

// PolicyTarget names what a policy attaches to.
type PolicyTarget struct {
	// Group is "" for a Service, gateway.networking.k8s.io for a route.
	Group string `json:"group"`
	// Kind is Service, HTTPRoute, GRPCRoute, or, for idle, stream and fallback, TCPRoute or TLSRoute.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// SectionName is the name or number of a Service's port, or the name of a route's rule. "": all of it.
	SectionName string `json:"sectionName,omitempty"`
}

// String answers "Service/reviews", with "#section" where there is one.
func (t PolicyTarget) String() string {
	if t.SectionName != "" {
		return t.Kind + "/" + t.Name + "#" + t.SectionName
	}
	return t.Kind + "/" + t.Name
}

// TrafficPolicyStatus is what the control plane says about a policy, as Gateway API's PolicyStatus does.
type TrafficPolicyStatus struct {
	Ancestors []PolicyAncestor `json:"ancestors,omitempty"`
}

// PolicyAncestor is what came of one targetRef.
type PolicyAncestor struct {
	AncestorRef    PolicyTarget          `json:"ancestorRef"`
	ControllerName GatewayControllerName `json:"controllerName"`
	Conditions     []Condition           `json:"conditions"`
}

// maxTargets of a policy: Gateway API's bound.
const maxTargets = 16

// Duration is written as Gateway API writes them: "500ms", "2s", "1m30s" (GEP-2257). "" is none.
type Duration string

// Value answers the duration, 0 for what is none.
func (d Duration) Value() time.Duration {
	v, _ := ParseDuration(string(d))
	return v
}

func defaultTrafficPolicy(p *TrafficPolicy) { defaultParts(&p.Spec.TrafficParts) }

// defaultParts writes out the defaults of the parts that are there.
func defaultParts(p *TrafficParts) {
	defaultBalancing(p.Balancing)
	defaultHash(p.Hash)
	defaultHash(p.Sticky)
	defaultEjection(p.Ejection)
	defaultHealthChecks(p.HealthChecks)
	defaultRetries(p.Retries)
	defaultRetryBudget(p.RetryBudget)
	defaultHedging(p.Hedging)
	defaultSession(p.Session)
	defaultPriority(p.Priority)
	defaultRateLimits(p.RateLimits)
	defaultConcurrency(p.Concurrency)
	defaultRollout(p.Rollout)
}

func (c *check) trafficPolicy(p *TrafficPolicy) {
	if n := len(p.Spec.TargetRefs); n < 1 || n > maxTargets {
		c.fail("spec.targetRefs", `has %d entries: name 1 to %d, such as {group: "", kind: Service, name: cart}`, n, maxTargets)
	}
	seen := map[PolicyTarget]int{}
	for i, t := range p.Spec.TargetRefs {
		at := fmt.Sprintf("spec.targetRefs[%d]", i)
		c.target(at, t)
		if first, ok := seen[t]; ok {
			c.fail(at, "%s is named twice, first in targetRefs[%d]: remove one", t, first)
		}
		seen[t] = i
	}
	c.parts("spec", &p.Spec.TrafficParts)
	c.oneRule(&p.Spec)
	given := p.Spec.Names()
	if len(given) == 0 {
		c.fail("spec", "says nothing: write at least one part, such as timeouts or retries")
	}
	for i, t := range p.Spec.TargetRefs {
		for _, part := range given {
			if why := misplaced(part, t); why != "" {
				c.fail("spec."+part, "means nothing on targetRefs[%d], %s: %s", i, t, why)
			}
		}
		c.within(i, t, &p.Spec.TrafficParts)
	}
}

// within checks what of a part means nothing on a target that the part itself may be attached to.
func (c *check) within(i int, t PolicyTarget, p *TrafficParts) {
	if t.Kind == ExternalKind {
		for j := range p.RateLimits {
			if p.RateLimits[j].Side != "Caller" {
				c.fail(fmt.Sprintf("spec.rateLimits[%d].side", j), "must be Caller on targetRefs[%d], %s: nobody outside of the mesh keeps it", i, t)
			}
		}
		return
	}
	if t.Kind == "Service" {
		if p.Fallback != nil && p.Fallback.Name == t.Name {
			c.fail("spec.fallback.name", "is targetRefs[%d], %s, itself: name another Service", i, t)
		}
		return
	}
	if o := p.Timeouts; o != nil && (t.Kind == "TCPRoute" || t.Kind == "TLSRoute") {
		for _, f := range []struct {
			name  string
			value Duration
		}{{"request", o.Request}, {"attempt", o.Attempt}} {
			if f.value != "" {
				c.fail("spec.timeouts."+f.name, "means nothing on targetRefs[%d], %s: what it takes are connections: write idle or stream", i, t)
			}
		}
	}
	if b := p.Breakers; b != nil && b.Connections != nil {
		c.fail("spec.breakers.connections", "means nothing on targetRefs[%d], %s: connections are the Service's: attach it there, or write requests", i, t)
	}
	if b := p.Breakers; b != nil && b.Retries != nil {
		c.fail("spec.breakers.retries", "means nothing on targetRefs[%d], %s: retries are counted for the Service: attach it there", i, t)
	}
	for j := range p.RateLimits {
		if side := p.RateLimits[j].Side; side != "" && side != "Server" {
			c.fail(fmt.Sprintf("spec.rateLimits[%d].side", j), "%s means nothing on targetRefs[%d], %s: attach it to the Service", side, i, t)
		}
		if p.RateLimits[j].Connections != 0 {
			c.fail(fmt.Sprintf("spec.rateLimits[%d].connections", j), "means nothing on targetRefs[%d], %s: connections are the Service's: attach it there, or write requests", i, t)
		}
	}
}

// target checks the form of one reference.
func (c *check) target(at string, t PolicyTarget) {
	group := GatewayGroup
	switch t.Kind {
	case "Service", ExternalKind:
		group = ""
		if t.Kind == ExternalKind {
			group = TulleGroup
		}
		if _, err := strconv.ParseUint(t.SectionName, 10, 16); t.SectionName != "" && !label(t.SectionName) || err == nil && t.SectionName == "0" {
			c.fail(at+".sectionName", "%q is not the name or the number of a port", t.SectionName)
		}
		if !label(t.Name) {
			c.fail(at+".name", "%q is not the name of %s", t.Name, article(t.Kind))
		}
	case "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute":
		if t.SectionName != "" && !subdomain(t.SectionName) {
			c.fail(at+".sectionName", "%q is not the name of a rule", t.SectionName)
		}
		if !subdomain(t.Name) {
			c.fail(at+".name", "%q is not the name of a %s", t.Name, t.Kind)
		}
	default:
		c.fail(at+".kind", "%q is not what a policy attaches to: write Service, ExternalService, HTTPRoute, GRPCRoute, TCPRoute or TLSRoute", t.Kind)
		return
	}
	if t.Group != group {
		c.fail(at+".group", "is %q: %s is of the group %q", t.Group, article(t.Kind), group)
	}
}

// misplaced says why a part means nothing on a target; "" if it does.
func misplaced(part string, t PolicyTarget) string {
	switch part {
	case "timeouts", "fallback": // of connections, too: see within
	case "hash", "retries", "hedging", "session", "rateLimits":
		if t.Kind == "TCPRoute" || t.Kind == "TLSRoute" {
			return "it is about requests, and what that route takes are connections"
		}
	case "sticky", "rollout":
		if t.Kind != "HTTPRoute" && t.Kind != "GRPCRoute" {
			return "it is about the backends of an HTTPRoute or GRPCRoute: attach it there"
		}
	case "breakers":
		if t.Kind == "TCPRoute" || t.Kind == "TLSRoute" {
			return "connections are bounded for the Service that they go to: attach it there"
		}
	case "capacity", "concurrency", "priority":
		if t.Kind == ExternalKind {
			return "it is kept by the proxy beside the server, and there is none outside of the mesh"
		}
		if t.Kind != "Service" {
			return "it is about a Service: attach it to the Service"
		}
	default:
		if t.Kind != "Service" && t.Kind != ExternalKind {
			return "it is about a Service: attach it to the Service"
		}
	}
	return ""
}

// Names answers the parts that a policy has, in the order of TrafficParts.
func (p *TrafficParts) Names() (out []string) {
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"balancing", p.Balancing != nil}, {"hash", p.Hash != nil}, {"connections", p.Connections != nil},
		{"breakers", p.Breakers != nil}, {"fallback", p.Fallback != nil}, {"ejection", p.Ejection != nil},
		{"healthChecks", p.HealthChecks != nil}, {"timeouts", p.Timeouts != nil}, {"retries", p.Retries != nil},
		{"retryBudget", p.RetryBudget != nil}, {"hedging", p.Hedging != nil}, {"sticky", p.Sticky != nil},
		{"session", p.Session != nil}, {"priority", p.Priority != nil}, {"rateLimits", p.RateLimits != nil},
		{"capacity", p.Capacity != nil}, {"concurrency", p.Concurrency != nil},
		{"rollout", p.Rollout != nil},
	} {
		if f.has {
			out = append(out, f.name)
		}
	}
	return out
}

// parts checks each part that is there.
func (c *check) parts(at string, p *TrafficParts) {
	c.balancing(at+".balancing", p.Balancing)
	c.hash(at+".hash", p.Hash)
	if p.Hash != nil && p.Balancing != nil && p.Balancing.Shards == nil && p.Balancing.Policy != "RingHash" && p.Balancing.Policy != "Maglev" {
		c.fail(at+".hash", "means nothing with balancing.policy %s: write RingHash or Maglev there, or shards, or remove it", p.Balancing.Policy)
	}
	c.connections(at+".connections", p.Connections)
	c.breakers(at+".breakers", p.Breakers)
	c.fallback(at+".fallback", p.Fallback)
	c.ejection(at+".ejection", p.Ejection)
	c.healthChecks(at+".healthChecks", p.HealthChecks)
	c.policyTimeouts(at+".timeouts", p.Timeouts)
	c.retries(at+".retries", p.Retries)
	c.retryBudget(at+".retryBudget", p.RetryBudget)
	c.hedging(at+".hedging", p.Hedging)
	c.hash(at+".sticky", p.Sticky)
	c.session(at+".session", p.Session)
	c.priority(at+".priority", p.Priority)
	c.rateLimits(at+".rateLimits", p.RateLimits)
	c.capacity(at+".capacity", p.Capacity)
	c.concurrency(at+".concurrency", p.Concurrency)
	c.rollout(at+".rollout", p.Rollout)
}

// span checks a duration, which may be left out, and answers it.
func (c *check) span(at string, d Duration, least, most time.Duration) time.Duration {
	if d == "" {
		return 0
	}
	v, ok := ParseDuration(string(d))
	switch {
	case !ok:
		c.fail(at, "%q is not a duration: write for example 500ms, 2s or 1m30s", d)
	case v < least || v > most:
		c.fail(at, "%s is out of bounds: write %s to %s", d, least, most)
	}
	return v
}

// between checks a number.
func (c *check) between(at string, v, least, most int64) {
	if v < least || v > most {
		c.fail(at, "%d is out of bounds: write %d to %d", v, least, most)
	}
}

// text answers v as the default of what is "".
func text[T ~string](v *T, value T) {
	if *v == "" {
		*v = value
	}
}
