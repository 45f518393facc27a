package admission

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Meter is what the bytes of one relayed connection are paid for from: the gate's limits of bytes, but for those that look at
// a request. It belongs to the connection's loop, and follows changes of the limits.
type Meter struct {
	gate  *Gate
	prog  *program
	loop  loop.Loop
	of    Question
	flows [maxBytes]flow
	n     int
}

// Meter answers one for a connection of a caller; nil if there is no limit of bytes for it now.
func (g *Gate) Meter(l loop.Loop, caller model.ServiceName, from netip.Addr) *Meter {
	m := &Meter{gate: g, loop: l, of: Question{Caller: caller, Address: from}}
	if m.follow(g.program()); m.n == 0 {
		return nil
	}
	return m
}

// follow looks up the limits of a program.
func (m *Meter) follow(p *program) {
	m.prog, m.n = p, 0
	for _, r := range p.all {
		if r.Bytes && r.match == nil && r.ask == nil && !ofRequests(r.By) && m.n < len(m.flows) {
			m.flows[m.n] = flow{r, m.gate.bucketOf(r, &m.of)}
			m.n++
		}
	}
}

// ofRequests reports whether a key is something that only requests have.
func ofRequests(by []model.RateKey) bool {
	for _, k := range by {
		if k.Kind != model.RateByCaller && k.Kind != model.RateByAddress {
			return true
		}
	}
	return false
}

// Spend takes n bytes that have passed, and answers how long no more should.
func (m *Meter) Spend(n int) (wait time.Duration) {
	if p := m.gate.program(); p != m.prog {
		m.follow(p)
	}
	now := m.loop.Now()
	for _, f := range m.flows[:m.n] {
		w := f.bucket.spend(f.rule.rate, now, uint32(n))
		if w > 0 {
			f.rule.note()
		}
		if !f.rule.Shadow {
			wait = max(wait, w)
		}
	}
	return wait
}

// Pass takes one from the limit of new connections, and answers whether there may be another. It is Connect for what nobody
// counts while it is there.
func (g *Gate) Pass(now time.Duration) (ok bool) {
	r := g.program().connecting
	if r == nil || r.state.one.take(r.rate, now, 1) {
		return true
	}
	r.note()
	return r.Shadow
}
