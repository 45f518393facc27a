package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/filter"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Exchange is described in the package comment. Its methods are called by the downstream's stream, on the loop.
type Exchange struct {
	w      *Worker
	origin *Origin
	client Client
	rec    record.Record

	head     message.Head // the request's, our own copy, as it goes upstream
	arena    []byte       // memory of head
	trailers message.Head // the request's
	tarena   []byte
	ending   message.Head // trailers of the response that wait for its body
	earena   []byte
	id       [36]byte // x-request-id that was made here
	from     []byte   // x-forwarded-for, likewise
	notes    []byte   // values of fields that were made here, for as long as the exchange lasts
	looked   []byte   // memory of rec.Named
	scratch  []byte   // for one call
	seen     []byte   // the path as policies see it; nil: none has looked at it yet
	cookies  []byte   // that the response sets, each with a 0 behind it
	body     []byte   // request bytes that may have to be sent, or sent again
	held     []byte   // response bytes that the client has not taken

	request
	response
	attempts
	extra
	handshake
	clocks
	logged
	admitted
	family
	proven
	web web
	actions
	picking
	asking consulting
	turn   uint64 // counts the exchanges that this memory has been
	shadow shadow
	result

	*try         // the current attempt
	first        try
	pause        loop.Timer // before the next one
	rest         rest       // while pause is that
	requestTimer loop.Timer
	quietTimer   loop.Timer
	faultTimer   loop.Timer
	collectTimer loop.Timer
	copies       []*Exchange // mirrors of this request that get its body; nil: one that is over
	busy         int         // calls that are inside
	slot         int         // of Worker.let
	exit         int         // of Worker.out
	next         *Exchange
}

// request is the state of the request's body.
type request struct {
	version     message.Version // that the client spoke, perhaps one proxy earlier
	native      bool            // extended CONNECT of a client that is no proxy of ours
	whole       time.Duration   // loop time when all of the request was here; 0: not yet
	upgrade     bool            // Upgrade or CONNECT: what would be the body goes through only after the switch
	ended       bool            // all of it is here
	hasTrailers bool
	dropped     int64 // bytes before body, gone: the request cannot be sent again
	credited    int64 // bytes that the client was given credit for
}

// response is the state of the response.
type response struct {
	begun      bool // its final head has gone to the client
	over       bool // all of it is here
	heldEnds   bool // held is the end of the response
	heldTrails bool // ending is, after held
	tunnel     bool // the connection has been switched
}

// attempts is what was tried.
type attempts struct {
	route   *router.Route
	backend *model.Backend
	cluster *cluster.Cluster
	tried   [maxAttempts]*cluster.Endpoint
	ntried  int
	count   int
	spared  int // of count: those that were made before the fallback took over
	fallen  bool
	resting bool             // pause is the wait before the next attempt; else before a second at the same time
	rested  bool             // it is over: who could not be reached may be by now
	shifted bool             // it was shed by one endpoint, and goes to another
	outOf   int              // how many endpoints the last pick was from
	rivals  *try             // attempts beside the current one
	dead    *try             // those that are over
	hash    uint64           // what the route's hash keys come to, for policies that hash (hash.go)
	hashed  bool             // there was something to hash; otherwise the pick is at random
	breaker *cluster.Breaker // of the cluster
	bound   *cluster.Breaker // of the route
}

// result is how it ends.
type result struct {
	finished bool
	reason   failure.Reason
}

// Begin starts an exchange for the request h (copied) of client; end says that no body follows (an offer to
// upgrade and CONNECT have no end). It may call client back before it returns; if that was with Finished the
// answer is nil.
//
// It is the story of a request: what is ours is taken out, its token is verified (prove.go) and the workload's policies are asked (authorize.go), the
// route is found and does what it does itself (action.go), and attempts are made until one answers or none is left (attempt.go); bodies flow (body.go), the response returns
// (response.go), and what happened is remembered (end.go).
func (w *Worker) Begin(o *Origin, client Client, h *message.Head, end bool) *Exchange {
	x := w.get()
	x.busy++
	x.take(o, client, h, end)
	x.cleanse()
	reason := failure.None
	if o.HTTP != nil {
		reason = x.receive()
	}
	switch {
	case x.finished:
		return x.leave()
	case o.Refuse != failure.None:
		if o.Refused != nil {
			x.rec.Decision = *o.Refused
		}
		x.answer(o.Refuse)
		return x.leave()
	case reason != failure.None:
		x.answer(reason)
		return x.leave()
	case x.moved:
		x.redirect()
		return x.leave()
	}
	if x.prove() {
		x.pass()
	}
	return x.leave()
}

// pass goes on with a request whose token is proven, or that needs none.
func (x *Exchange) pass() {
	if x.authorize() {
		x.enter()
	}
}

