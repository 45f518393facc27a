package router

import (
	"fmt"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// classRule is a rule that gives requests a class.
type classRule struct {
	*model.ClassRule
	match Route
}

func compileClasses(in []model.ClassRule) ([]classRule, error) {
	out := make([]classRule, len(in))
	for i := range in {
		out[i].ClassRule = &in[i]
		if err := out[i].match.compile(&model.Route{Match: in[i].Match}, i); err != nil {
			return nil, fmt.Errorf("class %d: %w", i, err)
		}
	}
	return out, nil
}

// Class answers the class of the first rule that holds for h, sent by caller; false: none does. rnd as for Find.
func (t *Table) Class(h *message.Head, caller model.ServiceName, rnd uint32) (model.Class, bool) {
	if len(t.classes) == 0 {
		return model.ClassDefault, false
	}
	path, query := splitTarget(h.Target)
	for i := range t.classes {
		c := &t.classes[i]
		if c.from(caller) && c.match.matches(h, path, query, rnd) {
			return c.Class, true
		}
	}
	return model.ClassDefault, false
}

// from reports whether the rule is for requests of caller.
func (c *classRule) from(caller model.ServiceName) bool {
	if len(c.From) == 0 {
		return true
	}
	for _, f := range c.From {
		n, ns := len(caller.Name), len(caller.Namespace) // "name.namespace"
		if len(f) == n+1+ns && f[:n] == caller.Name && f[n] == '.' && f[n+1:] == caller.Namespace {
			return true
		}
	}
	return false
}
