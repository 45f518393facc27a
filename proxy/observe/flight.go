package observe

import (
	"slices"

	"github.com/tulle-mesh/tulle/model/record"
)

// Bounds of what a flight recorder keeps of one record's texts, bytes.
const (
	maxFlightPath = 256
	maxFlightText = 128
	// flightChunk is how many entries are made at once, when they are first needed: a proxy that is idle has none.
	flightChunk = 16
)

// flight keeps the last records, and longer those of failures and denials, of which there are less: a ring of each. It belongs to its loop.
type flight struct {
	all, bad ring
}

// ring is entries of which the oldest is written over.
type ring struct {
	most  int
	slots []*Flown
	next  int
}

// Flown is a record that was kept. Path, Authority and RequestID are its own, cut to a bound.
type Flown struct {
	record.Record
	text [maxFlightPath + 2*maxFlightText]byte
}

func newFlight(n int) *flight { return &flight{all: ring{most: n}, bad: ring{most: max(n/2, 1)}} }

func (f *flight) note(r *record.Record) {
	if f.all.put(r); Troubled(r) {
		f.bad.put(r)
	}
}

// Troubled reports whether a record is of what failed or was denied, or would be.
func Troubled(r *record.Record) bool {
	return r.Reason != "" || r.Status >= 500 || r.Decision.Verdict == record.Denied || r.Decision.Dry == record.Denied || r.Decision.Refusal.Refused() || failed(r)
}

func (g *ring) put(r *record.Record) {
	if len(g.slots) < g.most && g.next == len(g.slots) {
		chunk := make([]Flown, min(flightChunk, g.most-len(g.slots)))
		for i := range chunk {
			g.slots = append(g.slots, &chunk[i])
		}
	}
	s := g.slots[g.next]
	if g.next++; g.next == g.most {
		g.next = 0
	}
	s.Record = *r
	rest := s.text[:]
	s.Path, rest = keep(rest, r.Path, maxFlightPath)
	s.Authority, rest = keep(rest, r.Authority, maxFlightText)
	s.RequestID, _ = keep(rest, r.RequestID, maxFlightText)
	s.Named = nil
}

// keep copies a text into room.
func keep(room, text []byte, most int) (kept, rest []byte) {
	n := copy(room[:most], text)
	return room[:n:n], room[most:]
}

// Flight answers copies of the records that are kept and that wanted takes, the newest first; on the recorder's loop. nil where
// Config.Flight is 0.
func (c *Recorder) Flight(wanted func(*record.Record) bool, most int) (out []*Flown) {
	if c.flight == nil {
		return nil
	}
	for _, g := range [...]*ring{&c.flight.all, &c.flight.bad} {
		for _, s := range g.slots {
			if !s.Wall.IsZero() && wanted(&s.Record) && !slices.ContainsFunc(out, func(o *Flown) bool {
				return o.Start == s.Start && o.Wall.Equal(s.Wall) && string(o.RequestID) == string(s.RequestID) && o.Direction == s.Direction && o.SourceID == s.SourceID
			}) {
				kept := &Flown{}
				*kept = *s
				kept.Path, kept.Authority, kept.RequestID = slices.Clone(s.Path), slices.Clone(s.Authority), slices.Clone(s.RequestID)
				out = append(out, kept)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Flown) int { return b.Wall.Compare(a.Wall) })
	return out[:min(len(out), most)]
}
