package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// Requests to ExternalServices: whether they may leave the mesh, asked by the caller's proxy for every attempt, and again about
// what is open when the answer may have changed (docs/design/security.md, Egress).

// outside decides whether the request may go to its cluster, where that is outside of the mesh.
func (x *Exchange) outside() failure.Reason {
	e := x.w.cfg.Egress
	if e == nil {
		return failure.None
	}
	name := x.cluster.Name()
	if _, external := name.Service.External(); !external {
		return failure.None
	}
	if e.Paths(name) && !x.straighten() {
		return failure.BadRequest
	}
	why := x.leaving(e, name, &x.rec.Decision)
	if h := (*leaver)(x); why == failure.None && x.exit == 0 {
		x.w.out.Add(h)
	}
	return why
}

// leaving asks about the request as it goes out.
func (x *Exchange) leaving(e Egress, to model.PortName, d *record.Decision) failure.Reason {
	w := x.w
	a := &w.asked
	*a = authz.Attributes{HTTP: true, Now: w.cfg.Loop.Wall().Unix(), Fields: (*facts)(x)}
	x.describe(a)
	return e.Request(x.origin.Service, to, a, d, x.rec.RequestID)
}

// leaver is an Exchange that was let out of the mesh and is open.
type leaver Exchange

// Slot implements policy.Held.
func (h *leaver) Slot() *int { return &h.exit }

// Judge implements policy.Held.
func (h *leaver) Judge(*policy.Rules) {
	x := (*Exchange)(h)
	if x.finished || x.cluster == nil {
		return
	}
	name := x.cluster.Name()
	if _, external := name.Service.External(); !external { // it goes somewhere else by now
		return
	}
	var d record.Decision
	if why := x.leaving(x.w.cfg.Egress, name, &d); why != failure.None {
		x.rec.Decision = d
		x.end(why)
	}
}
