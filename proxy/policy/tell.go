package policy

import (
	"strings"

	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
)

// note tells the record, and the log, what was decided.
func (r *Rules) note(v *authz.Verdict, a *authz.Attributes, d *record.Decision, request bool, id []byte) {
	*d = Decided(v)
	if !v.Allowed {
		r.denied(a, d, request, id)
	}
	if v.Dry {
		r.tried(a, d, request, id)
	}
}

// Decided answers a verdict as records have it.
func Decided(v *authz.Verdict) record.Decision {
	d := record.Decision{Verdict: record.Allowed, Absent: v.Absent}
	if !v.Allowed {
		d.Verdict = record.Denied
	}
	if v.By != nil {
		d.Action, d.Policy, d.Rule = v.By.Action, v.By.Policy, v.By.Name
	}
	if v.Audit != nil {
		d.Audit, d.AuditRule = v.Audit.Policy, v.Audit.Name
	}
	if v.Dry {
		d.Dry = record.Denied
		if !v.Allowed {
			d.Dry = record.Allowed
		}
		d.DryAbsent = v.DryAbsent
		if v.DryBy != nil {
			d.DryPolicy, d.DryRule = v.DryBy.Policy, v.DryBy.Name
		}
	}
	return d
}

// Dry answers what policies in dry run would decide, for a line of the log.
func Dry(d *record.Decision) []any {
	if d.DryAbsent {
		return []any{"dry_run", d.Dry.String(), "dry_run_why", "no policy would allow it"}
	}
	return []any{"dry_run", d.Dry.String(), "dry_run_policy", d.DryPolicy, "dry_run_rule", d.DryRule}
}

// tried writes one line about what policies in dry run would decide otherwise, if there is room for it this second.
func (r *Rules) tried(a *authz.Attributes, d *record.Decision, request bool, id []byte) {
	unsaid, ok := r.of.dry.room(a.Now, kind(a), r.of.cfg.Lines)
	if !ok {
		return
	}
	Say(r.of.cfg.Log, "authz_dry_run", unsaid, append(about(a, request, id), Dry(d)...)...)
}

// about says who asks for what.
func about(a *authz.Attributes, request bool, id []byte) []any {
	args := []any{"caller", caller(a), "port", a.Port}
	if request {
		return append(args, "method", strings.Clone(a.Method), "host", Clip(a.Host), "path", Clip(a.Path), "request_id", string(id))
	}
	if a.ServerName != "" {
		args = append(args, "server_name", Clip(a.ServerName))
	}
	return args
}

// unknown denies because nothing is known.
func (r *Rules) unknown(a *authz.Attributes, d *record.Decision, id []byte) authz.Verdict {
	*d = record.Decision{Verdict: record.Denied, Absent: true}
	r.denied(a, d, a.HTTP, id)
	return authz.Verdict{Absent: true}
}

// denied writes one line about a denial, if there is room for it this second. It looks for the nearest rule only then.
func (r *Rules) denied(a *authz.Attributes, d *record.Decision, request bool, id []byte) {
	unsaid, ok := r.of.lines.room(a.Now, kind(a), r.of.cfg.Lines)
	if !ok {
		return
	}
	args := about(a, request, id)
	switch {
	case r.set == nil:
		d.Nearest = "the control plane has not said yet which policies there are"
		args = append(args, "why", d.Nearest)
	case d.Policy != "":
		args = append(args, "policy", d.Policy, "rule", d.Rule)
	default:
		d.Nearest = Nearest(r.set, a, request)
		args = append(args, "why", "no policy allows it", "nearest", d.Nearest)
	}
	Say(r.of.cfg.Log, "authz_denied", unsaid, args...)
}

// Objected writes the line about a request that policies allow and that is refused all the same, because of its external authorizer: d
// says by which policy, and what the authorizer has said. It is bounded as, and together with, those about other denials.
func (p *InForce) Objected(a *authz.Attributes, d *record.Decision, id []byte) {
	if unsaid, ok := p.lines.room(a.Now, kind(a), p.cfg.Lines); ok {
		Say(p.cfg.Log, "authz_denied", unsaid, append(append(about(a, true, id), "policy", d.Policy, "rule", d.Rule), worded(d)...)...)
	}
}

// PassedUnheard writes the line about a request that was let through although nobody has answered (failOpen), bounded likewise, apart
// from denials.
func (p *InForce) PassedUnheard(a *authz.Attributes, d *record.Decision, id []byte) {
	if unsaid, ok := p.unheard.room(a.Now, kind(a), p.cfg.Lines); ok {
		Say(p.cfg.Log, "authz_unanswered", unsaid, append(append(about(a, true, id), "policy", d.External, "rule", d.ExternalRule), worded(d)...)...)
	}
}

// worded says what an authorizer has said.
func worded(d *record.Decision) []any {
	args := []any{"authorizer", d.AuthorizerName(), "answer", d.Word.String()}
	if d.Refusal.Cause != "" {
		args = append(args, "why", d.Refusal.Cause)
	}
	return args
}

// Nearest says which rule of a set came closest, and what was missing.
func Nearest(set *authz.Set, a *authz.Attributes, request bool) string {
	rule, missing := set.Nearest(a, request)
	if rule == nil {
		return "none: no policy allows anything here"
	}
	b := []byte(rule.Policy + " " + rule.Name + ": ")
	for i, m := range missing {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, m.String()...)
	}
	return string(b)
}

// maxText bounds what a caller has said in a line of the log, bytes.
const maxText = 256

// Clip answers a text that a caller has said, as a line of the log has it: its own, and bounded.
func Clip(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return strings.Clone(s)
}

func caller(a *authz.Attributes) string {
	if a.Principal != "" {
		return a.Principal
	}
	return a.IP.String()
}

func kind(a *authz.Attributes) uint32 { return Kind(a.Port, a.Principal, a.Method) }
