package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Bounds of the HTTPRoute schema (Gateway API v1.6).
const (
	maxParents      = 32
	maxRules        = 16
	maxMatches      = 64
	maxAllMatches   = 128
	maxFields       = 16 // headers, query parameters, filters, backends
	maxPath         = 1024
	maxHeaderValue  = 4096
	maxQueryValue   = 1024
	maxBackendShare = 1_000_000
)

// defaultHTTPRoute writes out the schema's defaults.
func defaultHTTPRoute(r *HTTPRoute) {
	if r.Spec.Rules == nil {
		r.Spec.Rules = []HTTPRouteRule{{}}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		if rule.Matches == nil {
			rule.Matches = []HTTPRouteMatch{{}}
		}
		for j := range rule.Matches {
			defaultMatch(&rule.Matches[j])
		}
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			b.Group, b.Kind, b.Weight = or(b.Group, ""), or(b.Kind, "Service"), or(b.Weight, 1)
		}
	}
}

func defaultMatch(m *HTTPRouteMatch) {
	m.Path = or(m.Path, HTTPPathMatch{})
	m.Path.Type, m.Path.Value = or(m.Path.Type, PathMatchPathPrefix), or(m.Path.Value, "/")
	for k := range m.Headers {
		m.Headers[k].Type = or(m.Headers[k].Type, HeaderMatchExact)
	}
	for k := range m.QueryParams {
		m.QueryParams[k].Type = or(m.QueryParams[k].Type, QueryParamMatchExact)
	}
}

// or answers p, or a pointer to v when p is nil.
func or[T any](p *T, v T) *T {
	if p == nil {
		return &v
	}
	return p
}

func (c *check) httpRoute(r *HTTPRoute) {
	c.parents(r)
	if len(r.Spec.Hostnames) > 0 {
		c.fail("spec.hostnames", "have no meaning on a route of a Service, which is selected by its address: remove them, or match the header Host")
	}
	if n := len(r.Spec.Rules); n < 1 || n > maxRules {
		c.fail("spec.rules", "has %d rules: write 1 to %d", n, maxRules)
	}
	all, names := 0, map[string]bool{}
	for i := range r.Spec.Rules {
		rule, at := &r.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)
		all += len(rule.Matches)
		if rule.Name != nil {
			if !subdomain(string(*rule.Name)) || names[string(*rule.Name)] {
				c.fail(at+".name", "%q is not a name or is used twice", *rule.Name)
			}
			names[string(*rule.Name)] = true
		}
		c.rule(at, r.Namespace, rule)
	}
	if all > maxAllMatches {
		c.fail("spec.rules", "have %d matches together: at most %d", all, maxAllMatches)
	}
}

func (c *check) parents(r *HTTPRoute) {
	if r.Spec.UseDefaultGateways != "" {
		c.fail("spec.useDefaultGateways", "is not supported: name the Service in parentRefs")
	}
	if n := len(r.Spec.ParentRefs); n < 1 || n > maxParents {
		c.fail("spec.parentRefs", `has %d entries: name 1 to %d Services, such as {group: "", kind: Service, name: cart}`, n, maxParents)
	}
	type parent struct {
		name string
		port int32
	}
	seen := map[parent]bool{}
	for i, p := range r.Spec.ParentRefs {
		at := fmt.Sprintf("spec.parentRefs[%d]", i)
		switch {
		case p.Kind == nil || *p.Kind != "Service":
			c.fail(at+".kind", "is %q: only routes of a Service are run, write {group: \"\", kind: Service}", value(p.Kind, "Gateway"))
		case p.Group == nil || *p.Group != "":
			c.fail(at+".group", `is %q: a Service is of the group "", write group: ""`, value(p.Group, GatewayGroup))
		}
		if p.Namespace != nil && string(*p.Namespace) != r.Namespace {
			c.fail(at+".namespace", "is %q and the route is in %q: put the route beside its Service", *p.Namespace, r.Namespace)
		}
		if p.SectionName != nil {
			c.fail(at+".sectionName", "is not supported on a Service: write port")
		}
		if !label(string(p.Name)) {
			c.fail(at+".name", "%q is not the name of a Service", p.Name)
		}
		if p.Port != nil && (*p.Port < 1 || *p.Port > 65535) {
			c.fail(at+".port", "%d is not a port: write 1 to 65535", *p.Port)
		}
		key := parent{string(p.Name), int32(value(p.Port, 0))}
		if seen[key] {
			c.fail(at, "Service %s is named twice", p.Name)
		}
		seen[key] = true
		if key.port != 0 && seen[parent{key.name, 0}] {
			c.fail(at+".port", "Service %s is named with and without a port: give each a port, or none", p.Name)
		}
	}
}

