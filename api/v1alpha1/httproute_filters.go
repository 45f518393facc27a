package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
)

// filters checks the filters of a rule or of a backend; allowed are the types that may stand there.
func (c *check) filters(at string, list []HTTPRouteFilter, allowed, where string) {
	if len(list) > maxFields {
		c.fail(at, "has %d filters: at most %d", len(list), maxFields)
	}
	types := strings.Fields(allowed)
	names := strings.Join(types[:len(types)-1], ", ") + " or " + types[len(types)-1]
	seen, kinds := map[HTTPRouteFilterType]bool{}, map[GatewayKind]bool{}
	for i := range list {
		f, at := &list[i], fmt.Sprintf("%s[%d]", at, i)
		if e := f.ExtensionRef; e != nil {
			if kinds[e.Kind] {
				c.fail(at+".extensionRef.kind", "a second %s: put them together", e.Kind)
			}
			kinds[e.Kind] = true
		}
		switch {
		case f.Type == "":
			c.fail(at+".type", "is missing: write %s", names)
		case !slices.Contains(types, string(f.Type)):
			c.fail(at+".type", "%q is not supported as a filter%s: write %s", f.Type, where, names)
		case seen[f.Type] && f.Type != FilterRequestMirror && f.Type != FilterExtensionRef:
			c.fail(at+".type", "%s is there twice: put them together", f.Type)
		case seen[FilterRequestRedirect] && f.Type == FilterURLRewrite, seen[FilterURLRewrite] && f.Type == FilterRequestRedirect:
			c.fail(at+".type", "RequestRedirect and URLRewrite exclude each other: a request that is redirected goes to no backend")
		default:
			c.filter(at, f)
		}
		seen[f.Type] = true
	}
}

func (c *check) filter(at string, f *HTTPRouteFilter) {
	for _, part := range []struct {
		of    HTTPRouteFilterType
		name  string
		there bool
	}{{FilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier != nil}, {FilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier != nil},
		{FilterRequestRedirect, "requestRedirect", f.RequestRedirect != nil}, {FilterURLRewrite, "urlRewrite", f.URLRewrite != nil},
		{FilterRequestMirror, "requestMirror", f.RequestMirror != nil}, {FilterCORS, "cors", f.CORS != nil},
		{FilterExtensionRef, "extensionRef", f.ExtensionRef != nil}, {"ExternalAuth", "externalAuth", f.ExternalAuth != nil}} {
		switch at := at + "." + part.name; {
		case part.there && part.of != f.Type:
			c.fail(at, "does not belong to a filter of type %s", f.Type)
		case !part.there && part.of == f.Type:
			c.fail(at, "is missing: a filter of type %s says there what to do", f.Type)
			return
		}
	}
	switch f.Type {
	case FilterRequestHeaderModifier:
		c.headerChange(at+".requestHeaderModifier", f.RequestHeaderModifier)
	case FilterResponseHeaderModifier:
		c.headerChange(at+".responseHeaderModifier", f.ResponseHeaderModifier)
	case FilterRequestRedirect:
		c.redirect(at+".requestRedirect", f.RequestRedirect)
	case FilterURLRewrite:
		c.rewrite(at+".urlRewrite", f.URLRewrite)
	case FilterRequestMirror:
		c.backendRef(at+".requestMirror.backendRef", &f.RequestMirror.BackendRef)
		c.share(at+".requestMirror", f.RequestMirror.Percent, f.RequestMirror.Fraction)
	case FilterCORS:
		c.cors(at+".cors", f.CORS)
	case FilterExtensionRef:
		c.extension(at+".extensionRef", f.ExtensionRef)
	}
}

func (c *check) redirect(at string, r *HTTPRequestRedirect) {
	if s := value(r.Scheme, "https"); s != "http" && s != "https" {
		c.fail(at+".scheme", "%q is not supported: write http or https", s)
	}
	c.hostname(at+".hostname", string(value(r.Hostname, "x")))
	c.pathChange(at+".path", r.Path)
	if p := value(r.Port, 1); p < 1 || p > 65535 {
		c.fail(at+".port", "%d is not a port: write 1 to 65535", p)
	}
	if s := value(r.StatusCode, DefaultRedirectStatus); !slices.Contains([]int{301, 302, 303, 307, 308}, s) {
		c.fail(at+".statusCode", "%d does not redirect: write 301, 302, 303, 307 or 308", s)
	}
}

func (c *check) rewrite(at string, r *HTTPURLRewriteFilter) {
	if r.Hostname == nil && r.Path == nil {
		c.fail(at, "changes nothing: write hostname or path")
	}
	c.hostname(at+".hostname", string(value(r.Hostname, "x")))
	c.pathChange(at+".path", r.Path)
}

// hostname is a DNS name without a wildcard.
func (c *check) hostname(at, name string) {
	if !subdomain(name) {
		c.fail(at, "%q is not the name of a host: at most 253 of a-z, 0-9, '-' and '.'", name)
	}
}

