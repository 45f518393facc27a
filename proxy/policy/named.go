package policy

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// maxValues is how many values of one field are told.
const maxValues = 4

// Secrets reports which fields are credentials beside those that decision.Secret knows by their names.
type Secrets interface {
	Secret(kind model.ConditionKind, name string) bool
}

// Named appends the header and query fields that policies look at, as record.Record.Named has them. What may be a credential, or is
// longer than its bound, is left out: then it is not known. It allocates nothing but growth of dst.
func (r *Rules) Named(dst []byte, a *authz.Attributes, s Secrets) []byte {
	if r.set == nil || a.Fields == nil {
		return dst
	}
	for _, n := range r.set.Names(a.Port) {
		if decision.Secret(n.Kind, n.Name) || s.Secret(n.Kind, n.Name) {
			continue
		}
		before, i := len(dst), 0
		for ; ; i++ {
			v, ok := a.Fields.Value(n.Kind, n.Name, i)
			if !ok {
				break
			}
			if i == maxValues || len(v) > decision.MaxValue {
				i = -1
				break
			}
			dst = decision.AppendField(dst, n.Kind, n.Name, v, true)
		}
		if i == 0 {
			dst = decision.AppendField(dst, n.Kind, n.Name, "", false)
		}
		if i < 0 || len(dst) > decision.MaxFields {
			dst = dst[:before]
		}
	}
	return dst
}
