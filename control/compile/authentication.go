package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// proofs is what AuthenticationPolicies say about a service, while it is gathered: the oldest first.
type proofs struct {
	modes  []proof[model.PortMode]
	tokens []proof[model.TokenIssuer]
}

type proof[T any] struct {
	rank rank
	what T
}

// rank is how specific something is: what is about a port comes before what has a selector, then what names a Service, then
// what is about a namespace, then the rest of the mesh.
type rank uint8

const (
	rankNamespace rank = 1 << iota
	rankService
	rankSelector
	rankPort
)

// authentication adds what an AuthenticationPolicy says about a service.
func (c Compiler) authentication(to *proofs, name string, o *v1alpha1.AuthenticationPolicy, ports []uint16, all []model.ServicePort) {
	var r rank
	switch {
	case len(o.Spec.TargetRefs) > 0:
		r = rankService
	case o.Namespace != v1alpha1.RootNamespace:
		r = rankNamespace
	}
	if len(o.Spec.Selector) > 0 {
		r |= rankSelector
	}
	where := labels(o.Spec.Selector)
	if m := o.Spec.MTLS; m != nil {
		for _, p := range m.Ports {
			// A port that the Service does not have says nothing about others.
			numbers, _ := c.sections(all, []string{p.Port})
			for _, n := range numbers {
				if len(ports) == 0 || slices.Contains(ports, n) {
					to.modes = append(to.modes, proof[model.PortMode]{r | rankPort, model.PortMode{Policy: name, Labels: where, Port: n, Mode: mode(p.Mode)}})
				}
			}
		}
		if m.Mode != "" {
			to.mode(r, model.PortMode{Policy: name, Labels: where, Mode: mode(m.Mode)}, ports)
		}
	}
	if len(ports) > 0 {
		r |= rankPort
	}
	for i := range o.Spec.JWT {
		one := issuer(fmt.Sprintf("%s jwt[%d]", name, i), &o.Spec.JWT[i])
		one.Labels, one.Ports = where, ports
		to.tokens = append(to.tokens, proof[model.TokenIssuer]{r, one})
	}
}

// mode adds the mode of the ports, none: of every port.
func (p *proofs) mode(r rank, m model.PortMode, ports []uint16) {
	if len(ports) == 0 {
		p.modes = append(p.modes, proof[model.PortMode]{r, m})
	}
	for _, n := range ports {
		m.Port = n
		p.modes = append(p.modes, proof[model.PortMode]{r | rankPort, m})
	}
}

// into writes down what was gathered, the most specific first, and a last mode for everything: that of the MeshConfig, or
// Permissive, since nothing is published that nobody asked to be.
func (p *proofs) into(out *model.Security, mesh *v1alpha1.MeshConfigSpec) {
	out.Modes, out.Tokens = ranked(p.modes), ranked(p.tokens)
	last := model.PortMode{Mode: model.ModePermissive}
	if mesh != nil && mesh.MTLS != nil {
		last = model.PortMode{Policy: "MeshConfig/" + v1alpha1.MeshConfigName, Mode: mode(mesh.MTLS.Mode)}
	}
	out.Modes = append(out.Modes, last)
}

func ranked[T any](list []proof[T]) (out []T) {
	slices.SortStableFunc(list, func(a, b proof[T]) int { return cmp.Compare(b.rank, a.rank) })
	for _, p := range list {
		out = append(out, p.what)
	}
	return out
}

// mode reads a mode; what is none is not stored.
func mode(s string) model.MTLSMode {
	switch s {
	case v1alpha1.ModePermissive:
		return model.ModePermissive
	case v1alpha1.ModeDisabled:
		return model.ModeDisabled
	}
	return model.ModeStrict
}

func issuer(name string, j *v1alpha1.JWTIssuer) model.TokenIssuer {
	out := model.TokenIssuer{Name: name, Issuer: j.Issuer, Audiences: j.Audiences, Keys: j.JWKS, KeysURL: j.JWKSURL, KeysFile: j.JWKSFile, Algorithms: j.Algorithms,
		Skew: j.ClockSkew.Value(), Forward: j.Forward, Required: j.Required, Endless: j.AllowEndless, RequiredPaths: policyPaths(j.RequiredPaths)}
	for _, p := range j.From {
		out.From = append(out.From, model.TokenPlace{Header: strings.ToLower(p.Header), Prefix: p.Prefix, Query: p.Query, Cookie: p.Cookie})
	}
	for _, h := range j.ClaimHeaders {
		out.ClaimHeaders = append(out.ClaimHeaders, model.ClaimHeader{Claim: h.Claim, Header: strings.ToLower(h.Header)})
	}
	return out
}
