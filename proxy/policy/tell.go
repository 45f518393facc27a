package policy

import (
	"strings"
	"sync/atomic"

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
	ok, unsaid := r.of.dry.take(a.Now, kind(a), r.of.cfg.Lines)
	if !ok {
		return
	}
	args := append(about(a, request, id), Dry(d)...)
	if unsaid > 0 {
		args = append(args, "not_logged", unsaid)
	}
	r.of.cfg.Log.Warn("authz_dry_run", args...)
}

// about says who asks for what.
func about(a *authz.Attributes, request bool, id []byte) []any {
	args := []any{"caller", caller(a), "port", a.Port}
	if request {
		return append(args, "method", strings.Clone(a.Method), "host", clip(a.Host), "path", clip(a.Path), "request_id", string(id))
	}
	if a.ServerName != "" {
		args = append(args, "server_name", clip(a.ServerName))
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
	ok, unsaid := r.of.lines.take(a.Now, kind(a), r.of.cfg.Lines)
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
		d.Nearest = r.nearest(a, request)
		args = append(args, "why", "no policy allows it", "nearest", d.Nearest)
	}
	if unsaid > 0 {
		args = append(args, "not_logged", unsaid)
	}
	r.of.cfg.Log.Warn("authz_denied", args...)
}

// nearest says which rule came closest, and what was missing.
func (r *Rules) nearest(a *authz.Attributes, request bool) string {
	rule, missing := r.set.Nearest(a, request)
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

func clip(s string) string {
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

// kind is a hash of what makes two denials the same for the log: who is refused what on which port.
func kind(a *authz.Attributes) (h uint32) {
	h = uint32(a.Port)
	for _, s := range [...]string{a.Principal, a.Method} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	return h
}

// lines bounds lines of a log per second: all of them, and those of one kind to one, so that one caller does not hide the others.
// Two loops that meet at the turn of a second may write a few more.
type lines struct {
	second, written, unsaid atomic.Int64
	kinds                   [64]atomic.Int64 // the second in which a line of one of these was written last
}

// take reports whether a line may be written, and how many were not since the last one.
func (l *lines) take(now int64, kind uint32, most int) (ok bool, unsaid int64) {
	if l.second.Swap(now) != now {
		l.written.Store(0)
	}
	if l.kinds[kind%uint32(len(l.kinds))].Swap(now) == now || l.written.Add(1) > int64(most) {
		l.unsaid.Add(1)
		return false, 0
	}
	return true, l.unsaid.Swap(0)
}
