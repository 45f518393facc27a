package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/urlpath"
)

// What the proxies of a caller would say about what is outside of the mesh: proxy/egress, in its order (docs/design/security.md, Egress).

// exit is what is outside of the mesh and asked for: one of these.
type exit struct {
	service model.ServiceName // an ExternalService
	host    string            // in lower case, without the dot at its end
	addr    netip.Addr
}

// Leaves reports whether q is about what is outside of the mesh.
func (c Compiler) Leaves(q *Question) bool {
	_, out, err := c.exit(q)
	return out || err != nil
}

// exit answers what is meant by --to; false: a Service, if anything. A name of a Service is one first. What is no Service's name, or ends with
// a dot, is a host whether or not somebody knows it.
func (c Compiler) exit(q *Question) (x exit, out bool, err error) {
	if addr, err := netip.ParseAddr(q.To); err == nil {
		return exit{addr: addr.Unmap()}, true, nil
	}
	short := Question{To: strings.Replace(q.To, "external~", "", 1), Namespace: q.Namespace}
	name, err := short.Service()
	if err != nil {
		return x, false, err
	}
	if _, ok := c.Services.Service(name); ok && short.To == q.To {
		return x, false, nil
	}
	if n := model.External(name.Namespace, name.Name); c.Index.external(n) != nil {
		return exit{service: n}, true, nil
	}
	if short.To != q.To {
		return x, false, fmt.Errorf("there is no ExternalService %s/%s: correct --to, or apply it", name.Namespace, name.Name)
	}
	host := strings.ToLower(strings.TrimSuffix(q.To, "."))
	known := slices.ContainsFunc(c.Index.beside.Externals, func(o *v1alpha1.ExternalService) bool { return model.Hosted(o.Spec.Hosts, host) })
	foreign := strings.Count(host, ".") > 1 && !strings.HasSuffix(host, clusterDomain) && !strings.Contains(host, "/")
	if known || foreign || host != strings.ToLower(q.To) {
		return exit{host: host}, true, nil
	}
	return x, false, nil
}

// leave answers what the caller's proxies would say.
func (c Compiler) leave(q *Question, x exit, workloads []Workload) ([]Decision, error) {
	if q.From == "" {
		return nil, fmt.Errorf("--to %s is outside of the mesh, where the proxy of the caller decides: say who calls, for example --from cart", q.To)
	}
	caller := &authz.Attributes{}
	if err := q.caller(caller); err != nil {
		return nil, err
	}
	if c.recognise(caller, q.TrustDomain); caller.Federated {
		return nil, fmt.Errorf("--from %s is of another mesh, whose proxies decide what leaves it: ask there", q.From)
	}
	account := strings.TrimPrefix(caller.Account, caller.Namespace+"/")
	each := those(workloads, q.ToLabels, func(w Workload) bool { return w.Service.Namespace == caller.Namespace && w.Account == account })
	return apart(each, func(w Workload) (Decision, error) {
		if w.Service.IsZero() { // none is known: it is taken to be named like its account
			w.Service = model.ServiceName{Namespace: caller.Namespace, Name: account}
		}
		l := leaving{c: c, q: q, e: c.egress(w.Service), caller: *caller, labels: w.Labels}
		return l.decide(x)
	})
}

// leaving is what one workload of a caller asks.
type leaving struct {
	c      Compiler
	q      *Question
	e      model.Egress
	caller authz.Attributes
	labels []model.Label
	d      Decision
}

func (l *leaving) decide(x exit) (Decision, error) {
	l.d.Egress = v1alpha1.EgressAny
	if l.e.Mode == model.EgressRegistry {
		l.d.Egress = v1alpha1.EgressRegistry
	}
	var s *model.EgressService
	switch {
	case !x.service.IsZero():
		if s = l.named(x.service); s == nil {
			l.note("%s is not exported to namespace %s (spec.exportTo), so its hosts are as any others there", fullName(x.service), l.caller.Namespace)
			x.host = l.c.Index.external(x.service).Spec.Hosts[0]
		}
	case x.host != "":
		s = l.find(x.host, l.q.Port)
	}
	var err error
	if s != nil {
		err = l.through(s, x.host)
	} else {
		err = l.past(x)
	}
	return l.d, err
}

func (l *leaving) note(format string, args ...any) {
	l.d.Notes = append(l.d.Notes, fmt.Sprintf(format, args...))
}

func (l *leaving) named(name model.ServiceName) *model.EgressService {
	at := slices.IndexFunc(l.e.Services, func(s model.EgressService) bool { return s.Name == name })
	if at < 0 {
		return nil
	}
	return &l.e.Services[at]
}

// find answers the service that a name belongs to: an exact host comes before a wildcard. port 0: any.
func (l *leaving) find(name string, port uint16) (wild *model.EgressService) {
	for i := range l.e.Services {
		s := &l.e.Services[i]
		switch {
		case port != 0 && !slices.Contains(s.Ports, port):
		case slices.Contains(s.Hosts, name):
			return s
		case wild == nil && model.Hosted(s.Hosts, name):
			wild = s
		}
	}
	return wild
}

// refuse says that it may not leave.
func (l *leaving) refuse(by, why string) {
	l.d.Allowed, l.d.Reason, l.d.Policy, l.d.Why = false, reasonEgress, by, why
	if l.q.Method != "" {
		l.d.Status = http403
	}
}

