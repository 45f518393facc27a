package admission_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// still is a loop whose time a test sets; what is posted runs when it says so.
type still struct {
	now   time.Duration
	wheel loop.Wheel
	mu    sync.Mutex
	posts []func()
}

func (l *still) Now() time.Duration { return l.now }
func (l *still) Wall() time.Time    { return time.Unix(0, 0).Add(l.now) }
func (l *still) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posts = append(l.posts, f)
	return true
}
func (l *still) Arm(t *loop.Timer, d time.Duration)     { l.wheel.Arm(t, l.now+d) }
func (l *still) Disarm(t *loop.Timer)                   { l.wheel.Disarm(t) }
func (l *still) Dial(loop.Dial, loop.Handler) loop.Conn { panic("nobody dials") }
func (l *still) Load() int64                            { return 0 }
func (l *still) advance(d time.Duration) {
	l.now += d
	l.wheel.Advance(l.now)
	l.turn()
}
func (l *still) turn() {
	for {
		l.mu.Lock()
		all := l.posts
		l.posts = nil
		l.mu.Unlock()
		if len(all) == 0 {
			return
		}
		for _, f := range all {
			f()
		}
	}
}

// request is the owner of a ticket.
type request struct {
	admission.Ticket
	outcome admission.Outcome
}

func (r *request) Admitted() { r.outcome = admission.Admitted }
func (r *request) Refused()  { r.outcome = admission.Refused }

