package delta_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/xds/delta"
)

const typ = "t"

// world is a client and a server with a wire between them that holds messages until they are delivered.
type world struct {
	c      *delta.Client
	s      *delta.Server
	truth  map[string]string // name: version
	held   map[string]string // what the client's owner was told; "" is "does not exist"
	refuse map[string]bool   // versions that the client refuses
	up     []*delta.Request
	down   []*delta.Response
}

func newWorld() *world {
	return &world{c: delta.NewClient("default/cart-1"), s: delta.NewServer(), truth: map[string]string{}, held: map[string]string{}, refuse: map[string]bool{}}
}

func (w *world) get(_, name string) *delta.Resource {
	v, ok := w.truth[name]
	if !ok {
		return nil
	}
	return &delta.Resource{Name: name, Version: v}
}

func (w *world) set(name, version string) {
	w.truth[name] = version
	w.s.Touch(typ, name)
}

func (w *world) remove(name string) {
	delete(w.truth, name)
	w.s.Touch(typ, name)
}

// reconnect loses everything on the wire, and the server's state.
func (w *world) reconnect() {
	w.up, w.down, w.s = nil, nil, delta.NewServer()
	w.c.Restart()
}

// step delivers one message each way; it answers whether anything moved.
func (w *world) step() bool {
	w.up = append(w.up, w.c.Requests()...)
	moved := len(w.up) > 0
	if moved {
		w.s.Request(w.up[0])
		w.up = w.up[1:]
	}
	if r := w.s.Next("1", w.get); r != nil {
		w.down = append(w.down, r)
	}
	if len(w.down) == 0 {
		return moved
	}
	r := w.down[0]
	w.down = w.down[1:]
	refused := map[string]error{}
	for _, u := range w.c.Receive(r) {
		switch {
		case u.Resource == nil:
			w.held[u.Name] = ""
		case w.refuse[u.Resource.Version]:
			refused[u.Name] = errors.New("not run")
		default:
			w.held[u.Name] = u.Resource.Version
		}
	}
	w.up = append(w.up, w.c.Finish(r, refused))
	return true
}

func (w *world) settle(t interface{ Fatalf(string, ...any) }) {
	for range 1000 {
		if !w.step() {
			return
		}
	}
	t.Fatalf("the two never stop talking")
}

// TestGreeting: the first request of every stream says who asks, also where nothing is asked for; that is not a wildcard.
func TestGreeting(t *testing.T) {
	w := newWorld()
	w.truth["a"] = "1"
	for range 2 {
		w.reconnect()
		g := w.c.Greeting(typ)
		if g.GetNode().GetId() != "default/cart-1" {
			t.Fatalf("the first request is %v", g)
		}
		if res := w.s.Request(g); res.Wildcard || w.s.Wants(typ, "a") {
			t.Error("the greeting counts as a wildcard")
		}
		if again := w.c.Greeting(typ); again != nil {
			t.Errorf("a second greeting: %v", again)
		}
		w.c.Subscribe(typ, "a")
		w.settle(t)
		check(t, w, "a=1")
		w.reconnect()
		r := w.c.Requests()
		if len(r) != 1 || r[0].GetNode().GetId() != "default/cart-1" || w.c.Greeting(typ) != nil {
			t.Errorf("the first request is %v", r)
		}
		w.c.Unsubscribe(typ, "a")
	}
}

func TestScript(t *testing.T) {
	w := newWorld()
	w.c.Restart()
	w.truth["a"] = "1"
	w.c.Subscribe(typ, "a")
	w.c.Subscribe(typ, "b")
	w.settle(t)
	check(t, w, "a=1", "b=")
	if !w.s.Clean() {
		t.Error("not clean after everything was acknowledged")
	}
	w.set("b", "1")
	w.set("c", "1") // nobody asked
	w.settle(t)
	check(t, w, "a=1", "b=1")
	w.remove("a")
	w.settle(t)
	check(t, w, "a=", "b=1")
	w.c.Unsubscribe(typ, "b")
	w.settle(t)
	w.set("b", "2")
	w.settle(t)
	check(t, w, "a=", "b=1")
}

