package compile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// TargetStatus is what came of one targetRef of a policy.
type TargetStatus struct {
	Ref        v1alpha1.PolicyTarget
	Tables     []model.PortName // whose resources it bears on
	Conditions []Condition      // Accepted, Conflicted, Portable
}

// PolicyStatus answers what came of a policy, per targetRef in the order written.
func (c Compiler) PolicyStatus(p *v1alpha1.TrafficPolicy) (out []TargetStatus) {
	own := Policy{Object: p}.name()
	for _, ref := range p.Spec.TargetRefs {
		s := TargetStatus{Ref: ref}
		v := c.target(p.Namespace, ref, &s)
		idle := ""
		if v.reason == "" {
			v = c.unrolled(p, ref)
		}
		if v.reason == "" {
			v, idle = c.idle(&p.Spec.TrafficParts, ref, &s)
		}
		if v.reason == "" {
			var more string
			v, more = c.unhashed(&p.Spec.TrafficParts, &s)
			idle += more + c.nobody(p)
		}
		accepted := Condition{Type: "Accepted", True: v.reason == "", Reason: v.reason, Message: v.message}
		if accepted.True {
			accepted.Reason, accepted.Message = "Accepted", "the policy bears on "+ref.String()+idle
		}
		conflicted := Condition{Type: "Conflicted", Reason: "NoConflict", Message: "no other policy on " + ref.String() + " says something else"}
		for _, t := range s.Tables {
			table, ok := c.RouteTable(t)
			if !ok || conflicted.True {
				continue
			}
			for _, one := range c.policyConflicts(table) {
				if one.About(own) {
					conflicted = Condition{Type: "Conflicted", True: true, Reason: "Conflicted", Message: one.String()}
					break
				}
			}
		}
		portable := Condition{Type: "Portable", True: true, Reason: "Portable", Message: "other clients of xDS, such as Envoy, run all of it"}
		if own := foreign(&p.Spec.TrafficParts, ref); len(own) > 0 {
			portable = Condition{Type: "Portable", Reason: "PartlyRun", Message: "only proxies of Tulle run " + strings.Join(own, ", ")}
		}
		s.Conditions = []Condition{accepted, conflicted, portable}
		if p.Spec.Rollout != nil && accepted.True {
			s.Conditions = append(s.Conditions, c.rolloutCondition(p, ref))
		}
		out = append(out, s)
	}
	return out
}

// target looks a targetRef up and fills in the tables that it bears on.
func (c Compiler) target(namespace string, ref v1alpha1.PolicyTarget, s *TargetStatus) verdict {
	notFound := func(format string, args ...any) verdict {
		return verdict{"TargetNotFound", fmt.Sprintf(format, args...)}
	}
	if ref.Kind == "Service" || ref.Kind == v1alpha1.ExternalKind {
		name := refersTo(ref.Kind, namespace, ref.Name)
		svc, ok := c.Services.Service(name)
		if !ok {
			return notFound("there is no %s %s.%s", ref.Kind, ref.Name, namespace)
		}
		for _, p := range svc.Ports {
			if at := (model.PortName{Service: name, Port: p.Port}); ref.SectionName == "" || ref.SectionName == p.Name || ref.SectionName == fmt.Sprint(p.Port) {
				s.Tables = append(s.Tables, at)
			}
		}
		if len(s.Tables) == 0 {
			return notFound("%s %s.%s has no port %s", ref.Kind, ref.Name, namespace, ref.SectionName)
		}
		return verdict{}
	}
	found, rule := false, ref.SectionName == ""
	for _, r := range c.Index.all {
		if ref.Kind != r.Kind || r.Object.GetNamespace() != namespace || r.Object.GetName() != ref.Name {
			continue
		}
		found = true
		rule = rule || slices.ContainsFunc(v1alpha1.Rules(r.Object), func(rule v1alpha1.RouteRule) bool { return rule.Name == ref.SectionName })
		for _, parent := range Parents(r.Object) {
			if svc, ok := c.Services.Service(parent); ok {
				for _, p := range svc.Ports {
					s.Tables = append(s.Tables, model.PortName{Service: parent, Port: p.Port})
				}
			}
		}
	}
	switch {
	case !found:
		return notFound("there is no %s %s in namespace %s", ref.Kind, ref.Name, namespace)
	case !rule:
		s.Tables = nil // it bears on nothing, so there is nothing to enforce
		return notFound("%s %s has no rule named %s", ref.Kind, ref.Name, ref.SectionName)
	}
	return verdict{}
}

