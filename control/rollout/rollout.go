// Package rollout decides about a rollout (TrafficPolicy, spec.rollout): when the new backend of a rule gets its next share, and
// when it goes back to none. It is pure: what callers' proxies have counted and the time go in, a state that can be stored comes out.
//
// Requests that fail, and requests slower than the bound, are each tested as a binomial: what is the chance to see so many or more
// if the canary were just as bad as is allowed? Below Doubt it is not as good as is allowed, and goes back at once. The test is exact, since at
// success rates near 100 % approximations by a normal distribution condemn a canary for its first failure. What is allowed depends on
// the stable backend, of which not the share seen counts here but the highest that what was seen allows for. A step is over when its
// time is, there were enough requests, and the shares seen are within bounds; else it lasts on, at most Patience times as long where they
// are not. Start reading at Decide.
package rollout

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/telemetry"
)

// What decides.
const (
	// Doubt is the chance with which one look at a canary that is just good enough condemns it. It is looked at every second, though
	// each look sees most of what the one before has seen, so it is far below what one look would need.
	Doubt = 0.0005
	// Patience is how many intervals a step may last with shares out of bounds that may be chance.
	Patience = 10
	// Blind is how long nothing may be known of what a caller's proxy sees (or an interval, if that is longer).
	Blind = 30 * time.Second

	slowShare = 0.01 // of requests that may be slower than the bound
	quantile  = 1 - slowShare
)

// Kind of what is stored, under the name of the policy.
const Kind = "RolloutState"

// Phase is where a rollout is.
type Phase string

// Phases.
const (
	Progressing Phase = "Progressing"
	RolledBack  Phase = "RolledBack" // until the spec changes
	Completed   Phase = "Completed"
)

// State is what is stored of a rollout.
type State struct {
	Spec    string    `json:"spec"` // SpecOf what it is about
	Phase   Phase     `json:"phase"`
	Step    int       `json:"step"`           // index of Steps
	Began   time.Time `json:"began"`          // the step, or the phase
	Blind   time.Time `json:"blind,omitzero"` // since when something is not known
	Reason  string    `json:"reason"`         // one word
	Message string    `json:"message"`        // for people
}

// SpecOf answers what tells rollouts apart: another one begins anew.
func SpecOf(target v1alpha1.PolicyTarget, r *v1alpha1.Rollout) string {
	text, err := json.Marshal(struct {
		Target  v1alpha1.PolicyTarget
		Rollout *v1alpha1.Rollout
	}{target, r})
	if err != nil {
		return ""
	}
	return string(text)
}

// Weight answers the canary's share in percent. A rollout that has no state of its spec yet is at its first step.
func Weight(target v1alpha1.PolicyTarget, r *v1alpha1.Rollout, s State) int32 {
	if s.Spec != SpecOf(target, r) {
		return r.Steps[0]
	}
	if s.Phase == RolledBack {
		return 0
	}
	return r.Steps[min(max(s.Step, 0), len(r.Steps)-1)]
}

// Counts are of one backend in a step.
type Counts struct {
	Requests, Failures uint64
	Latency            telemetry.Histogram
}

// Seen is what callers' proxies have counted since State.Began.
type Seen struct {
	Canary, Stable Counts
	Blind          string // whose counts are missing; "" if nobody's
}

// Decide answers the next state. The same state again: nothing is to be stored.
func Decide(target v1alpha1.PolicyTarget, r *v1alpha1.Rollout, s State, v Seen, now time.Time) State {
	if spec := SpecOf(target, r); s.Spec != spec {
		return begin(State{Spec: spec}, r, 0, now)
	}
	if s.Phase != Progressing || s.Step < 0 || s.Step >= len(r.Steps) {
		return s
	}
	if v.Blind != "" {
		return blind(r, s, v.Blind, now)
	}
	s.Blind = time.Time{}
	if why := condemned(r, &v); why != "" {
		return back(s, "Failed", why, now)
	}
	interval := r.Interval.Value()
	lasted := now.Sub(s.Began)
	n, need := v.Canary.Requests, uint64(*r.Requests)
	why := beyond(r, &v)
	switch {
	case lasted < interval:
		return hold(s, "Observing", fmt.Sprintf("%s for %s", shares(r, s), r.Interval))
	case n < need:
		return hold(s, "TooFewRequests", fmt.Sprintf("%s until the canary has had %d requests", shares(r, s), need))
	case why != "" && lasted < Patience*interval:
		return hold(s, "Doubtful", shares(r, s)+": more requests fail or are slow than is allowed, which may be chance")
	case why != "":
		return back(s, "NotShown", why+", which may be chance, but did not get better", now)
	case s.Step+1 < len(r.Steps):
		return begin(s, r, s.Step+1, now)
	}
	s.Phase, s.Began = Completed, now
	return hold(s, "Completed", shares(r, s)+" to stay: every step was good")
}

func begin(s State, r *v1alpha1.Rollout, step int, now time.Time) State {
	s.Phase, s.Step, s.Began, s.Blind = Progressing, step, now, time.Time{}
	return hold(s, "Observing", fmt.Sprintf("%s for %s", shares(r, s), r.Interval))
}

func hold(s State, reason, message string) State {
	s.Reason, s.Message = reason, message
	return s
}

func back(s State, reason, message string, now time.Time) State {
	s.Phase, s.Began, s.Blind = RolledBack, now, time.Time{}
	return hold(s, reason, fmt.Sprintf("the canary gets nothing since step %d: %s; change spec.rollout, such as its revision, to try again", s.Step+1, message))
}

func shares(r *v1alpha1.Rollout, s State) string {
	return fmt.Sprintf("step %d of %d, %d %% to %s", s.Step+1, len(r.Steps), r.Steps[s.Step], r.Canary)
}

func blind(r *v1alpha1.Rollout, s State, who string, now time.Time) State {
	if s.Blind.IsZero() {
		s.Blind = now
	}
	why := "what the proxy of " + who + " sees is not known"
	if now.Sub(s.Blind) > max(Blind, r.Interval.Value()) {
		return back(s, "Blind", why, now)
	}
	return hold(s, "Blind", shares(r, s)+": "+why)
}
