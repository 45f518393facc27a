package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// httpFilters are the filters of an HTTPRoute's rule, headerFilters those of its backends.
const (
	headerFilters = "RequestHeaderModifier ResponseHeaderModifier"
	httpFilters   = headerFilters + " RequestRedirect URLRewrite RequestMirror CORS ExtensionRef"
)

func (c *check) httpRoute(r *HTTPRoute) {
	c.parents(&r.Spec.CommonRouteSpec, r.Namespace)
	c.hostnames(len(r.Spec.Hostnames))
	c.ruleCount(len(r.Spec.Rules), maxRules)
	c.ruleNames(r)
	all := 0
	for i := range r.Spec.Rules {
		all += len(r.Spec.Rules[i].Matches)
		c.rule(fmt.Sprintf("spec.rules[%d]", i), &r.Spec.Rules[i])
	}
	if all > maxAllMatches {
		c.fail("spec.rules", "have %d matches together: at most %d", all, maxAllMatches)
	}
}

func (c *check) rule(at string, r *HTTPRouteRule) {
	if len(r.Matches) > maxMatches {
		c.fail(at+".matches", "has %d matches: at most %d", len(r.Matches), maxMatches)
	}
	for j := range r.Matches {
		c.match(fmt.Sprintf("%s.matches[%d]", at, j), &r.Matches[j])
	}
	c.filters(at+".filters", r.Filters, httpFilters, "")
	c.answers(at, r.Filters, len(r.BackendRefs))
	c.together(at, r)
	c.backends(at+".backendRefs", r.BackendRefs, headerFilters)
	c.retry(at+".retry", r.Retry)
	c.persistence(at+".sessionPersistence", r.SessionPersistence)
	c.timeouts(at+".timeouts", r.Timeouts)
}

// answers checks that filters which answer requests themselves stand alone.
func (c *check) answers(at string, filters []HTTPRouteFilter, backends int) {
	first := ""
	for i, f := range filters {
		name := ""
		switch {
		case f.RequestRedirect != nil:
			name = "requestRedirect"
		case f.ExtensionRef != nil && f.ExtensionRef.Kind == "DirectResponse":
			name = "extensionRef"
		default:
			continue
		}
		at := fmt.Sprintf("%s.filters[%d].%s", at, i, name)
		if backends > 0 {
			c.fail(at, "answers the request itself: remove the backendRefs of the rule, or the filter")
		}
		if first != "" {
			c.fail(at, "answers the request itself, and so does %s: remove one", first)
		}
		first = name
	}
}

// together checks what filters, matches and backends of a rule mean for each other.
func (c *check) together(at string, r *HTTPRouteRule) {
	for i, f := range r.Filters {
		at := fmt.Sprintf("%s.filters[%d]", at, i)
		var path *HTTPPathModifier
		switch {
		case f.RequestRedirect != nil:
			path, at = f.RequestRedirect.Path, at+".requestRedirect"
		case f.URLRewrite != nil:
			path, at = f.URLRewrite.Path, at+".urlRewrite"
		}
		if path == nil || path.ReplacePrefixMatch == nil {
			continue
		}
		for _, m := range r.Matches {
			if *m.Path.Type != PathMatchPathPrefix {
				c.fail(at+".path.replacePrefixMatch", "needs matches of a prefix, and the rule has one of type %s: write replaceFullPath, or another rule", *m.Path.Type)
				break
			}
		}
	}
}

// retry checks GEP-1731.
func (c *check) retry(at string, r *HTTPRouteRetry) {
	if r == nil {
		return
	}
	seen := map[int]bool{}
	for i, code := range r.Codes {
		switch {
		case code < 400 || code > 599:
			c.fail(fmt.Sprintf("%s.codes[%d]", at, i), "%d is not the status of a failure: write 400 to 599", code)
		case seen[int(code)]:
			c.fail(fmt.Sprintf("%s.codes[%d]", at, i), "%d is named twice", code)
		}
		seen[int(code)] = true
	}
	if n := value(r.Attempts, 1); n < 1 || n > maxAttempts {
		c.fail(at+".attempts", "%d is out of bounds: write 1 to %d", n, maxAttempts)
	}
	c.duration(at+".backoff", r.Backoff)
}

// maxAttempts bounds what one request may become.
const maxAttempts = 10

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
	if !strings.Contains(at, "queryParams") { // those may be any bytes, written as %0A
		c.plain(at+".value", v)
	}
	switch kind {
	case "Exact":
	case "RegularExpression":
		c.regex(at+".value", v)
	default:
		c.fail(at+".type", "%q is not a kind of match: write Exact or RegularExpression", kind)
	}
}

// plain checks that a text may be the value of a header (RFC 9110 section 5.5).
func (c *check) plain(at, v string) {
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		c.fail(at, "%q has a control character: remove it", v)
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
	request, attempt := c.duration(at+".request", t.Request), c.duration(at+".backendRequest", t.BackendRequest)
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
