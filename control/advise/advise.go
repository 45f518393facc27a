// Package advise makes use of what proxies have let in and what not: Suggest proposes the smallest set of policies that allows it and
// says which rules nothing used, and Replay tells what a change of policies would let in or refuse that it does not now. Both ask the
// evaluator that the proxies run (model/authz), and say what cannot be told from what was recorded. Pure. Start reading at Suggest and
// at Replay.
package advise

import (
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// selects reports whether something is about some of the service's workloads.
func selects(s *model.Security) bool {
	return slices.ContainsFunc(s.Policies, func(p model.Policy) bool { return len(p.Labels) > 0 }) ||
		slices.ContainsFunc(s.Modes, func(m model.PortMode) bool { return len(m.Labels) > 0 }) ||
		slices.ContainsFunc(s.Tokens, func(t model.TokenIssuer) bool { return len(t.Labels) > 0 })
}
