package compile

import (
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// ours answers the trust domains that are the mesh's: its own and its aliases; none where there is but one.
func (c Compiler) ours() (out []string) {
	m := c.Index.security.mesh
	if m == nil || len(m.TrustDomainAliases) == 0 {
		return nil
	}
	return append([]string{m.TrustDomain}, m.TrustDomainAliases...)
}

// spelled has a policy that names one of the mesh's trust domains mean all of them: an identity is known in the mesh's own, whichever it
// is by now, and a policy was written when it was another. Expressions, and patterns that begin with "*", are left as they are.
func spelled(rules []model.PolicyRule, ours []string) {
	if len(ours) < 2 {
		return
	}
	for i := range rules {
		for j := range rules[i].From {
			f := &rules[i].From[j]
			f.Principals, f.NotPrincipals = otherwise(f.Principals, ours, "spiffe://", "/"), otherwise(f.NotPrincipals, ours, "spiffe://", "/")
			f.TrustDomains, f.NotTrustDomains = otherwise(f.TrustDomains, ours, "", ""), otherwise(f.NotTrustDomains, ours, "", "")
		}
	}
}

// otherwise adds to texts that begin with before, one of ours and after the same with each other one of them.
func otherwise(list []model.StringMatch, ours []string, before, after string) []model.StringMatch {
	out := slices.Clone(list)
	for _, m := range list {
		if m.Kind != model.StringExact && (m.Kind != model.StringPrefix || after == "") {
			continue
		}
		for _, d := range ours {
			rest, ok := strings.CutPrefix(m.Value, before+d+after)
			if !ok || after == "" && rest != "" {
				continue
			}
			for _, other := range ours {
				next := m
				if next.Value = before + other + after + rest; !slices.Contains(out, next) {
					out = append(out, next)
				}
			}
		}
	}
	return out
}
