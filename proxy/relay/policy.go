package relay

import (
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// Whether the workload's policies allow a connection that is not HTTP.

// Ask asks the policies in force about a connection of c that is about to be relayed, and tells rec. None: it is allowed. A port
// on which requests are looked at takes nothing that is none.
func Ask(in *policy.InForce, l loop.Loop, c *policy.Caller, name string, rec *record.Record) failure.Reason {
	r := in.Rules()
	if r == nil || c == nil {
		return failure.None
	}
	return ask(r, l, c, name, rec)
}

func ask(r *policy.Rules, l loop.Loop, c *policy.Caller, name string, rec *record.Record) failure.Reason {
	a := authz.Attributes{Now: l.Wall().Unix(), ServerName: name}
	c.Fill(&a)
	switch v := r.Connection(&a, &rec.Decision); {
	case !v.Allowed:
		return failure.AuthzDenied
	case r.HTTP(c.Port):
		return failure.NotHTTP
	}
	return failure.None
}

// admitted takes a relay that begins in among those that are asked about again; policies may have changed since it was decided
// to begin it.
func (r *relay) admitted() {
	if r.opt.Again != nil {
		r.set.out.Add(r)
		r.Judge(nil)
		return
	}
	if r.opt.Caller == nil || r.set.cfg.Policies == nil {
		return
	}
	r.set.let.Add(r)
	if rules := r.set.cfg.Policies.Rules(); rules != nil {
		r.Judge(rules)
	}
}

// Slot implements policy.Held.
func (r *relay) Slot() *int { return &r.slot }

// Judge implements policy.Held: what is not allowed any more is reset, both ways.
func (r *relay) Judge(rules *policy.Rules) {
	was := r.rec.Decision
	why := failure.None
	if r.opt.Again != nil {
		why = r.opt.Again(&r.rec.Decision)
	} else {
		why = ask(rules, r.set.cfg.Loop, r.opt.Caller, r.opt.ServerName, &r.rec)
	}
	if why == failure.None {
		r.rec.Decision = was
		return
	}
	if r.reason == failure.None {
		r.reason = why
	}
	for _, s := range [...]*side{&r.down, &r.up} {
		if !s.closed {
			s.conn.Reset()
		}
	}
}

// Review asks again about every relay, a bounded number in each turn of the loop: the policies about those that have come in,
// Options.Again about those that lead out of the mesh.
func (rs *Relays) Review() {
	rs.let.Review(rs.cfg.Loop, rs.cfg.Policies)
	rs.out.Again(rs.cfg.Loop)
}
