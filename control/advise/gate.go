package advise

import (
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// gate is what a port asks for before policies are asked: AuthenticationPolicies. It says what proxy/listener and proxy/token do.
type gate struct {
	mode    model.PortMode
	issuers string // decision.Issuers
	all     string // the policy that wants a token of every request; "": none does
	paths   []model.PolicyPath
	some    *authz.Set // denies those whose path needs one; nil: none does
	by      string     // the policy of some
}

// gateOf answers that of an entry's port and workload.
func (p *policies) gateOf(e *decisions.Entry) (*gate, error) {
	key := strconv.Itoa(int(e.Port)) + e.Labels
	if g, ok := p.gates[key]; ok {
		return g, nil
	}
	labels := decisions.ParseLabels(e.Labels)
	g := &gate{mode: p.of.Mode(e.Port, labels), issuers: decision.Issuers(p.of, labels, e.Port)}
	for _, t := range decision.On(p.of, labels, e.Port) {
		if t.Required && g.all == "" {
			g.all = t.Name
		}
		if len(t.RequiredPaths) > 0 && g.by == "" {
			g.by = t.Name
		}
		g.paths = append(g.paths, t.RequiredPaths...)
	}
	if len(g.paths) > 0 {
		var err error
		if g.some, err = authz.Compile(&model.Security{Policies: []model.Policy{{Action: model.ActionDeny,
			Rules: []model.PolicyRule{{To: []model.PolicyTarget{{Paths: g.paths}}}}}}}, nil, nil); err != nil {
			return nil, err
		}
	}
	p.gates[key] = g
	return g, nil
}

// wants answers the policy that wants a token of a request; "": none does.
func (g *gate) wants(e *decisions.Entry) string {
	if g.all != "" {
		return g.all
	}
	if g.some == nil {
		return ""
	}
	a := e.Attributes(0)
	if !g.some.Request(&authz.Attributes{HTTP: true, Path: a.Path}).Allowed {
		return g.by
	}
	return ""
}

// sameTokens reports whether two gates do the same about tokens.
func (g *gate) sameTokens(o *gate) bool {
	return g.issuers == o.issuers && (g.all == "") == (o.all == "") && slices.Equal(g.paths, o.paths)
}

// ask answers what refuses an entry, or what is not known about that; both "": it is let through. other is the gate that it is compared
// with: what both do alike to what is not known changes nothing.
func (g *gate) ask(e *decisions.Entry, v *view, other *gate) (by, unknown string) {
	switch {
	case g.mode.Mode == model.ModeStrict && e.Principal == "":
		return nameOr(g.mode.Policy, "the default") + " wants mutual TLS", ""
	case g.mode.Mode == model.ModeDisabled && other.mode.Mode != g.mode.Mode && e.Principal != "" && (!v.Caller.IsValid() || v.Published):
		return "", "what becomes of TLS on a published port"
	case e.TCP || g.issuers == "":
		return "", ""
	}
	if v.bore == unsure {
		switch {
		case !g.sameTokens(other), e.Refused("mtls_required"): // or nobody has looked for one
			return "", theToken
		case e.Refused("token_missing"), e.Refused("token_invalid"), e.Refused("issuer_unavailable"): // it would be again
			return "its token: " + e.Rule, ""
		}
		return "", ""
	}
	wants := g.wants(e)
	switch {
	case v.bore == bears || wants == "":
		return "", ""
	case e.Method == "OPTIONS" && g.sameTokens(other):
		return "", "" // as it was
	case e.Method == "OPTIONS":
		return "", "whether it was a browser's preflight"
	}
	return wants + " wants a token", ""
}

func nameOr(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}
