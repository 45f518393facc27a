package gateway

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// worker is one event loop with everything that belongs to it.
type worker struct {
	g        *Gateway
	loop     *loop.Epoll
	ended    sync.WaitGroup
	recorder *observe.Recorder
	pool     *pool.Pool
	relays   *relay.Relays
	exchange *exchange.Worker
	rnd      *rand.Rand
	open     atomic.Int64 // downstream connections; written on the loop

	// On the loop.
	sessions map[*session]struct{} // all of them
	pending  int                   // those that nothing serves yet
	ids      uint64                // of connections
	end      loop.Timer            // of draining
	untidy   loop.Timer            // there may be connections to servers that nothing is for
}

func (g *Gateway) newWorker(i int) (*worker, error) {
	l, err := loop.New(loop.Config{Name: fmt.Sprintf("loop %d", i), Logger: g.cfg.Log})
	if err != nil {
		return nil, err
	}
	w := &worker{g: g, loop: l, recorder: g.observer.Recorder(), sessions: map[*session]struct{}{},
		rnd: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), ids: uint64(i) << 48}
	w.pool = pool.New(pool.Config{Loop: l})
	w.relays = relay.New(relay.Config{Loop: l, Observer: w.recorder})
	w.exchange = exchange.NewWorker(exchange.Config{Loop: l, Pool: w.pool, Observer: w.recorder, Seed: rand.Uint64(), Routes: &g.routes})
	w.end.Expired, w.untidy.Expired = w.cut, w.tidy
	w.ended.Go(l.Run)
	return w, nil
}

// cluster answers a cluster by its name, nil if there is none. For any goroutine.
func (g *Gateway) cluster(name model.PortName) *cluster.Cluster { return (*g.held.Load())[name] }

// calmest answers which worker serves a connection that w has accepted (package loop, place.go).
func (w *worker) calmest() *worker { return loop.Calmest(w, w.g.workers) }

// Gauge answers how the worker's loop compares with others.
func (w *worker) Gauge() loop.Gauge { return w.loop }

// accept serves a connection of l on the calmest loop.
func (w *worker) accept(l *listener, in loop.Incoming) {
	v := l.now.Load()
	if v == nil {
		in.Refuse()
		return
	}
	if most := int64(v.model.MaxConnections); most > 0 && l.conns.Load() >= most {
		w.recorder.Refused(failure.Overload)
		in.Refuse()
		return
	}
	to := w.calmest()
	local := in.Local()
	wanted := local
	if v.model.OriginalDestination {
		wanted = in.Wanted()
	}
	l.conns.Add(1)
	in.Adopt(to.loop, func(c loop.Conn) loop.Handler { return to.begin(l, v, c, wanted, wanted != local) })
}

// drain ends what is served, each connection in its protocol's own way. On the loop.
func (w *worker) drain(how func(downstream.Drainer)) {
	for s := range w.sessions {
		s.drain(how)
	}
	w.loop.Arm(&w.end, w.g.cfg.Drain)
}

// retire drains the connections of chains that are no more. On the loop.
func (w *worker) retire() {
	found := false
	for s := range w.sessions {
		if s.chain != nil && s.chain.retired.Load() && !s.draining {
			s.drain(downstream.Drainer.Drain)
			found = true
		}
	}
	if found {
		w.loop.Arm(&w.end, w.g.cfg.Drain)
	}
}

// cut resets connections that have drained for too long.
func (w *worker) cut() {
	now, next := w.loop.Now(), time.Duration(0)
	for s := range w.sessions {
		switch left := s.drainedAt + w.g.cfg.Drain - now; {
		case !s.draining:
		case left <= 0:
			s.conn.Reset()
		case next == 0 || left < next:
			next = left
		}
	}
	if next > 0 {
		w.loop.Arm(&w.end, next)
	}
}

func (w *worker) close() {
	w.loop.Close()
	w.ended.Wait()
}