// through answers for an ExternalService that the caller may know of; host is the one that is called, "": the first.
func (l *leaving) through(s *model.EgressService, host string) error {
	port, err := choose(fullName(s.Name), s.Ports, l.q.Port)
	if err != nil {
		return err
	}
	q := *l.q
	if host == "" {
		host = s.Hosts[0]
	}
	if q.Host != "" {
		host = plainHost(q.Host)
	}
	l.q, l.d.Service, l.d.Port = &q, s.Name.String(), port
	http, named := l.spoken(s.Name, port)
	switch {
	case http && q.Method == "":
		q.Method = "GET"
		l.note("port %d speaks HTTP, so this is about GET %s", port, q.target())
	case !http && q.Method != "":
		l.note("port %d is not declared to speak HTTP: the proxy sees a connection, and no request in it", port)
		q.Method = ""
	}
	if named && q.ServerName != "" {
		host = strings.ToLower(q.ServerName)
	}
	switch {
	case (http || named) && strings.HasPrefix(host, "*"):
		return fmt.Errorf("%s has hosts by pattern: say which is called, with --to HOST or --host HOST", fullName(s.Name))
	case (http || named) && !model.Hosted(s.Hosts, host):
		l.refuse(fullName(s.Name), host+" is none of its hosts")
		return nil
	}
	l.note("%s is outside of the mesh: the proxy of the caller decides (egress mode %s)", fullName(s.Name), l.d.Egress)
	a := l.caller
	a.Port, a.Now = port, q.Now
	if named {
		a.ServerName = host
	} else if !http {
		a.ServerName = strings.ToLower(q.ServerName)
	}
	if http {
		a.HTTP, a.Method, a.Host = true, q.Method, host
	}
	return l.judge(s, &a)
}

// spoken reports whether a port of an ExternalService speaks HTTP, or TLS of the program's own, in which a host must be named.
func (l *leaving) spoken(name model.ServiceName, port uint16) (http, named bool) {
	for _, p := range l.c.Index.external(name).Spec.Ports {
		if uint16(p.Port) == port {
			return p.Protocol == "http" || p.Protocol == "grpc", p.Protocol == "tls"
		}
	}
	return false, false
}

// judge asks the policies of an ExternalService.
func (l *leaving) judge(s *model.EgressService, a *authz.Attributes) error {
	if l.d.Allowed = len(s.Policies) == 0; l.d.Allowed {
		return nil
	}
	set, err := authz.Compile(&model.Security{Name: s.Name, Policies: s.Policies}, l.labels, nil)
	if err != nil {
		return fmt.Errorf("the policies of %s cannot be enforced: %w", fullName(s.Name), err)
	}
	facts := &asking{q: l.q, host: a.Host}
	a.Fields = facts
	if !a.HTTP {
		l.d.tell(set, set.Connection(a), a)
	} else {
		if fault := l.q.see(a, facts); fault != urlpath.None && set.HTTP(a.Port) {
			l.d.unreadable(fault)
			return nil
		}
		l.d.tell(set, set.Request(a), a)
	}
	if !l.d.Allowed {
		l.d.Reason = reasonEgress
	}
	return nil
}

// past answers for a host or an address that is no ExternalService's, as far as the caller knows.
func (l *leaving) past(x exit) error {
	if l.q.Port == 0 {
		return fmt.Errorf("--to %s is outside of the mesh, and rules may be about ports: say which with --port, for example --port 443", l.q.To)
	}
	l.d.Service, l.d.Port = x.host, l.q.Port
	if x.addr.IsValid() {
		l.d.Service = x.addr.String()
	}
	r, unsure := l.rule(x.addr)
	if len(unsure) > 0 {
		l.note("the address of %s decides first where a rule is about it (%s): ask with --to ADDRESS", x.host, strings.Join(unsure, ", "))
	}
	switch mesh := "MeshConfig/" + v1alpha1.MeshConfigName; {
	case r != nil && r.Deny:
		l.refuse(r.Policy, "an egress rule denies it")
		return nil
	case r != nil:
		l.d.Allowed, l.d.Policy, l.d.Why = true, r.Policy, "an egress rule allows it"
		return nil
	case l.e.Mode == model.EgressRegistry:
		l.refuse(mesh, "egress mode Registry, and this is no ExternalService's that the caller may call")
		return nil
	}
	// With mode Any what the program says is looked at where a policy is about it.
	said := plainHost(l.q.ServerName)
	if said == "" {
		said = plainHost(l.q.Host)
	}
	if s := l.find(said, l.q.Port); x.addr.IsValid() && said != "" && s != nil {
		a := l.caller
		a.Port, a.ServerName, a.Host, a.Now = l.q.Port, said, said, l.q.Now
		return l.judge(s, &a)
	}
	l.d.Allowed, l.d.Why = true, "egress mode Any, and this is no ExternalService's that the caller may call"
	return nil
}

// rule answers the first egress rule that fits; unsure are those before it that are about addresses, where none is known.
func (l *leaving) rule(addr netip.Addr) (r *model.EgressRule, unsure []string) {
	for i := range l.e.Rules {
		r := &l.e.Rules[i]
		switch {
		case slices.ContainsFunc(r.Labels, func(x model.Label) bool { return !slices.Contains(l.labels, x) }):
		case len(r.Ports) > 0 && !slices.Contains(r.Ports, l.q.Port):
		case len(r.Addresses) == 0:
			return r, unsure
		case !addr.IsValid():
			unsure = append(unsure, r.Policy)
		case slices.ContainsFunc(r.Addresses, func(text string) bool { p, err := netip.ParsePrefix(text); return err == nil && p.Contains(addr) }):
			return r, nil
		}
	}
	return nil, unsure
}
