// Package egress decides whom the program of a workload may talk to outside of the mesh: what is configured (model.Egress),
// what the program was told by DNS (Memory), and what it then says itself (SNI, Host) in, an Exit or a reason out. What DNS
// said comes first, what the program says must fit it: an address alone opens nothing that a name is needed for.
//
// A Table is immutable and safe for concurrent use, a Memory is safe for concurrent use. No I/O; time is an argument. Start
// reading at Table.Address.
package egress

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// Caller is the workload.
type Caller struct {
	Principal   string // SPIFFE ID
	TrustDomain string
	Namespace   string
	Account     string // "namespace/service account"
	Labels      []model.Label
}

// Exit is what becomes of a connection to an address outside of the mesh.
type Exit struct {
	Why     failure.Reason // not None: it is refused
	By      string         // what refused it, where no policy of an ExternalService did: a rule, or the mode
	Cause   string         // likewise
	Judged  Judged         // of whom policies of an ExternalService were asked
	Peek    bool           // what the program says first decides: see Named
	Service model.PortName // not zero: it is a connection to this port
	Said    Said           // of the policies of an ExternalService, where they were asked
}

// Said is what the policies of an ExternalService say. The zero value: none was asked.
type Said struct {
	authz.Verdict
	Asked bool
	Cause string // of a refusal for which none was asked
}

// Judged is an ExternalService, and the name as which policies about it were asked.
type Judged struct {
	Service model.ServiceName
	Name    string
}

// Table is a model.Egress, compiled.
type Table struct {
	mode     model.EgressMode
	rules    []rule
	services []*service
	byName   map[model.ServiceName]*service
	caller   Caller
}

type rule struct {
	*model.EgressRule
	prefixes []netip.Prefix
}

type service struct {
	model.EgressService
	set *authz.Set // nil: nothing is said about it
}

// Compile makes the Table of a workload. An error means that m cannot be enforced as a whole.
func Compile(m *model.Egress, caller Caller) (*Table, error) {
	t := &Table{mode: m.Mode, caller: caller, byName: map[model.ServiceName]*service{}}
	for i := range m.Rules {
		r := rule{EgressRule: &m.Rules[i]}
		if !labelled(caller.Labels, r.Labels) {
			continue
		}
		for _, a := range r.Addresses {
			p, err := netip.ParsePrefix(a)
			if err != nil {
				return nil, fmt.Errorf("egress rule %s: %w", r.Policy, err)
			}
			r.prefixes = append(r.prefixes, p)
		}
		t.rules = append(t.rules, r)
	}
	for i := range m.Services {
		s := &service{EgressService: m.Services[i]}
		if len(s.Policies) > 0 {
			set, err := authz.Compile(&model.Security{Name: s.Name, Policies: s.Policies}, caller.Labels, nil)
			if err != nil {
				return nil, fmt.Errorf("policies of %s: %w", s.Name, err)
			}
			s.set = set
		}
		t.services = append(t.services, s)
		t.byName[s.Name] = s
	}
	return t, nil
}

func labelled(has, wanted []model.Label) bool {
	return !slices.ContainsFunc(wanted, func(l model.Label) bool { return !slices.Contains(has, l) })
}

// find answers the service that a name belongs to: an exact host comes before a wildcard. port 0: any.
func (t *Table) find(name string, port uint16) (wild *service) {
	for _, s := range t.services {
		if port != 0 && !slices.Contains(s.Ports, port) {
			continue
		}
		if slices.Contains(s.Hosts, name) {
			return s
		}
		if wild == nil && model.Hosted(s.Hosts, name) {
			wild = s
		}
	}
	return wild
}

// Host answers what a name that the program looks up means: the service whose virtual addresses are the answer (virtual), or
// one whose real addresses are to be remembered. known is false for every other name. name is in lower case, without a dot at
// its end.
func (t *Table) Host(name string) (service model.ServiceName, virtual, known bool) {
	s := t.find(name, 0)
	if s == nil {
		return model.ServiceName{}, false, false
	}
	return s.Name, !s.Original, true
}

// Address decides about an address that is no virtual one, before anything was said. names are those that the program was told
// to have it.
func (t *Table) Address(to netip.AddrPort, names []string) Exit {
	var found []*service
	other := false // a name of the address is nobody's
	for _, n := range names {
		s := t.find(n, to.Port())
		if s == nil {
			other = true
		} else if !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 1 && !other && found[0].Original:
		return Exit{Service: model.PortName{Service: found[0].Name, Port: to.Port()}}
	case len(found) > 0:
		return Exit{Peek: true}
	}
	if e, decided := t.byRule(to); decided {
		return e
	}
	if t.mode == model.EgressRegistry {
		return t.unknown()
	}
	return Exit{Peek: slices.ContainsFunc(t.services, func(s *service) bool { return s.set != nil && slices.Contains(s.Ports, to.Port()) })}
}

// unknown refuses what nothing allows, with mode Registry.
func (t *Table) unknown() Exit {
	return Exit{Why: failure.EgressDenied, By: "MeshConfig/mesh mode Registry", Cause: "no egress rule allows the address, and it is no ExternalService's as far as DNS has told"}
}

