package authz_test

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// answer is a verdict with the names of what it points to.
type answer struct {
	allowed, absent            bool
	by, audit, external, asked string
	dry, dryAbsent             bool
	dryBy                      string
}

func answerOf(v authz.Verdict) answer {
	name := func(r *authz.Rule) string {
		if r == nil {
			return ""
		}
		return r.Policy + " " + r.Name
	}
	return answer{v.Allowed, v.Absent, name(v.By), name(v.Audit), name(v.External), v.Authorizer, v.Dry, v.DryAbsent, name(v.DryBy)}
}

// naive evaluates as the documentation says, rule by rule, without an index: what is asked of policies of a workload.
type naive struct {
	*model.Security
	labels  []model.Label
	a       *authz.Attributes
	request bool
}

func (n naive) verdict() answer {
	v, w := n.decide(false), n.decide(true)
	if v.allowed != w.allowed {
		v.dry, v.dryBy, v.dryAbsent = true, w.by, w.absent
	} else if v.audit == "" {
		v.audit = w.audit
	}
	return v
}

// decide answers with or without the policies in dry run.
func (n naive) decide(dry bool) (v answer) {
	_, v.audit, _ = n.first(model.ActionAudit, dry)
	if _, v.by, _ = n.first(model.ActionDeny, dry); v.by != "" {
		return v
	}
	some, by, _ := n.first(model.ActionAllow, dry)
	if v.by = by; by == "" && (some || n.DenyByDefault || n.a.Federated) {
		v.absent = true
		return v
	}
	v.allowed = true
	_, v.external, v.asked = n.first(model.ActionExternal, dry)
	return v
}

// first answers whether there are policies with this action, and the first rule of them that holds.
func (n naive) first(act model.Action, dry bool) (some bool, rule, asked string) {
	for i := range n.Policies {
		p := &n.Policies[i]
		if p.Action != act || p.DryRun && !dry || len(p.Ports) > 0 && !slices.Contains(p.Ports, n.a.Port) ||
			slices.ContainsFunc(p.Labels, func(l model.Label) bool { return !slices.Contains(n.labels, l) }) {
			continue
		}
		some = true
		for k := range p.Rules {
			if rule == "" && n.holds(act, &p.Rules[k]) {
				rule, asked = p.Name+" "+p.Rules[k].Name, p.Authorizer
			}
		}
	}
	return some, rule, asked
}

func (n naive) holds(act model.Action, r *model.PolicyRule) bool {
	strict := n.a.Federated && act == model.ActionAllow
	one := len(r.From) == 0 && !strict
	for i := range r.From {
		one = one || n.comes(act, &r.From[i]) && (!strict || n.named(&r.From[i]))
	}
	if !one {
		return false
	}
	one = len(r.To) == 0
	for i := range r.To {
		one = one || n.goes(act, &r.To[i])
	}
	if !one || r.Begins != 0 && n.a.Now < r.Begins || r.Ends != 0 && n.a.Now >= r.Ends {
		return false
	}
	if !n.request {
		return act != model.ActionAllow || len(r.When) == 0 && r.Expression == ""
	}
	for i := range r.When {
		if !n.fits(&r.When[i]) {
			return false
		}
	}
	if r.Expression == "" {
		return true
	}
	ok, err := word(r.Expression).Holds(n.a)
	return err == nil && ok || err != nil && act != model.ActionAllow
}

func (n naive) comes(act model.Action, f *model.PolicySource) bool {
	token := texts(f.TokenPrincipals, f.NotTokenPrincipals, n.a.Token)
	if !n.request {
		token = act != model.ActionAllow || len(f.TokenPrincipals)+len(f.NotTokenPrincipals) == 0
	}
	return token && texts(f.Principals, f.NotPrincipals, n.a.Principal) && texts(f.Namespaces, f.NotNamespaces, n.a.Namespace) &&
		texts(f.Accounts, f.NotAccounts, n.a.Account) && texts(f.TrustDomains, f.NotTrustDomains, n.a.TrustDomain) &&
		addresses(f.IPs, f.NotIPs, n.a.IP) && addresses(f.RemoteIPs, f.NotRemoteIPs, n.a.RemoteIP)
}

// named: the source means the federated trust domain, or an identity of it, by name.
func (n naive) named(f *model.PolicySource) bool {
	return slices.ContainsFunc(f.TrustDomains, func(m model.StringMatch) bool { return m.Kind == model.StringExact && match(m, n.a.TrustDomain) }) ||
		slices.ContainsFunc(f.Principals, func(m model.StringMatch) bool {
			return m.Kind <= model.StringPrefix && strings.HasPrefix(m.Value, "spiffe://"+n.a.TrustDomain+"/") && match(m, n.a.Principal)
		})
}

