package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// retireEvery is how often a loop looks for connections to endpoints that have gone, and after how many times it
// asks the others for a sign of life.
const (
	retireEvery = 5 * time.Second
	probeAfter  = 3
)

// worker is one event loop with everything that belongs to it.
type worker struct {
	proxy    *Proxy
	loop     *loop.Epoll
	ended    sync.WaitGroup
	recorder *observe.Recorder
	pool     *pool.Pool
	relays   *relay.Relays
	exchange *exchange.Worker
	listener *listener.Worker
	accept   []*loop.Listener

	// On the loop.
	open    mtls.Open // to and from other proxies
	serving map[downstream.Drainer]struct{}
	spoken  map[uint16]bool // service ports of ours whose HTTP was reported to learning
	retire  loop.Timer
	retired int  // times
	leaving bool // another proxy serves the sockets: see leave
}

func (p *Proxy) newWorker(i int, shake *mtls.Handshakes) (*worker, error) {
	l, err := loop.New(loop.Config{Name: fmt.Sprintf("loop %d", i), Logger: p.cfg.Log})
	if err != nil {
		return nil, err
	}
	w := &worker{proxy: p, loop: l, recorder: p.observer.Recorder(), serving: map[downstream.Drainer]struct{}{}, spoken: map[uint16]bool{}}
	w.open.Refuses = p.refuses
	mesh := &upstream.Mesh{Loop: l, Source: identity{p.cfg.Identity}, Handshakes: shake, Open: &w.open}
	w.pool = pool.New(pool.Config{Loop: l, Mesh: pool.Over(mesh), Socket: p.seeds.Mint, Also: listens[1:]})
	w.relays = relay.New(relay.Config{Loop: l, Observer: w.recorder, Policies: p.policies})
	w.exchange = exchange.NewWorker(exchange.Config{Loop: l, Log: p.cfg.Log, Pool: w.pool, Observer: w, Seed: rand.Uint64(), Kin: p.kin, Spent: &p.spent, Routes: &p.routes, Pick: p.pick, Egress: &p.outside, Consult: p.consult, Unproven: &p.unproven})
	w.listener = listener.New(listener.Config{
		Loop: l, Log: p.cfg.Log, Observer: w.recorder, Directory: directory{p.live}, Blanks: w.pool, HTTP: w, Relays: w.relays,
		Seed: rand.Uint64(), Self: p.self, SelfID: p.cfg.Identity.Current().ID.String(),
		Policies: p.policies, Known: p.known, Mode: p.mode, Handshake: p.admit, Connect: p.take, Disconnect: p.giveBack, Tolls: &p.tolls,
		Egress: &p.outside, Named: p.named, ModeBy: p.modeBy, Unproven: &p.unproven,
		Ports: p.ownPort, Served: p.served, Program: p.program, Learn: p.learning.Saw, Passthrough: p.passthrough(), Probe: p.capture.probe,
	})
	w.retire.Expired = w.retireGone
	w.ended.Go(l.Run)
	w.loop.Post(func() { l.Arm(&w.retire, retireEvery) })
	return w, nil
}

