package observe

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/model/urlpath"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// decisions is what a workload's proxy has let in and what not, since it was told last: the same ones together, up to a bound.
// It belongs to its loop.
type decisions struct {
	most   int
	seen   map[string]*decision.Seen // by what keyOf writes
	others uint64
	key    []byte // scratch
	path   []byte // likewise
	plain  []byte // likewise
	fields []byte // likewise

	callers map[netip.Addr]struct{} // whose addresses are told

	unproven unproven
}

// maxCallers is how many addresses of callers are told at a time; of more the address is not known.
const maxCallers = 32

// note counts the decision about what came in. It allocates only for what was not seen before.
func (d *decisions) note(r *record.Record) {
	if !r.MTLS {
		d.unproven.note(r)
	}
	path, folded := d.pathOf(r)
	if len(path) > decision.MaxPath || len(r.Authority) > decision.MaxText || len(r.Method) > decision.MaxText || len(r.Named) > decision.MaxFields {
		d.others++
		return
	}
	d.known(r)
	d.write(r, path)
	s := d.seen[string(d.key)]
	if s == nil {
		if len(d.seen) >= d.most {
			d.others++
			return
		}
		s = d.add(r, path, folded)
	}
	s.Count++
	s.Last = r.Wall.UnixMilli()
}

// known writes what is known of who came, and what policies name.
func (d *decisions) known(r *record.Record) {
	if d.fields = append(d.fields[:0], r.Named...); r.Federated {
		d.fields = decision.AppendFederated(d.fields)
	}
	before := len(d.fields)
	from := r.From.Unmap().WithZone("")
	if _, ok := d.callers[from]; !ok {
		if len(d.callers) >= maxCallers {
			return
		}
		if d.callers == nil {
			d.callers = map[netip.Addr]struct{}{}
		}
		d.callers[from] = struct{}{}
	}
	if d.fields = decision.AppendCaller(d.fields, from, r.Published); len(d.fields) > decision.MaxFields {
		d.fields = d.fields[:before]
	}
}

// verdict answers what was decided, and by which policy and rule. What was refused before policies were asked, for want of a token or of
// mutual TLS, is denied by the rule of that name.
func verdict(r *record.Record) (v record.Verdict, policy, rule string) {
	d := &r.Decision
	if v, policy, rule = d.Verdict, d.Policy, d.Rule; v != record.Unasked {
		return v, policy, rule
	}
	for _, why := range [...]failure.Reason{failure.TokenMissing, failure.TokenInvalid, failure.IssuerUnavailable, failure.MTLSRequired} {
		if r.Reason != "" && r.Reason == why.Label() {
			return record.Denied, "", why.Label()
		}
	}
	return v, policy, rule
}

// pathOf answers the path without its query. When half of the room is taken, what looks like identifiers is folded.
func (d *decisions) pathOf(r *record.Record) (path []byte, folded bool) {
	if r.TCP {
		return nil, false
	}
	path = d.plainPath(r)
	if len(d.seen) < d.most/2 || r.Protocol == model.ProtocolGRPC {
		return path, false
	}
	d.path, folded = decision.AppendFolded(d.path[:0], path)
	if !folded {
		return path, false
	}
	return d.path, true
}

// plainPath is the path of a request as policies see it, valid until the next call; of one that they would not take it is the path as
// it came.
func (d *decisions) plainPath(r *record.Record) []byte {
	p, memory, fault := urlpath.Normalize(d.plain, r.Path)
	if d.plain = memory; fault != urlpath.None {
		p.Seen, _, _ = bytes.Cut(r.Path, question)
	}
	return p.Seen
}

var question = []byte{'?'}

// write makes the key of a record.
func (d *decisions) write(r *record.Record, path []byte) {
	k := d.key[:0]
	v, policy, rule := verdict(r)
	flags := byte(v) << 3
	for i, b := range [...]bool{r.TCP, !r.TCP && r.Protocol == model.ProtocolGRPC, r.Decision.Absent} {
		if b {
			flags |= 1 << i
		}
	}
	k = append(k, flags)
	k = binary.BigEndian.AppendUint16(k, r.Port)
	k = appendPart(k, r.SourceID)
	k = appendPart(k, policy)
	k = appendPart(k, rule)
	k = appendPart(k, r.Method)
	at := len(k)
	k = appendHost(append(k, 0, 0), r.Authority)
	binary.BigEndian.PutUint16(k[at:], uint16(len(k)-at-2))
	k = binary.BigEndian.AppendUint16(k, uint16(len(path)))
	k = append(k, path...)
	d.key = append(k, d.fields...)
}

func appendPart(k []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(k, uint16(len(s))), s...)
}

var dot = []byte{'.'}

// appendHost appends an authority in lower case, without its port and without the dot at the end of a full name.
func appendHost(k, authority []byte) []byte {
	end := len(authority)
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		end = i
	}
	for _, c := range bytes.TrimSuffix(authority[:end], dot) {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		k = append(k, c)
	}
	return k
}

// add makes an entry for the key that was written last.
func (d *decisions) add(r *record.Record, path []byte, folded bool) *decision.Seen {
	s := &decision.Seen{Key: decision.Key{Principal: r.SourceID, Port: r.Port, TCP: r.TCP, Verdict: decision.Allowed, Fields: string(d.fields),
		Absent: r.Decision.Absent}, First: r.Wall.UnixMilli()}
	var v record.Verdict
	if v, s.Policy, s.Rule = verdict(r); v == record.Denied {
		s.Verdict = decision.Denied
	}
	if !r.TCP {
		s.GRPC = r.Protocol == model.ProtocolGRPC
		s.Method, s.Host, s.Path, s.Folded = r.Method, string(appendHost(nil, r.Authority)), string(path), folded
		s.Request = string(r.RequestID[:min(len(r.RequestID), decision.MaxText)])
		if folded {
			s.Sample = string(d.plainPath(r))
		}
	}
	if len(d.seen) == 0 {
		d.seen = map[string]*decision.Seen{}
	}
	d.seen[string(d.key)] = s
	return s
}

// Decisions answers what was decided since it was asked last; on the recorder's loop. Empty where nothing was, or where
// Config.Decisions is 0.
func (c *Recorder) Decisions() (out decision.Report) {
	d := c.decisions
	if d == nil {
		return out
	}
	out.Others, d.others = d.others, 0
	d.unproven.tell(&out)
	if len(d.seen) == 0 {
		return out
	}
	out.Of = make([]decision.Seen, 0, len(d.seen))
	for _, s := range d.seen {
		out.Of = append(out.Of, *s)
	}
	d.seen = nil
	clear(d.callers)
	return out
}
