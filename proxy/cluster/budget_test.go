package cluster_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// agenda is virtual time.
type agenda struct {
	now  time.Duration
	next []event
	n    int
}

type event struct {
	at time.Duration
	n  int
	f  func()
}

func (a *agenda) Len() int { return len(a.next) }
func (a *agenda) Less(i, j int) bool {
	return a.next[i].at < a.next[j].at || a.next[i].at == a.next[j].at && a.next[i].n < a.next[j].n
}
func (a *agenda) Swap(i, j int) { a.next[i], a.next[j] = a.next[j], a.next[i] }
func (a *agenda) Push(e any)    { a.next = append(a.next, e.(event)) }
func (a *agenda) Pop() any {
	e := a.next[len(a.next)-1]
	a.next = a.next[:len(a.next)-1]
	return e
}

func (a *agenda) after(d time.Duration, f func()) {
	a.n++
	heap.Push(a, event{a.now + d, a.n, f})
}

func (a *agenda) run() {
	for len(a.next) > 0 {
		e := heap.Pop(a).(event)
		a.now = e.at
		e.f()
	}
}

// chainRun is a chain of services: each asks the next, and tries again when that fails. The budgets are the real ones.
type chainRun struct {
	agenda
	rnd      *rand.Rand
	fails    float64 // share of what the last service does
	forwards bool    // programs forward x-request-id, so that attempts are known as such further down
	links    []link  // link i is from service i to the next
	load     int     // of the last
}

type link struct {
	c     *cluster.Cluster
	spent cluster.Spent // of the service that calls
	p     model.Retry
}

func (l *link) note(now time.Duration) {
	n, hops := l.c.Amplification(now)
	l.spent.Note(now, n, hops)
}

func newChain(services int, b model.Budget, fails float64, forwards bool) *chainRun {
	r := &chainRun{rnd: rand.New(rand.NewPCG(1, 2)), fails: fails, forwards: forwards, links: make([]link, services-1)}
	for i := range r.links {
		r.links[i].c = cluster.New(&model.Cluster{Budget: b})
		r.links[i].p = model.Retry{Attempts: 2, Base: 25 * time.Millisecond, Max: 250 * time.Millisecond}
	}
	return r
}

// call has service i ask the next one.
func (r *chainRun) call(i, n int, again bool, done func(ok bool)) {
	l := &r.links[i]
	if n == 1 {
		l.c.First(r.now, !(again && r.forwards))
	}
	answered := func(ok bool) {
		if i+1 < len(r.links) { // the proxy in front of the next one says what was spent below it
			if s, hops := r.links[i+1].spent.Now(r.now); s > retry.One {
				l.c.Budget().Below(r.now, s, hops)
				l.note(r.now)
			}
		}
		if ok || n > int(l.p.Attempts) {
			done(ok)
			return
		}
		may, _ := l.c.MayRepeat(r.now, nil, false, 0)
		l.note(r.now)
		if !may {
			done(false)
			return
		}
		r.after(retry.Wait(&l.p, n, r.rnd.Uint64()), func() { r.call(i, n+1, again, done) })
	}
	r.after(time.Millisecond, func() {
		if i+1 < len(r.links) {
			r.call(i+1, 1, again || n > 1, answered)
			return
		}
		r.load++
		ok := r.rnd.Float64() >= r.fails
		r.after(5*time.Millisecond, func() { answered(ok) })
	})
}

// play offers so many requests a second for a while and answers how much more the last service got, and what share failed.
func (r *chainRun) play(rate int, d time.Duration) (amplification, failed float64) {
	offered, bad := 0, 0
	var arrive func()
	arrive = func() {
		if r.now >= d {
			return
		}
		offered++
		r.call(0, 1, false, func(ok bool) {
			if !ok {
				bad++
			}
		})
		r.after(time.Duration(r.rnd.ExpFloat64()*float64(time.Second)/float64(rate)), arrive)
	}
	arrive()
	r.run()
	return float64(r.load) / float64(offered), float64(bad) / float64(offered)
}