func (c *check) pathChange(at string, p *HTTPPathModifier) {
	if p == nil {
		return
	}
	wanted, other, field, not := p.ReplaceFullPath, p.ReplacePrefixMatch, "replaceFullPath", "replacePrefixMatch"
	switch p.Type {
	case ReplaceFullPath:
	case ReplacePrefixMatch:
		wanted, other, field, not = other, wanted, not, field
	default:
		c.fail(at+".type", "%q is not a kind of change: write ReplaceFullPath or ReplacePrefixMatch", p.Type)
		return
	}
	switch {
	case other != nil:
		c.fail(at+"."+not, "does not belong to a change of type %s", p.Type)
	case wanted == nil:
		c.fail(at+"."+field, "is missing: a change of type %s says there what to write", p.Type)
	case len(*wanted) > maxPath:
		c.fail(at+"."+field, "has %d bytes: at most %d", len(*wanted), maxPath)
	case *wanted != "" && (!strings.HasPrefix(*wanted, "/") || !pathBytes(*wanted)), *wanted == "" && p.Type == ReplaceFullPath:
		c.fail(at+"."+field, "%q is not a path: begin with '/', and write what a path cannot have percent-encoded", *wanted)
	}
}

// cors checks a CORS filter (GEP-1767).
func (c *check) cors(at string, f *HTTPCORSFilter) {
	list := func(field string, values []string, most int, valid func(string) bool, what string) {
		at := at + "." + field
		if len(values) > most {
			c.fail(at, "has %d entries: at most %d", len(values), most)
		}
		seen := map[string]bool{}
		for i, v := range values {
			switch {
			case v == "*" && len(values) > 1:
				c.fail(fmt.Sprintf("%s[%d]", at, i), "is '*' beside others: write it alone, or leave it out")
			case v != "*" && !valid(v):
				c.fail(fmt.Sprintf("%s[%d]", at, i), "%q is not %s", v, what)
			case seen[strings.ToLower(v)]:
				c.fail(fmt.Sprintf("%s[%d]", at, i), "%q is named twice", v)
			}
			seen[strings.ToLower(v)] = true
		}
	}
	list("allowOrigins", texts(f.AllowOrigins), maxMatches, origin, "an origin: write for example https://shop.example, https://*.example:8443 or *")
	methods := strings.Fields("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH")
	list("allowMethods", texts(f.AllowMethods), len(methods), func(s string) bool { return slices.Contains(methods, s) }, "a method: write GET, POST and the like, or *")
	list("allowHeaders", texts(f.AllowHeaders), maxMatches, token, "the name of a header")
	list("exposeHeaders", texts(f.ExposeHeaders), maxMatches, token, "the name of a header")
	if f.MaxAge < 1 {
		c.fail(at+".maxAge", "%d is less than 1 second", f.MaxAge)
	}
}

func texts[S ~string](in []S) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

// origin is a scheme and a host, whose first label or whole may be "*", and perhaps a port.
func origin(s string) bool {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(s, "http://"); !ok {
			return false
		}
	}
	host, port, hasPort := strings.Cut(rest, ":")
	if hasPort && !only(port, digits, digits, 5) {
		return false
	}
	return host == "*" || subdomain(strings.ToLower(strings.TrimPrefix(host, "*.")))
}

// extension checks a reference to a filter of Tulle's own, which is in the route's namespace.
func (c *check) extension(at string, r *LocalObjectRef) {
	if r.Group != TulleGroup {
		c.fail(at+".group", "%q has no filters: write %s", r.Group, TulleGroup)
	}
	if r.Kind != "FaultInjection" && r.Kind != "DirectResponse" {
		c.fail(at+".kind", "%q is not a filter: write FaultInjection or DirectResponse", r.Kind)
	}
	if !subdomain(string(r.Name)) {
		c.fail(at+".name", "%q is not the name of a %s", r.Name, r.Kind)
	}
}

func (c *check) headerChange(at string, h *HTTPHeaderFilter) {
	for _, l := range []struct {
		name string
		list []HTTPHeader
	}{{"set", h.Set}, {"add", h.Add}} {
		if len(l.list) > maxFields {
			c.fail(at+"."+l.name, "has %d entries: at most %d", len(l.list), maxFields)
		}
		seen := map[string]bool{}
		for i, e := range l.list {
			at := fmt.Sprintf("%s.%s[%d]", at, l.name, i)
			c.changed(at+".name", string(e.Name), seen)
			if len(e.Value) < 1 || len(e.Value) > maxHeaderValue {
				c.fail(at+".value", "has %d bytes: write 1 to %d", len(e.Value), maxHeaderValue)
			} else if !headerValue(e.Value) {
				c.fail(at+".value", "%q has characters that a header cannot have, or a blank at its end", e.Value)
			}
		}
	}
	if len(h.Remove) > maxFields {
		c.fail(at+".remove", "has %d entries: at most %d", len(h.Remove), maxFields)
	}
	seen := map[string]bool{}
	for i, name := range h.Remove {
		c.changed(fmt.Sprintf("%s.remove[%d]", at, i), name, seen)
	}
}

// changed checks the name of a header that is to be changed. Those that frame a message or belong to one
// connection are the proxy's own: a change would let a request be read in two ways.
func (c *check) changed(at, name string, seen map[string]bool) {
	low := strings.ToLower(name)
	switch {
	case !token(name):
		c.fail(at, "%q is not the name of a header", name)
	case seen[low]:
		c.fail(at, "%q is named twice", name)
	case strings.HasPrefix(low, "tulle-"):
		c.fail(at, "%q: headers that begin with tulle- are the mesh's own", name)
	default:
		switch low {
		case "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
			c.fail(at, "%q frames or routes the message and cannot be changed by a filter", name)
		}
	}
	seen[low] = true
}

// headerValue is a field value without line ends and controls (RFC 9110 section 5.5).
func headerValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return strings.Trim(s, " \t") == s
}
