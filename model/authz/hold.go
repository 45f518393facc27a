package authz

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// holds reports whether a rule holds. An expression that cannot be evaluated holds unless the rule allows.
func (r *rule) holds(a *Attributes) bool {
	if r.begins != 0 && a.Now < r.begins || r.ends != 0 && a.Now >= r.ends || !r.comes(a) || !r.goes(a) {
		return false
	}
	for i := range r.when {
		if !r.when[i].holds(a) {
			return false
		}
	}
	if r.expression == nil {
		return true
	}
	ok, err := r.expression.Holds(a)
	if err != nil {
		return r.name.Action != model.ActionAllow
	}
	return ok
}

func (r *rule) comes(a *Attributes) bool {
	strict := a.Federated && r.name.Action == model.ActionAllow
	for i := range r.from {
		if r.from[i].holds(a) && (!strict || r.from[i].names(a)) {
			return true
		}
	}
	return len(r.from) == 0 && !strict
}

// names reports whether a source means the peer's trust domain, or the peer, by name.
func (s *source) names(a *Attributes) bool {
	for i := range s.domains.is {
		if t := &s.domains.is[i]; t.Kind == model.StringExact && t.fits(a.TrustDomain) {
			return true
		}
	}
	for i := range s.principals.is {
		if t := &s.principals.is[i]; t.within(a.TrustDomain) && t.fits(a.Principal) {
			return true
		}
	}
	return false
}

// admits reports whether a source means some identity of a trust domain by name.
func (s *source) admits(trustDomain string) bool {
	return slices.ContainsFunc(s.domains.is, func(t text) bool { return t.Kind == model.StringExact && t.fits(trustDomain) }) ||
		slices.ContainsFunc(s.principals.is, func(t text) bool { return t.within(trustDomain) })
}

// within reports whether t, about a principal, fits identities of one trust domain alone, this one.
func (t *text) within(trustDomain string) bool {
	const scheme = "spiffe://"
	n := len(scheme) + len(trustDomain)
	return (t.Kind == model.StringExact || t.Kind == model.StringPrefix) && len(t.Value) > n && t.Value[:len(scheme)] == scheme &&
		t.Value[len(scheme):n] == trustDomain && t.Value[n] == '/'
}

func (r *rule) goes(a *Attributes) bool {
	for i := range r.to {
		if r.to[i].holds(a) {
			return true
		}
	}
	return len(r.to) == 0
}

func (s *source) holds(a *Attributes) bool {
	return s.principals.hold(a.Principal) && s.namespaces.hold(a.Namespace) && s.accounts.hold(a.Account) && s.domains.hold(a.TrustDomain) &&
		s.tokens.hold(a.Token) && s.ips.hold(a.IP) && s.remotes.hold(a.RemoteIP)
}

func (t *target) holds(a *Attributes) bool {
	return t.ports.hold(a.Port) && t.methods.hold(a.Method) && t.hosts.hold(a.Host) && t.procedures.hold(a.Procedure) &&
		t.names.hold(a.ServerName) && t.paths.hold(a.Path)
}

func (c *condition) holds(a *Attributes) bool {
	if a.Fields == nil {
		return len(c.values.is) == 0 && len(c.values.not) > 0
	}
	found := len(c.values.is) == 0 && len(c.values.not) > 0 // only what must not be: absent is well
	for i := 0; ; i++ {
		v, ok := a.Fields.Value(c.kind, c.name, i)
		if !ok {
			return found
		}
		if some(c.values.not, v) {
			return false
		}
		found = found || len(c.values.is) == 0 || some(c.values.is, v)
	}
}

// texts holds for a text that fits one of is (none: any) and none of not.
type texts struct{ is, not []text }

func (t *texts) some() bool { return len(t.is)+len(t.not) > 0 }

func (t *texts) hold(s string) bool {
	return (len(t.is) == 0 || some(t.is, s)) && !some(t.not, s)
}

func some(list []text, s string) bool {
	for i := range list {
		if list[i].fits(s) {
			return true
		}
	}
	return false
}

