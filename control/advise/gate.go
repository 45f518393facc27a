package advise

import (
	"strconv"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
)

// gateOf answers what an entry's port and workload ask for before policies are asked.
func (p *policies) gateOf(e *decisions.Entry) (*compile.Gate, error) {
	key := strconv.Itoa(int(e.Port)) + e.Labels
	if g, ok := p.gates[key]; ok {
		return g, nil
	}
	g, err := compile.NewGate(p.of, e.Port, decisions.ParseLabels(e.Labels))
	if err != nil {
		return nil, err
	}
	p.gates[key] = g
	return g, nil
}

// refuses answers what refuses an entry at a gate, or what is not known about that; both "": it is let through. other is the gate that
// it is compared with: what both do alike to what is not known changes nothing.
func refuses(g *compile.Gate, e *decisions.Entry, v *view, other *compile.Gate) (by, unknown string) {
	switch strict := g.Strict(); {
	case strict != "" && e.Principal == "":
		return strict + " wants mutual TLS", ""
	case g.Mode.Mode == model.ModeDisabled && other.Mode.Mode != g.Mode.Mode && e.Principal != "" && (!v.Caller.IsValid() || v.Published):
		return "", "what becomes of TLS on a published port"
	case e.TCP || g.Issuers == "":
		return "", ""
	}
	if v.bore == unsure {
		switch {
		case !g.SameTokens(other), e.Refused("mtls_required"): // or nobody has looked for one
			return "", theToken
		case e.Refused("token_missing"), e.Refused("token_invalid"), e.Refused("issuer_unavailable"): // it would be again
			return "its token: " + e.Rule, ""
		}
		return "", ""
	}
	wants := g.Wants(e.Attributes(0).Path)
	switch {
	case v.bore == bears || wants == "":
		return "", ""
	case e.Method == "OPTIONS" && g.SameTokens(other):
		return "", "" // as it was
	case e.Method == "OPTIONS":
		return "", "whether it was a browser's preflight"
	}
	return wants + " wants a token", ""
}
