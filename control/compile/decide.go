package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
)

// Question is who would ask for what: everything that policies look at. Names of services are without their namespace, which
// is beside them, or "name.namespace", or "namespace/name".
type Question struct {
	From      string `json:"from,omitempty"`      // a service account, or a SPIFFE ID; "": nobody who proves who he is
	To        string `json:"to"`                  // a service
	Namespace string `json:"namespace,omitempty"` // of both, where they do not say
	Port      uint16 `json:"port,omitempty"`      // of the service; 0: the only one that it has
	// Method and the rest of a request; without Method it is a connection that is not HTTP.
	Method     string      `json:"method,omitempty"`
	Path       string      `json:"path,omitempty"` // with its query
	Host       string      `json:"host,omitempty"` // default: the service's name
	Procedure  bool        `json:"grpc,omitempty"` // a gRPC call: the path says the procedure
	Headers    []NameValue `json:"headers,omitempty"`
	IP         string      `json:"ip,omitempty"`
	RemoteIP   string      `json:"remoteIP,omitempty"` // default: IP
	ServerName string      `json:"serverName,omitempty"`
	Token      string      `json:"token,omitempty"` // "issuer/subject"
	Claims     []NameValue `json:"claims,omitempty"`
	// ToLabels are those of the workload that is asked; nil: of each that there is.
	ToLabels []model.Label `json:"toLabels,omitempty"`
	// TrustDomain of accounts, Now in Unix seconds: filled in by who answers.
	TrustDomain string `json:"-"`
	Now         int64  `json:"time,omitempty"`
}

// Decision is what the proxies of one service would say.
type Decision struct {
	Service string        `json:"service"` // "reviews.default"
	Port    uint16        `json:"port"`
	Labels  []model.Label `json:"labels,omitempty"` // of the workloads that would say so, where policies tell them apart
	Allowed bool          `json:"allowed"`
	Policy  string        `json:"policy,omitempty"` // that decided, and its rule
	Rule    string        `json:"rule,omitempty"`
	Absent  bool          `json:"absent,omitempty"` // denied because nothing allows it
	Nearest string        `json:"nearest,omitempty"`
	Near    string        `json:"nearestRule,omitempty"`
	Missing []string      `json:"missing,omitempty"`
	Audit   string        `json:"audit,omitempty"`
	// Authorizer has the last word if it is allowed.
	Authorizer string `json:"authorizer,omitempty"`
	// Dry is what would be decided if the policies in dry run were in force, where that is something else.
	Dry       bool   `json:"dry,omitempty"`
	DryPolicy string `json:"dryPolicy,omitempty"`
	DryRule   string `json:"dryRule,omitempty"`
	DryAbsent bool   `json:"dryAbsent,omitempty"`
}

// Decide answers q as the proxies of the service would, with their evaluator: once, or for workloads with different labels each
// where labels decide. workloads are the labels of those that there are.
func (c Compiler) Decide(q *Question, workloads [][]model.Label) ([]Decision, error) {
	name, err := q.Service()
	if err != nil {
		return nil, err
	}
	s, ok := c.Security(name)
	if _, known := c.Services.Service(name); !ok || !known { // what pure clients are called has policies, and nobody can ask it
		return nil, fmt.Errorf("there is no Service %s: correct --to, apply it, or start a workload of it", name)
	}
	port, err := c.asked(name, q.Port)
	if err != nil {
		return nil, err
	}
	a, err := q.attributes(name, port)
	if err != nil {
		return nil, err
	}
	own := cmp.Or(q.TrustDomain, v1alpha1.DefaultTrustDomain)
	a.Federated = a.TrustDomain != "" && a.TrustDomain != own && !slices.Contains(c.ours(), a.TrustDomain)
	if q.ToLabels != nil || len(workloads) == 0 {
		workloads = [][]model.Label{q.ToLabels}
	}
	var out []Decision
	for _, labels := range workloads {
		d, err := decision(s, labels, a)
		if err != nil {
			return nil, err
		}
		d.Service, d.Port = name.String(), port
		if !slices.ContainsFunc(out, func(o Decision) bool { o.Labels = nil; return slices.Equal(d.key(), o.key()) }) {
			d.Labels = labels
			out = append(out, d)
		}
	}
	if len(out) == 1 {
		out[0].Labels = nil
	}
	return out, nil
}

// key is what makes decisions differ.
func (d *Decision) key() []string {
	return append([]string{fmt.Sprint(d.Allowed, d.Absent, d.Dry, d.DryAbsent), d.Policy, d.Rule, d.Nearest, d.Near, d.Audit, d.Authorizer, d.DryPolicy, d.DryRule}, d.Missing...)
}