// enter takes on a request that may pass.
func (x *Exchange) enter() {
	x.classify()
	if reason := x.findRoute(); reason != failure.None {
		x.answer(reason)
		return
	}
	x.limitTime()
	if x.admit() {
		x.arrive()
	}
}

// belong says whose exchange it is.
func (x *Exchange) belong(o *Origin, client Client) {
	x.origin, x.client = o, client
	if o.Mesh {
		x.w.served++
	}
}

// take copies what the request is and starts its record.
func (x *Exchange) take(o *Origin, client Client, h *message.Head, end bool) {
	x.belong(o, client)
	x.arena = h.CloneInto(&x.head, x.arena)
	x.version, x.ended = h.Version, end
	x.seen = nil
	x.upgrade = h.Upgrade != nil || string(h.Method) == "CONNECT"
	x.native = h.Version == message.HTTP2 && h.Upgrade != nil && !o.Mesh
	x.head.Close = false
	if len(x.head.Authority) == 0 && !o.Mesh && o.Wanted.IsValid() { // HTTP/1.0, or an empty Host: what was called is known all the same
		x.head.Authority = o.Wanted.AppendTo(nil)
	}
	l := x.w.cfg.Loop
	x.rec.Reset()
	x.rec.Direction, x.rec.Start, x.rec.Wall = o.Direction, l.Now(), l.Wall()
	x.stirred = x.rec.Start
	if end {
		x.whole = x.rec.Start
	}
	x.rec.MTLS, x.rec.Source, x.rec.SourceID, x.rec.From = o.MTLS, o.Source, o.SourceID, o.Remote.Addr()
	if x.looked, x.rec.Published = x.looked[:0], o.Publish; o.Caller != nil {
		x.rec.From, x.rec.Federated = o.Caller.IP, o.Caller.Federated
	}
	x.rec.Destination, x.rec.Port, x.rec.Wanted = o.Service.Service, o.Service.Port, o.Wanted
	x.rec.Method = method(h.Method)
	x.rec.Path, x.rec.Authority = x.head.Target, x.head.Authority
	x.conceal(nil)
}

// findRoute decides which rule and which backend serve the request, and applies their filters. A request to the
// program beside us has no route.
func (x *Exchange) findRoute() failure.Reason {
	if x.origin.Destination == nil {
		if x.upgrade && x.origin.HTTP != nil && !x.upgradable() {
			return failure.UpgradeRefused
		}
		return failure.None
	}
	table := x.origin.Destination.Routes()
	if table == nil {
		return failure.Unavailable
	}
	rnd := uint32(0)
	if x.origin.HTTP != nil {
		rnd = uint32(x.w.random.Uint64() >> 32)
	}
	r := table.Find(&x.head, rnd)
	if r == nil {
		return failure.NoRoute
	}
	x.route = r
	x.rec.Route, x.rec.Rule = r.Name, r.Rule
	if why := x.follow(r); why != failure.None {
		return why
	}
	if x.act(r) {
		return failure.None
	}
	filter.Request(r.Filters, &x.head)
	if f := hostFilters(r); f != nil {
		filter.Request(f, &x.head)
	}
	if r.FromField != "" {
		return x.towards(r, x.named(r.FromField), failure.UnknownCluster)
	}
	b := x.chooseBackend(r)
	if b == nil || b.Invalid {
		return failure.NoBackend
	}
	filter.Request(b.Filters, &x.head)
	x.backend = b
	if x.origin.HTTP != nil {
		return x.towards(r, b.Cluster, failure.UnknownCluster)
	}
	return x.towards(r, b.Cluster, failure.Unavailable)
}

// towards finds the cluster called name; without it the request fails with unknown.
func (x *Exchange) towards(r *router.Route, name model.PortName, unknown failure.Reason) failure.Reason {
	x.rec.Backend = name
	x.rec.Destination, x.rec.Port = name.Service, name.Port
	if x.cluster = x.origin.Destination.Cluster(name); x.cluster == nil {
		return unknown
	}
	x.breaker = x.cluster.Breaker(r.Priority)
	if r.Breakers != nil {
		x.bound = x.w.boundOf(r)
	}
	x.rewrite(r)
	return failure.None
}

// leave ends a call from outside. An exchange that is over is reused only when nobody is inside: a call that ends
// one may have come from deep within another of its methods. It answers nil if x is over.
func (x *Exchange) leave() *Exchange {
	x.busy--
	if !x.finished {
		return x
	}
	if x.busy == 0 {
		x.w.put(x)
	}
	return nil
}

// tunnelLinger is how long one direction of a tunnel may stay open, without a byte, after the other has ended.
const tunnelLinger = 5 * time.Minute
