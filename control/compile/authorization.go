package compile

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/urlpath"
)

// authorization adds what an AuthorizationPolicy says about a service.
func (c Compiler) authorization(to *model.Security, name string, o *v1alpha1.AuthorizationPolicy, ports []uint16, all []model.ServicePort) {
	s := &o.Spec
	p := model.Policy{Name: name, DryRun: s.DryRun, Labels: labels(s.Selector), Ports: ports}
	switch s.Action {
	case v1alpha1.ActionDeny:
		p.Action = model.ActionDeny
	case v1alpha1.ActionAudit:
		p.Action = model.ActionAudit
	case v1alpha1.ActionExternal:
		p.Action, p.Authorizer = model.ActionExternal, name
		to.Authorizers = append(to.Authorizers, authorizer(name, o.Namespace, s.External))
	default:
		p.Action = model.ActionAllow
	}
	for i := range s.Rules {
		p.Rules = append(p.Rules, policyRule(&s.Rules[i], o.Namespace, all))
	}
	spelled(p.Rules, c.ours())
	if p.Action == model.ActionAllow {
		c.closed(p.Rules, o, all)
	}
	if len(o.Spec.TargetRefs) == 0 && p.Action == model.ActionDeny {
		to.Policies = append(to.Policies, split(p, s.Rules, spoken(all))...)
		return
	}
	to.Policies = append(to.Policies, p)
}

// split answers a denial for a whole namespace or mesh as what is about connections, of every port, and what is about requests, of
// those that carry them: one rule about paths must not turn the others' databases into HTTP.
func split(p model.Policy, rules []v1alpha1.AuthorizationRule, spoken []uint16) (out []model.Policy) {
	connections, requests := p, p
	connections.Rules, requests.Rules, requests.Ports = nil, nil, spoken
	for i := range p.Rules {
		if aboutConnections(rules[i]) {
			connections.Rules = append(connections.Rules, p.Rules[i])
		} else {
			requests.Rules = append(requests.Rules, p.Rules[i])
		}
	}
	if len(connections.Rules) > 0 || len(p.Rules) == 0 {
		out = append(out, connections)
	}
	if len(requests.Rules) > 0 && len(spoken) > 0 {
		out = append(out, requests)
	}
	return out
}

// aboutConnections reports whether a rule says nothing that only requests have.
func aboutConnections(r v1alpha1.AuthorizationRule) bool {
	return r.Expression == "" && !slices.ContainsFunc(r.From, func(f v1alpha1.AuthorizationSource) bool {
		return len(f.RequestPrincipals)+len(f.NotRequestPrincipals) > 0
	}) && len(r.When) == 0 &&
		(len(r.To) == 0 || slices.ContainsFunc(r.To, func(t v1alpha1.AuthorizationTarget) bool {
			return len(t.Hosts)+len(t.NotHosts)+len(t.Methods)+len(t.NotMethods)+len(t.Paths)+len(t.NotPaths)+len(t.Procedures)+len(t.NotProcedures) == 0
		}))
}

// spoken answers the ports that are not declared to carry something else than HTTP. A denial about requests, for a whole namespace
// or mesh, does not mean the databases in it; one that names a Service does.
func spoken(ports []model.ServicePort) (out []uint16) {
	for _, p := range ports {
		if p.Protocol != model.ProtocolTCP && p.Protocol != model.ProtocolTLS {
			out = append(out, p.Port)
		}
	}
	return out
}

func policyRule(r *v1alpha1.AuthorizationRule, namespace string, ports []model.ServicePort) model.PolicyRule {
	out := model.PolicyRule{Name: r.Name, Expression: r.Expression, Begins: unix(r.NotBefore), Ends: unix(r.NotAfter)}
	for _, f := range r.From {
		out.From = append(out.From, model.PolicySource{
			Principals: texts(f.Principals), NotPrincipals: texts(f.NotPrincipals),
			Namespaces: texts(f.Namespaces), NotNamespaces: texts(f.NotNamespaces),
			Accounts: accounts(f.ServiceAccounts, namespace), NotAccounts: accounts(f.NotServiceAccounts, namespace),
			TrustDomains: texts(f.TrustDomains), NotTrustDomains: texts(f.NotTrustDomains),
			IPs: blocks(f.IPBlocks), NotIPs: blocks(f.NotIPBlocks), RemoteIPs: blocks(f.RemoteIPBlocks), NotRemoteIPs: blocks(f.NotRemoteIPBlocks),
			TokenPrincipals: texts(f.RequestPrincipals), NotTokenPrincipals: texts(f.NotRequestPrincipals),
		})
	}
	for _, t := range r.To {
		out.To = append(out.To, model.PolicyTarget{
			Hosts: hosts(t.Hosts), NotHosts: hosts(t.NotHosts), Ports: numbers(t.Ports, ports), NotPorts: numbers(t.NotPorts, ports),
			Methods: texts(t.Methods), NotMethods: texts(t.NotMethods), Paths: policyPaths(t.Paths), NotPaths: policyPaths(t.NotPaths),
			Procedures: texts(t.Procedures), NotProcedures: texts(t.NotProcedures), ServerNames: hosts(t.ServerNames), NotServerNames: hosts(t.NotServerNames),
		})
	}
	for _, w := range r.When {
		one := model.PolicyCondition{Values: texts(w.Values), NotValues: texts(w.NotValues)}
		for kind, name := range []string{w.Header, w.Query, w.Cookie, w.Claim} {
			if name != "" {
				one.Kind, one.Name = model.ConditionKind(kind), name
			}
		}
		if one.Kind == model.ConditionHeader {
			one.Name = strings.ToLower(one.Name)
		}
		out.When = append(out.When, one)
	}
	return out
}

