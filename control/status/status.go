// Package status is what the author of a resource is told: the conditions Accepted, ResolvedRefs and Programmed,
// the last with the count of proxies that enforce the resource. It is computed when asked for, from the same
// compiler that the proxies are served by, so it cannot be out of date. Pure.
package status

import (
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
)

// Controller is the controllerName in the status of a route.
const Controller v1alpha1.GatewayControllerName = "tulle.dev/mesh"

// Enforcement knows how many proxies use a route table (of the callers of a namespace, or with "" of everyone else), and how many of them have acknowledged its newest form.
type Enforcement interface {
	Enforced(table model.PortName, caller string) (acknowledged, subscribed int)
}

// Route answers the status of a route of any kind, one entry per parentRef.
func Route(c compile.Compiler, e Enforcement, r v1alpha1.Object, now time.Time) []v1alpha1.RouteParentStatus {
	var out []v1alpha1.RouteParentStatus
	for _, p := range c.Status(r) {
		accepted := false
		s := v1alpha1.RouteParentStatus{ParentRef: p.Ref, ControllerName: Controller}
		for _, cond := range p.Conditions {
			accepted = accepted || cond.Type == "Accepted" && cond.True
			s.Conditions = append(s.Conditions, condition(cond, v1alpha1.Meta(r).Generation, now))
		}
		s.Conditions = append(s.Conditions, condition(programmed(e, p, accepted), v1alpha1.Meta(r).Generation, now))
		out = append(out, s)
	}
	return out
}

// programmed sums up over the ports that the parentRef attaches to.
func programmed(e Enforcement, p compile.ParentStatus, accepted bool) compile.Condition {
	if !accepted {
		return compile.Condition{Type: "Programmed", Reason: "Invalid", Message: "the route is not accepted, so no proxy was told of it"}
	}
	acknowledged, subscribed := 0, 0
	for _, port := range p.Ports {
		a, n := e.Enforced(model.PortName{Service: p.Service, Port: port}, p.Caller)
		acknowledged, subscribed = acknowledged+a, subscribed+n
	}
	return programmedBy(acknowledged, subscribed)
}

// TrafficPolicy answers the status of a policy, one entry per targetRef.
func TrafficPolicy(c compile.Compiler, e Enforcement, p *v1alpha1.TrafficPolicy, now time.Time) (out v1alpha1.TrafficPolicyStatus) {
	for _, t := range c.PolicyStatus(p) {
		a := v1alpha1.PolicyAncestor{AncestorRef: t.Ref, ControllerName: Controller}
		for _, cond := range append(t.Conditions, enforced(e, t)) {
			a.Conditions = append(a.Conditions, condition(cond, p.Generation, now))
		}
		out.Ancestors = append(out.Ancestors, a)
	}
	return out
}

// Used answers the status of a FaultInjection or a DirectResponse.
func Used(c compile.Compiler, e Enforcement, o v1alpha1.Object, now time.Time) (out v1alpha1.UsedStatus) {
	users := c.Users(o)
	accepted := compile.Condition{Type: "Accepted", Reason: "NotAttached", Message: "no route uses it"}
	for _, n := range c.Notes(o) {
		accepted.Message = n.Message
	}
	for _, u := range users {
		out.Routes = append(out.Routes, fmt.Sprintf("%s/%s, rule %d", u.Route.Kind, u.Route.Object.GetName(), u.Rule))
	}
	done := compile.Condition{Type: "Programmed", Reason: "Invalid", Message: "no route that uses it is accepted, so no proxy was told of it"}
	if len(users) > 0 {
		accepted.True, accepted.Reason, accepted.Message = true, "Accepted", fmt.Sprintf("%d rules use it", len(users))
	}
	if tables := c.UserTables(users); len(tables) > 0 {
		acknowledged, subscribed := 0, 0
		for _, t := range tables {
			a, n := e.Enforced(t.Name, t.Caller)
			acknowledged, subscribed = acknowledged+a, subscribed+n
		}
		done = programmedBy(acknowledged, subscribed)
	}
	for _, cond := range []compile.Condition{accepted, done} {
		out.Conditions = append(out.Conditions, condition(cond, v1alpha1.Meta(o).Generation, now))
	}
	return out
}

// Pool answers the status of an InferencePool.
func Pool(c compile.Compiler, p *v1alpha1.InferencePool, now time.Time) (out v1alpha1.InferencePoolStatus) {
	for _, parent := range c.PoolStatus(p) {
		one := v1alpha1.PoolParentStatus{ParentRef: parent.Ref, ControllerName: Controller}
		for _, cond := range parent.Conditions {
			one.Conditions = append(one.Conditions, condition(cond, p.Generation, now))
		}
		out.Parents = append(out.Parents, one)
	}
	return out
}

// Guard knows how many proxies of a service's workloads enforce its policies, and how many of them the newest ones.
type Guard interface {
	Secured(service model.ServiceName) (acknowledged, subscribed int)
}

// Security answers the status of a policy about security; every is all services.
func Security(c compile.Compiler, g Guard, o v1alpha1.Object, every []model.ServiceName, now time.Time) (out v1alpha1.SecurityPolicyStatus) {
	services, accepted, resolved := c.SecurityStatus(o, every)
	acknowledged, subscribed := 0, 0
	for _, s := range services {
		out.Services = append(out.Services, s.String())
		a, n := g.Secured(s)
		acknowledged, subscribed = acknowledged+a, subscribed+n
	}
	done := compile.Condition{Type: "Programmed", Reason: "Invalid", Message: "the policy is not accepted, so no proxy was told of it"}
	if accepted.True {
		done = programmedBy(acknowledged, subscribed)
		done.Message = fmt.Sprintf("enforced by %d of %d proxies of these Services' workloads", acknowledged, subscribed)
	}
	for _, cond := range []compile.Condition{accepted, resolved, done} {
		out.Conditions = append(out.Conditions, condition(cond, v1alpha1.Meta(o).Generation, now))
	}
	return out
}

// enforced sums up over the ports that a policy bears on.
func enforced(e Enforcement, t compile.TargetStatus) compile.Condition {
	if len(t.Tables) == 0 {
		return compile.Condition{Type: "Programmed", Reason: "Invalid", Message: "the policy is not accepted, so no proxy was told of it"}
	}
	acknowledged, subscribed := 0, 0
	for _, name := range t.Tables {
		a, n := e.Enforced(name, "")
		acknowledged, subscribed = acknowledged+a, subscribed+n
	}
	return programmedBy(acknowledged, subscribed)
}

func programmedBy(acknowledged, subscribed int) compile.Condition {
	out := compile.Condition{Type: "Programmed", True: acknowledged == subscribed, Reason: "Programmed",
		Message: fmt.Sprintf("enforced by %d of %d proxies that call this Service", acknowledged, subscribed)}
	if !out.True {
		out.Reason = "Pending"
	}
	return out
}

func condition(c compile.Condition, generation int64, now time.Time) v1alpha1.Condition {
	value := "False"
	if c.True {
		value = "True"
	}
	out := v1alpha1.Condition{Type: c.Type, Reason: c.Reason, Message: c.Message, ObservedGeneration: generation}
	out.Status = v1alpha1.ConditionStatus(value)
	out.LastTransitionTime = v1alpha1.Time{Time: now.Truncate(time.Second)}
	return out
}
