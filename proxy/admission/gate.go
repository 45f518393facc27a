// Package admission decides how much a workload takes: connections, requests and bytes by rate, requests at work at once,
// and who is sent away first when it is too much (docs/design/overload.md). A Gate does that for one port of a workload, or
// one chain of a proxy without one, for all loops together: what they share is atomics and immutable programs.
//
// It promises that a limit holds exactly, however many loops take from it; that a change of configuration keeps every
// bucket; that nothing is allocated per request, but for those that another service is asked about; and that who was
// admitted gives back what he took exactly once. It never chooses a status but through a reason of package failure, never
// parses a message and touches no connection.
//
// A request meets the files in this order: gate.go (connections; what is in force), ticket.go (the story of one request),
// program.go (which limits it meets), bucket.go, global.go (another service is asked), slots.go (requests at work),
// fields.go (what the client is told). Start reading at Gate.Enter (ticket.go).
package admission

import (
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Config of a Gate; everything has a default.
type Config struct {
	// Ask asks a rate-limit service. It must not block, and calls then once, from any goroutine; false: it has no room, and
	// then is not called. nil: nobody can be asked.
	Ask func(q *model.RateQuestion, then func(*model.RateAnswer, error)) bool
	// Terms answers what is to be in force; it is asked for every request and connection, so it must be quick. nil: Set says it.
	Terms func() Terms
	Log   *slog.Logger // nil: silent
}

// Gate is what is asked. Its methods are safe for concurrent use unless they say otherwise.
type Gate struct {
	cfg  Config
	seed maphash.Seed
	now  atomic.Pointer[program] // never nil

	conns    atomic.Int64 // admitted and not gone
	atWork   atomic.Int64 // requests
	slots    slots
	shed     [3]atomic.Uint64 // by class
	turned   atomic.Uint64    // connections that were refused
	failures atomic.Uint64    // questions that nobody answered

	mu sync.Mutex // Set
}

// New makes a Gate that admits everything.
func New(cfg Config) *Gate {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{cfg: cfg, seed: maphash.MakeSeed()}
	g.now.Store(&program{idle: true})
	return g
}

// Terms are what a Gate is to hold requests and connections to. Its zero value admits everything.
type Terms struct {
	Inbound *model.Inbound // nil: nothing
	// Table is where Route.Limits and, without Routed, RouteTable.Inbound and Classes are. nil: there are none.
	Table *router.Table
	// Routed: requests have found their route in Table before they come; Inbound counts, not that of Table.
	Routed bool
	// Global is who is asked for limits that name nobody; nil: nobody.
	Global *model.GlobalLimit
}

// Set puts terms in force, from the next request on. Buckets and counters of limits that stay the same in name and keys
// are kept. The error says which limit cannot be run; then nothing has changed.
func (g *Gate) Set(t Terms) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.set(t)
}

func (g *Gate) set(t Terms) error {
	p, err := compile(g, t, g.now.Load())
	if err != nil {
		return err
	}
	g.now.Store(p)
	return nil
}

// program answers what is in force. Terms that cannot be run leave it as it is.
func (g *Gate) program() *program {
	p := g.now.Load()
	if g.cfg.Terms == nil {
		return p
	}
	if t := g.cfg.Terms(); t != p.terms {
		return g.follow(t)
	}
	return p
}

func (g *Gate) follow(t Terms) *program {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.now.Load(); now.terms != t {
		if err := g.set(t); err != nil {
			g.cfg.Log.Error("limits refused, those before stay in force", "error", err)
			kept := *now
			kept.terms, kept.find, kept.classes = t, false, false // its routes are another table's
			g.now.Store(&kept)
		}
	}
	return g.now.Load()
}

// Connect admits a connection, or answers why it is refused. One that was admitted ends with Disconnect.
func (g *Gate) Connect(now time.Duration) failure.Reason {
	p := g.program()
	if most := int64(p.connections); g.conns.Add(1) > most && most > 0 {
		g.conns.Add(-1)
		g.turned.Add(1)
		return failure.Overload
	}
	if r := p.connecting; r != nil && !r.state.one.take(r.rate, now, 1) {
		if r.note(); !r.Shadow {
			g.conns.Add(-1)
			g.turned.Add(1)
			return failure.RateLimited
		}
	}
	return failure.None
}

// Disconnect ends a connection that was admitted.
func (g *Gate) Disconnect() { g.conns.Add(-1) }

// Loop is what one loop needs to admit requests. It belongs to that loop.
type Loop struct {
	loop  loop.Loop
	lanes map[*Gate]*lane
}

// NewLoop makes one for l.
func NewLoop(l loop.Loop) *Loop { return &Loop{loop: l} }
