package engine

import (
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// look holds what must always be true against the proxy whose loop has just had a turn.
func (r *run) look() {
	l := r.world.Ran()
	p := r.front[l]
	if p == nil {
		return
	}
	if err := p.balance(); err != nil {
		r.fail("proxy %s: %v", p.name, err)
	}
}

// Bounds of what one connection holds, in bytes. What is written stops at the watermark, but for what is given in one
// call: at most a window of a stream, or what one scratch full of frames asks for.
const (
	mostIn  = loop.ScratchSize
	mostOut = loop.HighWater + 2*loop.ScratchSize
)

// balance looks at a proxy's books.
func (p *proxy) balance() error {
	open := p.exchange.Open()
	in, out := p.loop.Largest()
	switch {
	case in > mostIn || out > mostOut:
		return fmt.Errorf("one connection holds %d bytes that were received, or %d to be sent", in, out)
	case open < 0 || open > len(p.run.requests):
		return fmt.Errorf("%d exchanges for %d requests", open, len(p.run.requests))
	case p.exchange.Lent() < 0 || p.exchange.Lent() > 2*open:
		return fmt.Errorf("%d buffers are lent to %d exchanges", p.exchange.Lent(), open)
	case p.loop.Armed() > 5*p.loop.Conns()+(4+p.run.atOnce())*open+4:
		return fmt.Errorf("%d timers are armed for %d connections and %d exchanges", p.loop.Armed(), p.loop.Conns(), open)
	case p.relays.Len()+p.listener.Pending()+p.searches+len(p.served) > p.loop.Conns():
		return fmt.Errorf("%d relays, %d undecided, %d searches, %d served for %d connections", p.relays.Len(), p.listener.Pending(), p.searches, len(p.served), p.loop.Conns())
	}
	waiting, err := p.pool.Balance()
	if err != nil {
		return err
	}
	if waiting > open*p.run.atOnce() {
		return fmt.Errorf("%d wait for a connection, %d exchanges are open", waiting, open)
	}
	for _, s := range p.served {
		if b, ok := s.h.(interface{ Balance(idle bool) error }); ok {
			if err := b.Balance(open == 0); err != nil {
				return err
			}
		}
	}
	if p.loop.Quiet() && open == 0 && p.loop.Armed() > 0 {
		return fmt.Errorf("%d timers are armed, and nothing is there that they could be for", p.loop.Armed())
	}
	return p.loads()
}

// atOnce answers how many attempts of one request may be under way.
func (r *run) atOnce() int {
	if r.eager {
		return mostHedged
	}
	return 1
}

// loads looks at what clusters think is under way: both fronts have their own.
func (p *proxy) loads() error {
	if p.host.IsValid() {
		return nil
	}
	busy := p.exchange.Open()*p.run.atOnce() + p.relays.Len() + p.listener.Pending() + p.searches
	for name, c := range p.run.clusters {
		if (name == echo || name == db) != (p == p.run.out) {
			continue
		}
		for _, e := range c.Endpoints() {
			if n := e.InFlight(); n < 0 || n > int64(busy) {
				return fmt.Errorf("endpoint %v of %s is said to have %d under way, of %d", e.Address(), name.Service.Name, n, busy)
			}
		}
	}
	return nil
}

// settled looks at the end of a run: what came of every request, and that nothing is left over.
func (r *run) settled() error {
	for range 5 { // what closes takes its time
		for _, p := range r.all() {
			p.loop.Post(p.pool.Drain)
		}
		if err := r.rest(time.Minute); err != nil {
			return err
		}
	}
	for _, p := range r.all() {
		if n := p.loop.Conns(); n > 0 || p.exchange.Open() > 0 || p.relays.Len() > 0 || p.listener.Pending() > 0 || len(p.served) > 0 || p.pool.Conns() > 0 {
			return fmt.Errorf("left over at %s: %d connections, %d exchanges, %d relays, %d undecided, %d served, %d pooled: %q",
				p.name, n, p.exchange.Open(), p.relays.Len(), p.listener.Pending(), len(p.served), p.pool.Conns(), p.loop.Describe())
		}
		if !p.loop.Quiet() || p.loop.Armed() > 0 || p.exchange.Lent() != 0 {
			return fmt.Errorf("left over at %s: %d timers, %d buffers", p.name, p.loop.Armed(), p.exchange.Lent())
		}
		if err := p.balance(); err != nil {
			return fmt.Errorf("%s at the end: %w", p.name, err)
		}
	}
	for _, q := range r.requests {
		if err := r.explained(q); err != nil {
			return err
		}
	}
	return r.records()
}

// rest lets time pass.
func (r *run) rest(d time.Duration) error {
	end := r.world.Now() + d
	r.clients.Post(func() { r.clients.Arm(&loop.Timer{Expired: func() {}}, d) })
	for r.world.Now() < end && r.err == nil && r.world.Step() {
		r.look()
	}
	return r.err
}

// all answers the proxies, always in the same order.
func (r *run) all() []*proxy { return append([]*proxy{r.out, r.gateway}, r.in...) }

// explained looks at what came of one request.
func (r *run) explained(q *request) error {
	quiet := r.faults
	quiet.Clients, quiet.Slow = false, false // neither is a reason to send anything twice
	switch {
	case q.outcome == "":
		return fmt.Errorf("lost: %s", q)
	case q.outcome == answered && q.delivered == 0:
		return fmt.Errorf("answered by nobody: %s", q)
	case q.outcome == answered && q.complete == 0 && !q.early:
		return fmt.Errorf("answered before it was there: %s", q)
	case r.calm && q.outcome == cut && q.delivered == 0 && q.behind: // the connection may end after an early answer
	case r.calm && (q.outcome != answered || q.delivered != 1 || q.complete != 1 && !(q.early && q.kind == plain)):
		return fmt.Errorf("nothing was in its way: %s", q)
	case quiet == Faults{} && !r.severed && !r.eager && q.delivered > 1:
		return fmt.Errorf("sent twice without a reason: %s", q)
	case q.outcome == refused && q.reason == "":
		return fmt.Errorf("refused without a reason: %s", q)
	}
	return nil
}

// records: one of each exchange and relay, and what they count is what happened.
func (r *run) records() error {
	want := 0
	for _, q := range r.requests {
		if q.outcome == answered {
			want++
		}
	}
	for i := range r.out.records {
		if r.out.records[i].TCP && r.out.records[i].Destination == echo.Service { // it spoke too slowly to be known as HTTP
			want -= len(r.requests)
		}
	}
	got := len(r.out.records) + len(r.gateway.records)
	if got < want || r.calm && got != want {
		return fmt.Errorf("%d records of %d requests that were answered", got, want)
	}
	if !r.calm {
		return nil
	}
	var sent, received, wantSent, wantReceived int64
	for _, p := range []*proxy{r.out, r.gateway} {
		for i := range p.records {
			sent += p.records[i].RequestBytes
			received += p.records[i].ResponseBytes
		}
	}
	for _, q := range r.requests {
		if q.early && q.kind == plain { // the rest of a body whose answer is complete need not be sent
			return nil
		}
		wantSent += int64(q.body)
		if !q.bodiless() {
			wantReceived += int64(q.answer)
		}
		if q.kind == stream {
			wantSent += opening
			if r.banner {
				wantReceived += int64(len(banner))
			}
		}
	}
	if sent != wantSent || received != wantReceived {
		return fmt.Errorf("%d bytes of requests and %d of responses were counted, %d and %d passed", sent, received, wantSent, wantReceived)
	}
	return nil
}
