package compile

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// Request is an example of what somebody may send. Each field is there once.
type Request struct {
	Method  string         `json:"method,omitempty"`
	Host    string         `json:"host"`             // authority
	Target  string         `json:"target,omitempty"` // path and query
	Headers []model.Header `json:"headers,omitempty"`
	// Server, where Method is "", is the server name of a connection that is no request's; "": any.
	Server string `json:"server,omitempty"`
}

// String answers "GET http://cart.default:80/a?b=c x-user: alice".
func (r *Request) String() string {
	if r.Method == "" && r.Server == "" {
		return "any connection to " + r.Host
	} else if r.Method == "" {
		return "a connection to " + r.Host + " with server name " + r.Server
	}
	s := r.Method + " http://" + r.Host + r.Target
	for _, h := range r.Headers {
		s += " " + h.Name + ": " + h.Value
	}
	return s
}

// witness answers a request to a port that both matches hold for: findNone if there surely is none, findUnknown if that
// cannot be told.
func (e *effort) witness(to model.PortName, a, b *model.Match) (*Request, finding) {
	r := &Request{Method: "GET", Host: to.String()}
	switch {
	case a.Connect || b.Connect:
		return nil, findUnknown // of foreign tables only
	case a.Method != "" && b.Method != "" && a.Method != b.Method:
		return nil, findNone
	case a.Method != "" || b.Method != "":
		r.Method = max(a.Method, b.Method) // one of them is ""
	case a.GRPC || b.GRPC:
		r.Method = "POST"
	}
	path, found := e.common(pathAlphabet, pathForm, pathExpr(a), pathExpr(b))
	headers := fieldExprs(a.Headers, b.Headers)
	if a.GRPC || b.GRPC {
		headers["content-type"] = append(headers["content-type"], `(?i:application/grpc)(?:\+.*)?`)
	}
	found = both(found, e.fill(headers, func(name, value string) {
		if name == "host" {
			r.Host = value
			return
		}
		r.Headers = append(r.Headers, model.Header{Name: name, Value: value})
	}))
	var query []string
	found = both(found, e.fill(fieldExprs(a.Query, b.Query), func(name, value string) {
		query = append(query, escape(name)+"="+escape(value))
	}))
	if found != findOne {
		return nil, found
	}
	r.Target = path
	if len(query) > 0 {
		r.Target += "?" + strings.Join(query, "&")
	}
	return r, findOne
}

// both is what is known of a whole of which two parts are known: what cannot be in part cannot be.
func both(a, b finding) finding {
	switch {
	case a == findNone || b == findNone:
		return findNone
	case a == findUnknown || b == findUnknown:
		return findUnknown
	}
	return findOne
}

// pathExpr answers the paths of a match as a regular expression.
func pathExpr(m *model.Match) string {
	expr := regexp.QuoteMeta(m.Path)
	switch {
	case m.PathKind == model.PathRegex:
		expr = "(?:" + m.Path + ")"
	case m.PathKind == model.PathExact:
	case m.PathPrefixText:
		expr += "(?s:.*)"
	default: // whole elements
		expr = regexp.QuoteMeta(strings.TrimRight(m.Path, "/")) + "(?:/(?s:.*))?"
	}
	if m.IgnoreCase {
		return "(?i:" + expr + ")"
	}
	return expr
}

// fieldExprs answers, by name, the expressions that a field's value has to match.
func fieldExprs(lists ...[]model.FieldMatch) map[string][]string {
	out := map[string][]string{}
	for _, list := range lists {
		for i := range list {
			out[list[i].Name] = append(out[list[i].Name], fieldExpr(&list[i]))
		}
	}
	return out
}

// unknown is the expression of what is not searched: it is none, so that a walk cannot tell.
const unknown = "("

func fieldExpr(f *model.FieldMatch) string {
	expr := regexp.QuoteMeta(f.Value)
	switch {
	case f.Invert || f.Kind == model.FieldRange:
		return unknown
	case f.Regex:
		expr = "(?:" + f.Value + ")"
	case f.Kind == model.FieldPresent:
		return "(?s:.*)"
	case f.Kind == model.FieldPrefix:
		expr += "(?s:.*)"
	case f.Kind == model.FieldSuffix:
		expr = "(?s:.*)" + expr
	case f.Kind == model.FieldContains:
		expr = "(?s:.*)" + expr + "(?s:.*)"
	}
	if f.IgnoreCase {
		return "(?i:" + expr + ")"
	}
	return expr
}

// fill finds a value for every name, in the order of the names.
func (e *effort) fill(exprs map[string][]string, set func(name, value string)) finding {
	found := findOne
	for _, name := range slices.Sorted(maps.Keys(exprs)) {
		value, f := e.common(textAlphabet(), append([]string{textForm}, exprs[name]...)...)
		if found = both(found, f); f == findOne {
			set(name, value)
		}
	}
	return found
}

// escape writes a part of a query (RFC 3986 section 2.1).
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; strings.IndexByte(letters+"-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
		}
	}
	return b.String()
}