func (c *check) rule(at, namespace string, r *HTTPRouteRule) {
	if len(r.Matches) > maxMatches {
		c.fail(at+".matches", "has %d matches: at most %d", len(r.Matches), maxMatches)
	}
	for j := range r.Matches {
		c.match(fmt.Sprintf("%s.matches[%d]", at, j), &r.Matches[j])
	}
	c.filters(at+".filters", r.Filters)
	if len(r.BackendRefs) > maxFields {
		c.fail(at+".backendRefs", "has %d entries: at most %d", len(r.BackendRefs), maxFields)
	}
	for j := range r.BackendRefs {
		c.backend(fmt.Sprintf("%s.backendRefs[%d]", at, j), namespace, &r.BackendRefs[j])
	}
	if r.Retry != nil {
		c.fail(at+".retry", "is not supported yet: remove it")
	}
	if r.SessionPersistence != nil {
		c.fail(at+".sessionPersistence", "is not supported yet: remove it")
	}
	c.timeouts(at+".timeouts", r.Timeouts)
}

func (c *check) backend(at, namespace string, b *HTTPBackendRef) {
	if value(b.Kind, "Service") != "Service" || value(b.Group, "") != "" {
		c.fail(at+".kind", "%s/%s is not supported: a backend is a Service of the group \"\"", value(b.Group, ""), value(b.Kind, ""))
	}
	if !label(string(b.Name)) {
		c.fail(at+".name", "%q is not the name of a Service", b.Name)
	}
	if b.Namespace != nil && string(*b.Namespace) != namespace {
		c.fail(at+".namespace", "is %q and the route is in %q: backends of another namespace are not supported yet", *b.Namespace, namespace)
	}
	switch {
	case b.Port == nil:
		c.fail(at+".port", "is missing: write the port of Service %s", b.Name)
	case *b.Port < 1 || *b.Port > 65535:
		c.fail(at+".port", "%d is not a port: write 1 to 65535", *b.Port)
	}
	if w := value(b.Weight, 1); w < 0 || w > maxBackendShare {
		c.fail(at+".weight", "%d is out of bounds: write 0 to %d", w, maxBackendShare)
	}
	c.filters(at+".filters", b.Filters)
}

func (c *check) match(at string, m *HTTPRouteMatch) {
	c.path(at+".path", m.Path)
	if m.Method != nil && !slices.Contains(strings.Fields("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH"), string(*m.Method)) {
		c.fail(at+".method", "%q is not a method: write GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE or PATCH", *m.Method)
	}
	if len(m.Headers) > maxFields {
		c.fail(at+".headers", "has %d entries: at most %d", len(m.Headers), maxFields)
	}
	seen := map[string]bool{}
	for k, h := range m.Headers {
		at := fmt.Sprintf("%s.headers[%d]", at, k)
		c.field(at, string(h.Name), seen, strings.ToLower)
		c.fieldValue(at, string(*h.Type), h.Value, maxHeaderValue)
	}
	if len(m.QueryParams) > maxFields {
		c.fail(at+".queryParams", "has %d entries: at most %d", len(m.QueryParams), maxFields)
	}
	seen = map[string]bool{}
	for k, q := range m.QueryParams {
		at := fmt.Sprintf("%s.queryParams[%d]", at, k)
		c.field(at, string(q.Name), seen, strings.Clone)
		c.fieldValue(at, string(*q.Type), q.Value, maxQueryValue)
	}
}

