package limit_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/limit"
)

// server is a queue in front of workers, with what admits requests to it: everything that docs/design/overload.md says,
// in virtual time.
type server struct {
	rnd      *rand.Rand
	workers  int
	service  time.Duration // mean
	constant bool
	slow     func(now time.Duration) float64 // factor of service; nil: 1
	patience time.Duration                   // of clients; nobody cancels what the server has begun or queued

	unlimited bool
	wait      time.Duration // in the line
	control   limit.Adaptive
	line      limit.Line

	now      time.Duration
	events   events
	inflight int
	queue    []*job
	working  int

	sum         time.Duration
	n, busiest  int
	offered     [3]int
	good        [3]int // answered in time
	shed        [3]int
	limits      []int
	worst       time.Duration // latency of an answer
	countFrom   time.Duration
	mostLimited int
}

type job struct {
	class          model.Class
	arrived, begun time.Duration
	w              limit.Waiter
}

type event struct {
	at time.Duration
	do func()
}
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func (s *server) at(t time.Duration, do func()) { heap.Push(&s.events, event{t, do}) }

func (s *server) run(until time.Duration) {
	for len(s.events) > 0 && s.events[0].at <= until {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = until
}

// arrivals sends requests of a class at a rate per second until then.
func (s *server) arrivals(c model.Class, rate float64, from, until time.Duration) {
	if rate <= 0 {
		return
	}
	var next func()
	next = func() {
		if s.now < until {
			s.at(s.now+time.Duration(s.rnd.ExpFloat64()/rate*1e9), next)
		}
		s.arrive(&job{class: c, arrived: s.now})
	}
	s.at(from+time.Duration(s.rnd.ExpFloat64()/rate*1e9), next)
}

func (s *server) arrive(j *job) {
	if s.now >= s.countFrom {
		s.offered[j.class]++
	}
	if s.unlimited || s.inflight < limit.Share(j.class, s.control.Limit()) {
		s.begin(j)
		return
	}
	if s.wait > 0 {
		j.w.Owner = j
		if out := s.line.Push(&j.w, j.class, s.now, max(16, s.control.Limit())); out != nil {
			s.refuse(out.Owner.(*job))
		}
		s.at(s.now+s.wait, func() {
			if j.w.Waiting() {
				s.line.Remove(&j.w)
				s.refuse(j)
			}
		})
		return
	}
	s.refuse(j)
}

func (s *server) refuse(j *job) {
	if j.arrived >= s.countFrom {
		s.shed[j.class]++
	}
}

func (s *server) begin(j *job) {
	s.inflight++
	s.busiest = max(s.busiest, s.inflight)
	j.begun = s.now
	s.queue = append(s.queue, j)
	s.work()
}

func (s *server) work() {
	for s.working < s.workers && len(s.queue) > 0 {
		j := s.queue[0]
		s.queue = s.queue[1:]
		s.working++
		d := float64(s.service)
		if !s.constant {
			d *= s.rnd.ExpFloat64()
		}
		if s.slow != nil {
			d *= s.slow(s.now)
		}
		s.at(s.now+time.Duration(d), func() { s.done(j) })
	}
}

func (s *server) done(j *job) {
	s.working--
	s.inflight--
	if took := s.now - j.arrived; j.arrived >= s.countFrom {
		if took <= s.patience {
			s.good[j.class]++
		}
		s.worst = max(s.worst, took)
	}
	if j.begun >= s.control.Since() {
		s.sum += s.now - j.begun
		s.n++
	}
	if !s.unlimited && s.now >= s.control.Due() {
		w := limit.Window{Count: s.n, Busiest: s.busiest}
		if s.n > 0 {
			w.Mean = s.sum / time.Duration(s.n)
		}
		if _, over := s.control.Update(w, s.now); over {
			s.sum, s.n, s.busiest = 0, 0, s.inflight
			if !s.control.Probing() {
				s.limits = append(s.limits, s.control.Limit())
				s.mostLimited = max(s.mostLimited, s.control.Limit())
			}
		}
	}
	for {
		c, ok := s.line.Best()
		if !ok || s.inflight >= limit.Share(c, s.control.Limit()) {
			break
		}
		s.begin(s.line.Pop(alike{}).Owner.(*job))
	}
	s.work()
}

func (s *server) total(of [3]int) int { return of[0] + of[1] + of[2] }

// capacity answers how many requests a second it can answer.
func (s *server) capacity() float64 { return float64(s.workers) / s.service.Seconds() }

func newServer(seed uint64, workers int, service time.Duration) *server {
	s := &server{rnd: rand.New(rand.NewPCG(seed, 1)), workers: workers, service: service, patience: time.Second}
	s.control = limit.NewAdaptive(limit.Settings{}, 0, seed)
	return s
}

// typical answers the median of the last limits.
func (s *server) typical() int {
	last := s.limits[len(s.limits)/2:]
	sum := 0
	for _, l := range last {
		sum += l
	}
	return sum / len(last)
}

// TestFindsTheKnee: under more load than can be served the limit comes to what the server can work on at once, whatever that
// is: not less, and not so much more that a long queue stands in front of it.
func TestFindsTheKnee(t *testing.T) {
	for _, workers := range []int{4, 8, 32, 128} {
		for _, constant := range []bool{true, false} {
			for _, service := range []time.Duration{2 * time.Millisecond, 50 * time.Millisecond} {
				s := newServer(7, workers, service)
				s.constant, s.countFrom = constant, 8*time.Second
				s.arrivals(model.ClassDefault, 2*s.capacity(), 0, 28*time.Second)
				s.run(28 * time.Second)
				got, share := s.typical(), float64(s.total(s.good))/(20*s.capacity())
				t.Logf("%d workers of %v (constant: %v): limit %d, goodput %.1f %%, slowest answer %v", workers, service, constant, got, 100*share, s.worst)
				if got < workers || got > 2*workers+6 {
					t.Errorf("%d workers of %v (constant: %v): the limit is %d", workers, service, constant, got)
				}
				if share < 0.95 {
					t.Errorf("%d workers of %v (constant: %v): %.1f %% of what it can do", workers, service, constant, 100*share)
				}
			}
		}
	}
}

// TestFiveTimesOverload is what issue 4 asks for.
func TestFiveTimesOverload(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		wait    time.Duration
		service time.Duration
	}{
		{"without a line", 16, 0, 10 * time.Millisecond},
		{"with a line", 16, 50 * time.Millisecond, 10 * time.Millisecond},
		{"a small server", 4, 0, 20 * time.Millisecond},
		{"a large one", 100, 0, 5 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			peak, _ := load(c.workers, c.service, c.wait, 1.0, false)
			calm, calmServer := load(c.workers, c.service, c.wait, 0.3, false)
			over, s := load(c.workers, c.service, c.wait, 5.0, false)
			worse, without := load(c.workers, c.service, 0, 5.0, true)
			calmCritical := float64(calmServer.good[model.ClassCritical]) / float64(calmServer.offered[model.ClassCritical])
			critical := float64(s.good[model.ClassCritical]) / float64(s.offered[model.ClassCritical])
			t.Logf("goodput: 0.3× %.0f/s, 1× %.0f/s, 5× %.0f/s (without limits %.0f/s); critical %.2f %% of %.2f %% (without %.2f %%), default %.1f %%, batch %.1f %%; limit %d; slowest %v",
				calm, peak, over, worse, 100*critical, 100*calmCritical, 100*float64(without.good[model.ClassCritical])/float64(without.offered[model.ClassCritical]),
				100*float64(s.good[model.ClassDefault])/float64(s.offered[model.ClassDefault]),
				100*float64(s.good[model.ClassBatch])/float64(s.offered[model.ClassBatch]), s.typical(), s.worst)
			if over < 0.9*peak {
				t.Errorf("goodput at five times the load is %.1f %% of its peak", 100*over/peak)
			}
			if critical < 0.95*calmCritical {
				t.Errorf("%.1f %% of critical requests are answered, %.1f %% were without load", 100*critical, 100*calmCritical)
			}
			if d, b := float64(s.good[model.ClassDefault])/float64(s.offered[model.ClassDefault]), float64(s.good[model.ClassBatch])/float64(s.offered[model.ClassBatch]); b >= d {
				t.Errorf("%.1f %% of batch and %.1f %% of default requests are answered", 100*b, 100*d)
			}
			if worse > over/2 {
				t.Errorf("without limits the goodput is %.0f: the test has no teeth", worse)
			}
		})
	}
}