func (t *Table) byRule(to netip.AddrPort) (Exit, bool) {
	for _, r := range t.rules {
		fits := len(r.prefixes) == 0 || slices.ContainsFunc(r.prefixes, func(p netip.Prefix) bool { return p.Contains(to.Addr()) })
		if !fits || len(r.Ports) > 0 && !slices.Contains(r.Ports, to.Port()) {
			continue
		}
		if r.Deny {
			return Exit{Why: failure.EgressDenied, By: r.Policy, Cause: "an egress rule denies the address"}, true
		}
		return Exit{}, true
	}
	return Exit{}, false
}

// Named decides where Address has asked for what the program says: its SNI or Host, in lower case without a port, "" where it
// says none. now is the time, Unix seconds: rules may begin and end.
func (t *Table) Named(to netip.AddrPort, names []string, said string, now int64) Exit {
	fits := slices.Contains(names, said)
	if s := t.find(said, to.Port()); said != "" && s != nil && (fits || t.mode == model.EgressAny && len(names) == 0) {
		if s.Original && fits {
			return Exit{Service: model.PortName{Service: s.Name, Port: to.Port()}}
		}
		why, says := t.decide(s, &authz.Attributes{Port: to.Port(), ServerName: said, Host: said, Now: now})
		if why != failure.None {
			return Exit{Why: why, Judged: Judged{s.Name, said}, Said: says}
		}
		if t.mode == model.EgressAny {
			return Exit{Said: says}
		}
	}
	if !fits { // what DNS said counts, whatever is said now
		for _, n := range names {
			s := t.find(n, to.Port())
			if s == nil || s.set == nil {
				continue
			}
			if why, says := t.decide(s, &authz.Attributes{Port: to.Port(), ServerName: n, Host: n, Now: now}); why != failure.None {
				return Exit{Why: why, Judged: Judged{s.Name, n}, Said: says}
			}
		}
	}
	if e, decided := t.byRule(to); decided {
		return e
	}
	if t.mode == model.EgressRegistry {
		return t.unknown()
	}
	return Exit{}
}

// decide asks the policies of a service about the caller; a holds what is asked for.
func (t *Table) decide(s *service, a *authz.Attributes) (why failure.Reason, said Said) {
	if s.set == nil {
		return failure.None, said
	}
	t.ask(a)
	if said.Asked = true; a.HTTP {
		said.Verdict = s.set.Request(a)
	} else {
		said.Verdict = s.set.Connection(a)
	}
	if !said.Allowed {
		return failure.EgressDenied, said
	}
	return failure.None, said
}

func (t *Table) ask(a *authz.Attributes) {
	a.Principal, a.TrustDomain, a.Namespace, a.Account = t.caller.Principal, t.caller.TrustDomain, t.caller.Namespace, t.caller.Account
}

// Nearest answers, of a denial because no policy of an ExternalService allows it, the set of its policies, and says in a who asks; nil:
// there is none. a holds what was asked for.
func (t *Table) Nearest(of model.ServiceName, a *authz.Attributes) *authz.Set {
	s := t.byName[of]
	if s == nil {
		return nil
	}
	t.ask(a)
	return s.set
}

// Moves answers when, after now, time alone may change what is decided: Unix seconds; 0: never.
func (t *Table) Moves(now int64) (next int64) {
	for _, s := range t.services {
		if s.set == nil {
			continue
		}
		if at := s.set.Moves(now); at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	return next
}

// Knows reports whether there is such an ExternalService.
func (t *Table) Knows(name model.ServiceName) bool { return t.byName[name] != nil }

// Paths reports whether policies about a port of an ExternalService look at requests.
func (t *Table) Paths(to model.PortName) bool {
	s := t.byName[to.Service]
	return s != nil && s.set != nil && s.set.HTTP(to.Port)
}

// Connection decides about a connection that is not HTTP, to a port of an ExternalService; sni is "" where none was said, and
// named: it must be said, and be one of the service's hosts. virtual: the program called a virtual address.
func (t *Table) Connection(to model.PortName, sni string, named, virtual bool, now int64) (failure.Reason, Said) {
	s := t.byName[to.Service]
	switch {
	case s == nil:
		return failure.EgressDenied, Said{Cause: notThere}
	case s.Original && virtual:
		return failure.EgressDenied, Said{Cause: "a virtual address was called, and it has none"}
	case named && !model.Hosted(s.Hosts, sni):
		return failure.EgressDenied, Said{Cause: "the server name is none of its hosts"}
	}
	return t.decide(s, &authz.Attributes{Port: to.Port, ServerName: sni, Now: now})
}

// Request decides about a request to a port of an ExternalService; a holds what is asked for, Host in lower case without a
// port. direct: the program called the service itself, so Host must be one of its hosts.
func (t *Table) Request(to model.PortName, a *authz.Attributes, direct bool) (failure.Reason, Said) {
	s := t.byName[to.Service]
	switch {
	case s == nil:
		return failure.EgressDenied, Said{Cause: notThere}
	case direct && !model.Hosted(s.Hosts, a.Host):
		return failure.EgressDenied, Said{Cause: "the request's host is none of its hosts"}
	}
	a.Port, a.HTTP = to.Port, true
	return t.decide(s, a)
}

const notThere = "there is no such ExternalService"