func unix(s string) int64 {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0 // none; what is no time is not stored
	}
	return t.Unix()
}

// policyText reads "a", "a*", "*a", "*" (any but none) and "~expression".
func policyText(s string) model.StringMatch {
	if re, ok := strings.CutPrefix(s, "~"); ok {
		return model.StringMatch{Kind: model.StringRegex, Value: re}
	}
	switch {
	case s == "*":
		return model.StringMatch{Kind: model.StringRegex, Value: ".+"}
	case len(s) > 1 && s[0] == '*' && s[len(s)-1] == '*':
		return model.StringMatch{Kind: model.StringContains, Value: s[1 : len(s)-1]}
	case strings.HasSuffix(s, "*"):
		return model.StringMatch{Kind: model.StringPrefix, Value: s[:len(s)-1]}
	case strings.HasPrefix(s, "*"):
		return model.StringMatch{Kind: model.StringSuffix, Value: s[1:]}
	}
	return model.StringMatch{Value: s}
}

func texts(list []string) (out []model.StringMatch) {
	for _, s := range list {
		out = append(out, policyText(s))
	}
	return out
}

// hosts are compared in lower case.
func hosts(list []string) (out []model.StringMatch) {
	for _, m := range texts(list) {
		if m.Kind == model.StringRegex {
			m.IgnoreCase = true
		} else {
			m.Value = strings.ToLower(m.Value)
		}
		out = append(out, m)
	}
	return out
}

// accounts puts the policy's own namespace before what names none.
func accounts(list []string, namespace string) (out []model.StringMatch) {
	for _, s := range list {
		if !strings.Contains(s, "/") && !strings.HasPrefix(s, "~") {
			s = namespace + "/" + s
		}
		if rest, ok := strings.CutPrefix(s, namespace+"/*"); ok { // "*x" of the policy's own namespace
			out = append(out, below(namespace+"/", rest))
			continue
		}
		out = append(out, policyText(s))
	}
	return out
}

// below answers what begins with start and goes on as "*" and rest say.
func below(start, rest string) model.StringMatch {
	if rest == "" {
		return model.StringMatch{Kind: model.StringPrefix, Value: start}
	}
	end := ""
	if strings.HasSuffix(rest, "*") {
		rest, end = rest[:len(rest)-1], ".*"
	}
	return model.StringMatch{Kind: model.StringRegex, Value: regexp.QuoteMeta(start) + ".*" + regexp.QuoteMeta(rest) + end}
}

// policyPaths writes paths as requests' are seen when they are judged; expressions say themselves what they mean.
func policyPaths(list []string) (out []model.PolicyPath) {
	for _, s := range list {
		if plain, fault := urlpath.Text(s); fault == urlpath.None && !strings.HasPrefix(s, "~") {
			s = plain
		}
		if strings.ContainsAny(s, "{}") && !strings.HasPrefix(s, "~") {
			out = append(out, model.PolicyPath{Template: true, Match: model.StringMatch{Value: s}})
			continue
		}
		out = append(out, model.PolicyPath{Match: policyText(s)})
	}
	return out
}

func blocks(list []string) (out []string) {
	for _, s := range list {
		if p, err := v1alpha1.ParsePrefix(s); err == nil {
			out = append(out, p.String())
		}
	}
	return out
}

// numbers resolves ports by name or number. A name that the service does not have becomes port 0, which no port is: the list
// must not become empty, since that would mean every port.
func numbers(list []string, ports []model.ServicePort) (out []uint16) {
	for _, s := range list {
		if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			out = append(out, uint16(n))
			continue
		}
		at := slices.IndexFunc(ports, func(p model.ServicePort) bool { return p.Name == s })
		if at < 0 {
			out = append(out, 0)
			continue
		}
		out = append(out, ports[at].Port)
	}
	return out
}

func authorizer(name, namespace string, e *v1alpha1.ExternalAuthorizer) model.Authorizer {
	out := model.Authorizer{Name: name, HTTP: e.Protocol == "HTTP", Path: e.Path, Timeout: e.Timeout.Value(), FailOpen: e.FailOpen,
		Backend:        model.PortName{Service: model.ServiceName{Namespace: namespace, Name: e.Service.Name}, Port: uint16(e.Service.Port)},
		RequestHeaders: lowered(e.RequestHeaders), UpstreamHeaders: lowered(e.UpstreamHeaders), AppendHeaders: lowered(e.AppendHeaders),
		ClientHeaders: lowered(e.ClientHeaders), AllowHeaders: lowered(e.AllowHeaders), Again: e.AskAgain.Value()}
	if e.Body != nil {
		out.Body, out.PartialBody = uint32(e.Body.MaxBytes), e.Body.Partial
	}
	return out
}

func lowered(list []string) (out []string) {
	for _, s := range list {
		out = append(out, strings.ToLower(s))
	}
	return out
}
