package v1alpha1

import (
	"fmt"
	"strings"
)

// filters checks the filters of a rule or of a backend.
func (c *check) filters(at string, list []HTTPRouteFilter) {
	if len(list) > maxFields {
		c.fail(at, "has %d filters: at most %d", len(list), maxFields)
	}
	seen := map[HTTPRouteFilterType]bool{}
	for i := range list {
		f, at := &list[i], fmt.Sprintf("%s[%d]", at, i)
		switch {
		case f.Type == "":
			c.fail(at+".type", "is missing: write RequestHeaderModifier or ResponseHeaderModifier")
		case f.Type != FilterRequestHeaderModifier && f.Type != FilterResponseHeaderModifier:
			c.fail(at+".type", "%q is not supported yet: write RequestHeaderModifier or ResponseHeaderModifier", f.Type)
		case seen[f.Type]:
			c.fail(at+".type", "%s is there twice: put its changes together", f.Type)
		default:
			c.filter(at, f)
		}
		seen[f.Type] = true
	}
}

func (c *check) filter(at string, f *HTTPRouteFilter) {
	wanted, other, field, not := f.RequestHeaderModifier, f.ResponseHeaderModifier, "requestHeaderModifier", "responseHeaderModifier"
	if f.Type == FilterResponseHeaderModifier {
		wanted, other, field, not = other, wanted, not, field
	}
	if other != nil {
		c.fail(at+"."+not, "does not belong to a filter of type %s", f.Type)
	}
	for name, there := range map[string]bool{"requestMirror": f.RequestMirror != nil, "requestRedirect": f.RequestRedirect != nil,
		"urlRewrite": f.URLRewrite != nil, "cors": f.CORS != nil, "externalAuth": f.ExternalAuth != nil, "extensionRef": f.ExtensionRef != nil} {
		if there {
			c.fail(at+"."+name, "does not belong to a filter of type %s", f.Type)
		}
	}
	if wanted == nil {
		c.fail(at+"."+field, "is missing: a filter of type %s says there what to change", f.Type)
		return
	}
	c.headerChange(at+"."+field, wanted)
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
