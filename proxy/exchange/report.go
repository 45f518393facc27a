package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// subset answers which endpoints of its cluster the request may go to; empty: any.
func (x *Exchange) subset() []model.Label {
	if x.backend == nil {
		return nil
	}
	return x.backend.Subset
}

// takeReport takes out of a response's head, or trailers, what the endpoint reports about itself (ORCA) where balancing goes by
// that: it is meant for us. Elsewhere it passes through, to whoever balances.
func (x *Exchange) takeReport(h *message.Head) {
	if x.cluster == nil || x.ep == nil || !x.cluster.Reports() {
		return
	}
	keep := h.Fields[:0]
	for _, f := range h.Fields {
		isBinary := len(f.Name) == len(balancer.ReportFieldBinary) && message.EqualFold(f.Name, balancer.ReportFieldBinary)
		if !isBinary && (len(f.Name) != len(balancer.ReportField) || !message.EqualFold(f.Name, balancer.ReportField)) {
			keep = append(keep, f)
			continue
		}
		if r, ok := balancer.ParseReport(f.Value, isBinary); ok {
			x.ep.Reported(&r, x.w.cfg.Loop.Now())
		}
	}
	h.Fields = keep
}
