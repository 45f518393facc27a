package v1alpha1

import (
	"fmt"
	"strings"
	"time"

	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// Bounds of the routes' schemas (Gateway API v1.6).
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

// parents checks where a route attaches. A Service of another namespace is allowed: the route is then one of a consumer,
// and bends what its own namespace calls.
func (c *check) parents(spec *CommonRouteSpec, namespace string) {
	if spec.UseDefaultGateways != "" {
		c.fail("spec.useDefaultGateways", "is not supported: name the Service in parentRefs")
	}
	if n := len(spec.ParentRefs); n < 1 || n > maxParents {
		c.fail("spec.parentRefs", `has %d entries: name 1 to %d Services, such as {group: "", kind: Service, name: cart}`, n, maxParents)
	}
	type parent struct {
		service string
		port    int32
		section string
	}
	seen := map[parent]bool{}
	for i, p := range spec.ParentRefs {
		at := fmt.Sprintf("spec.parentRefs[%d]", i)
		switch {
		case IsExternal(p.Group, p.Kind):
		case p.Kind == nil || *p.Kind != "Service":
			c.fail(at+".kind", "is %q: only routes of a Service are run, write {group: \"\", kind: Service}", value(p.Kind, "Gateway"))
		case p.Group == nil || *p.Group != "":
			c.fail(at+".group", `is %q: a Service is of the group "", write group: ""`, value(p.Group, GatewayGroup))
		}
		ns := string(value(p.Namespace, ""))
		if p.Namespace != nil && !label(ns) {
			c.fail(at+".namespace", "%q is not a namespace", ns)
		}
		if ns == "" {
			ns = namespace
		}
		if p.SectionName != nil && !label(string(*p.SectionName)) {
			c.fail(at+".sectionName", "%q is not the name of a port", *p.SectionName)
		}
		if !label(string(p.Name)) {
			c.fail(at+".name", "%q is not the name of a Service", p.Name)
		}
		if p.Port != nil && (*p.Port < 1 || *p.Port > 65535) {
			c.fail(at+".port", "%d is not a port: write 1 to 65535", *p.Port)
		}
		key := parent{string(value(p.Kind, "")) + "/" + ns + "/" + string(p.Name), int32(value(p.Port, 0)), string(value(p.SectionName, ""))}
		whole := parent{service: key.service}
		switch {
		case seen[key]:
			c.fail(at, "Service %s is named twice", p.Name)
		case key != whole && seen[whole]:
			c.fail(at, "Service %s is named with and without a port: give each a port, or none", p.Name)
		}
		seen[key] = true
	}
}

// IsExternal reports whether a reference names an ExternalService.
func IsExternal(group *gateway.Group, kind *gateway.Kind) bool {
	return kind != nil && *kind == ExternalKind && group != nil && *group == TulleGroup
}

// hostnames refuses what would be ignored.
func (c *check) hostnames(n int) {
	if n > 0 {
		c.fail("spec.hostnames", "have no meaning on a route of a Service, which is selected by its address: remove them, or match the header Host")
	}
}

// ruleCount checks how many rules there are.
func (c *check) ruleCount(n, most int) {
	if n < 1 || n > most {
		c.fail("spec.rules", "has %d rules: write 1 to %d", n, most)
	}
}

// ruleNames checks that the names of rules are names, each used once.
func (c *check) ruleNames(o Object) {
	names := map[string]bool{}
	for i, r := range Rules(o) {
		if r.Name == "" {
			continue
		}
		if !subdomain(r.Name) || names[r.Name] {
			c.fail(fmt.Sprintf("spec.rules[%d].name", i), "%q is not a name or is used twice", r.Name)
		}
		names[r.Name] = true
	}
}

// backends checks what a rule sends to.
func (c *check) backends(at string, list []HTTPBackendRef, allowed string) {
	if len(list) > maxFields {
		c.fail(at, "has %d entries: at most %d", len(list), maxFields)
	}
	for j := range list {
		b, at := &list[j], fmt.Sprintf("%s[%d]", at, j)
		if c.http && IsPool(&b.BackendObjectReference) {
			c.poolRef(at, &b.BackendObjectReference)
		} else {
			c.backendRef(at, &b.BackendObjectReference)
		}
		if w := value(b.Weight, 1); w < 0 || w > maxBackendShare {
			c.fail(at+".weight", "%d is out of bounds: write 0 to %d", w, maxBackendShare)
		}
		c.filters(at+".filters", b.Filters, allowed, " of a backend")
	}
}

// poolRef checks a reference to an InferencePool, which is of the route's own namespace and has no port: its targetPorts say it.
func (c *check) poolRef(at string, b *BackendObjectRef) {
	if !label(string(b.Name)) {
		c.fail(at+".name", "%q is not the name of an InferencePool", b.Name)
	}
	if b.Namespace != nil {
		c.fail(at+".namespace", "is not supported with an InferencePool: it is one of the route's own namespace")
	}
	if b.Port != nil {
		c.fail(at+".port", "means nothing with an InferencePool, whose targetPorts say it: remove it")
	}
}

// backendRef checks a reference to a port of a Service, which may be in another namespace (see ReferenceGrant).
func (c *check) backendRef(at string, b *BackendObjectRef) {
	if !IsExternal(b.Group, b.Kind) && (value(b.Kind, "Service") != "Service" || value(b.Group, "") != "") {
		field := ".kind"
		if value(b.Group, "") != "" {
			field = ".group"
		}
		c.fail(at+field, "%s/%s is not supported: a backend is a Service of the group \"\", an ExternalService of the group tulle.dev, or, of an HTTPRoute's rule, an InferencePool of the group %s",
			value(b.Group, ""), value(b.Kind, ""), InferenceGroup)
	}
	if !label(string(b.Name)) {
		c.fail(at+".name", "%q is not the name of a Service", b.Name)
	}
	if b.Namespace != nil && !label(string(*b.Namespace)) {
		c.fail(at+".namespace", "%q is not a namespace", *b.Namespace)
	}
	switch {
	case b.Port == nil:
		c.fail(at+".port", "is missing: write the port of Service %s", b.Name)
	case *b.Port < 1 || *b.Port > 65535:
		c.fail(at+".port", "%d is not a port: write 1 to 65535", *b.Port)
	}
}

// duration checks a duration that may be left out, and answers it, 0 if it is not there or is none.
func (c *check) duration(at string, d *GatewayDuration) time.Duration {
	if d == nil {
		return 0
	}
	v, ok := ParseDuration(string(*d))
	if !ok {
		c.fail(at, "%q is not a duration: write for example 500ms, 2s or 1m30s", *d)
	}
	return v
}

// persistence checks sessionPersistence (GEP-1619).
func (c *check) persistence(at string, s *SessionPersistence) {
	if s == nil {
		return
	}
	kind := value(s.Type, SessionCookie)
	if kind != SessionCookie && kind != SessionHeader {
		c.fail(at+".type", "%q is not a kind of session: write Cookie or Header", kind)
	}
	if n := value(s.SessionName, "x"); !token(n) || len(n) > 128 {
		c.fail(at+".sessionName", "%q is not the name of a cookie or header: 1 to 128 letters, digits and !#$%%&'*+-.^_`|~", n)
	} else if kind == SessionHeader && strings.HasPrefix(strings.ToLower(n), "tulle-") {
		c.fail(at+".sessionName", "%q: headers that begin with tulle- are the mesh's own", n)
	}
	absolute := c.duration(at+".absoluteTimeout", s.AbsoluteTimeout)
	if s.CookieConfig == nil {
		return
	}
	switch life := value(s.CookieConfig.LifetimeType, SessionCookieLifetime); {
	case kind == SessionHeader:
		c.fail(at+".cookieConfig", "does not belong to a session of type Header")
	case life != SessionCookieLifetime && life != PermanentCookieLifetime:
		c.fail(at+".cookieConfig.lifetimeType", "%q is not a lifetime: write Session or Permanent", life)
	case life == PermanentCookieLifetime && absolute == 0:
		c.fail(at+".cookieConfig.lifetimeType", "is Permanent: write absoluteTimeout, which is how long the cookie lasts")
	}
}

// share checks a part of the requests, given in percent or as a fraction.
func (c *check) share(at string, percent *int32, fraction *Fraction) {
	switch {
	case percent != nil && fraction != nil:
		c.fail(at+".fraction", "is given beside percent: write one of them")
	case percent != nil && (*percent < 0 || *percent > 100):
		c.fail(at+".percent", "%d is out of bounds: write 0 to 100", *percent)
	}
	if fraction == nil {
		return
	}
	if of := value(fraction.Denominator, 100); of < 1 {
		c.fail(at+".fraction.denominator", "%d is less than 1", of)
	} else if fraction.Numerator < 0 || fraction.Numerator > of {
		c.fail(at+".fraction.numerator", "%d is not from 0 to the denominator, %d", fraction.Numerator, of)
	}
}

// Share answers a part of the requests in millionths; all of them where neither is given.
func Share(percent *int32, fraction *Fraction) uint32 {
	const all = 1_000_000
	switch {
	case percent != nil:
		return uint32(*percent) * (all / 100)
	case fraction != nil:
		return uint32(int64(fraction.Numerator) * all / int64(max(1, value(fraction.Denominator, 100))))
	}
	return all
}
