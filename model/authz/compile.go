package authz

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

type compiler struct {
	deny        bool
	expressions func(string) (Expression, error)
	policies    []compiled
	order       int
}

type compiled struct {
	policy *model.Policy
	rules  []*rule
}

// rule is one rule, ready to be held against attributes.
type rule struct {
	name       Rule
	authorizer string
	order      int
	from       []source
	to         []target
	when       []condition
	expression Expression
	begins     int64
	ends       int64
	of         *model.PolicyRule // as it was said, for Nearest
}

type source struct {
	principals, namespaces, accounts, domains, tokens texts
	ips, remotes                                      prefixes
}

type target struct {
	hosts, methods, procedures, names texts
	ports                             numbers
	paths                             paths
}

type condition struct {
	kind   model.ConditionKind
	name   string
	values texts
}

func (c *compiler) policy(p *model.Policy) ([]*rule, error) {
	if p.Action > model.ActionAudit {
		return nil, fmt.Errorf("%s: action %d is not known", p.Name, p.Action)
	}
	out := make([]*rule, 0, len(p.Rules))
	for i := range p.Rules {
		r, err := c.rule(p, &p.Rules[i])
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", p.Name, p.Rules[i].Name, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (c *compiler) rule(p *model.Policy, m *model.PolicyRule) (_ *rule, err error) {
	r := &rule{name: Rule{p.Name, m.Name, p.Action, p.DryRun}, authorizer: p.Authorizer, order: c.order, begins: m.Begins, ends: m.Ends, of: m}
	c.order++
	for i := range m.From {
		s, err := newSource(&m.From[i])
		if err != nil {
			return nil, fmt.Errorf("from[%d]: %w", i, err)
		}
		r.from = append(r.from, s)
	}
	for i := range m.To {
		t, err := newTarget(&m.To[i])
		if err != nil {
			return nil, fmt.Errorf("to[%d]: %w", i, err)
		}
		r.to = append(r.to, t)
	}
	for i := range m.When {
		w := &m.When[i]
		one := condition{kind: w.Kind, name: w.Name}
		if w.Kind == model.ConditionHeader {
			one.name = strings.ToLower(w.Name)
		}
		if one.values, err = newTexts(w.Values, w.NotValues); err != nil {
			return nil, fmt.Errorf("when[%d]: %w", i, err)
		}
		r.when = append(r.when, one)
	}
	if m.Expression != "" {
		if c.expressions == nil {
			return nil, fmt.Errorf("an expression cannot be evaluated here")
		}
		if r.expression, err = c.expressions(m.Expression); err != nil {
			return nil, fmt.Errorf("expression: %w", err)
		}
	}
	return r, nil
}

func newSource(m *model.PolicySource) (s source, err error) {
	for _, one := range []struct {
		to      *texts
		is, not []model.StringMatch
	}{
		{&s.principals, m.Principals, m.NotPrincipals}, {&s.namespaces, m.Namespaces, m.NotNamespaces},
		{&s.accounts, m.Accounts, m.NotAccounts}, {&s.domains, m.TrustDomains, m.NotTrustDomains}, {&s.tokens, m.TokenPrincipals, m.NotTokenPrincipals},
	} {
		if *one.to, err = newTexts(one.is, one.not); err != nil {
			return s, err
		}
	}
	if s.ips, err = newPrefixes(m.IPs, m.NotIPs); err != nil {
		return s, err
	}
	s.remotes, err = newPrefixes(m.RemoteIPs, m.NotRemoteIPs)
	return s, err
}

func newTarget(m *model.PolicyTarget) (t target, err error) {
	for _, one := range []struct {
		to      *texts
		is, not []model.StringMatch
	}{
		{&t.hosts, m.Hosts, m.NotHosts}, {&t.methods, m.Methods, m.NotMethods},
		{&t.procedures, m.Procedures, m.NotProcedures}, {&t.names, m.ServerNames, m.NotServerNames},
	} {
		if *one.to, err = newTexts(one.is, one.not); err != nil {
			return t, err
		}
	}
	t.ports = numbers{m.Ports, m.NotPorts}
	t.paths, err = newPaths(m.Paths, m.NotPaths)
	return t, err
}

func newPrefixes(is, not []string) (p prefixes, err error) {
	parse := func(list []string) (out []netip.Prefix, err error) {
		for _, s := range list {
			one, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, fmt.Errorf("%q is not an address with a length, such as 10.0.0.0/8", s)
			}
			out = append(out, one.Masked())
		}
		return out, nil
	}
	if p.is, err = parse(is); err != nil {
		return p, err
	}
	p.not, err = parse(not)
	return p, err
}

func (s *source) needsRequest() bool { return s.tokens.some() }

func (t *target) needsRequest() bool {
	return t.hosts.some() || t.methods.some() || t.procedures.some() || t.paths.some()
}

// needsRequest reports whether a rule looks at what only a request has.
func (r *rule) needsRequest() bool {
	return slices.ContainsFunc(r.from, func(s source) bool { return s.needsRequest() }) ||
		slices.ContainsFunc(r.to, func(t target) bool { return t.needsRequest() }) ||
		len(r.when) > 0 || r.expression != nil
}

