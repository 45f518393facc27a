package downstream_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// lodger is a WebSocket client that stays.
type lodger struct {
	c     loop.Conn
	path  string
	got   []byte
	ended bool
}

func (g *lodger) Opened() {
	g.c.Write([]byte("GET " + g.path + " HTTP/1.1\r\nHost: x\r\nX-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
}
func (g *lodger) Data(p []byte) int { g.got = append(g.got, p...); return len(p) }
func (g *lodger) EOF()              { g.ended = true; g.c.Close() }
func (g *lodger) Writable()         {}
func (g *lodger) Closed(error)      { g.ended = true }

// house is a program whose proxy asks an authorizer, which a test plays.
type house struct {
	*sim.World
	t        *testing.T
	proxy    *sim.Loop
	policies *policy.InForce
	worker   *exchange.Worker
	log      records
	lodgers  []*lodger

	answer   func(q *model.AuthorizerQuestion) (*model.AuthorizerAnswer, error)
	takes    time.Duration // an answer
	asked    map[string]int
	now, top int // questions under way, and the most there were
}

// authorizer is the one that the policies of house name.
func (h *house) authorizer(edit func(by *model.Authorizer)) {
	h.t.Helper()
	by := model.Authorizer{Name: external().Name, Backend: model.PortName{Service: model.ServiceName{Namespace: "default", Name: "authorizer"}, Port: 9000}}
	if edit != nil {
		edit(&by)
	}
	if err := h.policies.Set(&model.Security{Policies: []model.Policy{external()}, Authorizers: []model.Authorizer{by}}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) review() { h.proxy.Post(func() { h.worker.Review(h.policies) }) }

func newHouse(t *testing.T, seed uint64, paths ...string) *house {
	w := sim.New(sim.Config{Seed: seed})
	h := &house{World: w, t: t, policies: policy.New(policy.Config{}), asked: map[string]int{}, takes: time.Millisecond}
	h.answer = func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
		return &model.AuthorizerAnswer{Allowed: true, Remove: []string{"x-key"}}, nil
	}
	far := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
	program := w.Listen(far, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
		in.Adopt(far, func(c loop.Conn) loop.Handler { return &stayer{c: c} })
	}).Addr()
	h.proxy = w.NewLoop(netip.MustParseAddr("10.0.0.2"))
	h.log.keep = true
	h.worker = exchange.NewWorker(exchange.Config{Loop: h.proxy, Observer: &h.log, Seed: seed, Pool: pool.New(pool.Config{Loop: h.proxy}), Consult: h.consult})
	o := inbound(program)
	o.Policies, o.Caller = h.policies, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.1.1"), 80)
	addr := w.Listen(h.proxy, netip.MustParseAddrPort("10.0.0.2:0"), func(in loop.Incoming) {
		in.Adopt(h.proxy, func(c loop.Conn) loop.Handler {
			return downstream.Serve(c, downstream.Context{Worker: h.worker, Origin: &o})
		})
	}).Addr()
	cl := w.NewLoop(netip.MustParseAddr("10.0.1.1"))
	for _, p := range paths {
		g := &lodger{path: p}
		h.lodgers = append(h.lodgers, g)
		cl.Post(func() { g.c = cl.Dial(loop.Dial{Address: addr}, g) })
	}
	return h
}

// consult plays the authorizer: exchange.Consult.
func (h *house) consult(q *model.AuthorizerQuestion, then func(*model.AuthorizerAnswer, error)) bool {
	key := ""
	for _, f := range q.Fields {
		if f.Name == "x-key" {
			key = f.Value
		}
	}
	h.asked[q.Path+key]++
	h.now++
	h.top = max(h.top, h.now)
	t := &loop.Timer{Expired: func() { h.now--; then(h.answer(q)) }}
	h.proxy.Arm(t, h.takes)
	return true
}

func (h *house) count(path string, is func(g *lodger) bool) (n int) {
	for _, g := range h.lodgers {
		if g.path == path && is(g) {
			n++
		}
	}
	return n
}

func (g *lodger) up() bool   { return bytes.Contains(g.got, []byte("101 Switching")) && !g.ended }
func (g *lodger) over() bool { return g.ended }

// settled waits until all that should be there is.
func (h *house) settled(want map[string]int) {
	h.t.Helper()
	ok := func() bool {
		for path, n := range want {
			if h.count(path, (*lodger).up) != n {
				return false
			}
		}
		return true
	}
	if !h.Until(time.Minute, ok) {
		for path, n := range want {
			h.t.Errorf("%s: %d are up, want %d", path, h.count(path, (*lodger).up), n)
		}
		h.t.FailNow()
	}
}

// ended counts the records of a reason.
func (h *house) ended(reason string) (n int) {
	for _, r := range h.log.all {
		if r.Reason == reason {
			n++
		}
	}
	return n
}

func refusing(path string) func(q *model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
	return func(q *model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
		return &model.AuthorizerAnswer{Allowed: q.Path != path}, nil
	}
}

func many(n int, paths ...string) (out []string) {
	for range n {
		out = append(out, paths...)
	}
	return out
}

// TestAskedAgainOnChange: when policies change, the authorizer is asked again about every stream that it has let in, the first question,
// a few at a time; those that it refuses end within a second, and no other is touched. Streams that nobody was asked about at first are asked about.
func TestAskedAgainOnChange(t *testing.T) {
	simtest.Each(t, 1, func(t *testing.T, seed uint64) {
		const n = 300
		h := newHouse(t, seed, many(n, "/ask/a", "/ask/b", "/free")...)
		h.authorizer(nil)
		h.settled(map[string]int{"/ask/a": n, "/ask/b": n, "/free": n})
		if h.asked["/ask/ak"] != n || h.asked["/freek"] != 0 {
			t.Fatalf("asked %v", h.asked)
		}
		h.answer, h.top = refusing("/ask/b"), 0
		h.authorizer(func(by *model.Authorizer) { by.Timeout = time.Second }) // something else about it
		h.review()
		if !h.Until(time.Second, func() bool { return h.count("/ask/b", (*lodger).over) == n }) {
			t.Fatalf("%d of %d have ended within a second", h.count("/ask/b", (*lodger).over), n)
		}
		h.Run(time.Second)
		if h.asked["/ask/ak"] != 2*n || h.asked["/ask/bk"] != 2*n || h.asked["/freek"] != 0 || h.top > 32 {
			t.Errorf("asked %v, %d at once", h.asked, h.top)
		}
		h.settled(map[string]int{"/ask/a": n, "/ask/b": 0, "/free": n})
		if got := h.ended("authz_denied"); got != n {
			t.Errorf("%d recorded as denied", got)
		}
		// Another policy asks about the rest: they are asked about now. What another authorizer would have to say ends.
		all := external()
		all.Rules[0].To = nil
		if err := h.policies.Set(&model.Security{Policies: []model.Policy{all}, Authorizers: []model.Authorizer{{Name: all.Name, Backend: model.PortName{Service: model.ServiceName{Name: "another"}, Port: 1}}}}); err != nil {
			t.Fatal(err)
		}
		h.answer = func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
			return &model.AuthorizerAnswer{Allowed: true}, nil
		}
		h.review()
		h.Run(2 * time.Second)
		h.settled(map[string]int{"/ask/a": 0, "/free": n})
		if h.asked["/freek"] != n || h.asked["/ask/ak"] != 2*n {
			t.Errorf("asked %v", h.asked)
		}
		// Nobody has to be asked any more: they stay.
		if err := h.policies.Set(&model.Security{}); err != nil {
			t.Fatal(err)
		}
		h.review()
		h.Run(2 * time.Second)
		h.settled(map[string]int{"/free": n})
		if h.asked["/freek"] != n {
			t.Errorf("asked %v", h.asked)
		}
	})
}