// text is a compiled model.StringMatch.
type text struct {
	model.StringMatch
	re     *regexp.Regexp
	begins string // what it fits begins with this, for the index
}

func newTexts(is, not []model.StringMatch) (t texts, err error) {
	compile := func(list []model.StringMatch) (out []text, err error) {
		for _, m := range list {
			one, err := newText(m)
			if err != nil {
				return nil, err
			}
			out = append(out, one)
		}
		return out, nil
	}
	if t.is, err = compile(is); err != nil {
		return t, err
	}
	t.not, err = compile(not)
	return t, err
}

func newText(m model.StringMatch) (t text, err error) {
	t.StringMatch, t.begins = m, beginning(m)
	switch {
	case m.Kind == model.StringRegex:
		flags := "(?s)"
		if m.IgnoreCase {
			flags = "(?si)"
		}
		if t.re, err = regexp.Compile(flags + `\A(?:` + m.Value + `)\z`); err != nil {
			return t, fmt.Errorf("expression %q: %w", m.Value, err)
		}
	case m.Kind > model.StringRegex:
		return t, fmt.Errorf("match of kind %d is not known", m.Kind)
	}
	return t, nil
}

func (t *text) fits(s string) bool {
	v := t.Value
	switch t.Kind {
	case model.StringExact:
		return s == v || t.IgnoreCase && strings.EqualFold(s, v)
	case model.StringPrefix:
		return len(s) >= len(v) && (s[:len(v)] == v || t.IgnoreCase && strings.EqualFold(s[:len(v)], v))
	case model.StringSuffix:
		return len(s) >= len(v) && (s[len(s)-len(v):] == v || t.IgnoreCase && strings.EqualFold(s[len(s)-len(v):], v))
	case model.StringContains:
		if !t.IgnoreCase {
			return strings.Contains(s, v)
		}
		for i := 0; i+len(v) <= len(s); i++ {
			if strings.EqualFold(s[i:i+len(v)], v) {
				return true
			}
		}
		return false
	}
	return t.re.MatchString(s)
}

// prefixes holds for addresses. One that is not known is in no prefix.
type prefixes struct{ is, not []netip.Prefix }

func (p *prefixes) hold(a netip.Addr) bool {
	if len(p.is) == 0 && len(p.not) == 0 {
		return true
	}
	a = a.Unmap().WithZone("")
	in := func(q netip.Prefix) bool { return q.Contains(a) }
	if len(p.not) > 0 && (!a.IsValid() || slices.ContainsFunc(p.not, in)) {
		return false
	}
	return len(p.is) == 0 || slices.ContainsFunc(p.is, in)
}

type numbers struct{ is, not []uint16 }

func (n *numbers) hold(v uint16) bool {
	return (len(n.is) == 0 || slices.Contains(n.is, v)) && !slices.Contains(n.not, v)
}

// paths is read as texts is.
type paths struct{ is, not []path }

type path struct {
	text
	template []string // elements; nil: text
}

func newPaths(is, not []model.PolicyPath) (p paths, err error) {
	compile := func(list []model.PolicyPath) (out []path, err error) {
		for _, m := range list {
			one := path{}
			if m.Template {
				one.Value = m.Match.Value
				one.template, err = parseTemplate(m.Match.Value)
			} else {
				one.text, err = newText(m.Match)
			}
			if err != nil {
				return nil, err
			}
			out = append(out, one)
		}
		return out, nil
	}
	if p.is, err = compile(is); err != nil {
		return p, err
	}
	p.not, err = compile(not)
	return p, err
}

func (p *paths) some() bool { return len(p.is)+len(p.not) > 0 }

func (p *paths) hold(s string) bool {
	fits := func(list []path) bool {
		for i := range list {
			if list[i].fits(s) {
				return true
			}
		}
		return false
	}
	return (len(p.is) == 0 || fits(p.is)) && !fits(p.not)
}

func (p *path) fits(s string) bool {
	if p.template == nil {
		return p.text.fits(s)
	}
	return fitsTemplate(p.template, s)
}
