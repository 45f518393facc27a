// Package watch looks after the health of a cluster's endpoints: it has them asked (package probe), hears what became of
// real requests (cluster.Watch), lets package health decide, and tells the cluster who is unhealthy or ejected. Gateways
// and sidecars run the same Watch. One goroutine for each cluster, which decides, and one for each check that is under way;
// it follows the cluster's settings and endpoints by itself. It sends no request of anybody's. Start reading at Start.
package watch

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/health"
	"github.com/tulle-mesh/tulle/proxy/probe"
)

// Config of a Watch. Cluster, which has one Watch at a time, Log, Group and Part are required.
type Config struct {
	Cluster *cluster.Cluster
	Log     *slog.Logger
	Group   *sync.WaitGroup // has the watch's goroutine: who stops it waits there
	// Part ends the connections to an endpoint that has become unfit: those of requests when they are idle, relayed ones
	// only if relays. It is called from the watch's goroutine and does not wait.
	Part func(ep *cluster.Endpoint, relays bool)
	// Settled is called once, when every endpoint was asked for the first time; may be nil.
	Settled func()
	// Mesh connects to the proxy in front of an endpoint of the mesh, as its callers do, for HTTP/2 or for the bytes of a
	// relay; nil: endpoints are what they are asked as.
	Mesh func(ctx context.Context, ep *model.Endpoint, relay bool) (net.Conn, error)
}

// maxAsking is how many endpoints of one cluster are asked at a time; others wait.
const maxAsking = 64

const never = time.Duration(math.MaxInt64)

// Watch keeps the health of the endpoints of one cluster.
type Watch struct {
	cfg     Config
	c       *cluster.Cluster
	stop    context.CancelFunc
	began   time.Time
	results chan answer
	asks    sync.WaitGroup

	checked   atomic.Bool // every endpoint was asked once
	shown     atomic.Pointer[map[*cluster.Endpoint]*watched]
	checks    [3]atomic.Uint64 // by health.Result
	ejections [health.Whys]atomic.Uint64

	// The goroutine's own.
	ctx      context.Context
	model    *model.Cluster // whose settings are in force
	check    *model.HealthCheck
	tls      cluster.TLS
	probes   *probe.Config // of check; nil: there is none
	listed   []*cluster.Endpoint
	all      []*watched
	outliers health.Outliers // no Settings: nobody is ejected
	used     bool            // something was sent to the cluster
	asking   int
	waiting  bool          // a check is due and asking is at its bound
	unasked  int           // endpoints that have no result yet
	next     time.Duration // when a check is due
	tick     time.Duration // when the interval of outliers ends
}

// watched is one endpoint.
type watched struct {
	ep     *cluster.Endpoint
	state  health.State
	member health.Member
	probe  *probe.Probe // nil: it is not checked
	cancel context.CancelFunc
	told   bool // that it is unhealthy

	checks, failures, ejections atomic.Uint64
}

// answer is the end of a check.
type answer struct {
	of     *watched
	probe  *probe.Probe
	result health.Result
	err    error
}

// Wanted reports whether a cluster's settings ask for somebody who looks after its endpoints.
func Wanted(m *model.Cluster) bool { return len(m.HealthChecks) > 0 || m.Outlier != nil }

// Start makes a Watch, which runs until Stop.
func Start(cfg Config) *Watch {
	ctx, stop := context.WithCancel(context.Background())
	w := &Watch{cfg: cfg, c: cfg.Cluster, ctx: ctx, stop: stop, began: time.Now(), results: make(chan answer, maxAsking), model: &model.Cluster{}}
	w.outliers.Reopen = w.reopen
	w.shown.Store(&map[*cluster.Endpoint]*watched{})
	cfg.Group.Go(w.run)
	return w
}

// Stop ends the watch and does not wait for it; see Config.Group. What was found stays. A nil Watch has ended.
func (w *Watch) Stop() {
	if w != nil {
		w.stop()
	}
}

