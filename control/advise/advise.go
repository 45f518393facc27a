// Package advise makes use of what proxies have let in and what not: Suggest proposes the smallest set of policies that allows it and
// says which rules nothing used, and Replay tells what a change of policies would let in or refuse that it does not now. Both ask the
// evaluator that the proxies run (model/authz), and say what cannot be told from what was recorded. Pure. Start reading at Suggest and
// at Replay.
package advise

import (
	"errors"
	"slices"

	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// errUntold is why an expression is not evaluated: it may be about anything, also about what was not recorded.
var errUntold = errors.New("what an expression looks at was not recorded")

// untold stands for an expression.
type untold struct{}

// Holds implements authz.Expression.
func (untold) Holds(*authz.Attributes) (bool, error) { return false, errUntold }

func noExpressions(string) (authz.Expression, error) { return untold{}, nil }

// ask answers what a set says about an entry. whole is the set with nothing left out: it says whether the port is HTTP and nothing else.
func ask(set, whole *authz.Set, e *decisions.Entry, now int64) authz.Verdict {
	a := e.Attributes(now)
	if !e.TCP {
		return set.Request(&a)
	}
	v := set.Connection(&a)
	if whole.HTTP(e.Port) {
		v.Allowed = false
	}
	return v
}

// told are the fields that are known of an entry.
func told(e *decisions.Entry) decision.Fields {
	if e.TCP || e.Fields == "" {
		return nil
	}
	return decision.ParseFields(e.Fields)
}

// selects reports whether some policy is about some of the service's workloads.
func selects(s *model.Security) bool {
	return slices.ContainsFunc(s.Policies, func(p model.Policy) bool { return len(p.Labels) > 0 })
}
