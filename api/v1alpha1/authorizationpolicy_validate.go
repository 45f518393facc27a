package v1alpha1

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of policies about security.
const (
	maxPolicyRules = 64
	maxAlternative = 64   // entries of from, to and when
	maxEntries     = 256  // of one list
	maxText        = 2048 // bytes of one entry
	maxExpression  = 4096 // bytes
	maxBody        = 1 << 20
)

// DefaultAuthorizerTimeout of ExternalAuthorizer.
const DefaultAuthorizerTimeout Duration = "500ms"

func defaultAuthorizationPolicy(p *AuthorizationPolicy) {
	s := &p.Spec
	if s.Action == "" {
		s.Action = ActionAllow
	}
	for i := range s.Rules {
		if s.Rules[i].Name == "" {
			s.Rules[i].Name = fmt.Sprintf("rules[%d]", i)
		}
	}
	if e := s.External; e != nil {
		if e.Protocol == "" {
			e.Protocol = "GRPC"
		}
		if e.Timeout == "" {
			e.Timeout = DefaultAuthorizerTimeout
		}
	}
}

func (c *check) authorizationPolicy(p *AuthorizationPolicy) {
	s := &p.Spec
	c.securityTargets(&s.SecurityTargets, "Service", ExternalKind)
	c.egressPolicy(s)
	switch s.Action {
	case ActionAllow, ActionDeny, ActionAudit:
		if s.External != nil {
			c.fail("spec.external", "is for action External, and this policy's is %s: change action or remove it", s.Action)
		}
	case ActionExternal:
		if s.External == nil {
			c.fail("spec.external", "is missing: say who is asked, such as {service: {name: authorizer, port: 9001}}")
		} else {
			c.external("spec.external", s.External)
		}
	default:
		c.fail("spec.action", "%q is not an action: write Allow, Deny, Audit or External", s.Action)
	}
	if len(s.Rules) == 0 && s.Action != ActionAllow {
		c.fail("spec.rules", "has no entries, so the policy never acts: write a rule ({} holds always)")
	}
	c.count("spec.rules", len(s.Rules), maxPolicyRules)
	names := map[string]int{}
	for i := range s.Rules {
		at := fmt.Sprintf("spec.rules[%d]", i)
		if first, ok := names[s.Rules[i].Name]; ok {
			c.fail(at+".name", "%q is the name of rules[%d] too: give it another one", s.Rules[i].Name, first)
		}
		names[s.Rules[i].Name] = i
		c.authorizationRule(at, &s.Rules[i])
	}
}

// egressPolicy checks what only a workload's own proxy can do, which a policy on an ExternalService does not have.
func (c *check) egressPolicy(s *AuthorizationPolicySpec) {
	for i, ref := range s.TargetRefs {
		if ref.Kind != ExternalKind {
			continue
		}
		if s.Action == ActionExternal {
			c.fail("spec.action", "is External, and targetRefs[%d] is %s, where the callers' own proxies decide: write Allow, Deny or Audit", i, ref)
		}
		for k, r := range s.Rules {
			if r.Expression != "" {
				c.fail(fmt.Sprintf("spec.rules[%d].expression", k), "means nothing on targetRefs[%d], %s: write from, to and when", i, ref)
			}
		}
	}
}

// securityTargets checks what a policy about security is about.
func (c *check) securityTargets(t *SecurityTargets, kinds ...string) {
	c.count("spec.targetRefs", len(t.TargetRefs), maxTargets)
	seen := map[PolicyTarget]int{}
	for i, ref := range t.TargetRefs {
		at := fmt.Sprintf("spec.targetRefs[%d]", i)
		if !slices.Contains(kinds, ref.Kind) {
			c.fail(at+".kind", "%q is not what this policy about security attaches to: write %s", ref.Kind, strings.Join(kinds, " or "))
			continue
		}
		c.target(at, ref)
		if first, ok := seen[ref]; ok {
			c.fail(at, "%s is named twice, first in targetRefs[%d]: remove one", ref, first)
		}
		seen[ref] = i
	}
	for k, v := range t.Selector {
		if !qualified(k) || !labelValue(v) {
			c.fail("spec.selector."+k, "%q is not a label", k+"="+v)
		}
	}
}

func (c *check) count(at string, n, most int) {
	if n > most {
		c.fail(at, "has %d entries: at most %d are taken", n, most)
	}
}

