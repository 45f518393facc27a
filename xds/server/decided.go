package server

import (
	"fmt"

	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// maxCount bounds what is believed of one number.
const maxCount = 1 << 40

// readDecided reads what a proxy has let in and what not. An entry that a newer proxy says otherwise than we know is passed over.
func readDecided(m *tullepb.Decided) (out decision.Report, err error) {
	if n := len(m.GetOf()); n > decision.MaxReport {
		return out, fmt.Errorf("%d decisions, at most %d are taken", n, decision.MaxReport)
	}
	out.Others = min(m.GetOthers(), maxCount)
	for _, d := range m.GetOf() {
		if bad(d.GetPort()) {
			return out, fmt.Errorf("decision on port %d, which is not valid", d.GetPort())
		}
		s := decision.Seen{Key: decision.Key{Principal: d.GetPrincipal(), Port: uint16(d.GetPort()), TCP: d.GetTcp(), GRPC: d.GetGrpc(), Method: d.GetMethod(),
			Host: d.GetHost(), Path: d.GetPath(), Folded: d.GetFolded(), ServerName: d.GetServerName(), Fields: d.GetFields(), Verdict: d.GetVerdict(),
			Policy: d.GetPolicy(), Rule: d.GetRule(), Absent: d.GetAbsent()},
			Count: min(d.GetCount(), maxCount), First: d.GetFirst(), Last: d.GetLast(), Request: d.GetRequest(), Sample: d.GetSample()}
		if !s.Valid() || len(s.Request) > decision.MaxText || len(s.Sample) > decision.MaxPath {
			out.Others = min(out.Others+s.Count, maxCount)
			continue
		}
		out.Of = append(out.Of, s)
	}
	return out, readUnproven(m, &out)
}

// readUnproven reads who came without having proven who he is.
func readUnproven(m *tullepb.Decided, out *decision.Report) error {
	if n := len(m.GetUnproven()); n > decision.MaxReport {
		return fmt.Errorf("%d callers, at most %d are taken", n, decision.MaxReport)
	}
	out.UnprovenOthers = min(m.GetUnprovenOthers(), maxCount)
	for _, u := range m.GetUnproven() {
		if bad(u.GetPort()) {
			return fmt.Errorf("a caller of port %d, which is not valid", u.GetPort())
		}
		x := decision.Unproven{Port: uint16(u.GetPort()), Address: u.GetAddress(), TCP: u.GetTcp(), Count: min(u.GetCount(), maxCount),
			Refused: min(u.GetRefused(), maxCount), First: u.GetFirst(), Last: u.GetLast(), Sample: u.GetSample()}
		if !x.Valid() {
			out.UnprovenOthers = min(out.UnprovenOthers+x.Count, maxCount)
			continue
		}
		out.Unproven = append(out.Unproven, x)
	}
	return nil
}