// TestChain: through a chain of six services the last gets at most 1.2 times what the first is offered, whether half or
// all of its answers are failures. Envoy's defaults, two retries a hop without a budget, are shown for comparison.
func TestChain(t *testing.T) {
	for _, fails := range []float64{0.5, 1} {
		for _, c := range []struct {
			name     string
			b        model.Budget
			forwards bool
			most     float64
		}{
			{"Tulle's default", model.Budget{}, true, 1.2},
			{"Tulle's default, programs forward nothing", model.Budget{}, false, 1.2},
			{"2 retries a hop, no budget", model.Budget{Off: true}, true, 0},
		} {
			rate, d := 500, 60*time.Second
			if c.b.Off && fails == 1 {
				rate = 5 // 3^5 times that
			}
			amp, failed := newChain(6, c.b, fails, c.forwards).play(rate, d)
			t.Logf("%.0f %% fail, %s: the last gets %.4f x offered, the client sees %.1f %% fail", fails*100, c.name, amp, failed*100)
			if c.most > 0 && amp > c.most {
				t.Errorf("%.0f %% fail, %s: %.4f x offered", fails*100, c.name, amp)
			}
			if c.b.Off && amp < 1.9 {
				t.Errorf("without a budget: %.4f x offered: this test would see nothing", amp)
			}
		}
	}
}

// TestChainSoon: that holds from a few hundred requests on, in spite of what each hop may send again at first; and the hop next to
// the failure, where that is cheapest, comes to send most of it.
func TestChainSoon(t *testing.T) {
	for _, fails := range []float64{0.5, 1} {
		for _, n := range []int{300, 500, 1000, 3000} {
			r := newChain(6, model.Budget{}, fails, true)
			amp, _ := r.play(500, time.Duration(n)*time.Second/500)
			most := r.links[len(r.links)-1].c.Budget().Again()
			for i := range r.links[:len(r.links)-1] {
				if l := &r.links[i]; n >= 1000 && l.c.Budget().Again() > most {
					t.Errorf("%.0f %% fail, %d requests: %d again at the last hop, %d further up", fails*100, n, most, l.c.Budget().Again())
				}
			}
			if amp > 1.2 || amp < 1.1 {
				t.Errorf("%.0f %% fail, %d requests: %.4f x offered", fails*100, n, amp)
			}
		}
	}
}

// TestChainQuiet: where nothing fails nothing is told, and a failure that is over is forgotten.
func TestChainQuiet(t *testing.T) {
	r := newChain(6, model.Budget{}, 0, true)
	if amp, _ := r.play(200, 10*time.Second); amp != 1 {
		t.Errorf("%.3f x offered", amp)
	}
	r.fails = 1
	if amp, _ := r.play(200, r.now+5*time.Second); amp <= 1 {
		t.Errorf("no retries at all: %.3f", amp)
	}
	for i := range r.links {
		l := &r.links[i]
		if s, _ := l.spent.Now(r.now + 10*time.Second); s != retry.One {
			t.Errorf("service %d still says %d", i, s)
		}
		if s := l.c.Budget().Sums(r.now + 11*time.Second); s != (retry.Sums{}) {
			t.Errorf("link %d still counts %+v", i, s)
		}
	}
}

// TestBudgetUnderWay: Envoy's retry_budget is of what is under way.
func TestBudgetUnderWay(t *testing.T) {
	m := &model.Cluster{Budget: model.Budget{Percent: 20, Least: 2, UnderWay: true}}
	m.Breakers[0] = model.Breakers{Requests: 1000}
	c := cluster.New(m)
	b := c.Breaker(model.PriorityDefault)
	take := func(want bool) {
		t.Helper()
		if may, held := c.MayRepeat(0, b, true, 0); may != want || held != want {
			t.Errorf("%t, %t with %d under way", may, held, b.Now(cluster.Retries))
		}
	}
	take(true)
	take(true)
	take(false)
	for range 15 {
		b.Take(cluster.Requests)
	}
	take(true)
	take(false)
	b.Give(cluster.Retries)
	take(true)
	if c.Budget().Refused() != 2 || c.Budget().Again() != 4 {
		t.Errorf("%d refused, %d made", c.Budget().Refused(), c.Budget().Again())
	}
}