// idle answers what of a policy does nothing because it is about requests and a port is declared to carry none: the policy is
// invalid where all of it does nothing, and said to be partly idle where some does.
func (c Compiler) idle(p *v1alpha1.TrafficParts, ref v1alpha1.PolicyTarget, s *TargetStatus) (verdict, string) {
	requests, rest := aboutRequests(p)
	if ref.Kind != "Service" && ref.Kind != v1alpha1.ExternalKind || len(requests) == 0 {
		return verdict{}, ""
	}
	var opaque []string
	for _, at := range s.Tables {
		if m, ok := c.Cluster(at); ok && (m.Protocol == model.ProtocolTCP || m.Protocol == model.ProtocolTLS) {
			opaque = append(opaque, fmt.Sprint(at.Port))
		}
	}
	if len(opaque) == 0 {
		return verdict{}, ""
	}
	text := fmt.Sprintf("%s: about requests, and port %s is declared to carry none", strings.Join(requests, ", "), strings.Join(opaque, ", "))
	if len(opaque) < len(s.Tables) || rest {
		return verdict{}, "; without effect: " + text
	}
	s.Tables = nil
	return verdict{"Invalid", text + ": name another port in sectionName, or declare it http or grpc"}, ""
}

// unhashed answers that hash does nothing because none of the Services that take the requests is balanced by it.
func (c Compiler) unhashed(p *v1alpha1.TrafficParts, s *TargetStatus) (verdict, string) {
	if len(p.Hash) == 0 {
		return verdict{}, ""
	}
	for _, at := range s.Tables {
		t, ok := c.RouteTable(at)
		if !ok {
			continue
		}
		var backends []model.Backend
		for i := range t.Routes {
			backends = append(backends, t.Routes[i].Backends...)
		}
		for i := range t.Relay {
			backends = append(backends, t.Relay[i].Backends...)
		}
		for _, b := range backends {
			if by := c.ServiceTreatment(b.Cluster).Balancing; by != nil && (by.Policy == "RingHash" || by.Policy == "Maglev" || by.Shards != nil) {
				return verdict{}, ""
			}
		}
	}
	const text = "hash: no Service that takes these requests has balancing.policy RingHash or Maglev, or balancing.shards"
	if len(p.Names()) > 1 {
		return verdict{}, "; without effect: " + text
	}
	s.Tables = nil
	return verdict{"Invalid", text + ": write one of them in a policy on the Service"}, ""
}

// nobody answers which callers in priority.from are no Services. Callers need none, so it is only said.
func (c Compiler) nobody(p *v1alpha1.TrafficPolicy) string {
	var unknown []string
	for i, r := range p.Spec.Priority {
		for j, f := range r.From {
			name, namespace, dot := strings.Cut(f, ".")
			if !dot {
				namespace = p.Namespace
			}
			if _, ok := c.Services.Service(model.ServiceName{Namespace: namespace, Name: name}); !ok {
				unknown = append(unknown, fmt.Sprintf("priority[%d].from[%d] %s.%s", i, j, name, namespace))
			}
		}
	}
	if unknown == nil {
		return ""
	}
	return "; there is no such Service (a caller need not be one): " + strings.Join(unknown, ", ")
}

// requestParts are the parts, and the values of timeouts, that say something about requests only.
func requestParts() []string {
	return []string{"timeouts.request", "timeouts.attempt", "retries", "retryBudget", "hedging", "session", "priority", "concurrency"}
}

