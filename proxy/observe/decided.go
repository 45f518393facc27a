package observe

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/telemetry"
)

// What policies have decided, counted by policy and rule.

// decidedKey is one series of telemetry.AuthzDecisions, or, with the action unanswered, of telemetry.AuthzUnanswered; also in the
// budget. Names of rules are those of the policies in force, as many as there are; where they do not fit they are counted together.
type decidedKey struct{ action, verdict, policy, rule string }

const unanswered = "unanswered"

// decided is its counter in one recorder: written by its loop, read by anybody.
type decided struct {
	key  decidedKey
	n    atomic.Uint64
	next *decided // never changes after it is published
}

var actions = [...]string{model.ActionExternal: "external", model.ActionDeny: "deny", model.ActionAllow: "allow", model.ActionAudit: "audit"}

// decide counts what policies have said about r.
func (c *Recorder) decide(d *record.Decision) {
	if d.Verdict == record.Unasked {
		return
	}
	k := decidedKey{verdict: d.Verdict.String(), policy: d.Policy, rule: d.Rule}
	switch {
	case d.Policy != "":
		k.action = actions[d.Action%4]
	case d.Absent:
		k.action = "absent"
	default:
		k.action = "default"
	}
	c.count(k)
	if d.Dry != record.Unasked {
		k := decidedKey{action: "dry_run", verdict: d.Dry.String(), policy: d.DryPolicy, rule: d.DryRule}
		c.count(k)
	}
	if d.Audit != "" {
		c.count(decidedKey{"audit", "audited", d.Audit, d.AuditRule})
	}
	if d.Verdict == record.Allowed && d.Word != record.NotAsked {
		if d.Policy != d.External || d.Rule != d.ExternalRule { // another one allows it, and is counted above
			c.count(decidedKey{"external", "allowed", d.External, d.ExternalRule})
		}
		if d.Word == record.Unanswered {
			c.count(decidedKey{unanswered, "allowed", d.External, d.ExternalRule})
		}
	}
}

func (c *Recorder) count(k decidedKey) {
	if last := c.lastDecided; last != nil && last.key == k {
		add(&last.n, 1)
		return
	}
	e := c.byPolicy[k]
	if e == nil {
		if !c.o.admit(k) {
			c.o.overflow.Add(1)
			if k.rule = telemetry.Other; !c.o.admit(k) {
				k.policy = telemetry.Other
			}
			e = c.byPolicy[k]
		}
		if e == nil {
			if c.byPolicy == nil {
				c.byPolicy = map[decidedKey]*decided{}
			}
			e = &decided{key: k, next: c.decidedHead.Load()}
			c.byPolicy[k] = e
			c.decidedHead.Store(e)
		}
	}
	c.lastDecided = e
	add(&e.n, 1)
}

func (x *exposition) decided(m telemetry.Metric, o *Observer) {
	sums := map[decidedKey]uint64{}
	for _, r := range *o.recorders.Load() {
		for e := r.decidedHead.Load(); e != nil; e = e.next {
			sums[e.key] += e.n.Load()
		}
	}
	all := make([]decidedKey, 0, len(sums))
	for k := range sums {
		if (k.action == unanswered) == (m.Name == telemetry.AuthzUnanswered) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b decidedKey) int {
		return cmp.Or(cmp.Compare(a.policy, b.policy), cmp.Compare(a.rule, b.rule), cmp.Compare(a.action, b.action), cmp.Compare(a.verdict, b.verdict))
	})
	x.head(m)
	for _, k := range all {
		if m.Name == telemetry.AuthzUnanswered {
			x.series(m.Name, float64(sums[k]), "policy", k.policy, "rule", k.rule)
			continue
		}
		x.series(m.Name, float64(sums[k]), "action", k.action, "verdict", k.verdict, "policy", k.policy, "rule", k.rule)
	}
}
