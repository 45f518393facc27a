package policy

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// Secrets reports which fields are credentials beside those that decision.Secret knows by their names.
type Secrets interface {
	Secret(kind model.ConditionKind, name string) bool
}

// Named appends what policies look at of a request, as record.Record.Named has it. What may be a credential, or is longer than its
// bound, is left out: then it is not known. It allocates nothing but growth of dst.
func (r *Rules) Named(dst []byte, a *authz.Attributes, s Secrets) []byte {
	if r.set == nil {
		return dst
	}
	return decision.AppendFirst(decision.AppendNamed(dst, r.set, a, s.Secret), r.hops, a.RemoteIP)
}
