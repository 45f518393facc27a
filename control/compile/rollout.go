package compile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/model"
)

// PolicyKey names a TrafficPolicy.
type PolicyKey struct{ Namespace, Name string }

// Rolling answers an index of the same objects with other states of rollouts, by their policies.
func (ix *Index) Rolling(states map[PolicyKey]rollout.State) *Index {
	out := *ix
	out.rolling = maps.Clone(states)
	return &out
}

// Rollout is one that is in force.
type Rollout struct {
	Policy         PolicyKey
	Route          string // "HTTPRoute/default/reviews"
	Target         v1alpha1.PolicyTarget
	Spec           *v1alpha1.Rollout
	State          rollout.State
	Canary, Stable model.ServiceName
}

// Rollouts answers every rollout in force, by route and rule.
func (c Compiler) Rollouts() (out []Rollout) {
	for _, r := range c.Index.all {
		for _, rule := range v1alpha1.Rules(r.Object) {
			if one, why := c.rollout(r, rule); why == "" {
				out = append(out, one)
			}
		}
	}
	return out
}

// rollout answers what shifts the weights of a rule, or why nothing does.
func (c Compiler) rollout(r Route, rule v1alpha1.RouteRule) (out Rollout, why string) {
	at := place{r.Kind, r.Object.GetNamespace(), r.Object.GetName(), rule.Name}
	list := c.Index.policies.attached(at)
	i := slices.IndexFunc(list, func(p attachedPolicy) bool { return p.Object.Spec.Rollout != nil })
	if rule.Name == "" || i < 0 {
		return out, "no policy says so"
	}
	p := list[i].Object
	out = Rollout{Policy: PolicyKey{p.Namespace, p.Name}, Route: r.Name(), Target: p.Spec.TargetRefs[0], Spec: p.Spec.Rollout}
	out.State = c.Index.rolling[out.Policy]
	canary, why := canaryOf(rule, out.Spec.Canary)
	if why != "" {
		return out, why
	}
	out.Canary = backendName(r.Object, &rule.Backends[canary].BackendObjectReference).Service
	out.Stable = backendName(r.Object, &rule.Backends[1-canary].BackendObjectReference).Service
	return out, ""
}

// canaryOf answers which backend of a rule is the canary, or why none is.
func canaryOf(rule v1alpha1.RouteRule, name string) (int, string) {
	if n := len(rule.Backends); n != 2 {
		return 0, fmt.Sprintf("rollout: rule %s has %d backendRefs: it takes two, the canary and the stable one", rule.Name, n)
	}
	is := func(i int) bool { return string(rule.Backends[i].Name) == name }
	switch {
	case is(0) == is(1):
		return 0, fmt.Sprintf("rollout: one of the two backendRefs of rule %s must be canary, %s", rule.Name, name)
	case is(0):
		return 0, ""
	}
	return 1, ""
}

// rolled answers the backends of a rule with the weights that its rollout, if it has one, has come to.
func (c Compiler) rolled(r Route, rule v1alpha1.RouteRule) []v1alpha1.HTTPBackendRef {
	one, why := c.rollout(r, rule)
	if why != "" {
		return rule.Backends
	}
	canary, _ := canaryOf(rule, one.Spec.Canary)
	out := slices.Clone(rule.Backends)
	share := rollout.Weight(one.Target, one.Spec, one.State)
	rest := 100 - share
	out[canary].Weight, out[1-canary].Weight = &share, &rest
	return out
}

// unrolled says why the rollout of a policy cannot be.
func (c Compiler) unrolled(p *v1alpha1.TrafficPolicy, ref v1alpha1.PolicyTarget) verdict {
	if p.Spec.Rollout == nil {
		return verdict{}
	}
	for _, r := range c.Index.all {
		if r.Kind != ref.Kind || r.Object.GetNamespace() != p.Namespace || r.Object.GetName() != ref.Name {
			continue
		}
		for _, rule := range v1alpha1.Rules(r.Object) {
			if rule.Name != ref.SectionName {
				continue
			}
			if _, why := canaryOf(rule, p.Spec.Rollout.Canary); why != "" {
				return verdict{"Invalid", why}
			}
		}
	}
	return verdict{}
}

// rolloutCondition says how far the rollout of a policy is.
func (c Compiler) rolloutCondition(p *v1alpha1.TrafficPolicy, ref v1alpha1.PolicyTarget) Condition {
	s := c.Index.rolling[PolicyKey{p.Namespace, p.Name}]
	if s.Spec != rollout.SpecOf(ref, p.Spec.Rollout) {
		return Condition{Type: "RolledOut", Reason: "Pending", Message: "the first step begins"}
	}
	return Condition{Type: "RolledOut", True: s.Phase == rollout.Completed, Reason: reasonOf(s), Message: s.Message}
}

func reasonOf(s rollout.State) string {
	if s.Phase == rollout.RolledBack {
		return string(rollout.RolledBack) + s.Reason
	}
	return s.Reason
}

// rolloutValue answers how far the rollout of a route's rule is, to stand beside what it is asked to do.
func (c Compiler) rolloutValue(m *model.Route) (Value, bool) {
	for _, r := range c.Index.all {
		rules := v1alpha1.Rules(r.Object)
		if r.Name() != m.Name || m.Rule >= len(rules) {
			continue
		}
		one, why := c.rollout(r, rules[m.Rule])
		if why != "" || one.State.Spec != rollout.SpecOf(one.Target, one.Spec) {
			return Value{}, false
		}
		from := Source{Field: "rollout.now", From: "TrafficPolicy/" + one.Policy.Namespace + "/" + one.Policy.Name, On: one.Target.String()}
		return Value{from, strconv.Quote(reasonOf(one.State) + ": " + one.State.Message)}, true
	}
	return Value{}, false
}
