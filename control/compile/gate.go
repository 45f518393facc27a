package compile

import (
	"slices"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// Gate is what a port of a workload asks for before policies are asked: AuthenticationPolicies. It says what proxy/listener and
// proxy/token do. Immutable; its Set is not for concurrent use.
type Gate struct {
	Mode    model.PortMode
	Issuers string // decision.Issuers
	// Paths need a token, where not all do.
	Paths []model.PolicyPath

	of   []*model.TokenIssuer // that are believed, the most specific first
	all  string               // the policy that wants a token of every request; "": none does
	some *authz.Set           // denies those whose path needs one; nil: none does
	by   string               // the policy of some
}

// NewGate answers that of a port, for workloads with these labels. An error means that s cannot be enforced as a whole.
func NewGate(s *model.Security, port uint16, labels []model.Label) (*Gate, error) {
	g := &Gate{Mode: s.Mode(port, labels), Issuers: decision.Issuers(s, labels, port), of: decision.On(s, labels, port)}
	for _, t := range g.of {
		if t.Required && g.all == "" {
			g.all = t.Name
		}
		if len(t.RequiredPaths) > 0 && g.by == "" {
			g.by = t.Name
		}
		g.Paths = append(g.Paths, t.RequiredPaths...)
	}
	if len(g.Paths) == 0 {
		return g, nil
	}
	var err error
	g.some, err = authz.Compile(&model.Security{Policies: []model.Policy{{Action: model.ActionDeny,
		Rules: []model.PolicyRule{{To: []model.PolicyTarget{{Paths: g.Paths}}}}}}}, nil, nil)
	return g, err
}

// Wants answers the policy that wants a token of a request to a path, as policies see it; "": none does.
func (g *Gate) Wants(path string) string {
	if g.all != "" {
		return g.all
	}
	if g.some != nil && !g.some.Request(&authz.Attributes{HTTP: true, Path: path}).Allowed {
		return g.by
	}
	return ""
}

// SameTokens reports whether two gates do the same about tokens.
func (g *Gate) SameTokens(o *Gate) bool {
	return g.Issuers == o.Issuers && (g.all == "") == (o.all == "") && slices.Equal(g.Paths, o.Paths)
}

// Strict answers who wants mutual TLS, "" where nobody does.
func (g *Gate) Strict() string {
	switch {
	case g.Mode.Mode != model.ModeStrict:
		return ""
	case g.Mode.Policy == "":
		return "the default"
	}
	return g.Mode.Policy
}