func TestReconnectSendsOnlyWhatChanged(t *testing.T) {
	w := newWorld()
	w.c.Restart()
	w.truth["a"], w.truth["b"] = "1", "1"
	w.c.Subscribe(typ, "a")
	w.c.Subscribe(typ, "b")
	w.settle(t)
	w.reconnect()
	w.truth["b"] = "2"
	reqs := w.c.Requests()
	if len(reqs) != 1 || reqs[0].InitialResourceVersions["a"] != "1" || len(reqs[0].ResourceNamesSubscribe) != 2 {
		t.Fatalf("unexpected requests %v", reqs)
	}
	w.s.Request(reqs[0])
	r := w.s.Next("7", w.get)
	if len(r.Resources) != 1 || r.Resources[0].Name != "b" || r.SystemVersionInfo != "7" {
		t.Fatalf("sent %v, want b alone", r)
	}
}

func TestNackNamesWhatWasRefused(t *testing.T) {
	w := newWorld()
	w.c.Restart()
	w.truth["a"], w.truth["b"] = "1", "bad"
	w.refuse["bad"] = true
	w.c.Subscribe(typ, "a")
	w.c.Subscribe(typ, "b")
	w.settle(t)
	check(t, w, "a=1")
	if got := w.s.Refused(); len(got) != 1 || got["t b"] != "not run" {
		t.Errorf("refused %v, want b: not run", got)
	}
	w.set("b", "2")
	w.settle(t)
	check(t, w, "a=1", "b=2")
	if got := w.s.Refused(); got != nil {
		t.Errorf("still refused %v", got)
	}
}

func TestWildcardAndStaleNonce(t *testing.T) {
	s := delta.NewServer()
	if r := s.Request(&delta.Request{TypeUrl: typ}); !r.Wildcard {
		t.Fatal("an empty first request asks for everything")
	}
	if r := s.Request(&delta.Request{TypeUrl: typ, ResponseNonce: "9", ErrorDetail: &status.Status{}}); !r.Unknown {
		t.Error("a nonce nobody sent was taken")
	}
	s.Touch(typ, "x")
	get := func(_, n string) *delta.Resource { return &delta.Resource{Name: n, Version: "1"} }
	r := s.Next("1", get)
	if r == nil || s.Next("1", get) != nil {
		t.Fatal("want one response on its way, not more")
	}
	if res := s.Request(&delta.Request{TypeUrl: typ, ResponseNonce: r.Nonce, ErrorDetail: &status.Status{}}); res.Nack == "" {
		t.Error("a nack without text was taken for an ack")
	}
}

func check(t *testing.T, w *world, want ...string) {
	t.Helper()
	var got []string
	for _, n := range slices.Sorted(maps.Keys(w.held)) {
		got = append(got, n+"="+w.held[n])
	}
	if !slices.Equal(got, want) {
		t.Fatalf("held %v, want %v", got, want)
	}
}

// Whatever happens in whatever order, once the two have talked it out the client holds what is true of every
// name it asks for.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.c.Restart()
		asked := map[string]bool{}
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		for i := range rapid.IntRange(1, 40).Draw(t, "n") {
			n := name.Draw(t, "name")
			switch rapid.IntRange(0, 6).Draw(t, "op") {
			case 0:
				w.set(n, fmt.Sprint(i))
			case 1:
				w.remove(n)
			case 2:
				if w.c.Subscribe(typ, n) {
					delete(w.held, n)
				}
				asked[n] = true
			case 3:
				w.c.Unsubscribe(typ, n)
				delete(asked, n)
			case 4:
				w.reconnect()
			default:
				w.step()
			}
		}
		w.settle(t)
		for n := range asked {
			if got, ok := w.held[n]; !ok || got != w.truth[n] {
				t.Fatalf("%s: held %q (%v), true is %q", n, got, ok, w.truth[n])
			}
		}
		if !w.s.Clean() {
			t.Fatalf("not clean")
		}
	})
}