func (c *check) path(at string, p *HTTPPathMatch) {
	v := *p.Value
	if len(v) > maxPath {
		c.fail(at+".value", "has %d bytes: at most %d", len(v), maxPath)
	}
	switch *p.Type {
	case PathMatchRegularExpression:
		c.regex(at+".value", v)
		return
	case PathMatchExact, PathMatchPathPrefix:
	default:
		c.fail(at+".type", "%q is not a kind of match: write Exact, PathPrefix or RegularExpression", *p.Type)
		return
	}
	if !strings.HasPrefix(v, "/") {
		c.fail(at+".value", "%q does not begin with '/'", v)
		return
	}
	for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F", "#"} {
		if strings.Contains(v, bad) {
			c.fail(at+".value", "%q contains %q, which no path has after it was normalized", v, bad)
			return
		}
	}
	if strings.HasSuffix(v, "/..") || strings.HasSuffix(v, "/.") {
		c.fail(at+".value", "%q ends with a dot segment, which no path has after it was normalized", v)
	} else if !pathBytes(v) {
		c.fail(at+".value", "%q has characters that a path cannot have: write them percent-encoded", v)
	}
}

func pathBytes(s string) bool {
	const hex = digits + "abcdefABCDEF"
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%':
			if i+2 >= len(s) || strings.IndexByte(hex, s[i+1]) < 0 || strings.IndexByte(hex, s[i+2]) < 0 {
				return false
			}
			i += 2
		case strings.IndexByte(lower+upper+digits+"-/._~!$&'()*+,;=:@", s[i]) < 0:
			return false
		}
	}
	return true
}

// field checks the name of a header or query parameter.
func (c *check) field(at, name string, seen map[string]bool, fold func(string) string) {
	if !token(name) {
		c.fail(at+".name", "%q is not a name: 1 to 256 letters, digits and !#$%%&'*+-.^_`|~", name)
	}
	if seen[fold(name)] {
		c.fail(at+".name", "%q is named twice", name)
	}
	seen[fold(name)] = true
}

func (c *check) fieldValue(at, kind, v string, most int) {
	if len(v) < 1 || len(v) > most {
		c.fail(at+".value", "has %d bytes: write 1 to %d", len(v), most)
	}
	switch kind {
	case "Exact":
	case "RegularExpression":
		c.regex(at+".value", v)
	default:
		c.fail(at+".type", "%q is not a kind of match: write Exact or RegularExpression", kind)
	}
}

func (c *check) regex(at, v string) {
	if _, err := regexp.Compile(`^(?:` + v + `)$`); err != nil {
		c.fail(at, "%q is not a regular expression (RE2): %s", v, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
}

// token is the name of a header (RFC 9110 section 5.1).
func token(s string) bool {
	return only(s, lower+upper+digits+"!#$%&'*+-.^_`|~", lower+upper+digits+"!#$%&'*+-.^_`|~", 256)
}

func (c *check) timeouts(at string, t *HTTPRouteTimeouts) {
	if t == nil {
		return
	}
	read := func(field string, d *GatewayDuration) time.Duration {
		if d == nil {
			return 0
		}
		v, ok := ParseDuration(string(*d))
		if !ok {
			c.fail(at+"."+field, "%q is not a duration: write for example 500ms, 2s or 1m30s", *d)
		}
		return v
	}
	request, attempt := read("request", t.Request), read("backendRequest", t.BackendRequest)
	if request > 0 && attempt > request {
		c.fail(at+".backendRequest", "%s is longer than the request's %s", attempt, request)
	}
}

// ParseDuration reads a Gateway API duration (GEP-2257): one to four whole numbers of at most five digits,
// each with h, m, s or ms.
func ParseDuration(s string) (time.Duration, bool) {
	var total time.Duration
	for part := 0; s != ""; part++ {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		u := n
		for u < len(s) && (s[u] < '0' || s[u] > '9') {
			u++
		}
		if part == 4 || n < 1 || n > 5 || !slices.Contains([]string{"h", "m", "s", "ms"}, s[n:u]) {
			return 0, false
		}
		d, err := time.ParseDuration(s[:u])
		if err != nil {
			return 0, false
		}
		total, s = total+d, s[u:]
		if s == "" {
			return total, true
		}
	}
	return 0, false
}

// value answers *p, or v when p is nil.
func value[T any](p *T, v T) T {
	if p == nil {
		return v
	}
	return *p
}