// Cluster answers what is watched.
func (w *Watch) Cluster() *cluster.Cluster { return w.c }

// Warm reports whether the endpoints were asked once, or there is nobody to ask. A nil Watch is warm.
func (w *Watch) Warm() bool {
	return w == nil || w.checked.Load() || len(w.c.Endpoints()) == 0 || len(w.c.Model().HealthChecks) == 0
}

// Found answers how often an endpoint was asked, how often that failed, and how often it was ejected.
func (w *Watch) Found(ep *cluster.Endpoint) (checks, failures, ejections uint64) {
	if w == nil {
		return 0, 0, 0
	}
	if e := (*w.shown.Load())[ep]; e != nil {
		return e.checks.Load(), e.failures.Load(), e.ejections.Load()
	}
	return 0, 0, 0
}

// Checks answers how many checks have had a result.
func (w *Watch) Checks(r health.Result) uint64 { return w.checks[r].Load() }

// Ejections answers how many endpoints were ejected because of why.
func (w *Watch) Ejections(why health.Why) uint64 { return w.ejections[why].Load() }

func (w *Watch) now() time.Duration { return time.Since(w.began) }

func (w *Watch) run() {
	wake := w.c.Watch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.follow()
	w.trips() // before there was wake
	for {
		select {
		case <-w.ctx.Done():
			w.end()
			return
		case <-wake:
			w.follow()
			w.trips()
		case a := <-w.results:
			w.take(a)
		case <-timer.C:
		}
		timer.Reset(w.step())
	}
}

// end returns when nobody is asked any more.
func (w *Watch) end() {
	w.asks.Wait()
	for _, e := range w.all {
		if e.probe != nil {
			e.probe.Close()
		}
	}
	for len(w.results) > 0 {
		(<-w.results).probe.Close()
	}
}

// step does what is due and answers in how long something is.
func (w *Watch) step() time.Duration {
	now := w.now()
	if w.outliers.Settings != nil {
		if now >= w.tick {
			w.turn(now)
		}
		for _, i := range w.outliers.HalfOpen(now) {
			w.all[i].ep.HalfOpen()
		}
	}
	if now >= w.next {
		w.scan(now)
	}
	if w.unasked == 0 && len(w.all) > 0 && !w.checked.Swap(true) {
		if w.cfg.Settled != nil {
			w.cfg.Settled()
		}
	}
	next := w.next
	if w.outliers.Settings != nil {
		next = min(next, w.tick)
		if at, ok := w.outliers.Due(); ok {
			next = min(next, at)
		}
	}
	return max(next-w.now(), 0)
}

// follow takes the cluster's settings and endpoints.
func (w *Watch) follow() {
	if m := w.c.Model(); m != w.model {
		w.set(m)
	}
	listed := w.c.Endpoints()
	if len(listed) != len(w.listed) || len(listed) > 0 && &listed[0] != &w.listed[0] {
		w.list(listed)
	}
}

// set puts settings in force. What was found stays.
func (w *Watch) set(m *model.Cluster) {
	was, now := w.model, w.now()
	w.model = m
	if !reflect.DeepEqual(was.Outlier, m.Outlier) {
		w.outliers.Settings = m.Outlier
		if m.Outlier == nil {
			for _, e := range w.all {
				e.member = health.Member{}
				e.ep.SetEjected(false)
			}
		} else if was.Outlier == nil || was.Outlier.Interval != m.Outlier.Interval {
			w.tick = now + m.Outlier.Interval
		}
	}
	if t := w.c.TLS(); t != w.tls || was.SendProxy != m.SendProxy || !slices.EqualFunc(was.HealthChecks, m.HealthChecks, func(a, b model.HealthCheck) bool { return reflect.DeepEqual(a, b) }) {
		w.tls = t
		w.setCheck(m)
		for _, e := range w.all {
			w.renew(e, now)
		}
	}
	w.next = 0
}

