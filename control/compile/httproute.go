package compile

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// httpRoute answers one model.Route per match of the route's rules.
func (c Compiler) httpRoute(r Route) []model.Route {
	o, ok := r.Object.(*v1alpha1.HTTPRoute)
	if !ok {
		return nil
	}
	var out []model.Route
	for i, common := range v1alpha1.Rules(o) {
		rule := &o.Spec.Rules[i]
		base := c.rule(r, i, common)
		base.Timeouts = timeouts(rule.Timeouts)
		base.Retry = routeRetry(rule.Retry)
		base.Session = persistence(r, i, common.Name, rule.SessionPersistence)
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

// timeouts reads Gateway API durations, which are a subset of Go's (GEP-2257); the api package has validated them.
func timeouts(t *v1alpha1.HTTPRouteTimeouts) model.Timeouts {
	if t == nil {
		return model.Timeouts{}
	}
	return model.Timeouts{Request: length(t.Request), Attempt: length(t.BackendRequest)}
}

// length reads a duration that may be left out.
func length(d *v1alpha1.GatewayDuration) time.Duration {
	if d == nil {
		return 0
	}
	v, _ := v1alpha1.ParseDuration(string(*d))
	return v
}

// routeRetry reads GEP-1731. Connections that fail are retried whatever the codes are, as it recommends; what may have been
// acted on only where the method allows it. No wait is shorter than backoff.
func routeRetry(r *v1alpha1.HTTPRouteRetry) *model.Retry {
	if r == nil {
		return nil
	}
	out := &model.Retry{On: model.RetryUntouched | model.RetryReset | model.RetryTimeout, Attempts: defaultAttempts, OtherHosts: true, RetryAfter: defaultRetryAfter}
	if r.Attempts != nil {
		out.Attempts = uint32(max(0, *r.Attempts))
	}
	for _, code := range r.Codes {
		out.On |= model.RetryStatuses
		out.Statuses = append(out.Statuses, uint16(code))
	}
	if b := length(r.Backoff); b > 0 {
		out.Base, out.Least, out.Max = 2*b, b, 10*b // half of the first waits are backoff, the others up to twice that
	}
	return out
}

// Of a retry that does not say: those of a TrafficPolicy.
const (
	defaultAttempts   = 2
	defaultRetryAfter = 10 * time.Second
)

// persistence reads GEP-1619. The name that nobody gives is the rule's own, so that no two rules share a session.
func persistence(r Route, rule int, name string, s *v1alpha1.SessionPersistence) *model.Session {
	if s == nil {
		return nil
	}
	if name == "" {
		name = strconv.Itoa(rule)
	}
	name = "session-" + r.Object.GetNamespace() + "-" + r.Object.GetName() + "-" + name
	if s.SessionName != nil {
		name = *s.SessionName
	}
	out := &model.Session{Absolute: length(s.AbsoluteTimeout)}
	if s.Type != nil && *s.Type == v1alpha1.SessionHeader {
		out.Header = strings.ToLower(name)
		return out
	}
	out.Cookie, out.Path = name, "/"
	if k := s.CookieConfig; k != nil && k.LifetimeType != nil && *k.LifetimeType == v1alpha1.PermanentCookieLifetime {
		out.Lifetime = out.Absolute
	}
	return out
}
