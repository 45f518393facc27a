package advise

import (
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// What was not recorded may hold or not. So each entry is asked about twice: in the world in which it holds in all rules that allow and
// in none that deny, and in the one in which it is the other way. Nothing that is not known can lead to more being allowed than in
// the first, or to less than in the second; where both say the same, that is what happens.

// worlds is what a service enforces, for workloads of some labels and entries of which the same is known.
type worlds struct {
	whole, most, least *authz.Set
	untold             []string // what is not known, in order
}

// worldsOf compiles them.
func worldsOf(s *model.Security, e *decisions.Entry) (w worlds, err error) {
	labels := decisions.ParseLabels(e.Labels)
	if w.whole, err = authz.Compile(s, labels, noExpressions); err != nil {
		return w, err
	}
	r := reducer{tcp: e.TCP, named: e.ServerName != "", fields: told(e), missing: map[string]bool{}}
	if w.most, err = authz.Compile(r.security(s, true), labels, noExpressions); err != nil {
		return w, err
	}
	if w.least, err = authz.Compile(r.security(s, false), labels, noExpressions); err != nil {
		return w, err
	}
	for what := range r.missing {
		w.untold = append(w.untold, what)
	}
	slices.Sort(w.untold)
	return w, nil
}

// reducer takes out of policies what is not known of an entry.
type reducer struct {
	tcp, named bool
	fields     decision.Fields
	missing    map[string]bool
}

// security answers policies in which everything that is not known holds where that allows more; with most false, less.
func (r *reducer) security(s *model.Security, most bool) *model.Security {
	out := *s
	out.Policies = slices.Clone(s.Policies)
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
	if in.Expression != "" && !r.tcp { // on a connection the evaluator leaves it out itself
		r.missing["what an expression looks at"] = true
		if in.Expression = ""; !holds {
			return in, false
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
		if what := r.unknown(&w); what != "" {
			if r.missing[what] = true; !holds {
				return in, false
			}
			continue
		}
		when = append(when, w)
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
	drop := func(what string, lists ...int) {
		for _, n := range lists {
			if n > 0 {
				r.missing[what], whole = true, false
			}
		}
	}
	drop("the caller's address", len(s.IPs), len(s.NotIPs))
	drop("the first client's address", len(s.RemoteIPs), len(s.NotRemoteIPs))
	s.IPs, s.NotIPs, s.RemoteIPs, s.NotRemoteIPs = nil, nil, nil, nil
	if !r.tcp {
		drop("the token", len(s.TokenPrincipals), len(s.NotTokenPrincipals))
		s.TokenPrincipals, s.NotTokenPrincipals = nil, nil
	}
	return s, whole
}

func (r *reducer) target(in *model.PolicyTarget) (model.PolicyTarget, bool) {
	t := *in
	if !r.tcp || r.named || len(t.ServerNames)+len(t.NotServerNames) == 0 {
		return t, true
	}
	r.missing["the server name"] = true
	t.ServerNames, t.NotServerNames = nil, nil
	return t, false
}

// unknown answers what a condition looks at and is not known; "": it is.
func (r *reducer) unknown(w *model.PolicyCondition) string {
	kind := [...]string{"header", "query parameter", "cookie", "claim"}[w.Kind%4]
	switch {
	case r.tcp: // the evaluator leaves it out itself
		return ""
	case w.Kind == model.ConditionHeader && r.fields.Told(w.Kind, strings.ToLower(w.Name)), w.Kind == model.ConditionQuery && r.fields.Told(w.Kind, w.Name):
		return ""
	}
	return kind + " " + w.Name
}