// setCheck says how endpoints are asked from now on. There is one check at most, as with Envoy.
func (w *Watch) setCheck(m *model.Cluster) {
	w.check, w.probes = nil, nil
	if len(m.HealthChecks) == 0 {
		return
	}
	w.check = &m.HealthChecks[0]
	w.probes = &probe.Config{Check: w.check, Cluster: m.Name.String(), SendProxy: m.SendProxy}
	if s, ok := w.tls.(configured); ok {
		w.probes.TLS = func(host string) *tls.Config { return s.Config(host) }
	}
}

// renew begins to ask an endpoint anew, or ends it.
func (w *Watch) renew(e *watched, now time.Duration) {
	w.dismiss(e)
	if w.check == nil {
		e.ep.SetUnhealthy(false)
		return
	}
	e.probe = w.probeOf(e.ep.Model())
	e.state = health.Begin(e.ep.Unhealthy(), now)
	w.unasked++
	w.next = 0
}

// configured is what a cluster's TLS says about itself to who dials without a loop.
type configured interface {
	Config(host string, protocols ...string) *tls.Config
}

// probeOf makes who asks an endpoint.
func (w *Watch) probeOf(m *model.Endpoint) *probe.Probe {
	if m.Identity == "" || w.cfg.Mesh == nil {
		return probe.New(w.probes, probe.Address(w.check, m))
	}
	through := *w.probes
	through.TLS, through.SendProxy = nil, 0
	through.Mesh = func(ctx context.Context, relay bool) (net.Conn, error) { return w.cfg.Mesh(ctx, m, relay) }
	return probe.New(&through, probe.Address(w.check, m))
}

// dismiss ends asking an endpoint; the end of a check that is under way comes and does not count.
func (w *Watch) dismiss(e *watched) {
	if e.probe == nil {
		return
	}
	if e.state.Fresh() {
		w.unasked--
	}
	if e.cancel != nil {
		e.cancel()
	} else {
		e.probe.Close()
	}
	e.probe = nil
}

// list takes the endpoints in force. Those that stay keep what was found.
func (w *Watch) list(listed []*cluster.Endpoint) {
	known, now := *w.shown.Load(), w.now()
	shown := make(map[*cluster.Endpoint]*watched, len(listed))
	w.listed, w.all, w.outliers.Members = listed, nil, nil
	for _, ep := range listed {
		e := known[ep]
		if e == nil {
			e = &watched{ep: ep}
			w.renew(e, now)
		} else if w.check != nil && e.probe.Address() != probe.Address(w.check, ep.Model()) {
			w.renew(e, now)
		}
		shown[ep] = e
		w.all, w.outliers.Members = append(w.all, e), append(w.outliers.Members, &e.member)
	}
	for ep, e := range known {
		if shown[ep] == nil {
			w.dismiss(e)
		}
	}
	w.shown.Store(&shown)
	w.next = 0
}

// scan asks those whose check is due, as many as may be asked at a time.
func (w *Watch) scan(now time.Duration) {
	w.next, w.waiting = never, false
	if w.check == nil {
		return
	}
	for i := 0; !w.used && i < len(w.all); i++ {
		w.used = w.all[i].ep.Total() > 0
	}
	for _, e := range w.all {
		switch due := e.state.Due(w.check, w.used); {
		case e.cancel != nil: // is being asked
		case due > now:
			w.next = min(w.next, due)
		case w.asking >= maxAsking:
			w.waiting = true
		default:
			w.ask(e)
		}
	}
	if !w.used && len(w.all) > 0 {
		w.next = min(w.next, now+w.check.Interval) // to see whether something is sent
	}
}

// ask makes one check.
func (w *Watch) ask(e *watched) {
	ctx, cancel := context.WithTimeout(w.ctx, w.check.Timeout)
	e.cancel = cancel
	w.asking++
	p := e.probe
	w.asks.Go(func() {
		r, err := p.Ask(ctx)
		w.results <- answer{e, p, r, err} // there is room for all
	})
}

