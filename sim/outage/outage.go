// Package outage simulates outages of a service with many callers, to compare waits between retries: those that are learned
// (proxy/cluster, model/recovery, shared through control/outage) with a fixed exponential (proxy/retry). Both are the code
// that proxies run; only time, the network and the service are made up. The same seed gives the same arrivals and the
// same outages to both. Start reading at Run; docs/design/retries.md tells what came out.
package outage

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	control "github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// What is simulated.
const (
	callers   = 40
	perSecond = 200 // requests of all callers together
	answers   = time.Millisecond
	retries   = 4                // that a request may make
	longest   = 30 * time.Second // wait that the policy allows where waits are learned
	every     = time.Minute      // an outage begins
	training  = 10               // outages that are not counted: nobody has learned anything yet
	counted   = 30
	overloads = perSecond * 3 / 2 // requests a second that an overloaded service cannot take
)

// A Service fails in its own way.
type Service struct {
	Name string
	// Lasts is how long it is down.
	Lasts func(r *rand.Rand) time.Duration
	// Overload: after that it goes on failing until a second has passed in which it was asked less than it can take.
	Overload bool
}

// Services answers those that are compared.
func Services() []Service {
	about := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(r *rand.Rand) time.Duration { return d*8/10 + time.Duration(r.Int64N(int64(d*4/10))) }
	}
	return []Service{
		{Name: "fast restart, about 200 ms", Lasts: about(200 * time.Millisecond)},
		{Name: "slow restart, about 20 s", Lasts: about(20 * time.Second)},
		{Name: "overload that retries prolong", Lasts: about(2 * time.Second), Overload: true},
	}
}

// Result is what came out, over all outages that are counted.
type Result struct {
	Outage time.Duration // mean length
	Caught int           // requests whose first attempt has failed
	Lost   int           // of them, never answered
	Wasted int           // further attempts that have failed
	Late   time.Duration // mean time from when the service is back until who was caught is answered, if at all
	// Asked is how many attempts, first ones and further ones, arrived in each Step since an outage began; Back is how many
	// of the caught were answered by each Step since the service was back.
	Asked, Back [Steps]int
	Step        time.Duration
}

// Steps of the curves.
const Steps = 60

// world is one run.
type world struct {
	service Service
	learned bool
	percent uint32
	random  *rand.Rand // of arrivals and outages: the same for both
	jitter  *rand.Rand
	now     time.Duration
	queue   events
	n       int

	callers []*caller
	memory  control.Memory

	down        bool
	began, back time.Duration // of the last outage
	outages     int
	asked       []time.Duration // attempts of the last second, with Overload
	result      Result
	late, long  time.Duration // sums
}

// caller is one proxy: a cluster of its own, with its budget.
type caller struct {
	cluster  *cluster.Cluster
	endpoint *cluster.Endpoint
	bench    cluster.Bench
	turning  bool
}

// request is one that was caught.
type request struct {
	world  *world
	by     *caller
	failed int // attempts
	caught bool
	outage int

	rest        cluster.Rest
	from, asked time.Duration // when the wait began, and when its length was chosen
	woken       bool          // the service was seen to be well
	wait        int           // which wait this is: what was to end another one does nothing
}

type event struct {
	at time.Duration
	n  int // in which order events of the same time were made
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// Now and Wall make the world a cluster.Clock.
func (w *world) Now() time.Duration { return w.now }
func (w *world) Wall() time.Time    { return time.Unix(1_800_000_000, 0).Add(w.now) }

func (w *world) after(d time.Duration, do func()) {
	w.n++
	heap.Push(&w.queue, event{w.now + d, w.n, do})
}

// Run simulates one service; learned says which waits are used, and percent what budget of retries there is.
func Run(service Service, learned bool, percent uint32, seed uint64) Result {
	w := &world{service: service, learned: learned, percent: percent, random: rand.New(rand.NewPCG(seed, 1)), jitter: rand.New(rand.NewPCG(seed, 2))}
	w.result.Step = 10 * time.Millisecond
	if service.Lasts(rand.New(rand.NewPCG(seed, 3))) > time.Second {
		w.result.Step = 500 * time.Millisecond
	}
	for range callers {
		c := cluster.New(settings(percent, nil))
		c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "a", Weight: 1}}})
		w.callers = append(w.callers, &caller{cluster: c, endpoint: c.Endpoints()[0]})
	}
	w.after(every, w.fail)
	w.after(0, w.arrive)
	w.after(time.Second, w.report)
	for end := every * (training + counted + 2); len(w.queue) > 0 && w.now < end; {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.result.Outage = w.long / counted
	if served := w.result.Caught - w.result.Lost; served > 0 {
		w.result.Late = w.late / time.Duration(served)
	}
	return w.result
}

// settings answers those of the callers' cluster.
func settings(percent uint32, learned []byte) *model.Cluster {
	return &model.Cluster{Name: destination, Budget: model.Budget{Percent: percent}, Recovery: learned}
}

var destination = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "service"}, Port: 80}

// fail begins an outage.
func (w *world) fail() {
	w.outages++
	w.down, w.began, w.back = true, w.now, 0
	w.after(w.service.Lasts(w.random), w.recover)
	if w.outages < training+counted {
		w.after(every, w.fail)
	}
}

