package decision

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// Issuers names whose tokens are believed on a port of a workload with these labels, and how they are found and checked: "" where none
// are looked for. Two of the same name let in the same tokens and find them in the same places; who needs one is not in it.
func Issuers(s *model.Security, labels []model.Label, port uint16) string {
	var list []model.TokenIssuer
	for _, t := range On(s, labels, port) {
		if slices.ContainsFunc(list, func(o model.TokenIssuer) bool { return o.Issuer == t.Issuer }) {
			continue // the most specific says how
		}
		list = append(list, model.TokenIssuer{Issuer: t.Issuer, Audiences: t.Audiences, Keys: t.Keys, KeysURL: t.KeysURL, KeysFile: t.KeysFile, Algorithms: t.Algorithms, Skew: t.Skew, From: t.From,
			Endless: t.Endless})
	}
	if len(list) == 0 {
		return ""
	}
	slices.SortFunc(list, func(a, b model.TokenIssuer) int { return strings.Compare(a.Issuer, b.Issuer) })
	text, err := json.Marshal(list)
	if err != nil {
		return "?" // it is made of texts and numbers
	}
	return Hash(string(text))[:16]
}

// On answers the issuers on a port of a workload with these labels, the most specific first.
func On(s *model.Security, labels []model.Label, port uint16) (out []*model.TokenIssuer) {
	for i := range s.Tokens {
		t := &s.Tokens[i]
		if (len(t.Ports) == 0 || slices.Contains(t.Ports, port)) && !slices.ContainsFunc(t.Labels, func(l model.Label) bool { return !slices.Contains(labels, l) }) {
			out = append(out, t)
		}
	}
	return out
}