func (c *check) authorizationRule(at string, r *AuthorizationRule) {
	if !only(r.Name, lower+upper+digits+"-_.[]", lower+upper+digits+"]", 63) {
		c.fail(at+".name", "%q is not a name: at most 63 of letters, digits, '-', '_' and '.'", r.Name)
	}
	c.count(at+".from", len(r.From), maxAlternative)
	c.count(at+".to", len(r.To), maxAlternative)
	c.count(at+".when", len(r.When), maxAlternative)
	for i := range r.From {
		c.authorizationSource(fmt.Sprintf("%s.from[%d]", at, i), &r.From[i])
	}
	for i := range r.To {
		c.authorizationTarget(fmt.Sprintf("%s.to[%d]", at, i), &r.To[i])
	}
	for i := range r.When {
		c.authorizationCondition(fmt.Sprintf("%s.when[%d]", at, i), &r.When[i])
	}
	if strings.ContainsFunc(r.Expression, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' || r == 0x7f }) {
		c.fail(at+".expression", "has a control character: remove it")
	}
	if len(r.Expression) > maxExpression {
		c.fail(at+".expression", "has %d bytes: at most %d are taken", len(r.Expression), maxExpression)
	}
	begins, ends := c.moment(at+".notBefore", r.NotBefore), c.moment(at+".notAfter", r.NotAfter)
	if !begins.IsZero() && !ends.IsZero() && !begins.Before(ends) {
		c.fail(at+".notAfter", "%s is not after notBefore %s: the rule never holds", r.NotAfter, r.NotBefore)
	}
}

func (c *check) moment(at, s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		c.fail(at, "%q is not a time: write for example 2026-12-31T18:00:00Z", s)
	}
	return t
}

func (c *check) authorizationSource(at string, s *AuthorizationSource) {
	n, foreign := len(c.errs), len(s.TrustDomains) > 0
	given := c.texts(at+".principals", s.Principals, "spiffe://", "a SPIFFE ID, such as spiffe://tulle.local/ns/default/sa/cart") +
		c.texts(at+".notPrincipals", s.NotPrincipals, "spiffe://", "a SPIFFE ID, such as spiffe://tulle.local/ns/default/sa/cart") +
		c.texts(at+".namespaces", s.Namespaces, "", "") + c.texts(at+".notNamespaces", s.NotNamespaces, "", "") +
		c.accounts(at+".serviceAccounts", s.ServiceAccounts, foreign) + c.accounts(at+".notServiceAccounts", s.NotServiceAccounts, foreign) +
		c.texts(at+".trustDomains", s.TrustDomains, "", "") + c.texts(at+".notTrustDomains", s.NotTrustDomains, "", "") +
		c.blocks(at+".ipBlocks", s.IPBlocks) + c.blocks(at+".notIPBlocks", s.NotIPBlocks) +
		c.blocks(at+".remoteIPBlocks", s.RemoteIPBlocks) + c.blocks(at+".notRemoteIPBlocks", s.NotRemoteIPBlocks) +
		c.texts(at+".requestPrincipals", s.RequestPrincipals, "", "") + c.texts(at+".notRequestPrincipals", s.NotRequestPrincipals, "", "")
	if given == 0 && n == len(c.errs) {
		c.fail(at, "says nothing, so everybody fits: write whom you mean, or remove from")
	}
}

func (c *check) authorizationTarget(at string, t *AuthorizationTarget) {
	n := len(c.errs)
	given := c.texts(at+".hosts", t.Hosts, "", "") + c.texts(at+".notHosts", t.NotHosts, "", "") +
		c.portNames(at+".ports", t.Ports) + c.portNames(at+".notPorts", t.NotPorts) +
		c.methods(at+".methods", t.Methods) + c.methods(at+".notMethods", t.NotMethods) +
		c.policyPaths(at+".paths", t.Paths) + c.policyPaths(at+".notPaths", t.NotPaths) +
		c.texts(at+".procedures", t.Procedures, "", "") + c.texts(at+".notProcedures", t.NotProcedures, "", "") +
		c.texts(at+".serverNames", t.ServerNames, "", "") + c.texts(at+".notServerNames", t.NotServerNames, "", "")
	if given == 0 && n == len(c.errs) {
		c.fail(at, "says nothing, so everything fits: write what you mean, or remove to")
	}
}

// template checks /a/{id}/b and /files/{rest...}.
func (c *check) template(at, p string) {
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for i, e := range parts {
		whole := len(e) > 2 && e[0] == '{' && e[len(e)-1] == '}' && !strings.ContainsAny(e[1:len(e)-1], "{}")
		switch {
		case strings.Contains(e, "*"), strings.ContainsAny(e, "{}") && !whole:
			c.fail(at, "%q is not a template: each element is plain or one {name}, without *", p)
			return
		case whole && strings.HasSuffix(e, "...}") && i < len(parts)-1:
			c.fail(at, "%q: %s can only be the last element", p, e)
			return
		}
	}
}

