package advise

import (
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
	"github.com/tulle-mesh/tulle/model/decision"
)

// What was not recorded may hold or not. So each entry is asked about twice: in the world in which it holds in all rules that allow and
// in none that deny, and in the one in which it is the other way. Nothing that is not known can lead to more being allowed than in
// the first, or to less than in the second; where both say the same, that is what happens.

// policies are what a service enforces, for entries of all kinds. Not safe for concurrent use.
type policies struct {
	of          *model.Security
	expressions map[string]authz.Expression
	gates       map[string]*compile.Gate
	worlds      map[string]*worlds
}

func newPolicies(s *model.Security) *policies {
	return &policies{of: s, expressions: map[string]authz.Expression{}, gates: map[string]*compile.Gate{}, worlds: map[string]*worlds{}}
}

// expression compiles one, once.
func (p *policies) expression(text string) (authz.Expression, error) {
	if x, ok := p.expressions[text]; ok {
		return x, nil
	}
	x, err := cel.Compile(text)
	if err == nil {
		p.expressions[text] = x
	}
	return x, err
}

// worlds is what a service enforces, for workloads of some labels and entries of which the same is known.
type worlds struct {
	whole, most, least *authz.Set
	untold             []string // what is not known, in order
}

// worldsOf compiles them.
func (p *policies) worldsOf(e *decisions.Entry, v *view) (*worlds, error) {
	key := e.Labels + "\x00" + v.key()
	if w, ok := p.worlds[key]; ok {
		return w, nil
	}
	w, labels := &worlds{}, decisions.ParseLabels(e.Labels)
	var err error
	if w.whole, err = authz.Compile(p.of, labels, p.expression); err != nil {
		return nil, err
	}
	r := reducer{policies: p, view: v, missing: map[string]bool{}}
	if w.most, err = authz.Compile(r.security(true), labels, p.expression); err != nil {
		return nil, err
	}
	if w.least, err = authz.Compile(r.security(false), labels, p.expression); err != nil {
		return nil, err
	}
	for what := range r.missing {
		w.untold = append(w.untold, what)
	}
	slices.Sort(w.untold)
	p.worlds[key] = w
	return w, nil
}

// ask answers what policies say about an entry, and whether they say so whatever is not known.
func (w *worlds) ask(e *decisions.Entry, v *view, now int64) (least, most authz.Verdict, sure bool) {
	least, most = w.one(w.least, e, v, now), w.one(w.most, e, v, now)
	return least, most, least.Allowed == most.Allowed && least.Authorizer == most.Authorizer
}

func (w *worlds) one(set *authz.Set, e *decisions.Entry, v *view, now int64) authz.Verdict {
	a := v.attributes(e, now)
	if !e.TCP {
		return set.Request(&a)
	}
	out := set.Connection(&a)
	if w.whole.HTTP(e.Port) {
		out.Allowed = false
	}
	return out
}

// reducer takes out of policies what is not known of an entry.
type reducer struct {
	policies *policies
	view     *view
	missing  map[string]bool
}

// security answers policies in which everything that is not known holds where that allows more; with most false, less.
func (r *reducer) security(most bool) *model.Security {
	out := *r.policies.of
	out.Policies = slices.Clone(out.Policies)
	for i := range out.Policies {
		p := &out.Policies[i]
		holds := most == (p.Action == model.ActionAllow)
		var rules []model.PolicyRule
		for _, rule := range p.Rules {
			if rule, ok := r.rule(rule, holds); ok {
				rules = append(rules, rule)
			}
		}
		p.Rules = rules
	}
	return &out
}

// rule answers a rule without what is not known; false: it cannot hold.
func (r *reducer) rule(in model.PolicyRule, holds bool) (model.PolicyRule, bool) {
	if in.Expression != "" && !r.view.tcp { // on a connection the evaluator leaves it out itself
		x, err := r.policies.expression(in.Expression)
		what := "what an expression looks at"
		if err == nil {
			what = r.view.sees(x)
		}
		if what != "" {
			r.missing[what] = true
			if in.Expression = ""; !holds {
				return in, false
			}
		}
	}
	from, some := filter(in.From, holds, r.source)
	if !some {
		return in, false
	}
	to, some := filter(in.To, holds, r.target)
	if !some {
		return in, false
	}
	in.From, in.To = from, to
	var when []model.PolicyCondition
	for _, w := range in.When {
		w, what := r.condition(w)
		if what == "" {
			when = append(when, w)
			continue
		}
		if r.missing[what] = true; !holds {
			return in, false
		}
	}
	in.When = when
	return in, true
}

