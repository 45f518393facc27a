package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// consult asks the external authorizer that a policy names, and reports whether the request goes on at once. This proxy has
// nobody who asks, so nothing passes: an authorizer that is wanted is never left out.
func (x *Exchange) consult(by *authz.Rule) bool {
	x.rec.Decision.Verdict, x.rec.Decision.Action = record.Denied, model.ActionExternal
	x.rec.Decision.Policy, x.rec.Decision.Rule = by.Policy, by.Name
	x.answer(failure.AuthorizerUnavailable)
	return false
}
