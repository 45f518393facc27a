// Package observe is what the proxy remembers of exchanges and connections: metrics, edges and the access log,
// all views of the decision record. Each loop counts in its own Recorder without locks and without allocating
// for what it has seen before; a scrape adds the recorders up. The number of series is bounded; what is over
// the budget is counted under "other". It measures nothing itself. Start reading at Recorder.
package observe

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/telemetry"
)

// Config of an Observer; everything has a default.
type Config struct {
	Budget    int       // series at most; default 2000. A histogram counts as one
	AccessLog io.Writer // where lines go, each in one Write, from one goroutine; nil: nowhere
	LogOn     bool      // whether the access log begins switched on
	LogQueue  int       // lines that wait for the writer at most; default 1024
	// Decisions is how many different decisions about what comes in each recorder counts between two calls of Recorder.Decisions;
	// the others are counted together. 0: they are not counted.
	Decisions int
	// Flight is how many of the last records each recorder keeps, and half as many of those of failures and denials; 0: none.
	Flight    int
	Connected func() bool // whether the control plane is reachable; nil: not told
	// Overflows tells how often the circuit breakers of the clusters were full; nil: there are none. From any goroutine.
	Overflows func(tell func(cluster, priority, bound string, n uint64))
	// Health tells a metric about the health of clusters' endpoints; value is of its second label. nil: there are none. From
	// any goroutine.
	Health func(metric string, tell func(cluster, value string, n uint64))
	// Limits tells a metric of what is limited; values are of its labels. nil: nothing is. From any goroutine.
	Limits func(metric string, tell func(n float64, values ...string))
	// Retries tells what became of further attempts; it is bounded, and in order. nil: there are none. From any goroutine.
	Retries func() []Retries
	// Handshakes tells of TLS handshakes; nil: there are none. From any goroutine.
	Handshakes func() Handshakes
	// Identity tells of the workload's certificate; nil: there is none. From any goroutine.
	Identity func() Identity
	// Capture tells of the test whether the program's traffic goes through this proxy; nil: there is none. From any goroutine.
	Capture func() Capture
	// Dropped answers how many lines of access logs outside this Observer were dropped; nil: none. From any goroutine.
	Dropped func() uint64
}

// Retries is what became of further attempts at one cluster.
type Retries struct {
	Cluster       string
	Made, Refused uint64
	Left          int64 // that its budget allows now; -1: it has none
}

// Identity is how a workload's certificate stands.
type Identity struct {
	Left       time.Duration // until it ends; negative: since
	Failed     uint64        // renewals
	Stage      uint64        // of the mesh's roots that are believed
	ClockAhead time.Duration // of the machine, before the control plane's
}

// Capture is how the test of capture stands.
type Capture struct {
	Tested bool // at all
	Broken bool
	Failed uint64 // checks
}

// Handshakes are the numbers of a process' TLS handshakes (mtls.Stats).
type Handshakes struct {
	Computing, Open, Waiting int
	Refused, Evicted, Late   uint64
}

// Observer is the sum of its recorders. All methods are safe for concurrent use.
type Observer struct {
	cfg   Config
	began time.Time
	log   *accessLog

	recorders atomic.Pointer[[]*Recorder]
	overflow  atomic.Uint64

	mu     sync.Mutex // only for what was never seen before
	series map[any]struct{}
}

// New makes an Observer. Close ends it.
func New(cfg Config) *Observer {
	if cfg.Budget <= 0 {
		cfg.Budget = 2000
	}
	if cfg.LogQueue <= 0 {
		cfg.LogQueue = 1024
	}
	o := &Observer{cfg: cfg, began: time.Now(), series: map[any]struct{}{}}
	o.recorders.Store(&[]*Recorder{})
	o.log = newAccessLog(cfg.AccessLog, cfg.LogQueue, cfg.LogOn)
	return o
}

// Recorder makes a recorder for one loop.
func (o *Observer) Recorder() *Recorder {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &Recorder{o: o, edges: map[edgeKey]*edge{}}
	if o.cfg.Decisions > 0 {
		r.decisions = &decisions{most: o.cfg.Decisions}
	}
	if o.cfg.Flight > 0 {
		r.flight = newFlight(o.cfg.Flight)
	}
	all := append(append([]*Recorder{}, *o.recorders.Load()...), r)
	o.recorders.Store(&all)
	return r
}

// AccessLog switches the access log on or off.
func (o *Observer) AccessLog(on bool) { o.log.on.Store(on && o.log.w != nil) }

// AccessLogOn reports whether the access log is on.
func (o *Observer) AccessLogOn() bool { return o.log.on.Load() }

// Close writes the lines that wait and ends the access log's goroutine.
func (o *Observer) Close() { o.log.close() }

// Edges answers what was seen on every edge since the beginning, sorted by key.
func (o *Observer) Edges() []telemetry.Edge {
	var all []telemetry.Edge
	for _, r := range *o.recorders.Load() {
		for e := r.head.Load(); e != nil; e = e.next {
			all = append(all, e.snapshot())
		}
	}
	return telemetry.MergeEdges(all, nil)
}

// admit reports whether a new series fits into the budget. One that another recorder has already fits.
func (o *Observer) admit(key any) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.series[key]; known {
		return true
	}
	if len(o.series) >= o.cfg.Budget {
		return false
	}
	o.series[key] = struct{}{}
	return true
}
