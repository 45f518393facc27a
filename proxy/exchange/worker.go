package exchange

import (
	"math/rand/v2"
	"strconv"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/buffer"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// maxAttempts bounds Config.Attempts, and how many endpoints an exchange remembers to have tried.
const maxAttempts = 8

// Worker is what all exchanges of one loop share. It belongs to its loop.
type Worker struct {
	cfg       Config
	free      *Exchange
	gates     *admission.Loop
	buffers   buffer.Pool
	random    *rand.PCG
	reply     reply
	open      int
	named     model.PortName // the cluster that a request field has named last
	said      saidAddress    // likewise an address
	entry     observe.Entry  // of the access log, reused
	tries     *try           // not used
	spent     []byte         // the value of a field, for one call
	bounds    map[*router.Route]*cluster.Breaker
	served    int           // of them, those that other proxies sent
	bench     cluster.Bench // where exchanges wait before they try again
	turning   loop.Timer    // of bench, while anybody waits
	let       policy.Open   // exchanges that the workload's policies have let in
	out       policy.Open   // those that lead out of the mesh
	toAsk     []again       // exchanges that external authorizers are asked about again
	underWay  int           // questions about such
	asksAgain bool          // askNext is posted
	asked     authz.Attributes
	tokens    token.Cache
	lower     []byte // of a host, for one question
	number    []byte // a field's value, likewise
	decoded   []byte // likewise
	dated     int64  // second that today is of
	today     []byte
}

// NewWorker makes the worker of one loop.
func NewWorker(cfg Config) *Worker {
	if cfg.Attempts <= 0 {
		cfg.Attempts = 5
	}
	cfg.Attempts = min(cfg.Attempts, maxAttempts)
	if cfg.Replay <= 0 {
		cfg.Replay = 64 << 10
	}
	if cfg.Routes == nil {
		cfg.Routes = &cluster.RouteBreakers{}
	}
	if cfg.Unproven == nil {
		cfg.Unproven = &policy.Lines{}
	}
	w := &Worker{cfg: cfg, gates: admission.NewLoop(cfg.Loop), random: rand.NewPCG(cfg.Seed, 0x7475_6c6c_65)}
	w.turning.Expired = w.turn
	return w
}

// Open answers how many exchanges are under way.
func (w *Worker) Open() int { return w.open }

// Served answers how many of them another proxy of the mesh has sent: they are the program's to answer.
func (w *Worker) Served() int { return w.served }

// date answers the time as RFC 9110 section 5.6.7 writes it, until the next call. Whoever has a clock puts it into
// a response without one (section 6.6.1).
func (w *Worker) date() []byte {
	if t := w.cfg.Loop.Wall(); w.today == nil || t.Unix() != w.dated {
		w.dated = t.Unix()
		w.today = t.UTC().AppendFormat(w.today[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	}
	return w.today
}

// get answers an exchange in its first state.
func (w *Worker) get() *Exchange {
	w.open++
	x := w.free
	if x == nil {
		x = &Exchange{w: w}
		x.try = &x.first
		x.first.x = x
		x.first.ready()
		x.requestTimer.Expired = x.requestTimeout
		x.pause.Expired = x.paused
		x.rest.seat.Owner = (*rester)(x)
		x.quietTimer.Expired = x.quiet
		x.due.Expired = x.proofDue
		x.faultTimer.Expired = x.faultExpired
		x.collectTimer.Expired = x.collectExpired
		x.ticket.Owner, x.pacer.Expired = (*guest)(x), x.paced
		return x
	}
	w.free = x.next
	x.next = nil
	return x
}

// put takes back an exchange that is over and that nobody is inside any more.
func (w *Worker) put(x *Exchange) {
	w.open--
	if x.origin.Mesh {
		w.served--
	}
	w.buffers.Put(x.body)
	w.buffers.Put(x.held)
	x.body, x.held = nil, nil
	x.origin, x.client, x.gate = nil, nil, nil
	x.request, x.response, x.result = request{}, response{}, result{}
	x.actions, x.shadow, x.copies = actions{}, shadow{}, x.copies[:0]
	x.asking = consulting{}
	x.web = web{plain: reusable(x.web.plain), wait: reusable(x.web.wait)}
	x.handshake, x.heard, x.closed, x.picking = handshake{}, false, false, picking{}
	x.token = nil
	w.reclaim(x)
	x.forgetFamily()
	x.attempts, x.extra, x.clocks, x.logged.details = attempts{}, extra{}, clocks{}, ""
	x.class, x.said, x.spent, x.owedClient, x.owedServer = model.ClassDefault, false, 0, 0, 0
	x.notes, x.cookies = reusable(x.notes), reusable(x.cookies)
	x.looked = reusable(x.looked)
	if cap(x.arena) > maxArena {
		x.arena = nil
	}
	x.next = w.free
	w.free = x
}

// boundOf answers what counts the requests of a route, on all loops. Who is asked first finds it by its name.
func (w *Worker) boundOf(r *router.Route) *cluster.Breaker {
	if b := w.bounds[r]; b != nil {
		return b
	}
	if len(w.bounds) >= maxBounds { // most are of tables that are no more
		clear(w.bounds)
	}
	if w.bounds == nil {
		w.bounds = map[*router.Route]*cluster.Breaker{}
	}
	host := ""
	if r.Host != nil {
		host = r.Host.Name
	}
	b := w.cfg.Routes.Of(r.Table.String()+"\x00"+host+"\x00"+r.Name+"\x00"+strconv.Itoa(r.Rule), r.Breakers)
	w.bounds[r] = b
	return b
}

// maxBounds is how many routes with bounds a worker finds without asking.
const maxBounds = 4096

// reusable answers the memory of b, empty, if it is worth keeping.
func reusable(b []byte) []byte {
	if cap(b) > maxArena {
		return nil
	}
	return b[:0]
}

// maxArena is the largest memory for a request head that an idle Exchange keeps, in bytes.
const maxArena = 8 << 10
