// Package authz evaluates policies: who asks for what in, a Verdict out. The proxy that enforces, `tulle authz check`,
// what-if and the search for conflicts run this code. A Set is made once per model.Security, is immutable and safe for
// concurrent use; asking it allocates nothing. Pure. Start reading at Compile, then Set.Request.
package authz

import (
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// Attributes is what is known about who asks for what. The zero value of a field means that it is not known, and fits
// nothing but a pattern for the empty text.
type Attributes struct {
	// Of the peer, from its verified certificate; all empty: plaintext.
	Principal, TrustDomain, Namespace string
	Account                           string // "namespace/service account"
	// Federated: the identity is another mesh's. Only a rule that allows and names its trust domain or it lets it in, whatever the
	// default; see Set.Admits.
	Federated    bool
	IP, RemoteIP netip.Addr
	Port         uint16 // of the service
	ServerName   string // SNI of the program's own TLS
	Now          int64  // Unix seconds

	HTTP      bool   // the rest is known
	Method    string //
	Host      string // in lower case, without a port
	Path      string // normalized, without the query
	Procedure string // gRPC: "package.Service/Method"
	Token     string // "issuer/subject" of a verified token
	Fields    Fields // nil: none
}

// Fields answers the values of what conditions name. It must not allocate where asking should not.
type Fields interface {
	// Value answers the i-th value, false beyond the last. Names of headers are in lower case.
	Value(kind model.ConditionKind, name string, i int) (string, bool)
}

// Expression is a compiled expression of a rule.
type Expression interface {
	// Holds answers whether it does; an error is an expression that could not be evaluated, or not within its bounds.
	Holds(a *Attributes) (bool, error)
}

// Looker is an Expression that says what it looks at. Nothing is known of one that is none.
type Looker interface{ Looks() Looks }

// Looks is what an expression looks at, beside the caller's identity, the request's method, host, path and procedure, and the port.
type Looks struct {
	Names  []Name // of fields, cookies and claims
	Others bool   // also those whose names are worked out
	Caller bool   // the address of the other end of the connection
	First  bool   // the first client's
	Token  bool   // "issuer/subject"
	Time   bool   // what the time is
}

// Rule names what decided.
type Rule struct {
	Policy string // "AuthorizationPolicy/default/cart"
	Name   string // of the rule
	Action model.Action
	DryRun bool
}

// Verdict is the answer. Rules point into the Set.
type Verdict struct {
	Allowed bool
	// By decided; nil: nothing was about it, and the default did.
	By *Rule
	// Absent: denied because no rule of the policies that allow held.
	Absent bool
	// Audit is the first auditing rule that held.
	Audit *Rule
	// External has to be asked as well, if Allowed; Authorizer is its name. nil: nobody.
	External   *Rule
	Authorizer string
	// Dry is what would be decided if the policies in dry run were in force, where that is something else; DryBy and DryAbsent as above.
	Dry       bool
	DryBy     *Rule
	DryAbsent bool
}

// Compile makes the Set of a workload with these labels. expressions compiles the expressions of rules; nil: a rule with
// one is an error. An error means that s cannot be enforced as a whole.
func Compile(s *model.Security, labels []model.Label, expressions func(string) (Expression, error)) (*Set, error) {
	c := compiler{deny: s.DenyByDefault, expressions: expressions}
	var dry bool
	for i := range s.Policies {
		p := &s.Policies[i]
		if !has(labels, p.Labels) {
			continue
		}
		rules, err := c.policy(p)
		if err != nil {
			return nil, err
		}
		dry = dry || p.DryRun
		c.policies = append(c.policies, compiled{p, rules})
	}
	out := &Set{inForce: c.ports(false)}
	out.moments, out.clock = c.moments()
	for i := range s.Tokens {
		switch t := &s.Tokens[i]; {
		case !has(labels, t.Labels), !t.Required && len(t.RequiredPaths) == 0:
		case len(t.Ports) == 0:
			out.proven = append(out.proven, 0)
		default:
			out.proven = append(out.proven, t.Ports...)
		}
	}
	if dry {
		out.tried = c.ports(true)
	}
	return out, nil
}

// has reports whether a workload with these labels is one of those.
func has(labels, wanted []model.Label) bool {
	for _, w := range wanted {
		found := false
		for _, l := range labels {
			found = found || l == w
		}
		if !found {
			return false
		}
	}
	return true
}

// Set is compiled policies.
type Set struct {
	inForce ports
	tried   ports // with those in dry run in force; nil: there are none
	// proven are the ports whose requests may need tokens, 0 for every port: what is no request has none.
	proven []uint16
	// moments are when rules in force begin or end, Unix seconds, in order; clock: one looks at the time in another way.
	moments []int64
	clock   bool
}

// ports is what is about each port; 0: about all others.
type ports map[uint16]*port

func (p ports) at(n uint16) *port {
	if one, ok := p[n]; ok {
		return one
	}
	return p[0]
}

// port is what is about one port.
type port struct {
	deny       bool // by default
	allows     bool // there are policies that allow
	http       bool // something is about requests
	tokens     bool // something is about tokens
	names      bool // something is about server names
	principals bool // something is about subjects of tokens
	request    actions
	conn       actions // for connections that are not HTTP
	every      []*rule // those that allow, for Nearest
	fields     []Name  // that conditions and expressions look at
}

// actions is the rules per action: the index of those about every port, which all ports share, and that of a port's own.
type actions [model.ActionAudit + 1][]*index

// first answers the first rule, in their order, that holds.
func (in *actions) first(act model.Action, a *Attributes) (found *rule) {
	for _, x := range in[act] {
		if r := x.first(a); found == nil || r != nil && r.order < found.order {
			found = r
		}
	}
	return found
}

// Request decides about a request, or a connection that is HTTP.
func (s *Set) Request(a *Attributes) Verdict {
	return s.decide(a, func(p *port) *actions { return &p.request })
}

// Connection decides about a connection that is not HTTP: a.HTTP is not looked at. What rules say about requests does not hold
// in those that allow, and is left out of all others.
func (s *Set) Connection(a *Attributes) Verdict {
	return s.decide(a, func(p *port) *actions { return &p.conn })
}

func (s *Set) decide(a *Attributes, of func(*port) *actions) Verdict {
	p := s.inForce.at(a.Port)
	v := p.decide(of(p), a)
	if s.tried == nil {
		return v
	}
	p = s.tried.at(a.Port)
	if w := p.decide(of(p), a); w.Allowed != v.Allowed {
		v.Dry, v.DryBy, v.DryAbsent = true, w.By, w.Absent
	} else if v.Audit == nil {
		v.Audit = w.Audit
	}
	return v
}

func (p *port) decide(in *actions, a *Attributes) (v Verdict) {
	if r := in.first(model.ActionAudit, a); r != nil {
		v.Audit = &r.name
	}
	if r := in.first(model.ActionDeny, a); r != nil {
		v.By = &r.name
		return v
	}
	switch {
	case p.allows || a.Federated:
		r := in.first(model.ActionAllow, a)
		if r == nil {
			v.Absent = true
			return v
		}
		v.By = &r.name
	case p.deny:
		v.Absent = true
		return v
	}
	v.Allowed = true
	if r := in.first(model.ActionExternal, a); r != nil {
		v.External, v.Authorizer = &r.name, r.authorizer
	}
	return v
}

// Moves answers when, after now, a rule in force may begin or cease to hold without anything else having changed: Unix seconds; 0: never.
func (s *Set) Moves(now int64) int64 {
	if s.clock {
		return now + 1
	}
	if i, same := slices.BinarySearch(s.moments, now); same && i+1 < len(s.moments) {
		return s.moments[i+1]
	} else if !same && i < len(s.moments) {
		return s.moments[i]
	}
	return 0
}

// HTTP reports whether something in force looks at requests to a port: then what is not HTTP must not pass for want of a
// request. What is in dry run takes nothing from a port.
func (s *Set) HTTP(n uint16) bool {
	return s.inForce.at(n).http || slices.Contains(s.proven, n) || slices.Contains(s.proven, 0)
}

// ServerNames reports whether something that is or would be in force looks at the server names of connections to a port.
func (s *Set) ServerNames(n uint16) bool {
	return s.inForce.at(n).names || s.tried != nil && s.tried.at(n).names
}

// Admits reports whether a policy in force lets in, on some port, identities of a federated trust domain, because it names it: as a
// trust domain, or at the beginning of a principal. Suffixes, expressions and "*" name nobody.
func (s *Set) Admits(trustDomain string) bool {
	for _, p := range s.inForce {
		for _, r := range p.every {
			for i := range r.from {
				if r.from[i].admits(trustDomain) {
					return true
				}
			}
		}
	}
	return false
}

// Name is one value that conditions and expressions look at.
type Name struct {
	Kind  model.ConditionKind
	Name  string
	Plain bool // as more than a whole: by a pattern, in upper or lower case, or by an expression
}

// Principals reports whether something that is or would be in force looks at the subjects of tokens.
func (s *Set) Principals(n uint16) bool {
	return s.inForce.at(n).principals || s.tried != nil && s.tried.at(n).principals
}

// Names answers what conditions that are or would be in force on a port look at. It is not to be changed.
func (s *Set) Names(n uint16) []Name {
	if s.tried != nil {
		return s.tried.at(n).fields // in which those in force are too
	}
	return s.inForce.at(n).fields
}

// Tokens reports whether something in force on a port looks at tokens or their claims.
func (s *Set) Tokens(n uint16) bool { return s.inForce.at(n).tokens }

// Empty reports whether nothing is ever refused, recorded or asked on any port.
func (s *Set) Empty() bool {
	if len(s.proven) > 0 {
		return false
	}
	for _, all := range []ports{s.inForce, s.tried} {
		for _, p := range all {
			if p.deny || p.allows || !p.request.empty() {
				return false
			}
		}
	}
	return true
}

func (in *actions) empty() bool {
	for _, list := range in {
		for _, x := range list {
			if !x.empty() {
				return false
			}
		}
	}
	return true
}
