package advise

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
)

// Exposed is a port of a service that callers from outside of the mesh have reached, or tried to reach, in plaintext.
type Exposed struct {
	Service string `json:"service"`
	Port    uint16 `json:"port"`
	Mode    string `json:"mode"`             // "Strict", "Permissive" or "Disabled", now; "Mixed": it depends on the workload's labels
	Policy  string `json:"policy,omitempty"` // that says so, "" for the default, and where it is Mixed
	// Since is from when on it is known, milliseconds of Unix time.
	Since   int64       `json:"since"`
	Callers []Plaintext `json:"callers"`
	// Others counts requests and connections to the whole service by callers that there was no room for.
	Others uint64 `json:"others,omitempty"`
}

// Plaintext is a caller that has proven nothing.
type Plaintext struct {
	decisions.Caller
	Workloads []string `json:"workloads,omitempty"` // that are at its address: the caller may be beside one of them
	CutOff    bool     `json:"cutOff"`              // it is served now, and would not be
	Next      string   `json:"next"`                // what to do about it
}

// modeNames are the modes as policies write them.
var modeNames = [...]string{model.ModeStrict: "Strict", model.ModePermissive: "Permissive", model.ModeDisabled: "Disabled"}

// mostPlaces is how many workloads at one address are named.
const mostPlaces = 3

// Strict answers who has come in plaintext, and so would be refused where his port were strict; at answers the workloads that are at an
// address of a machine.
func Strict(list []decisions.Service, c compile.Compiler, at func(netip.Addr) []string) (out []Exposed) {
	for i := range list {
		s := &list[i]
		security, ok := c.Security(s.Name)
		if !ok {
			continue
		}
		of := map[uint16]*Exposed{}
		for _, u := range s.Unproven {
			e := of[u.Port]
			if e == nil {
				e = &Exposed{Service: s.Name.String(), Port: u.Port, Since: s.Since, Others: s.UnprovenOthers}
				e.Mode, e.Policy = modeOf(security, u.Port)
				of[u.Port] = e
			}
			p := Plaintext{Caller: u, CutOff: e.Mode != modeNames[model.ModeStrict] && u.Count > u.Refused}
			if a, err := netip.ParseAddr(u.Address); err == nil {
				p.Workloads = at(a)
				p.Workloads = p.Workloads[:min(len(p.Workloads), mostPlaces)]
			}
			p.Next = next(&p, s.Name, u.Port)
			e.Callers = append(e.Callers, p)
		}
		for _, e := range of {
			slices.SortFunc(e.Callers, func(a, b Plaintext) int {
				return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.Address, b.Address))
			})
			out = append(out, *e)
		}
	}
	slices.SortFunc(out, func(a, b Exposed) int { return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port)) })
	return out
}

// modeOf answers the mode of a port, whatever the labels of a workload.
func modeOf(s *model.Security, port uint16) (mode, policy string) {
	all := s.Mode(port, nil)
	for _, m := range s.Modes {
		if (m.Port == 0 || m.Port == port) && m.Mode != all.Mode && len(m.Labels) > 0 && s.Mode(port, m.Labels).Mode != all.Mode {
			return "Mixed", ""
		}
	}
	return modeNames[all.Mode], all.Policy
}

// next answers what to do about a caller.
func next(p *Plaintext, to model.ServiceName, port uint16) string {
	where := fmt.Sprintf("%s.%s:%d", to.Name, to.Namespace, port)
	switch {
	case len(p.Workloads) > 0:
		return "something on the machine of " + p.Workloads[0] + ": start it with 'tulle run' and let it call " + where
	default:
		return "start it with 'tulle run' and let it call " + where + ", or leave this port Permissive (AuthenticationPolicy, mtls.ports)"
	}
}
