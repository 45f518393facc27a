package compile

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// grpcRoutes answers one model.Route per match of the rules of GRPCRoutes, in Gateway API's order (GRPCRouteRule.matches): the
// most characters in a matching service, then in a matching method, then the most headers; what is equal stays in order
// of age, name, rule and match.
func (c Compiler) grpcRoutes(routes []Route) []model.Route {
	type ranked struct {
		model.Route
		service, method int
	}
	var list []ranked
	for _, r := range routes {
		o, ok := r.Object.(*v1alpha1.GRPCRoute)
		if !ok {
			continue
		}
		for i, common := range v1alpha1.Rules(o) {
			rule := &o.Spec.Rules[i]
			base := c.rule(r, i, common)
			base.Session = persistence(r, i, common.Name, rule.SessionPersistence)
			matches := rule.Matches
			if len(matches) == 0 {
				matches = []v1alpha1.GRPCRouteMatch{{}}
			}
			for _, m := range matches {
				one := ranked{Route: base}
				one.Match, one.service, one.method = grpcMatch(m)
				list = append(list, one)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.service, a.service), cmp.Compare(b.method, a.method), cmp.Compare(len(b.Match.Headers), len(a.Match.Headers)))
	})
	out := make([]model.Route, len(list))
	for i := range list {
		out[i] = list[i].Route
	}
	return out
}

// grpcMatch says a match as one of HTTP: the path of a call is "/<service>/<method>". It answers how many characters of
// service and method are compared, too.
func grpcMatch(m v1alpha1.GRPCRouteMatch) (out model.Match, service, method int) {
	out = model.Match{PathKind: model.PathPrefix, Path: "/", GRPC: true}
	for _, h := range m.Headers {
		name := strings.ToLower(string(h.Name))
		if !slices.ContainsFunc(out.Headers, func(f model.FieldMatch) bool { return f.Name == name }) {
			out.Headers = append(out.Headers, model.FieldMatch{Name: name, Value: h.Value, Regex: h.Type != nil && *h.Type == v1alpha1.GRPCHeaderRegularExpression})
		}
	}
	if m.Method == nil {
		return out, 0, 0
	}
	s, n := text(m.Method.Service), text(m.Method.Method)
	isRegex := m.Method.Type != nil && *m.Method.Type == v1alpha1.GRPCMethodRegularExpression
	part := func(of string) string {
		switch {
		case of == "":
			return "[^/]+"
		case isRegex:
			return "(?:" + of + ")"
		}
		return regexp.QuoteMeta(of)
	}
	switch {
	case s == "" && n == "":
	case isRegex || s == "":
		out.PathKind, out.Path = model.PathRegex, "/"+part(s)+"/"+part(n)
	case n == "":
		out.Path = "/" + s
	default:
		out.PathKind, out.Path = model.PathExact, "/"+s+"/"+n
	}
	return out, len(s), len(n)
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