// take hears the end of a check.
func (w *Watch) take(a answer) {
	e, now := a.of, w.now()
	w.asking--
	e.cancel()
	e.cancel = nil
	if e.probe != a.probe {
		a.probe.Close()
		w.next = 0
		return
	}
	w.checks[a.result].Add(1)
	e.checks.Add(1)
	if a.result != health.Passed {
		e.failures.Add(1)
	}
	first := e.state.Fresh()
	changed := e.state.Note(w.check, a.result, now, rand.Uint64())
	e.ep.SetUnhealthy(e.state.Unhealthy())
	switch {
	case !e.state.Unhealthy():
		e.told = false
		if changed {
			w.cfg.Log.Info("endpoint is healthy", "cluster", w.model.Name.String(), "endpoint", e.ep.Address().String())
		}
	case !e.told:
		e.told = true
		w.cfg.Log.Info("endpoint is unhealthy", "cluster", w.model.Name.String(), "endpoint", e.ep.Address().String(), "error", a.err)
		w.cfg.Part(e.ep, w.model.CloseOnHealthFailure)
	}
	if o := w.outliers.Settings; o != nil && !o.StayEjected && a.result == health.Passed && !e.state.Unhealthy() && e.member.Ejected() {
		w.outliers.Restore(&e.member, now)
		w.restored(e, "it has passed a health check")
	}
	if w.next = min(w.next, e.state.Due(w.check, w.used)); w.waiting {
		w.next = 0
	}
	if first {
		w.unasked--
	}
}

// trips looks who has failed too often in a row.
func (w *Watch) trips() {
	if w.outliers.Settings == nil {
		return
	}
	for _, e := range w.all {
		for why := range health.ConsecutiveLocal + 1 {
			if e.ep.Tripped(why) && w.outliers.Trip(&e.member, why, w.now(), rand.Uint64()) {
				w.ejected(e, why)
			}
		}
		if well, ok := e.ep.TakeProbe(); ok {
			w.probed(e, well)
		}
	}
}

// probed takes how the one request of an endpoint went whose ejection was over.
func (w *Watch) probed(e *watched, well bool) {
	switch {
	case !e.member.HalfOpen():
		e.ep.SetEjected(e.member.Ejected()) // meanwhile something else has decided
	case w.outliers.Probed(&e.member, well, w.now(), rand.Uint64()):
		w.restored(e, "the request that it got has gone well")
	default:
		w.ejected(e, health.ProbeFailed)
	}
}

// reopen answers after how long an endpoint that has been out for down is worth a request, by what was learned.
func (w *Watch) reopen(down time.Duration, rnd uint64) (time.Duration, bool) {
	return w.c.Recovery().Reopen(down, 0, w.outliers.Settings.MaxEjection, rnd)
}

// turn ends an interval.
func (w *Watch) turn(now time.Duration) {
	for _, e := range w.all {
		e.member.Rates = e.ep.TakeRates()
		e.member.Spent, e.member.Answers = e.ep.TakeLatency()
	}
	for _, c := range w.outliers.Tick(now, rand.Uint64) {
		switch e := w.all[c.Member]; {
		case c.HalfOpen:
			e.ep.HalfOpen()
		case c.Ejected:
			w.ejected(e, c.Why)
		default:
			w.restored(e, "its time is over")
		}
	}
	w.tick = now + w.outliers.Settings.Interval
}

func (w *Watch) ejected(e *watched, why health.Why) {
	e.ep.SetEjected(true)
	e.ejections.Add(1)
	w.ejections[why].Add(1)
	w.cfg.Log.Info("endpoint is ejected", "cluster", w.model.Name.String(), "endpoint", e.ep.Address().String(), "why", why.String())
	w.cfg.Part(e.ep, w.model.CloseOnHealthFailure)
}

func (w *Watch) restored(e *watched, why string) {
	e.ep.Forgive()
	e.ep.SetEjected(false)
	w.cfg.Log.Info("endpoint is restored", "cluster", w.model.Name.String(), "endpoint", e.ep.Address().String(), "why", why)
}