// load answers the goodput a second under times of what the server can do. One in ten of what it can do is critical; two thirds
// of the rest are default, one third batch.
func load(workers int, service, wait time.Duration, times float64, unlimited bool) (float64, *server) {
	s := newServer(3, workers, service)
	s.wait, s.unlimited, s.countFrom = wait, unlimited, 5*time.Second
	const end = 45 * time.Second
	all := times * s.capacity()
	critical := min(0.3*s.capacity(), 0.3*all)
	s.arrivals(model.ClassCritical, critical, 0, end)
	s.arrivals(model.ClassDefault, (all-critical)*2/3, 0, end)
	s.arrivals(model.ClassBatch, (all-critical)/3, 0, end)
	s.run(end)
	return float64(s.total(s.good)) / (end - s.countFrom).Seconds(), s
}

// TestRecovers: after an overload, and after a time in which the server was four times as slow, the limit is again what it was.
func TestRecovers(t *testing.T) {
	s := newServer(5, 16, 10*time.Millisecond)
	s.slow = func(now time.Duration) float64 {
		if now > 40*time.Second && now < 60*time.Second {
			return 4
		}
		return 1
	}
	s.arrivals(model.ClassDefault, 0.6*s.capacity(), 0, 120*time.Second)
	s.arrivals(model.ClassDefault, 5*s.capacity(), 10*time.Second, 25*time.Second)
	at := func(until time.Duration) (share float64) {
		s.countFrom, s.good, s.offered = s.now, [3]int{}, [3]int{}
		from := s.now
		s.run(until)
		share = float64(s.total(s.good)) / ((until - from).Seconds() * s.capacity())
		t.Logf("%v to %v: limit %d, %.1f %% of what it can do, %d of %d offered", from, until, s.control.Limit(), 100*share, s.total(s.good), s.total(s.offered))
		return share
	}
	if g := at(10 * time.Second); g < 0.57 {
		t.Errorf("calm: %.2f", g)
	}
	if g := at(25 * time.Second); g < 0.9 {
		t.Errorf("overload: %.2f", g)
	}
	if g := at(40 * time.Second); g < 0.57 {
		t.Errorf("after the overload: %.2f", g)
	}
	if g := at(60 * time.Second); g < 0.85*0.25 {
		t.Errorf("four times as slow: %.2f", g)
	}
	at(65 * time.Second)
	if g := at(120 * time.Second); g < 0.57 {
		t.Errorf("fast again: %.2f", g)
	}
}

// TestIdleLearnsNothing: a server with little to do keeps its limit.
func TestIdleLearnsNothing(t *testing.T) {
	s := newServer(5, 16, 10*time.Millisecond)
	s.arrivals(model.ClassDefault, 20, 0, 120*time.Second)
	s.run(120 * time.Second)
	if s.total(s.shed) > 0 || s.mostLimited > 25 {
		t.Errorf("%d were shed; the limit went up to %d", s.total(s.shed), s.mostLimited)
	}
}

func ExampleAdaptive() {
	a := limit.NewAdaptive(limit.Settings{}, 0, 1)
	now := time.Duration(0)
	for range 20 { // everything is quick and the limit is used
		now = a.Due()
		a.Update(limit.Window{Count: 100, Mean: 10 * time.Millisecond, Busiest: a.Limit()}, now)
	}
	fmt.Println(a.Limit() > 50)
	// Output: true
}