// Serve implements listener.HTTP: it says what is known about the connection in the words of an exchange.
func (w *worker) Serve(c loop.Conn, ctx listener.Context) loop.Handler {
	o := &exchange.Origin{Direction: ctx.Direction, Remote: ctx.Remote, Wanted: ctx.Wanted, Protocol: ctx.Protocol, Refuse: ctx.Refuse, Refused: ctx.Refused}
	if ctx.Direction == record.Outbound {
		o.Source, o.SourceID = w.proxy.self, w.proxy.cfg.Identity.Current().ID.String()
		if ctx.Refuse == failure.None {
			o.Service = ctx.Port.Name()
			_, o.Turned = o.Service.Service.External()
			to := ctx.Port.(*live.Port) // the directory answers nothing else
			o.Destination, o.Toll = to, w.proxy.tolls.toll(to)
		}
	} else {
		o.Source, o.SourceID, o.MTLS, o.Mesh, o.Publish = ctx.Peer.Service, ctx.Peer.ID, ctx.MTLS, ctx.MTLS && !ctx.Publish, ctx.Publish
		o.Service = ctx.Own.Service
		o.Program = netip.AddrPortFrom(listens[0], ctx.Own.Port)
		o.From = ctx.Remote.Addr()
		o.Gate = w.proxy.gates[ctx.Own.Port]
		o.Policies, o.Caller, o.Tokens = w.proxy.policies, ctx.Caller, w.proxy.proofs.tokens[ctx.Own.Service.Port]
	}
	var d downstream.Drainer
	ended := func() {
		delete(w.serving, d)
		if ctx.Direction == record.Inbound {
			w.proxy.giveBack(ctx.Own.Port)
			if ctx.Ended != nil {
				ctx.Ended()
			}
		}
	}
	h := downstream.Serve(c, downstream.Context{Worker: w.exchange, Origin: o, HTTP2: ctx.HTTP2, Ended: ended})
	if drainer, ok := h.(downstream.Drainer); ok {
		d = drainer
		w.serving[d] = struct{}{}
		if w.leaving {
			d.Leave()
		}
	}
	return h
}

// Done implements exchange.Observer: it counts, and notes when the program has answered HTTP on a port for the first
// time, which is how a protocol is learned.
func (w *worker) Done(r *record.Record) {
	w.recorder.Done(r)
	if r.Direction == record.Inbound && r.Status != 0 && r.Reason == "" && !w.spoken[r.Port] {
		w.spoken[r.Port] = true
		for _, own := range w.proxy.ports {
			if own.Service.Port == r.Port && !own.Protocol.Declared() {
				w.proxy.learning.Saw(own.Port, model.LearnedHTTP)
			}
		}
	}
}

// retireGone ends connections to endpoints that no cluster has any more, those made by settings that have changed, and those to
// machines that have gone silent.
func (w *worker) retireGone() {
	w.loop.Arm(&w.retire, retireEvery)
	if w.retired++; w.retired%probeAfter == 0 {
		w.pool.Probe()
	}
	in := w.proxy.live.Reachable()
	w.pool.Retire(func(t *pool.Target) bool {
		return t.Kind == pool.Mesh && (!in[live.Place{Address: t.Address, Namespace: t.Namespace, Workload: t.Workload}] ||
			t.Cluster != nil && !w.proxy.live.InForce(t.Cluster))
	})
}

// listenOn accepts from a socket of the bootstrap.
func (w *worker) listenOn(s bootstrap.Socket, accept func(loop.Incoming)) error {
	l, err := w.loop.Listen(s.FD, accept)
	if err != nil {
		return fmt.Errorf("%s socket %s: %w", s.Role, s.Local, err)
	}
	w.accept = append(w.accept, l)
	return nil
}

// drain lets what is under way end and takes nothing new. On the loop.
func (w *worker) drain() {
	w.listener.Drain()
	w.pool.Drain()
	for d := range w.serving {
		d.Drain()
	}
}

// stopAccepting leaves the sockets to whoever else has them. From any goroutine but the loop's.
func (w *worker) stopAccepting() {
	for _, l := range w.accept {
		l.Close()
	}
}

// leave lets what is open end by itself, in a proxy that another one has taken over from. On the loop. Connections of
// other proxies that are blank still stay so: whoever made them is about to use them, or closes them.
func (w *worker) leave() {
	w.leaving = true
	w.pool.Drain()
	for d := range w.serving {
		d.Leave()
	}
}

// leaveIdle ends connections that have had no request since leave.
func (w *worker) leaveIdle() {
	for d := range w.serving {
		d.Drain()
	}
}

// busy answers how much is under way. On the loop.
func (w *worker) busy() int { return w.exchange.Open() + w.relays.Len() + w.listener.Pending() }

func (w *worker) close() {
	for _, l := range w.accept {
		l.Close()
	}
	w.loop.Close()
	w.ended.Wait()
}