// TestBudgetBound: max_retries, given or Envoy's default, bounds what is under way.
func TestBudgetBound(t *testing.T) {
	for given, want := range map[uint32]int{0: 3, 5: 5} {
		m := &model.Cluster{Budget: model.Budget{Off: true}}
		m.Breakers[0] = model.Breakers{Requests: 1000, Retries: given}
		c := cluster.New(m)
		n := 0
		for range 10 {
			if may, _ := c.MayRepeat(0, c.Breaker(0), false, 3); may {
				n++
			}
		}
		if n != want {
			t.Errorf("max_retries %d: %d", given, n)
		}
	}
}

// TestTimes: a quantile is right to an eighth, over the last half to whole minute.
func TestTimes(t *testing.T) {
	tt := cluster.New(&model.Cluster{}).Times()
	now := 10 * time.Second
	if _, ok := tt.Quantile(now, 950); ok {
		t.Error("known from nothing")
	}
	for i := range 1000 {
		tt.Add(now, time.Duration(i+1)*time.Millisecond)
	}
	for q, want := range map[uint32]time.Duration{10: 10 * time.Millisecond, 500: 500 * time.Millisecond, 950: 950 * time.Millisecond, 1000: time.Second} {
		if d, ok := tt.Quantile(now+20*time.Second, q); !ok || d < want || d > want*9/8+time.Millisecond {
			t.Errorf("quantile %d: %s", q, d)
		}
	}
	if _, ok := tt.Quantile(now+time.Minute+time.Second, 500); ok {
		t.Error("known for ever")
	}
	tt.Add(now, time.Hour)
	tt.Add(now, -time.Second)
	tt.Add(now, 0)
	if n := testing.AllocsPerRun(100, func() { tt.Add(now, time.Second); tt.Quantile(now, 900) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBudget(b *testing.B) {
	c := cluster.New(&model.Cluster{})
	for i := 0; b.Loop(); i++ {
		c.First(time.Duration(i)*time.Microsecond, true)
	}
}

func ExampleSpent() {
	var s cluster.Spent
	s.Note(time.Second, 1150, 2)
	fmt.Println(s.Now(9 * time.Second))
	fmt.Println(s.Now(11 * time.Second))
	// Output:
	// 1150 2
	// 1000 0
}

// TestCircle: of services that call each other in a circle, or themselves, each hears what it has said itself. That is
// forgotten all the same when nobody tries again any more.
func TestCircle(t *testing.T) {
	for services := range 4 {
		r := newChain(services+2, model.Budget{}, 0, false) // as many links as services in the circle
		for i := range r.links {
			for range 1000 {
				r.links[i].c.First(0, true)
			}
		}
		for range 150 {
			r.links[0].c.MayRepeat(0, nil, false, 0)
			r.links[0].note(0)
		}
		for now := time.Duration(0); now < 3*time.Minute; now += 10 * time.Millisecond {
			for i := range r.links {
				l, below := &r.links[i], &r.links[(i+1)%len(r.links)]
				l.c.First(now, true)
				if s, hops := below.spent.Now(now); s > retry.One {
					l.c.Budget().Below(now, s, hops)
					l.note(now)
				}
			}
		}
		for i := range r.links {
			if s, hops := r.links[i].spent.Now(3 * time.Minute); s != retry.One {
				t.Errorf("%d services: %d still says %d, %d hops away", services+1, i, s, hops)
			}
		}
	}
}