func decision(s *model.Security, labels []model.Label, a *authz.Attributes) (d Decision, err error) {
	set, err := authz.Compile(s, labels, cel.Compile)
	if err != nil {
		return d, fmt.Errorf("the policies of %s cannot be enforced: %w", s.Name, err)
	}
	v := set.Connection(a)
	if a.HTTP {
		v = set.Request(a)
	}
	d = Decision{Allowed: v.Allowed, Absent: v.Absent, Dry: v.Dry, DryAbsent: v.DryAbsent, Authorizer: v.Authorizer}
	if v.By != nil {
		d.Policy, d.Rule = v.By.Policy, v.By.Name
	}
	if v.Audit != nil {
		d.Audit = v.Audit.Policy
	}
	if v.DryBy != nil {
		d.DryPolicy, d.DryRule = v.DryBy.Policy, v.DryBy.Name
	}
	if !v.Absent {
		return d, nil
	}
	if r, missing := set.Nearest(a, a.HTTP); r != nil {
		d.Nearest, d.Near = r.Policy, r.Name
		for _, m := range missing {
			d.Missing = append(d.Missing, m.String())
		}
	}
	return d, nil
}

// Service answers the service that is asked.
func (q *Question) Service() (model.ServiceName, error) {
	ns, name := q.named(q.To)
	if n, err := model.ParseServiceName(q.To); err == nil {
		return n, nil
	}
	if name == "" {
		return model.ServiceName{}, fmt.Errorf("--to names no Service: write reviews, or reviews.shop for another namespace")
	}
	return model.ServiceName{Namespace: ns, Name: name}, nil
}

// named reads "name" and "namespace/name".
func (q *Question) named(s string) (namespace, name string) {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return ns, name
	}
	return cmp.Or(q.Namespace, "default"), s
}

// asked answers the port that is meant.
func (c Compiler) asked(name model.ServiceName, port uint16) (uint16, error) {
	s, _ := c.Services.Service(name)
	var have []string
	for _, p := range s.Ports {
		if p.Port == port {
			return port, nil
		}
		have = append(have, fmt.Sprint(p.Port))
	}
	switch {
	case port == 0 && len(s.Ports) == 1:
		return s.Ports[0].Port, nil
	case len(have) == 0:
		return 0, fmt.Errorf("%s has no port, so nobody can ask it anything", name)
	case port == 0:
		return 0, fmt.Errorf("%s has the ports %s: say which with --port", name, strings.Join(have, ", "))
	}
	return 0, fmt.Errorf("%s has no port %d: it has %s", name, port, strings.Join(have, ", "))
}

func (q *Question) attributes(to model.ServiceName, port uint16) (*authz.Attributes, error) {
	a := &authz.Attributes{Port: port, ServerName: strings.ToLower(q.ServerName), Now: q.Now, Token: q.Token}
	if err := q.caller(a); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"--ip", q.IP, &a.IP}, {"--remote-ip", cmp.Or(q.RemoteIP, q.IP), &a.RemoteIP}} {
		if one.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(one.text)
		if err != nil {
			return nil, fmt.Errorf("%s %q is not an address", one.flag, one.text)
		}
		*one.to = addr.Unmap()
	}
	f := asking{q: q}
	a.Fields = &f
	if q.Method == "" {
		return a, nil
	}
	var query string
	a.HTTP, a.Method, a.Host = true, q.Method, strings.ToLower(cmp.Or(q.Host, to.Name))
	a.Path, query, _ = strings.Cut(cmp.Or(q.Path, "/"), "?")
	f.readQuery(query)
	if q.Procedure {
		a.Procedure = strings.TrimPrefix(a.Path, "/")
	}
	return a, nil
}

// caller fills in who asks.
func (q *Question) caller(a *authz.Attributes) error {
	switch {
	case q.From == "":
		return nil
	case strings.HasPrefix(q.From, "spiffe://"):
		domain, rest, _ := strings.Cut(strings.TrimPrefix(q.From, "spiffe://"), "/")
		parts := strings.Split(rest, "/")
		if len(parts) != 4 || parts[0] != "ns" || parts[2] != "sa" {
			return fmt.Errorf("--from %q is not a SPIFFE ID of a workload, such as spiffe://tulle.local/ns/default/sa/cart", q.From)
		}
		a.Principal, a.TrustDomain, a.Namespace, a.Account = q.From, domain, parts[1], parts[1]+"/"+parts[3]
		return nil
	}
	ns, name := q.named(q.From)
	if n, err := model.ParseServiceName(q.From); err == nil && !strings.Contains(q.From, "/") {
		ns, name = n.Namespace, n.Name
	}
	a.TrustDomain, a.Namespace, a.Account = cmp.Or(q.TrustDomain, "tulle.local"), ns, ns+"/"+name
	a.Principal = "spiffe://" + a.TrustDomain + "/ns/" + ns + "/sa/" + name
	return nil
}

// Expressions answers what is wrong with the expressions of a policy; nothing that is may be stored.
func Expressions(o v1alpha1.Object) (out []Note) {
	p, ok := o.(*v1alpha1.AuthorizationPolicy)
	if !ok {
		return nil
	}
	for i, r := range p.Spec.Rules {
		if r.Expression == "" {
			continue
		}
		if _, err := cel.Compile(r.Expression); err != nil {
			out = append(out, Note{Path: fmt.Sprintf("spec.rules[%d].expression", i), Message: err.Error()})
		}
	}
	return out
}