// TestAskedAgainByInterval: as often as the policy says the authorizer is asked again, not about all at the same time; what it then
// refuses ends. Nobody who answers is as bad as a refusal after several questions, unless the policy says otherwise.
func TestAskedAgainByInterval(t *testing.T) {
	const n = 100
	every := func(by *model.Authorizer) { by.Again = 10 * time.Second }
	simtest.Each(t, 1, func(t *testing.T, seed uint64) {
		h := newHouse(t, seed, many(n, "/ask/a", "/ask/b")...)
		h.authorizer(every)
		h.settled(map[string]int{"/ask/a": n, "/ask/b": n})
		h.Run(8 * time.Second)
		if h.asked["/ask/ak"] != n {
			t.Fatalf("asked again too early: %v", h.asked)
		}
		h.takes, h.top = 10*time.Millisecond, 0
		h.Run(4 * time.Second)
		if h.asked["/ask/ak"] != 2*n || h.top > 20 {
			t.Errorf("after one interval asked %v, %d at once", h.asked, h.top)
		}
		h.answer = refusing("/ask/b")
		h.Run(12 * time.Second)
		h.settled(map[string]int{"/ask/a": n, "/ask/b": 0})
		if got := h.ended("authz_denied"); got != n {
			t.Errorf("%d recorded as denied", got)
		}
	})
	for _, open := range []bool{false, true} {
		h := newHouse(t, 1, many(n, "/ask/a")...)
		h.authorizer(func(by *model.Authorizer) { every(by); by.FailOpen = open })
		h.settled(map[string]int{"/ask/a": n})
		h.answer = func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) { return nil, errors.New("away") }
		h.Run(11500 * time.Millisecond) // all were asked about once in vain, none three times
		h.settled(map[string]int{"/ask/a": n})
		h.Run(8 * time.Second)
		want := n
		if !open {
			want = 0
		}
		h.settled(map[string]int{"/ask/a": want})
		if got := h.ended("authorizer_unavailable"); got != n-want {
			t.Errorf("open is %v: %d recorded as not answered", open, got)
		}
	}
}