func (w *world) counts() bool { return w.outages > training }

// recover ends it, unless the service is asked for too much.
func (w *world) recover() {
	if w.service.Overload {
		w.trim()
		if len(w.asked) >= overloads && w.now-w.began < every/2 { // then somebody restarts it
			w.after(10*time.Millisecond, w.recover)
			return
		}
	}
	w.down, w.back = false, w.now
	if w.counts() {
		w.long += w.now - w.began
	}
}

func (w *world) trim() {
	for len(w.asked) > 0 && w.asked[0] < w.now-time.Second {
		w.asked = w.asked[1:]
	}
}

// arrive is a new request, and the next one.
func (w *world) arrive() {
	w.after(time.Duration(w.random.ExpFloat64()*float64(time.Second)/perSecond), w.arrive)
	c := w.callers[w.random.IntN(callers)]
	c.cluster.First(w.now, true)
	w.attempt(&request{world: w, by: c})
}

// attempt asks the service once.
func (w *world) attempt(r *request) {
	began := w.now
	if w.service.Overload {
		w.asked = append(w.asked, w.now)
	}
	if i := int((w.now - w.began) / w.result.Step); w.down && w.counts() && i < Steps {
		w.result.Asked[i]++
	}
	if !w.down {
		w.after(answers, func() { w.succeeded(r, began) })
		return
	}
	w.after(answers, func() { w.failed(r) })
}

func (w *world) succeeded(r *request, began time.Duration) {
	r.by.endpoint.Succeeded(w, began)
	r.by.bench.Well(r.by.cluster, w.jitter.Uint64())
	if !r.caught || r.outage <= training {
		return
	}
	late := max(w.now-w.back, 0)
	w.late += late
	for i := int(late / w.result.Step); i < Steps; i++ {
		w.result.Back[i]++
	}
}

func (w *world) failed(r *request) {
	r.by.endpoint.Failed(w)
	r.failed++
	if !r.caught {
		r.caught, r.outage = true, w.outages
		if w.counts() {
			w.result.Caught++
		}
	} else if r.outage > training {
		w.result.Wasted++
	}
	may := false
	if r.failed <= retries {
		may, _ = r.by.cluster.MayRepeat(w.now, nil, false, 0)
	}
	if !may {
		if r.outage > training {
			w.result.Lost++
		}
		return
	}
	r.from, r.asked, r.woken = w.now, w.now, false
	if w.learned {
		r.rest.Owner = r
		r.by.bench.Sit(&r.rest, r.by.cluster)
		w.turn(r.by)
	}
	r.again(w.wait(r))
}

// again ends a wait, and begins another if others have asked in vain meanwhile.
func (r *request) again(after time.Duration) {
	r.wait++
	n, w := r.wait, r.world
	w.after(after, func() {
		if n != r.wait {
			return
		}
		if w.learned && !r.woken {
			if d := r.by.cluster.Recovery().Longer(w.now, r.from, r.asked, retries+1-r.failed, longest, w.jitter.Uint64()); d > 0 {
				r.asked = w.now
				r.again(d)
				return
			}
		}
		r.by.bench.Leave(&r.rest)
		w.attempt(r)
	})
}

// Rested implements cluster.Rester.
func (r *request) Rested(after time.Duration) {
	r.woken = true
	r.again(after)
}

// turn keeps a caller's bench turning while somebody sits on it.
func (w *world) turn(c *caller) {
	if c.turning {
		return
	}
	c.turning = true
	w.after(cluster.BenchTurn, func() {
		c.turning = false
		c.bench.Turn(w.jitter.Uint64())
		if !c.bench.Empty() {
			w.turn(c)
		}
	})
}

// wait is what is compared.
func (w *world) wait(r *request) time.Duration {
	rnd := w.jitter.Uint64()
	if w.learned {
		if d, ok := r.by.cluster.Recovery().Wait(w.now, retries+1-r.failed, longest, rnd); ok {
			return d
		}
	}
	return retry.Wait(&model.Retry{Base: retry.DefaultBase, Max: retry.DefaultMax}, r.failed, rnd)
}

// report carries what callers have learned to the control plane and back, once a second.
func (w *world) report() {
	w.after(time.Second, w.report)
	for _, c := range w.callers {
		if l, last, ok := c.cluster.Recovery().Take(); ok {
			w.memory.Report([]recovery.Report{{Cluster: destination.String(), Learned: l, Last: last}}, w.Wall())
		}
	}
	for _, n := range w.memory.Due(w.Wall()) {
		for _, c := range w.callers {
			c.cluster.Set(settings(w.percent, w.memory.Learned(n)))
		}
	}
}

// String answers the numbers in one line.
func (r *Result) String() string {
	return fmt.Sprintf("outages of %v, %d caught, %.1f %% lost, %.2f attempts wasted per request, answered %v after the service was back",
		r.Outage.Round(time.Millisecond), r.Caught, 100*float64(r.Lost)/float64(r.Caught), float64(r.Wasted)/float64(r.Caught), r.Late.Round(time.Millisecond))
}

// Answered answers which share of the caught was answered within a time since the service was back.
func (r *Result) Answered(within time.Duration) float64 {
	return float64(r.Back[min(int(within/r.Step), Steps-1)]) / float64(max(r.Caught, 1))
}