// aboutRequests answers the parts that say something about requests only, and whether there are others, which bear on
// connections too.
func aboutRequests(p *v1alpha1.TrafficParts) (out []string, others bool) {
	limits := slices.ContainsFunc(p.RateLimits, func(l v1alpha1.RateLimit) bool { return l.Connections == 0 && l.Bytes == 0 })
	for _, f := range []struct {
		name string
		said bool
	}{
		{"timeouts.request and timeouts.attempt", p.Timeouts != nil && p.Timeouts.Request+p.Timeouts.Attempt != ""}, {"retries", p.Retries != nil}, {"retryBudget", p.RetryBudget != nil}, {"hedging", p.Hedging != nil},
		{"session", p.Session != nil}, {"priority", p.Priority != nil}, {"concurrency", p.Concurrency != nil}, {"rateLimits of requests", limits},
	} {
		if f.said {
			out = append(out, f.name)
		}
	}
	others = p.Timeouts != nil && p.Timeouts.Idle+p.Timeouts.Stream != "" || p.Balancing != nil || len(p.Hash) > 0 || p.Connections != nil || p.Breakers != nil || p.Fallback != nil || p.Ejection != nil ||
		len(p.HealthChecks) > 0 || p.Capacity != nil || slices.ContainsFunc(p.RateLimits, func(l v1alpha1.RateLimit) bool { return l.Connections > 0 || l.Bytes > 0 })
	return out, others
}

// foreign answers what of a policy clients cannot run that only know Envoy's own fields; TestPortable in test/route holds it to the
// encoder. What a workload's own proxy does is not
// among it: that is done whoever calls.
func foreign(p *v1alpha1.TrafficParts, at v1alpha1.PolicyTarget) (out []string) {
	b, e, r := p.Balancing, p.Ejection, p.Retries
	near := b != nil && b.Locality != nil && b.Locality.Mode == "Prefer"
	retried := r != nil && *r.Attempts > 0
	untouched := r != nil && slices.Equal(r.When, []string{"untouched"}) && len(r.Statuses)+len(r.GRPC) == 0
	for _, f := range []struct {
		name string
		own  bool
	}{
		{"balancing.policy PeakEWMA", b != nil && b.Policy == "PeakEWMA"},
		{"balancing.shards", b != nil && b.Shards != nil},
		{"balancing.locality (what is near depends on the caller)", near},
		{"hash.path (others hash all of it)", slices.ContainsFunc(p.Hash, func(k v1alpha1.HashKey) bool { return k.Path != "" })},
		{"breakers of a route", p.Breakers != nil && at.Kind != "Service"},
		{"fallback", p.Fallback != nil},
		{"ejection.latency", e != nil && e.Latency != nil},
		{"ejection.probe", e != nil && *e.Probe},
		{"connections.http2", p.Connections != nil && p.Connections.HTTP2 != nil},
		{"timeouts.attempt without retries", p.Timeouts != nil && p.Timeouts.Attempt.Value() > 0 && r == nil},
		{"retryBudget", p.RetryBudget != nil},
		{"what is said of a " + at.Kind, at.Kind == "TCPRoute" || at.Kind == "TLSRoute"},
		{"sticky", p.Sticky != nil},
		{"session.absolute and session.idle", p.Session != nil && p.Session.Absolute.Value()+p.Session.Idle.Value() > 0},
		{"retries.wait that is learned", retried && r.Wait.Base == ""},
		{"retries of what may have been acted on (others send nothing again)", retried && !r.AnyMethod && !untouched},
		{"hedging", p.Hedging != nil},
		{"priority", p.Priority != nil},
		{"rateLimits of side Caller", slices.ContainsFunc(p.RateLimits, func(l v1alpha1.RateLimit) bool { return l.Side == "Caller" })},
	} {
		if f.own {
			out = append(out, f.name)
		}
	}
	return out
}

// Value is one value in force, and where it comes from.
type Value struct {
	Source
	Value string `json:"value"` // JSON
}

// Values answers everything that is said.
func (t *Treatment) Values() (out []Value) {
	text, err := json.Marshal(&t.TrafficParts)
	var all map[string]json.RawMessage
	if err != nil || json.Unmarshal(text, &all) != nil {
		return nil
	}
	for _, s := range t.From {
		part, sub, _ := strings.Cut(s.Field, ".")
		value := all[part]
		if sub != "" {
			var values map[string]json.RawMessage
			if json.Unmarshal(value, &values) == nil {
				value = values[sub]
			}
		}
		if value == nil {
			value = []byte(`"as the route says"`)
		}
		out = append(out, Value{s, string(value)})
	}
	return out
}

// RouteValues answers what is said about a route itself, and about no other of the table.
func (c Compiler) RouteValues(r *model.Route) []Value {
	out := c.routeOnly(r).Values()
	if now, ok := c.rolloutValue(r); ok {
		out = append(out, now)
	}
	return out
}
