package decision

import "net/netip"

// Unproven is a caller from outside of the mesh that came in plaintext: where ports become strict it is refused.
type Unproven struct {
	Port    uint16 `json:"port"`          // of the service
	Address string `json:"address"`       // of the other end of its connections
	TCP     bool   `json:"tcp,omitempty"` // connections are counted, otherwise requests
	Count   uint64 `json:"count"`
	Refused uint64 `json:"refused,omitempty"` // of these, because they came in plaintext
	First   int64  `json:"first"`             // milliseconds of Unix time
	Last    int64  `json:"last"`              // likewise
	Sample  string `json:"sample,omitempty"`  // one of the requests, "GET /path" without its query
}

// Same reports whether both are of one caller.
func (u *Unproven) Same(o *Unproven) bool {
	return u.Port == o.Port && u.TCP == o.TCP && u.Address == o.Address
}

// Add counts what was seen of the same caller elsewhere, or later.
func (u *Unproven) Add(o *Unproven) {
	u.Count, u.Refused = u.Count+o.Count, u.Refused+o.Refused
	if u.First == 0 || o.First != 0 && o.First < u.First {
		u.First = o.First
	}
	if o.Last >= u.Last {
		u.Last = o.Last
		if o.Sample != "" {
			u.Sample = o.Sample
		}
	}
}

// Valid reports whether it keeps its bounds.
func (u *Unproven) Valid() bool {
	_, err := netip.ParseAddr(u.Address)
	return err == nil && len(u.Address) <= MaxText && len(u.Sample) <= MaxPath+MaxText+1 && u.Refused <= u.Count
}

// AddUnproven takes callers into a report that tells of most of them at most.
func (r *Report) AddUnproven(list []Unproven, others uint64, most int) {
	r.UnprovenOthers += others
next:
	for i := range list {
		for k := range r.Unproven {
			if r.Unproven[k].Same(&list[i]) {
				r.Unproven[k].Add(&list[i])
				continue next
			}
		}
		if len(r.Unproven) >= most {
			r.UnprovenOthers += list[i].Count
			continue
		}
		r.Unproven = append(r.Unproven, list[i])
	}
}
