package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
	"github.com/tulle-mesh/tulle/model/urlpath"
)

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
	// Reason of a refusal (docs/reference/failures.md), and what a request is answered; Status 0: the connection ends. Why says it in
	// words, where something else than a rule decides: Policy, if it has a name, and no Rule.
	Reason string `json:"reason,omitempty"`
	Status int    `json:"status,omitempty"`
	Why    string `json:"why,omitempty"`
	// Egress is the mode for what is outside of the mesh, "Any" or "Registry", where that was asked about: the caller's proxies decide.
	Egress string `json:"egress,omitempty"`
	// Notes say what else there is to know.
	Notes []string `json:"notes,omitempty"`
	// Authorizer has the last word if it is allowed.
	Authorizer string `json:"authorizer,omitempty"`
	// Dry is what would be decided if the policies in dry run were in force, where that is something else.
	Dry       bool   `json:"dry,omitempty"`
	DryPolicy string `json:"dryPolicy,omitempty"`
	DryRule   string `json:"dryRule,omitempty"`
	DryAbsent bool   `json:"dryAbsent,omitempty"`
}

// Workload is one that there is.
type Workload struct {
	Service model.ServiceName
	Account string // in the service's namespace
	Labels  []model.Label
}

// Decide answers q as the proxies of the service would, or, about what is outside of the mesh, those of the caller, with their evaluator:
// once, or for workloads with different labels each where labels decide. workloads are those that there are.
func (c Compiler) Decide(q *Question, workloads []Workload) ([]Decision, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	known := *q
	known.TrustDomain = c.trustDomain(q)
	x, out, err := c.exit(q)
	if err != nil {
		return nil, err
	}
	if out {
		return c.leave(&known, x, workloads)
	}
	name, err := q.Service()
	if err != nil {
		return nil, err
	}
	s, ok := c.Security(name)
	served, is := c.Services.Service(name)
	if !ok || !is { // what pure clients are called has policies, and nobody can ask it
		return nil, fmt.Errorf("there is no Service %s, nor an ExternalService with that name or host: correct --to, apply it, or start a workload of it", name)
	}
	var have []uint16
	for _, p := range served.Ports {
		have = append(have, p.Port)
	}
	port, err := choose(name.String(), have, q.Port)
	if err != nil {
		return nil, err
	}
	a, err := known.attributes(name.Name, port)
	if err != nil {
		return nil, err
	}
	c.recognise(a, known.TrustDomain)
	return apart(those(workloads, q.ToLabels, func(w Workload) bool { return w.Service == name }), func(w Workload) (Decision, error) {
		one := *a
		d, err := known.judge(s, w.Labels, &one)
		d.Service, d.Port = name.String(), port
		return d, err
	})
}

// those answers the workloads that are meant: at least one, with these labels where they are said.
func those(workloads []Workload, labels []model.Label, meant func(Workload) bool) (out []Workload) {
	for _, w := range workloads {
		if labels == nil && meant(w) {
			out = append(out, w)
		}
	}
	if len(out) == 0 {
		out = []Workload{{Labels: labels}}
	}
	return out
}

// trustDomain answers the mesh's own.
func (c Compiler) trustDomain(q *Question) string {
	said := ""
	if m := c.Index.security.mesh; m != nil {
		said = m.TrustDomain
	}
	return cmp.Or(q.TrustDomain, said, v1alpha1.DefaultTrustDomain)
}

// recognise writes a caller as proxies know it: an alias is the mesh's own trust domain.
func (c Compiler) recognise(a *authz.Attributes, own string) {
	switch {
	case a.TrustDomain == "" || a.TrustDomain == own:
	case slices.Contains(c.ours(), a.TrustDomain):
		a.Principal = "spiffe://" + own + strings.TrimPrefix(a.Principal, "spiffe://"+a.TrustDomain)
		a.TrustDomain = own
	default:
		a.Federated = true
	}
}