// plain answers a rule without the alternatives that need a request; nil: it cannot hold without one.
func (r *rule) plain() *rule {
	if !r.needsRequest() {
		return r
	}
	b := *r
	b.from = slices.DeleteFunc(slices.Clone(r.from), func(s source) bool { return s.needsRequest() })
	b.to = slices.DeleteFunc(slices.Clone(r.to), func(t target) bool { return t.needsRequest() })
	if len(b.from) == 0 && len(r.from) > 0 || len(b.to) == 0 && len(r.to) > 0 || r.expression != nil || len(r.when) > 0 {
		return nil
	}
	return &b
}

// needsToken reports whether a rule looks at a token.
func (r *rule) needsToken() bool {
	for i := range r.from {
		if r.from[i].tokens.some() {
			return true
		}
	}
	for i := range r.when {
		if r.when[i].kind == model.ConditionClaim {
			return true
		}
	}
	if r.expression == nil {
		return false
	}
	l, ok := r.expression.(Looker)
	if !ok {
		return true
	}
	is := l.Looks()
	return is.Token || is.Others || slices.ContainsFunc(is.Names, func(n Name) bool { return n.Kind == model.ConditionClaim })
}

// bare answers a rule without what only a request has.
func (r *rule) bare() *rule {
	b := *r
	b.from, b.to, b.when, b.expression = slices.Clone(r.from), slices.Clone(r.to), nil, nil
	for i := range b.from {
		b.from[i].tokens = texts{}
	}
	for i := range b.to {
		t := &b.to[i]
		t.hosts, t.methods, t.procedures, t.paths = texts{}, texts{}, texts{}, paths{}
	}
	return &b
}

// ports indexes the policies by port, with or without those in dry run.
func (c *compiler) ports(dry bool) ports {
	shared := port{}
	c.file(&shared, dry, func(of []uint16) bool { return len(of) == 0 })
	out := ports{0: c.port(0, dry, &shared)}
	for _, p := range c.policies {
		for _, n := range p.policy.Ports {
			if _, done := out[n]; !done {
				out[n] = c.port(n, dry, &shared)
			}
		}
	}
	return out
}

// moments answers when rules in force begin and end, in order, and whether one looks at the time in an expression.
func (c *compiler) moments() (list []int64, clock bool) {
	for _, p := range c.policies {
		if p.policy.DryRun {
			continue
		}
		for _, r := range p.rules {
			for _, at := range [...]int64{r.begins, r.ends} {
				if at != 0 {
					list = append(list, at)
				}
			}
			if l, ok := r.expression.(Looker); ok {
				clock = clock || l.Looks().Time
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), clock
}

// looks notes what a rule looks at.
func (p *port) looks(r *rule) {
	add := func(n Name) {
		at := slices.IndexFunc(p.fields, func(o Name) bool { return o.Kind == n.Kind && o.Name == n.Name })
		if at < 0 {
			p.fields = append(p.fields, n)
		} else {
			p.fields[at].Plain = p.fields[at].Plain || n.Plain
		}
	}
	for i := range r.when {
		w := &r.when[i]
		add(Name{w.kind, w.name, !whole(w.values.is) || !whole(w.values.not)})
	}
	for i := range r.from {
		p.principals = p.principals || r.from[i].tokens.some()
	}
	if l, ok := r.expression.(Looker); ok {
		for _, n := range l.Looks().Names {
			add(n)
		}
		p.principals = p.principals || l.Looks().Token
	}
}

// whole reports whether values are compared as a whole.
func whole(list []text) bool {
	return !slices.ContainsFunc(list, func(t text) bool { return t.Kind != model.StringExact || t.IgnoreCase })
}

// port gathers what is about one port, beside the indexes that are shared.
func (c *compiler) port(n uint16, dry bool, shared *port) *port {
	out := &port{deny: c.deny, request: shared.request, conn: shared.conn}
	for _, p := range c.policies {
		if p.policy.DryRun && !dry || len(p.policy.Ports) > 0 && !slices.Contains(p.policy.Ports, n) {
			continue
		}
		act := p.policy.Action
		out.allows = out.allows || act == model.ActionAllow
		for _, r := range p.rules {
			out.http, out.tokens = out.http || r.needsRequest(), out.tokens || r.needsToken()
			out.names = out.names || slices.ContainsFunc(r.to, func(t target) bool { return t.names.some() })
			out.looks(r)
			if act == model.ActionAllow {
				out.every = append(out.every, r)
			}
		}
		out.http = out.http || act == model.ActionExternal
	}
	c.file(out, dry, func(of []uint16) bool { return slices.Contains(of, n) })
	return out
}

// file adds indexes of the policies about some ports.
func (c *compiler) file(to *port, dry bool, about func([]uint16) bool) {
	var request, conn [model.ActionAudit + 1][]*rule
	for _, p := range c.policies {
		if p.policy.DryRun && !dry || !about(p.policy.Ports) {
			continue
		}
		act := p.policy.Action
		for _, r := range p.rules {
			request[act] = append(request[act], r)
			if act == model.ActionAllow {
				r = r.plain()
			} else if r.needsRequest() {
				r = r.bare()
			}
			if r != nil {
				conn[act] = append(conn[act], r)
			}
		}
	}
	add := func(to *actions, rules *[model.ActionAudit + 1][]*rule) {
		for i, list := range rules {
			if len(list) > 0 {
				to[i] = append(slices.Clip(to[i]), newIndex(list))
			}
		}
	}
	add(&to.request, &request)
	add(&to.conn, &conn)
}