func (n naive) goes(act model.Action, to *model.PolicyTarget) bool {
	path := func(p model.PolicyPath) bool {
		return p.Template && templated(p.Match.Value, n.a.Path) || !p.Template && match(p.Match, n.a.Path)
	}
	http := texts(to.Methods, to.NotMethods, n.a.Method) && texts(to.Hosts, to.NotHosts, n.a.Host) && texts(to.Procedures, to.NotProcedures, n.a.Procedure) &&
		(len(to.Paths) == 0 || slices.ContainsFunc(to.Paths, path)) && !slices.ContainsFunc(to.NotPaths, path)
	if !n.request {
		http = act != model.ActionAllow || len(to.Methods)+len(to.NotMethods)+len(to.Hosts)+len(to.NotHosts)+
			len(to.Procedures)+len(to.NotProcedures)+len(to.Paths)+len(to.NotPaths) == 0
	}
	return http && (len(to.Ports) == 0 || slices.Contains(to.Ports, n.a.Port)) && !slices.Contains(to.NotPorts, n.a.Port) &&
		texts(to.ServerNames, to.NotServerNames, n.a.ServerName)
}

func (n naive) fits(w *model.PolicyCondition) bool {
	name := w.Name
	if w.Kind == model.ConditionHeader {
		name = strings.ToLower(name)
	}
	var values []string
	for i := 0; n.a.Fields != nil; i++ {
		v, ok := n.a.Fields.Value(w.Kind, name, i)
		if !ok {
			break
		}
		values = append(values, v)
	}
	some := func(list []model.StringMatch) bool {
		return slices.ContainsFunc(values, func(v string) bool {
			return slices.ContainsFunc(list, func(m model.StringMatch) bool { return match(m, v) })
		})
	}
	switch {
	case some(w.NotValues):
		return false
	case len(w.Values) > 0:
		return some(w.Values)
	}
	return len(w.NotValues) > 0 || len(values) > 0
}

// word is an expression: about a method, or one that fails for it.
type word string

func (w word) Holds(a *authz.Attributes) (bool, error) {
	if m, ok := strings.CutPrefix(string(w), "fails "); ok && m == a.Method {
		return false, errors.New("too expensive")
	}
	return strings.HasSuffix(string(w), " "+a.Method), nil
}

// expressions compiles words.
func expressions(s string) (authz.Expression, error) { return word(s), nil }

func texts(is, not []model.StringMatch, v string) bool {
	fits := func(m model.StringMatch) bool { return match(m, v) }
	return (len(is) == 0 || slices.ContainsFunc(is, fits)) && !slices.ContainsFunc(not, fits)
}

func match(m model.StringMatch, v string) bool {
	w := m.Value
	if m.Kind == model.StringRegex {
		if m.IgnoreCase {
			w = "(?i)" + w
		}
		return expression(w).MatchString(v)
	}
	if m.IgnoreCase {
		v, w = strings.ToLower(v), strings.ToLower(w)
	}
	switch m.Kind {
	case model.StringPrefix:
		return strings.HasPrefix(v, w)
	case model.StringSuffix:
		return strings.HasSuffix(v, w)
	case model.StringContains:
		return strings.Contains(v, w)
	}
	return v == w
}

func addresses(is, not []string, a netip.Addr) bool {
	in := func(s string) bool { return network(s).Contains(a.Unmap().WithZone("")) }
	return (len(is) == 0 || slices.ContainsFunc(is, in)) && (len(not) == 0 || a.IsValid() && !slices.ContainsFunc(not, in))
}

// templated: what is before "/{rest...}" fits the path up to its end or some slash.
func templated(pattern, path string) bool {
	head, open := strings.CutSuffix(pattern, "/{rest...}")
	if !open {
		return elements(pattern, path)
	}
	for i := range len(path) {
		if path[i] == '/' && elements(head, path[:i]) {
			return true
		}
	}
	return path != "" && elements(head, path)
}

func elements(pattern, path string) bool {
	return slices.EqualFunc(strings.Split(pattern, "/"), strings.Split(path, "/"), func(want, got string) bool {
		return want == got || want == "{id}" && got != ""
	})
}

var (
	compiled = map[string]*regexp.Regexp{}
	parsed   = map[string]netip.Prefix{}
)

func expression(s string) *regexp.Regexp {
	if compiled[s] == nil {
		compiled[s] = regexp.MustCompile("^(?:" + s + ")$")
	}
	return compiled[s]
}

func network(s string) netip.Prefix {
	if _, ok := parsed[s]; !ok {
		parsed[s] = netip.MustParsePrefix(s)
	}
	return parsed[s]
}
