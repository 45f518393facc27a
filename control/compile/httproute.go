package compile

import (
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// RouteTable answers what happens to the requests for a port. Without an attached route they go to the service's
// own endpoints; with one, what no route matches is answered no_route (GAMMA).
func (c Compiler) RouteTable(name model.PortName) (*model.RouteTable, bool) {
	s, ok := c.Services.Service(name.Service)
	if !ok {
		return nil, false
	}
	if _, ok := s.FindPort(name.Port); !ok {
		return nil, false
	}
	t := &model.RouteTable{Name: name}
	routes := c.attached(name)
	for _, r := range routes {
		t.Routes = append(t.Routes, c.compileRoute(r)...)
	}
	if len(routes) == 0 {
		t.Routes = []model.Route{{
			Name:     "Service/" + name.Service.Namespace + "/" + name.Service.Name,
			Match:    model.Match{PathKind: model.PathPrefix, Path: "/"},
			Backends: []model.Backend{{Cluster: name, Weight: 1}},
		}}
	}
	// Stable: what is equal stays in order of age, name, rule and match, in which it was appended.
	slices.SortStableFunc(t.Routes, func(a, b model.Route) int { return precedence(&a.Match, &b.Match) })
	c.treatTable(t)
	return t, true
}

// compileRoute answers one model.Route per match of the route's rules.
func (c Compiler) compileRoute(r Route) []model.Route {
	var out []model.Route
	for i, rule := range r.Object.Spec.Rules {
		base := model.Route{
			Name:     "HTTPRoute/" + r.Object.Namespace + "/" + r.Object.Name,
			Rule:     i,
			Filters:  filters(rule.Filters),
			Backends: c.backends(r.Object, rule),
			Timeouts: timeouts(rule.Timeouts),
		}
		matches := rule.Matches
		if len(matches) == 0 {
			matches = []v1alpha1.HTTPRouteMatch{{}}
		}
		for _, m := range matches {
			one := base
			one.Match = match(m)
			out = append(out, one)
		}
	}
	return out
}

func (c Compiler) backends(r *v1alpha1.HTTPRoute, rule v1alpha1.HTTPRouteRule) []model.Backend {
	var out []model.Backend
	total := uint32(0)
	for _, b := range rule.BackendRefs {
		weight := uint32(1)
		if b.Weight != nil {
			weight = uint32(max(0, *b.Weight))
		}
		if weight == 0 {
			continue
		}
		total += weight
		out = append(out, model.Backend{
			Cluster: backendName(r, b),
			Weight:  weight,
			Filters: filters(b.Filters),
			Invalid: c.resolve(r, b).reason != "",
		})
	}
	if total == 0 {
		return nil
	}
	return out
}

func match(m v1alpha1.HTTPRouteMatch) model.Match {
	out := model.Match{PathKind: model.PathPrefix, Path: "/"}
	if m.Path != nil {
		if m.Path.Value != nil {
			out.Path = *m.Path.Value
		}
		if m.Path.Type != nil {
			switch *m.Path.Type {
			case v1alpha1.PathMatchExact:
				out.PathKind = model.PathExact
			case v1alpha1.PathMatchRegularExpression:
				out.PathKind = model.PathRegex
			}
		}
	}
	if m.Method != nil {
		out.Method = string(*m.Method)
	}
	for _, h := range m.Headers {
		name := strings.ToLower(string(h.Name))
		// Gateway API: of several matches with the same name only the first counts.
		if !slices.ContainsFunc(out.Headers, func(f model.FieldMatch) bool { return f.Name == name }) {
			out.Headers = append(out.Headers, model.FieldMatch{Name: name, Value: h.Value,
				Regex: h.Type != nil && *h.Type == v1alpha1.HeaderMatchRegularExpression})
		}
	}
	for _, q := range m.QueryParams {
		name := string(q.Name)
		if !slices.ContainsFunc(out.Query, func(f model.FieldMatch) bool { return f.Name == name }) {
			out.Query = append(out.Query, model.FieldMatch{Name: name, Value: q.Value,
				Regex: q.Type != nil && *q.Type == v1alpha1.QueryParamMatchRegularExpression})
		}
	}
	return out
}

func filters(in []v1alpha1.HTTPRouteFilter) []model.Filter {
	var out []model.Filter
	for _, f := range in {
		switch f.Type {
		case v1alpha1.FilterRequestHeaderModifier:
			out = append(out, model.Filter{Kind: model.FilterRequestHeaders, Headers: headerChange(f.RequestHeaderModifier)})
		case v1alpha1.FilterResponseHeaderModifier:
			out = append(out, model.Filter{Kind: model.FilterResponseHeaders, Headers: headerChange(f.ResponseHeaderModifier)})
		}
	}
	return out
}

func headerChange(f *v1alpha1.HTTPHeaderFilter) model.HeaderChange {
	if f == nil {
		return model.HeaderChange{}
	}
	list := func(in []v1alpha1.HTTPHeader) []model.Header {
		var out []model.Header
		for _, h := range in {
			out = append(out, model.Header{Name: string(h.Name), Value: h.Value})
		}
		return out
	}
	return model.HeaderChange{Set: list(f.Set), Add: list(f.Add), Remove: slices.Clone(f.Remove)}
}

// timeouts reads Gateway API durations, which are a subset of Go's (GEP-2257); the api package has validated them.
func timeouts(t *v1alpha1.HTTPRouteTimeouts) model.Timeouts {
	if t == nil {
		return model.Timeouts{}
	}
	read := func(d *v1alpha1.GatewayDuration) time.Duration {
		if d == nil {
			return 0
		}
		v, err := time.ParseDuration(string(*d))
		if err != nil || v < 0 {
			return 0
		}
		return v
	}
	return model.Timeouts{Request: read(t.Request), Attempt: read(t.BackendRequest)}
}
