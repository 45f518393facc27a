package authz

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Bounds of Nearest.
const (
	maxNear  = 256 // rules that are looked at
	maxWants = 4   // of one list that are written out
	maxSaid  = 96  // bytes of one value
)

// Missing is one thing that keeps a rule from holding.
type Missing struct {
	What  string // "principal", "method", "header x-user"
	Has   string // "" is none
	Wants string // "GET or HEAD", "not 10.0.0.0/8"
}

// String answers "method POST instead of GET or HEAD".
func (m Missing) String() string {
	if m.Has == "" {
		return "no " + m.What + " where " + m.Wants + " is wanted"
	}
	return m.What + " " + m.Has + " instead of " + m.Wants
}

// Nearest answers, for a denial because nothing allowed, the allowing rule that came closest and what was missing; nil: there is
// none. It allocates and is bounded: meant for what is logged and explained, not for every request. request says whether it was
// one (Set.Request) or a connection.
func (s *Set) Nearest(a *Attributes, request bool) (*Rule, []Missing) {
	p := s.inForce.at(a.Port)
	var best *rule
	var least []Missing
	for i, r := range p.every {
		if i == maxNear {
			break
		}
		if m := r.missing(a, request); best == nil || len(m) < len(least) {
			best, least = r, m
		}
	}
	if best == nil {
		return nil, nil
	}
	return &best.name, least
}

// missing answers what of a rule does not hold, of alternatives those with the least.
func (r *rule) missing(a *Attributes, request bool) (out []Missing) {
	if r.begins != 0 && a.Now < r.begins {
		out = append(out, Missing{"time", stamp(a.Now), "from " + stamp(r.begins)})
	}
	if r.ends != 0 && a.Now >= r.ends {
		out = append(out, Missing{"time", stamp(a.Now), "before " + stamp(r.ends)})
	}
	if !request && (r.expression != nil || len(r.when) > 0) {
		out = append(out, Missing{"protocol", "TCP", "HTTP"})
	}
	if a.Federated && len(r.from) == 0 {
		out = append(out, Missing{"trust domain", clip(a.TrustDomain), "one that the rule names"})
	}
	out = append(out, fewest(r.from, func(s *source) []Missing { return s.missing(a, request) })...)
	out = append(out, fewest(r.to, func(t *target) []Missing { return t.missing(a, request) })...)
	for i := range r.when {
		if w := &r.when[i]; request && !w.holds(a) {
			out = append(out, Missing{w.what(), w.has(a), w.values.wants()})
		}
	}
	if r.expression != nil && request {
		if ok, err := r.expression.Holds(a); err != nil {
			out = append(out, Missing{"expression", "that fails (" + clip(err.Error()) + ")", "one that holds: " + clip(oneLine(r.of.Expression))})
		} else if !ok {
			out = append(out, Missing{"expression", "false", clip(oneLine(r.of.Expression))})
		}
	}
	return out
}

func fewest[T interface{}](list []T, missing func(*T) []Missing) (least []Missing) {
	for i := range list {
		if m := missing(&list[i]); i == 0 || len(m) < len(least) {
			least = m
		}
	}
	return least
}

func (s *source) missing(a *Attributes, request bool) (out []Missing) {
	add := func(what, has string, t *texts) {
		if !t.hold(has) {
			out = append(out, Missing{what, clip(has), t.wants()})
		}
	}
	add("principal", a.Principal, &s.principals)
	add("namespace", a.Namespace, &s.namespaces)
	add("service account", a.Account, &s.accounts)
	add("trust domain", a.TrustDomain, &s.domains)
	if a.Federated && !s.names(a) && s.principals.hold(a.Principal) && s.domains.hold(a.TrustDomain) {
		out = append(out, Missing{"trust domain", clip(a.TrustDomain), "one that the rule names"})
	}
	if request {
		add("token", a.Token, &s.tokens)
	} else if s.needsRequest() {
		out = append(out, Missing{"protocol", "TCP", "HTTP"})
	}
	for _, one := range []struct {
		what string
		addr netip.Addr
		of   *prefixes
	}{{"address", a.IP, &s.ips}, {"remote address", a.RemoteIP, &s.remotes}} {
		if !one.of.hold(one.addr) {
			has := ""
			if one.addr.IsValid() {
				has = one.addr.String()
			}
			out = append(out, Missing{one.what, has, one.of.wants()})
		}
	}
	return out
}

func (t *target) missing(a *Attributes, request bool) (out []Missing) {
	add := func(what, has string, t *texts) {
		if !t.hold(has) {
			out = append(out, Missing{what, clip(has), t.wants()})
		}
	}
	if !t.ports.hold(a.Port) {
		out = append(out, Missing{"port", fmt.Sprint(a.Port), join(t.ports.is, t.ports.not, portText)})
	}
	add("server name", a.ServerName, &t.names)
	switch {
	case request:
	case t.needsRequest():
		return append(out, Missing{"protocol", "TCP", "HTTP"})
	default:
		return out
	}
	add("method", a.Method, &t.methods)
	add("host", a.Host, &t.hosts)
	add("procedure", a.Procedure, &t.procedures)
	if !t.paths.hold(a.Path) {
		out = append(out, Missing{"path", clip(a.Path), join(t.paths.is, t.paths.not, path.say)})
	}
	return out
}

func (c *condition) what() string {
	return [...]string{"header", "query parameter", "cookie", "claim"}[c.kind%4] + " " + c.name
}

func (c *condition) has(a *Attributes) string {
	if a.Fields == nil {
		return ""
	}
	v, _ := a.Fields.Value(c.kind, c.name, 0)
	return clip(v)
}

func (t *texts) wants() string {
	if !t.some() {
		return "any"
	}
	return join(t.is, t.not, text.say)
}

func (p *prefixes) wants() string { return join(p.is, p.not, netip.Prefix.String) }

func (t text) say() string {
	if t.Kind == model.StringRegex && t.Value == ".+" {
		return "any" // as "*" is compiled
	}
	v := clip(t.Value)
	switch t.Kind {
	case model.StringPrefix:
		return v + "*"
	case model.StringSuffix:
		return "*" + v
	case model.StringContains:
		return "*" + v + "*"
	case model.StringRegex:
		return "~" + v
	}
	return v
}

func (p path) say() string {
	return p.text.say()
}

// join answers "a or b but not c".
func join[E interface{}](is, not []E, say func(E) string) string {
	some := func(list []E) string {
		var b strings.Builder
		for i, e := range list {
			switch {
			case i == maxWants:
				fmt.Fprintf(&b, " or %d others", len(list)-i)
				return b.String()
			case i > 0:
				b.WriteString(" or ")
			}
			b.WriteString(say(e))
		}
		return b.String()
	}
	switch {
	case len(not) == 0:
		return some(is)
	case len(is) == 0:
		return "anything but " + some(not)
	}
	return some(is) + " but not " + some(not)
}

// oneLine answers an expression as it is said in a log.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func clip(s string) string {
	if len(s) <= maxSaid {
		return s
	}
	return strings.ToValidUTF8(s[:maxSaid], "") + "…"
}

func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// portText answers a port; 0 is what a name became that no port has.
func portText(n uint16) string {
	if n == 0 {
		return "one that is not there"
	}
	return fmt.Sprint(n)
}