// filter takes what is not known out of alternatives: an alternative that needs it is left out, or, where it holds, does without it.
// some is false where there were alternatives and none is left.
func filter[T any](list []T, holds bool, known func(*T) (T, bool)) (out []T, some bool) {
	for i := range list {
		one, whole := known(&list[i])
		if whole || holds {
			out = append(out, one)
		}
	}
	return out, len(list) == 0 || len(out) > 0
}

// source answers an alternative of From without what is not known, and whether that was all.
func (r *reducer) source(in *model.PolicySource) (model.PolicySource, bool) {
	s, whole := *in, true
	lacks := func(what string) {
		r.missing[what], whole = true, false
	}
	if len(s.IPs)+len(s.NotIPs) > 0 && !r.view.Caller.IsValid() {
		lacks(callersAddress)
		s.IPs, s.NotIPs = nil, nil
	}
	if len(s.RemoteIPs)+len(s.NotRemoteIPs) > 0 && !r.view.first() {
		lacks(clientsAddress)
		s.RemoteIPs, s.NotRemoteIPs = nil, nil
	}
	if len(s.TokenPrincipals)+len(s.NotTokenPrincipals) == 0 || r.view.tcp || r.view.bore == none {
		return s, whole
	}
	is, known := r.principals(s.TokenPrincipals)
	not, knownNot := r.principals(s.NotTokenPrincipals)
	if !known || !knownNot {
		lacks(theToken)
		is, not = nil, nil
	}
	s.TokenPrincipals, s.NotTokenPrincipals = is, not
	return s, whole
}

// principals answers a list that fits what stands for the token's principal where list fits the principal; false: nobody knows.
func (r *reducer) principals(list []model.StringMatch) (out []model.StringMatch, known bool) {
	if r.view.bore == unsure {
		return nil, false
	}
	for _, m := range list {
		fits, ok := r.fits(&m)
		if !ok {
			return nil, false
		}
		if fits {
			out = append(out, model.StringMatch{Value: r.view.principal()})
		} else {
			out = append(out, model.StringMatch{Value: "\x00"})
		}
	}
	return out, true
}

// fits reports whether a pattern fits "issuer/subject", of which there is the issuer and perhaps a hash of all; ok false: nobody knows.
// A token without a subject has no principal, so without the hash nothing is known to fit.
func (r *reducer) fits(m *model.StringMatch) (fits, ok bool) {
	start, hash := r.view.Issuer+"/", r.view.Subject
	plain := !m.IgnoreCase
	switch {
	case plain && m.Kind == model.StringExact && !strings.HasPrefix(m.Value, start):
		return false, true
	case plain && m.Kind == model.StringPrefix && !strings.HasPrefix(m.Value, start) && !strings.HasPrefix(start, m.Value):
		return false, true
	case hash == "":
		return false, false
	case plain && m.Kind == model.StringExact:
		return decision.Hash(m.Value) == hash, true
	case plain && m.Kind == model.StringPrefix && strings.HasPrefix(start, m.Value), m.Kind == model.StringRegex && m.Value == ".+": // "*"
		return true, true
	}
	return false, false
}

func (r *reducer) target(in *model.PolicyTarget) (model.PolicyTarget, bool) {
	t := *in
	if !r.view.tcp || r.view.named || len(t.ServerNames)+len(t.NotServerNames) == 0 {
		return t, true
	}
	r.missing["the server name"] = true
	t.ServerNames, t.NotServerNames = nil, nil
	return t, false
}

// condition answers a condition about what is known, and what is not; "": all is.
func (r *reducer) condition(w model.PolicyCondition) (model.PolicyCondition, string) {
	if r.view.tcp { // the evaluator leaves it out itself
		return w, ""
	}
	name := w.Name
	if w.Kind == model.ConditionHeader {
		name = strings.ToLower(name)
	}
	pattern := slices.ContainsFunc(slices.Concat(w.Values, w.NotValues), func(m model.StringMatch) bool { return m.Kind != model.StringExact || m.IgnoreCase })
	if what := r.view.lacks(authz.Name{Kind: w.Kind, Name: name}, pattern); what != "" {
		return w, what
	}
	if r.view.hashed(w.Kind, name) {
		w.Values, w.NotValues = hashes(w.Values), hashes(w.NotValues)
	}
	return w, ""
}

func hashes(list []model.StringMatch) (out []model.StringMatch) {
	for _, m := range list {
		if m.Kind == model.StringExact && !m.IgnoreCase {
			m.Value = decision.Hash(m.Value)
		}
		out = append(out, m)
	}
	return out
}