// apart answers what is decided for different workloads: one decision where it is the same for all.
func apart(each []Workload, decide func(Workload) (Decision, error)) (out []Decision, err error) {
	for _, w := range each {
		d, err := decide(w)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(o Decision) bool { return slices.Equal(d.key(), o.key()) }) {
			d.Labels = w.Labels
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
	return slices.Concat([]string{fmt.Sprint(d.Allowed, d.Absent, d.Dry, d.DryAbsent, d.Status), d.Reason, d.Why, d.Policy, d.Rule, d.Nearest, d.Near, d.Audit, d.Authorizer, d.DryPolicy, d.DryRule},
		d.Missing, d.Notes)
}

// judge answers what the proxy of a workload with these labels would say: who calls is looked at first, then whether there is the token that
// is wanted, then policies are asked (docs/design/security.md, the order in the workload's proxy).
func (q *Question) judge(s *model.Security, labels []model.Label, a *authz.Attributes) (d Decision, err error) {
	set, err := authz.Compile(s, labels, cel.Compile)
	if err != nil {
		return d, fmt.Errorf("the policies of %s cannot be enforced: %w", s.Name, err)
	}
	gate, err := NewGate(s, a.Port, labels)
	if err != nil {
		return d, fmt.Errorf("the policies of %s cannot be enforced: %w", s.Name, err)
	}
	if q.unknown(&d, gate, a) {
		return d, nil
	}
	facts := &asking{q: q, host: cmp.Or(q.Host, a.Host)}
	a.Fields = facts
	if !a.HTTP {
		d.connection(set, a)
		return d, nil
	}
	fault := q.see(a, facts)
	if fault != urlpath.None && (len(gate.Paths) > 0 || set.HTTP(a.Port)) {
		d.unreadable(fault)
		return d, nil
	}
	if q.unproven(&d, gate, a, facts) {
		return d, nil
	}
	d.tell(set, set.Request(a), a)
	return d, nil
}

// see makes the path what policies judge (model/urlpath), and takes the query apart. What is refused where somebody judges it is seen as it is.
func (q *Question) see(a *authz.Attributes, facts *asking) urlpath.Fault {
	path, query, _ := strings.Cut(q.target(), "?")
	facts.readQuery(query)
	p, _, fault := urlpath.Normalize(nil, []byte(path))
	if a.Path = string(p.Seen); fault != urlpath.None {
		a.Path = path
	}
	if q.Procedure {
		a.Procedure = strings.TrimPrefix(a.Path, "/")
	}
	return fault
}

// Reasons of proxy/failure for what is refused before policies are asked, or beside them.
const (
	reasonBadRequest   = "bad_request"
	reasonNotHTTP      = "not_http"
	reasonMTLS         = "mtls_required"
	reasonTokenMissing = "token_missing"
	reasonTokenInvalid = "token_invalid"
	reasonDenied       = "authz_denied"
	reasonEgress       = "egress_denied"
)

func (d *Decision) unreadable(fault urlpath.Fault) {
	d.Status, d.Reason, d.Why = http400, reasonBadRequest, "path: "+fault.String()
}

// What proxies answer.
const (
	http400 = 400
	http401 = 401
	http403 = 403
)

// unknown reports whether who calls is refused, whatever is asked for.
func (q *Question) unknown(d *Decision, gate *Gate, a *authz.Attributes) bool {
	switch strict := gate.Strict(); {
	case a.Principal == "" && strict != "":
		d.Reason, d.Policy, d.Why = reasonMTLS, strict, "mTLS mode Strict, and the caller proves no identity: name it with --from"
		if a.HTTP {
			d.Status = http403
		}
		return true
	case a.Principal == "" || q.Revoked == nil:
		return false
	}
	if d.Why = q.Revoked(a.Principal); d.Why != "" {
		d.Policy = "revocation of " + a.Principal
	}
	return d.Why != ""
}

// connection asks about what is not HTTP. A port whose requests somebody looks at takes nothing else (proxy/relay.Ask).
func (d *Decision) connection(set *authz.Set, a *authz.Attributes) {
	d.tell(set, set.Connection(a), a)
	if d.Allowed && set.HTTP(a.Port) {
		*d = Decision{Reason: reasonNotHTTP, Why: "policies look at the requests of this port, so it takes HTTP and nothing else: ask with --method and --path"}
	}
}

// unproven reports whether a request is refused for its token or for want of one, and says which token counts.
func (q *Question) unproven(d *Decision, gate *Gate, a *authz.Attributes, facts *asking) bool {
	bears := q.Token != "" || len(q.Claims) > 0
	if gate.Issuers == "" {
		if bears {
			d.Notes = append(d.Notes, "no AuthenticationPolicy says whose tokens are believed here: the token and its claims are not looked at")
		}
		return false
	}
	if !bears {
		by := gate.Wants(a.Path)
		if by == "" || q.preflight() {
			return false
		}
		d.Status, d.Reason, d.Policy, d.Why = http401, reasonTokenMissing, by, "a token is required, and the request has none: name it with --token"
		return true
	}
	believed := func(t *model.TokenIssuer) bool { return strings.HasPrefix(q.Token, t.Issuer+"/") }
	if q.Token != "" && !slices.ContainsFunc(gate.of, believed) {
		t := gate.of[0]
		d.Status, d.Reason, d.Policy, d.Why = http401, reasonTokenInvalid, t.Name, fmt.Sprintf("the token is of another issuer than %s", t.Issuer)
		return true
	}
	a.Token, facts.bears = q.Token, true
	return false
}

// tell says what policies do.
func (d *Decision) tell(set *authz.Set, v authz.Verdict, a *authz.Attributes) {
	d.Allowed, d.Absent, d.Dry, d.DryAbsent, d.Authorizer = v.Allowed, v.Absent, v.Dry, v.DryAbsent, v.Authorizer
	if v.By != nil {
		d.Policy, d.Rule = v.By.Policy, v.By.Name
	}
	if v.Audit != nil {
		d.Audit = v.Audit.Policy
	}
	if v.DryBy != nil {
		d.DryPolicy, d.DryRule = v.DryBy.Policy, v.DryBy.Name
	}
	if !v.Allowed {
		if d.Reason = reasonDenied; a.HTTP {
			d.Status = http403
		}
	}
	if !v.Absent {
		return
	}
	if r, missing := set.Nearest(a, a.HTTP); r != nil {
		d.Nearest, d.Near = r.Policy, r.Name
		for _, m := range missing {
			d.Missing = append(d.Missing, m.String())
		}
	}
}

// choose answers the port of name that is meant.
func choose(name string, have []uint16, port uint16) (uint16, error) {
	switch {
	case slices.Contains(have, port):
		return port, nil
	case port == 0 && len(have) == 1:
		return have[0], nil
	case len(have) == 0:
		return 0, fmt.Errorf("%s has no port, so nobody can ask it anything", name)
	}
	list := strings.ReplaceAll(strings.Trim(fmt.Sprint(have), "[]"), " ", ", ")
	if port == 0 {
		return 0, fmt.Errorf("%s has the ports %s: say which with --port", name, list)
	}
	return 0, fmt.Errorf("%s has no port %d: it has %s", name, port, list)
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