func (c *check) authorizationCondition(at string, w *AuthorizationCondition) {
	given := 0
	for i, s := range []string{w.Header, w.Query, w.Cookie, w.Claim} {
		if s == "" {
			continue
		}
		given++
		here := at + "." + [...]string{"header", "query", "cookie", "claim"}[i]
		switch {
		case len(s) > 256:
			c.fail(here, "has %d bytes: at most 256 are taken", len(s))
		case (i == 0 || i == 2) && !token(s):
			c.fail(here, "%q is not the name of a %s", s, here[len(at)+1:])
		default:
			c.plain(here, s)
		}
	}
	if given != 1 {
		c.fail(at, "names %d values: exactly one of header, query, cookie and claim", given)
	}
	c.texts(at+".values", w.Values, "", "")
	c.texts(at+".notValues", w.NotValues, "", "")
}

// texts checks a list of texts, answers how many there are; each begins with start, where that is given, unless it begins with
// a * or ~.
func (c *check) texts(at string, list []string, start, such string) int {
	c.count(at, len(list), maxEntries)
	for i, s := range list {
		here := fmt.Sprintf("%s[%d]", at, i)
		switch rest, regex := strings.CutPrefix(s, "~"); {
		case s == "":
			c.fail(here, "is empty: write a text, or remove it")
		case len(s) > maxText:
			c.fail(here, "has %d bytes: at most %d are taken", len(s), maxText)
		case regex:
			if _, err := regexp.Compile(rest); err != nil {
				c.fail(here, "%q is not an expression (RE2): %s", rest, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			}
		case strings.Contains(strings.TrimPrefix(strings.TrimSuffix(s, "*"), "*"), "*"):
			c.fail(here, "%q has a * within: it can only be first or last", s)
		case start != "" && !strings.HasPrefix(s, "*") && !strings.HasPrefix(s, start) && !(strings.HasSuffix(s, "*") && strings.HasPrefix(start, strings.TrimSuffix(s, "*"))):
			c.fail(here, "%q is not %s", s, such)
		}
	}
	return len(list)
}

func (c *check) blocks(at string, list []string) int {
	c.count(at, len(list), maxEntries)
	for i, s := range list {
		if _, err := ParsePrefix(s); err != nil {
			c.fail(fmt.Sprintf("%s[%d]", at, i), "%q is not an address or a prefix, such as 10.0.0.0/8", s)
		}
	}
	return len(list)
}

// ParsePrefix reads an address, or a prefix of addresses.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

func (c *check) portNames(at string, list []string) int {
	c.count(at, len(list), maxEntries)
	for i, s := range list {
		if n, err := strconv.ParseUint(s, 10, 16); !label(s) || err == nil && n == 0 {
			c.fail(fmt.Sprintf("%s[%d]", at, i), "%q is not the name or the number of a port", s)
		}
	}
	return len(list)
}

func (c *check) external(at string, e *ExternalAuthorizer) {
	if !label(e.Service.Name) {
		c.fail(at+".service.name", "%q is not the name of a Service", e.Service.Name)
	}
	c.between(at+".service.port", int64(e.Service.Port), 1, 65535)
	switch e.Protocol {
	case "HTTP":
		if e.Path != "" && e.Path[0] != '/' {
			c.fail(at+".path", "%q does not begin with /", e.Path)
		}
	case "GRPC":
		if e.Path != "" {
			c.fail(at+".path", "is for protocol HTTP: remove it")
		}
	default:
		c.fail(at+".protocol", "%q is not known: write GRPC or HTTP", e.Protocol)
	}
	c.span(at+".timeout", e.Timeout, time.Millisecond, 30*time.Second)
	if e.AskAgain != "" {
		c.span(at+".askAgain", e.AskAgain, time.Second, 24*time.Hour)
	}
	if e.Protocol != "HTTP" && len(e.AppendHeaders) > 0 {
		c.fail(at+".appendHeaders", "is for protocol HTTP: remove it; a gRPC authorizer says itself what it appends (append_action)")
	}
	if e.Body != nil {
		c.between(at+".body.maxBytes", e.Body.MaxBytes, 1, maxBody)
	}
	for _, list := range []struct {
		name   string
		fields []string
	}{{"requestHeaders", e.RequestHeaders}, {"upstreamHeaders", e.UpstreamHeaders}, {"appendHeaders", e.AppendHeaders}, {"clientHeaders", e.ClientHeaders}, {"allowHeaders", e.AllowHeaders}} {
		c.count(at+"."+list.name, len(list.fields), maxEntries)
		for i, f := range list.fields {
			if !token(f) {
				c.fail(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "%q is not the name of a header", f)
			}
		}
	}
}