func head(method, target string, fields ...string) *message.Head {
	h := &message.Head{Method: []byte(method), Target: []byte(target), Authority: []byte("cart")}
	for i := 0; i < len(fields); i += 2 {
		h.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return h
}

type fixture struct {
	*admission.Gate
	t    testing.TB
	l    *still
	loop *admission.Loop
}

func gate(t testing.TB, in *model.Inbound, table *model.RouteTable) *fixture {
	return gateAsking(t, admission.Config{}, in, table)
}

func gateAsking(t testing.TB, cfg admission.Config, in *model.Inbound, table *model.RouteTable) *fixture {
	t.Helper()
	f := &fixture{Gate: admission.New(cfg), t: t, l: &still{now: time.Minute}}
	f.loop = admission.NewLoop(f.l)
	f.set(in, table)
	return f
}

func (f *fixture) set(in *model.Inbound, m *model.RouteTable) {
	f.t.Helper()
	terms := admission.Terms{Inbound: in}
	if m != nil {
		table, err := router.Compile(m)
		if err != nil {
			f.t.Fatal(err)
		}
		terms.Table = table
	}
	if err := f.Set(terms); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) enter(q admission.Question) *request {
	if q.Head == nil {
		q.Head = head("GET", "/")
	}
	r := &request{}
	r.Owner = r
	r.outcome = f.Enter(&r.Ticket, f.loop, &q)
	return r
}

// passes answers how many of n requests are admitted; they leave at once.
func (f *fixture) passes(n int, q admission.Question) (admitted int) {
	for range n {
		r := f.enter(q)
		if r.outcome == admission.Admitted {
			admitted++
		}
		r.Leave()
	}
	return admitted
}

func from(service string) admission.Question {
	return admission.Question{Caller: model.ServiceName{Namespace: "default", Name: service}}
}

func TestRequestsPerWindow(t *testing.T) {
	f := gate(t, &model.Inbound{Limits: []model.RateLimit{{Name: "all", Requests: 10, Window: time.Second, Burst: 5}}}, nil)
	if n := f.passes(20, admission.Question{}); n != 5 {
		t.Errorf("%d at once, 5 are allowed", n)
	}
	f.l.advance(500 * time.Millisecond)
	if n := f.passes(20, admission.Question{}); n != 5 {
		t.Errorf("%d after half a second, 5 have come back", n)
	}
	r := f.enter(admission.Question{})
	if r.outcome != admission.Refused || r.Reason != failure.RateLimited {
		t.Errorf("%v %v", r.outcome, r.Reason)
	}
}

// TestExactWithAllLoops: whatever many loops do at once, not one request more is admitted.
func TestExactWithAllLoops(t *testing.T) {
	for name, by := range map[string][]model.RateKey{"shared": nil, "by key": {{Kind: model.RateByCaller}}} {
		f := gate(t, &model.Inbound{Limits: []model.RateLimit{{Name: "all", Requests: 1000, Window: time.Second, Burst: 100, By: by}}}, nil)
		const loops = 8
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range loops {
			wg.Go(func() {
				l := &still{now: time.Minute} // time passes alike for all: 2 s in steps of 100 µs
				on := admission.NewLoop(l)
				for range 20000 {
					l.now += 100 * time.Microsecond
					var r request
					q := from("shop")
					q.Head = head("GET", "/")
					if f.Enter(&r.Ticket, on, &q) == admission.Admitted {
						admitted.Add(1)
					}
					r.Leave()
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n > 2100 || n < 2000 {
			t.Errorf("%s: %d admitted in two seconds; 2000 and a burst of 100 are allowed", name, n)
		}
	}
}

func TestBy(t *testing.T) {
	limits := func(by ...model.RateKey) *model.Inbound {
		return &model.Inbound{Limits: []model.RateLimit{{Name: "x", Requests: 1, Window: time.Hour, By: by}}}
	}
	q := func(caller, addr, method, target string, fields ...string) admission.Question {
		return admission.Question{Head: head(method, target, fields...), Caller: model.ServiceName{Namespace: "default", Name: caller}, Address: netip.MustParseAddr(addr)}
	}
	base := q("shop", "10.0.0.1", "GET", "/a?x=1", "X-Key", "k")
	for name, c := range map[string]struct {
		by          model.RateKey
		same, other admission.Question
	}{
		"caller":  {model.RateKey{Kind: model.RateByCaller}, q("shop", "10.0.0.2", "POST", "/b"), q("till", "10.0.0.1", "GET", "/a?x=1", "X-Key", "k")},
		"address": {model.RateKey{Kind: model.RateByAddress}, q("till", "10.0.0.1", "POST", "/b"), q("shop", "10.0.0.2", "GET", "/a?x=1", "X-Key", "k")},
		"header":  {model.RateKey{Kind: model.RateByHeader, Name: "x-key"}, q("till", "10.0.0.2", "POST", "/b", "x-key", "k"), q("shop", "10.0.0.1", "GET", "/a?x=1", "X-Key", "j")},
		"path":    {model.RateKey{Kind: model.RateByPath}, q("till", "10.0.0.2", "POST", "/a?x=2"), q("shop", "10.0.0.1", "GET", "/ab?x=1", "X-Key", "k")},
		"method":  {model.RateKey{Kind: model.RateByMethod}, q("till", "10.0.0.2", "GET", "/b"), q("shop", "10.0.0.1", "POST", "/a?x=1", "X-Key", "k")},
	} {
		f := gate(t, limits(c.by), nil)
		if f.passes(1, base) != 1 || f.passes(1, c.same) != 0 || f.passes(1, c.other) != 1 || f.passes(1, c.other) != 0 {
			t.Errorf("%s: not what tells requests apart", name)
		}
	}
	f := gate(t, limits(model.RateKey{Kind: model.RateByCaller}, model.RateKey{Kind: model.RateByMethod}), nil)
	if f.passes(2, base) != 1 || f.passes(2, q("shop", "10.0.0.1", "PUT", "/")) != 1 || f.passes(2, q("till", "10.0.0.1", "GET", "/")) != 1 {
		t.Error("two keys are not one of both")
	}
}

// TestManyKeys: the buckets of keys are bounded, and who is over a limit does not get out of it by that unless very many are.
func TestManyKeys(t *testing.T) {
	f := gate(t, &model.Inbound{Limits: []model.RateLimit{{Name: "x", Requests: 100, Window: time.Second, Burst: 50, By: []model.RateKey{{Kind: model.RateByHeader, Name: "k"}}}}}, nil)
	busy := admission.Question{Head: head("GET", "/", "k", "busy")}
	admitted := f.passes(50, busy)
	for i := range 100_000 {
		f.passes(1, admission.Question{Head: head("GET", "/", "k", string([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))})
		if i%10 == 0 {
			admitted += f.passes(1, busy)
		}
	}
	if n := f.Keys(); n > model.MaxBuckets || n < model.MaxBuckets*9/10 {
		t.Errorf("%d buckets", n)
	}
	if admitted != 50 {
		t.Errorf("%d admitted of one key at once, 50 are allowed", admitted)
	}
}

func TestMatchShadowAndRefund(t *testing.T) {
	f := gate(t, &model.Inbound{Limits: []model.RateLimit{
		{Name: "writes", Match: &model.Match{Path: "/", Method: "POST"}, Requests: 2, Window: time.Hour},
		{Name: "watch", Requests: 1, Window: time.Hour, Shadow: true},
		{Name: "all", Requests: 4, Window: time.Hour},
	}}, nil)
	post := admission.Question{Head: head("POST", "/")}
	if n := f.passes(5, post); n != 2 {
		t.Errorf("%d POST, 2 are allowed", n)
	}
	if n := f.passes(5, admission.Question{}); n != 2 { // of four two are gone; refused POSTs took none
		t.Errorf("%d GET, 2 are left", n)
	}
	var refused, shadowed uint64
	f.Each(func(name string, n, shadow uint64) {
		if name == "watch" {
			shadowed = shadow
		}
		refused += n
	})
	if refused != 6 || shadowed == 0 {
		t.Errorf("%d refused, %d in the shadow", refused, shadowed)
	}
}

// TestManyRefunds: however many limits have taken a request, one that refuses it makes all of them give it back.
func TestManyRefunds(t *testing.T) {
	in := &model.Inbound{}
	for i := range 20 {
		in.Limits = append(in.Limits, model.RateLimit{Name: fmt.Sprint("limit", i), Requests: 3, Window: time.Hour})
	}
	in.Limits = append(in.Limits, model.RateLimit{Name: "posts", Match: &model.Match{Path: "/", Method: "POST"}, Requests: 1, Window: time.Hour})
	f := gate(t, in, nil)
	if n := f.passes(9, admission.Question{Head: head("POST", "/")}); n != 1 {
		t.Fatalf("%d POST, 1 is allowed", n)
	}
	if n := f.passes(9, admission.Question{}); n != 2 {
		t.Errorf("%d GET, 2 are left: refused ones have taken the rest", n)
	}
}

// TestLanesGo: a gate at which somebody has waited can go when it is replaced.
func TestLanesGo(t *testing.T) {
	l := &still{now: time.Minute}
	on := admission.NewLoop(l)
	gone := make([]weak.Pointer[admission.Gate], 8)
	for i := range gone {
		f := gate(t, &model.Inbound{Adaptive: &model.Adaptive{Least: 1, Most: 1, Queue: time.Second}}, nil)
		f.l, f.loop = l, on
		first, next := f.enter(admission.Question{}), f.enter(admission.Question{})
		if first.outcome != admission.Admitted || next.outcome != admission.Waiting {
			t.Fatal(first.outcome, next.outcome)
		}
		first.Leave()
		l.turn()
		next.Leave()
		gone[i] = weak.Make(f.Gate)
	}
	for range 3 {
		l.advance(2 * time.Second)
	}
	runtime.GC()
	runtime.GC()
	for i, g := range gone {
		if g.Value() != nil {
			t.Errorf("gate %d is still there", i)
		}
	}
	runtime.KeepAlive(on)
}

func TestRouteLimits(t *testing.T) {
	m := &model.RouteTable{
		Routes: []model.Route{
			{Name: "r", Match: model.Match{Path: "/search"}, Limits: []model.RateLimit{{Name: "search", Requests: 1, Window: time.Hour}}},
			{Name: "r", Rule: 1, Match: model.Match{Path: "/"}, Limits: []model.RateLimit{{Name: "all", Requests: 5, Window: time.Hour}}},
		},
		Inbound: &model.Inbound{Limits: []model.RateLimit{{Name: "all", Requests: 3, Window: time.Hour}}},
	}
	f := gate(t, nil, m)
	if n := f.passes(3, admission.Question{Head: head("GET", "/search")}); n != 1 {
		t.Errorf("%d of the route, 1 is allowed", n)
	}
	if n := f.passes(9, admission.Question{}); n != 5 { // the route's own of that name instead of everybody's
		t.Errorf("%d of the other route, 5 are allowed", n)
	}
	f.set(nil, m) // the same again: nothing is forgotten
	if n := f.passes(9, admission.Question{}); n != 0 {
		t.Errorf("%d more after the same was said again", n)
	}
}

func TestHeaders(t *testing.T) {
	f := gate(t, &model.Inbound{Limits: []model.RateLimit{
		{Name: "per-hour", Requests: 3, Window: time.Hour, Headers: true},
		{Name: "quick", Requests: 2, Window: 500 * time.Millisecond, Headers: true, Status: 503},
	}}, nil)
	r := f.enter(admission.Question{})
	if got, want := string(r.AppendPolicy(nil)), `"per-hour";q=3;w=3600, "quick";q=2`; got != want {
		t.Errorf("policy %s, want %s", got, want)
	}
	if got, want := string(r.AppendState(nil)), `"per-hour";r=2;t=1200, "quick";r=1;t=1`; got != want {
		t.Errorf("state %s, want %s", got, want)
	}
	f.passes(1, admission.Question{})
	if r = f.enter(admission.Question{}); r.outcome != admission.Refused || r.Status != 503 || string(r.AppendRetry(nil)) != "1" {
		t.Errorf("%v, status %d, retry %s", r.outcome, r.Status, r.AppendRetry(nil))
	}
	f.l.advance(time.Second)
	f.passes(1, admission.Question{})
	if r = f.enter(admission.Question{}); r.Retry < 1198*time.Second || string(r.AppendRetry(nil)) != "1199" {
		t.Errorf("retry after %v", r.Retry)
	}
}

func TestConnections(t *testing.T) {
	f := gate(t, &model.Inbound{MaxConnections: 2, ConnectionRate: &model.RateLimit{Requests: 3, Window: time.Hour}}, nil)
	now := f.l.now
	for i, want := range []failure.Reason{failure.None, failure.None, failure.Overload} {
		if why := f.Connect(now); why != want {
			t.Errorf("connection %d: %v", i, why)
		}
	}
	f.Disconnect()
	if why := f.Connect(now); why != failure.None {
		t.Error(why)
	}
	f.Disconnect()
	if why := f.Connect(now); why != failure.RateLimited {
		t.Error(why)
	}
	if why := f.Connect(now + time.Hour); why != failure.None {
		t.Error(why)
	}
}

func TestBytesArePaced(t *testing.T) {
	f := gate(t, &model.Inbound{Limits: []model.RateLimit{{Name: "b", Requests: 1000, Window: time.Second, Burst: 100, Bytes: true}}}, nil)
	a := f.enter(admission.Question{})
	if !a.Metered() || a.Spend(100) != 0 {
		t.Error("the burst is waited for")
	}
	if w := a.Spend(500); w != 500*time.Millisecond {
		t.Errorf("500 bytes beyond the burst wait %v", w)
	}
	b := f.enter(admission.Question{})
	if b.outcome != admission.Waiting {
		t.Fatalf("a request begins while bytes are owed: %v", b.outcome)
	}
	f.l.advance(499 * time.Millisecond)
	if b.outcome != admission.Waiting {
		t.Error("too early")
	}
	f.l.advance(2 * time.Millisecond)
	if b.outcome != admission.Admitted {
		t.Error("still waiting")
	}
	b.Spend(5000)
	if c := f.enter(admission.Question{}); c.outcome != admission.Refused || c.Reason != failure.RateLimited {
		t.Error("who would wait for longer than the window is not refused")
	}
	gone := f.enter(admission.Question{})
	gone.Leave()
	f.l.advance(time.Minute)
}

// TestTurnPassesOn: when the one whose turn it was has left before its loop came to it, somebody of another loop has it.
func TestTurnPassesOn(t *testing.T) {
	a := gate(t, &model.Inbound{Adaptive: &model.Adaptive{Least: 1, Most: 1, Queue: time.Hour}}, nil)
	b := &fixture{Gate: a.Gate, t: t, l: &still{now: a.l.now}}
	b.loop = admission.NewLoop(b.l)
	first, gone, next := a.enter(admission.Question{}), a.enter(admission.Question{}), b.enter(admission.Question{})
	if first.outcome != admission.Admitted || gone.outcome != admission.Waiting || next.outcome != admission.Waiting {
		t.Fatal(first.outcome, gone.outcome, next.outcome)
	}
	a.l.turn()
	b.l.turn()
	first.Leave()
	gone.Leave()
	a.l.turn()
	b.l.turn()
	if next.outcome != admission.Admitted {
		t.Error("nobody is at work, and one waits")
	}
	next.Leave()
	if n := a.Load(); n.Requests != 0 || n.Waiting != 0 {
		t.Errorf("%+v", n)
	}
}
