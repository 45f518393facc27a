package observe

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// mostUnproven is how many callers that have proven nothing are told apart between two reports.
const mostUnproven = 64

// unproven are the callers that came in plaintext since they were told last, up to a bound. It belongs to its loop.
type unproven struct {
	seen   map[unprovenKey]*decision.Unproven
	others uint64
}

type unprovenKey struct {
	from netip.Addr
	port uint16
	tcp  bool
}

// note counts what came in plaintext. It allocates only for a caller that was not seen before.
func (u *unproven) note(r *record.Record) {
	if !r.From.IsValid() {
		return
	}
	k := unprovenKey{r.From.Unmap().WithZone(""), r.Port, r.TCP}
	s := u.seen[k]
	if s == nil {
		if len(u.seen) >= mostUnproven {
			u.others++
			return
		}
		s = &decision.Unproven{Port: k.port, Address: k.from.String(), TCP: k.tcp, First: r.Wall.UnixMilli()}
		if !r.TCP {
			path := r.Path
			for i, c := range path {
				if c == '?' {
					path = path[:i]
					break
				}
			}
			s.Sample = r.Method[:min(len(r.Method), decision.MaxText)] + " " + string(path[:min(len(path), decision.MaxPath)])
		}
		if u.seen == nil {
			u.seen = map[unprovenKey]*decision.Unproven{}
		}
		u.seen[k] = s
	}
	s.Count++
	s.Last = r.Wall.UnixMilli()
	if r.Reason == refusedUnproven {
		s.Refused++
	}
}

// refusedUnproven is what records say of what was refused because it came in plaintext.
var refusedUnproven = failure.MTLSRequired.Label()

// tell adds what was noted to a report, and begins anew.
func (u *unproven) tell(out *decision.Report) {
	out.UnprovenOthers, u.others = u.others, 0
	for _, s := range u.seen {
		out.Unproven = append(out.Unproven, *s)
	}
	u.seen = nil
}
