package compile

import (
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// rule answers what the rules of HTTPRoute and GRPCRoute have in common: filters and backends. A filter that cannot be found
// is not skipped: the rule answers 500 instead (Gateway API: ExtensionRef).
func (c Compiler) rule(r Route, i int, in v1alpha1.RouteRule) model.Route {
	out := model.Route{Name: r.Name(), Rule: i, Filters: headerFilters(in.Filters), Backends: c.backends(r, c.rolled(r, in))}
	for _, f := range in.Filters {
		switch {
		case f.RequestRedirect != nil:
			out.Redirect = redirect(f.RequestRedirect)
		case f.URLRewrite != nil:
			rewrite(&out.Rewrite, f.URLRewrite)
		case f.RequestMirror != nil:
			if m, any := c.mirror(r, f.RequestMirror); any {
				out.Mirrors = append(out.Mirrors, m)
			}
		case f.CORS != nil:
			out.CORS = cors(f.CORS)
		}
	}
	if !c.extensions(r, in.Filters, &out) {
		out = model.Route{Name: out.Name, Rule: i}
	}
	return out
}

// extensions puts filters of Tulle's own into a route; false says that one is not there.
func (c Compiler) extensions(r Route, filters []v1alpha1.HTTPRouteFilter, out *model.Route) bool {
	for _, f := range filters {
		if f.ExtensionRef == nil {
			continue
		}
		switch o := c.extension(r, f.ExtensionRef).(type) {
		case *v1alpha1.FaultInjection:
			out.Fault = fault(&o.Spec)
		case *v1alpha1.DirectResponse:
			out.Direct = &model.Direct{Status: int(o.Spec.Status), Body: []byte(o.Spec.Body)}
			out.Backends = nil
		default:
			return false
		}
	}
	return true
}

// extension answers the object that a filter refers to, in the route's own namespace; nil if there is none.
func (c Compiler) extension(r Route, ref *v1alpha1.LocalObjectRef) v1alpha1.Object {
	is := func(o v1alpha1.Object) bool {
		return ref.Group == v1alpha1.TulleGroup && o.GetNamespace() == r.Object.GetNamespace() && o.GetName() == string(ref.Name)
	}
	switch ref.Kind {
	case "FaultInjection":
		for _, o := range c.Index.beside.Faults {
			if is(o) {
				return o
			}
		}
	case "DirectResponse":
		for _, o := range c.Index.beside.Responses {
			if is(o) {
				return o
			}
		}
	}
	return nil
}

// backends answers nil where all weights are 0.
func (c Compiler) backends(r Route, refs []v1alpha1.HTTPBackendRef) []model.Backend {
	var out []model.Backend
	for i := range refs {
		b := &refs[i]
		weight := uint32(1)
		if b.Weight != nil {
			weight = uint32(max(0, *b.Weight))
		}
		if weight == 0 {
			continue
		}
		out = append(out, model.Backend{
			Cluster: c.backend(r.Object, &b.BackendObjectReference),
			Weight:  weight,
			Filters: headerFilters(b.Filters),
			Invalid: c.resolve(r, &b.BackendObjectReference).reason != "",
		})
	}
	return out
}

func headerFilters(in []v1alpha1.HTTPRouteFilter) []model.Filter {
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
	return model.HeaderChange{Set: list(f.Set), Add: list(f.Add), Remove: append([]string(nil), f.Remove...)}
}

func redirect(f *v1alpha1.HTTPRequestRedirect) *model.Redirect {
	out := &model.Redirect{Status: v1alpha1.DefaultRedirectStatus}
	if f.StatusCode != nil {
		out.Status = *f.StatusCode
	}
	if f.Scheme != nil {
		out.Scheme = *f.Scheme
	}
	if f.Hostname != nil {
		out.Host = string(*f.Hostname)
	}
	if f.Port != nil {
		out.Port = uint16(*f.Port)
	}
	switch p := f.Path; {
	case p == nil:
	case p.ReplaceFullPath != nil:
		out.Change, out.Path = model.PathFull, *p.ReplaceFullPath
	case p.ReplacePrefixMatch != nil:
		out.Change, out.Path = model.PathPrefixed, *p.ReplacePrefixMatch
	}
	return out
}

func rewrite(out *model.Rewrite, f *v1alpha1.HTTPURLRewriteFilter) {
	if f.Hostname != nil {
		out.Host = string(*f.Hostname)
	}
	switch p := f.Path; {
	case p == nil:
	case p.ReplaceFullPath != nil:
		out.Path = *p.ReplaceFullPath
	case p.ReplacePrefixMatch != nil:
		out.Prefix, out.HasPrefix = *p.ReplacePrefixMatch, true
	}
}

// mirror answers false for a share of nothing.
func (c Compiler) mirror(r Route, f *v1alpha1.HTTPRequestMirrorFilter) (model.Mirror, bool) {
	const all = 1_000_000
	share := v1alpha1.Share(f.Percent, f.Fraction)
	m := model.Mirror{Cluster: backendName(r.Object, &f.BackendRef), Fraction: share, Invalid: c.resolve(r, &f.BackendRef).reason != ""}
	if share >= all {
		m.Fraction = 0
	}
	return m, share > 0
}

func cors(f *v1alpha1.HTTPCORSFilter) *model.CORS {
	out := &model.CORS{Credentials: f.AllowCredentials != nil && *f.AllowCredentials, MaxAge: time.Duration(f.MaxAge) * time.Second}
	for _, o := range f.AllowOrigins {
		out.Origins = append(out.Origins, originMatch(string(o)))
	}
	for _, m := range f.AllowMethods {
		out.Methods = append(out.Methods, string(m))
	}
	for _, h := range f.AllowHeaders {
		out.Headers = append(out.Headers, string(h))
	}
	for _, h := range f.ExposeHeaders {
		out.Expose = append(out.Expose, string(h))
	}
	return out
}

// originMatch reads an origin, in which "*" stands for any number of labels. No browser sends the port that a scheme has
// anyway.
func originMatch(o string) model.OriginMatch {
	if o == "*" {
		return model.OriginMatch{Any: true}
	}
	o = strings.ToLower(o)
	for scheme, port := range map[string]string{"http://": ":80", "https://": ":443"} {
		if strings.HasPrefix(o, scheme) {
			o = strings.TrimSuffix(o, port)
		}
	}
	if before, after, ok := strings.Cut(o, "*"); ok {
		return model.OriginMatch{Wildcard: true, Prefix: before, Suffix: after}
	}
	return model.OriginMatch{Exact: o}
}

func fault(s *v1alpha1.FaultInjectionSpec) *model.Fault {
	out := &model.Fault{}
	share := func(f v1alpha1.FaultShare) uint32 { return v1alpha1.Share(f.Percent, f.Fraction) }
	if d := s.Delay; d != nil {
		out.Delay, out.DelayShare = length(&d.Duration), share(d.FaultShare)
	}
	if a := s.Abort; a != nil {
		out.AbortShare, out.Reset = share(a.FaultShare), a.Reset
		if !a.Reset {
			out.Status = v1alpha1.DefaultAbortStatus
		}
		if a.HTTPStatus != nil {
			out.Status = int(*a.HTTPStatus)
		}
		if a.GRPCStatus != nil {
			out.GRPC, _ = v1alpha1.GRPCStatus(*a.GRPCStatus)
		}
	}
	if b := s.Bandwidth; b != nil {
		out.Rate, out.RateShare = uint64(b.BytesPerSecond), share(b.FaultShare)
	}
	for _, h := range s.Headers {
		out.Headers = append(out.Headers, model.FieldMatch{Name: strings.ToLower(string(h.Name)), Value: h.Value, Regex: h.Type != nil && *h.Type == v1alpha1.HeaderMatchRegularExpression})
	}
	return out
}
