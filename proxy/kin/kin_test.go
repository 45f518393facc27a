package kin_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/kin"
)

// child remembers with which turn it was told.
type child struct {
	kin.Child
	told []uint64
}

func (c *child) Orphaned(turn uint64) { c.told = append(c.told, turn) }

// TestJoin: by the identifier, else by the trace; what was said goes on, and of several the least strict.
func TestJoin(t *testing.T) {
	tab := kin.New()
	id, trace, other := tab.Key([]byte("7f")), tab.Key([]byte("4bf92f3577b34da6a3ce929d0e0e4736")), tab.Key([]byte("8f"))
	var a, b kin.Parent
	tab.Open(&a, kin.Names{ID: id, Trace: trace}, kin.Said{Deadline: 5 * time.Second, Class: model.ClassBatch, Classed: true, Again: true})
	var c child
	for _, k := range [][2]kin.Key{{id, 0}, {id, other}, {other, trace}, {0, trace}} {
		said, ok := tab.Join(&c.Child, kin.Names{ID: k[0], Trace: k[1]}, &c, 1)
		if !ok || said != (kin.Said{Deadline: 5 * time.Second, Class: model.ClassBatch, Classed: true, Again: true}) {
			t.Errorf("%v: %+v %t", k, said, ok)
		}
		tab.Leave(&c.Child)
	}
	for _, k := range [][2]kin.Key{{other, 0}, {0, 0}, {0, id + 1}} {
		if _, ok := tab.Join(&c.Child, kin.Names{ID: k[0], Trace: k[1]}, &c, 1); ok {
			t.Errorf("%v is nobody's", k)
		}
		tab.Leave(&c.Child)
	}
	tab.Open(&b, kin.Names{ID: id, Trace: 0}, kin.Said{Deadline: 7 * time.Second, Class: model.ClassCritical, Classed: true})
	if said, _ := tab.Join(&c.Child, kin.Names{ID: id, Trace: 0}, &c, 1); said != (kin.Said{Deadline: 7 * time.Second, Class: model.ClassCritical, Classed: true}) {
		t.Errorf("of two: %+v", said)
	}
	tab.Leave(&c.Child)
	tab.Close(&b, true)
	tab.Open(&b, kin.Names{ID: id, Trace: 0}, kin.Said{})
	if said, _ := tab.Join(&c.Child, kin.Names{ID: id, Trace: 0}, &c, 1); said != (kin.Said{}) {
		t.Errorf("of two, one without a bound: %+v", said)
	}
	tab.Leave(&c.Child)
	tab.Close(&b, false)
	tab.Close(&a, true)
	if _, ok := tab.Join(&c.Child, kin.Names{ID: id, Trace: trace}, &c, 1); ok || len(c.told) > 0 {
		t.Errorf("a parent that has closed is found: %t; told %v", ok, c.told)
	}
}

// TestOrphans: children are told once when the last one they are for has gone, not when it has ended in order.
func TestOrphans(t *testing.T) {
	tab := kin.New()
	id, trace := tab.Key([]byte("1")), tab.Key([]byte("t"))
	var a, b kin.Parent
	var one, two, left child
	open := func(p *kin.Parent) { tab.Open(p, kin.Names{ID: id, Trace: trace}, kin.Said{}) }
	join := func(c *child, turn uint64) {
		if _, ok := tab.Join(&c.Child, kin.Names{ID: id, Trace: 0}, c, turn); !ok {
			t.Fatal("not joined")
		}
	}
	open(&a)
	join(&one, 3)
	join(&two, 4)
	join(&left, 5)
	tab.Leave(&left.Child)
	open(&b)
	tab.Close(&a, true)
	if len(one.told)+len(two.told) > 0 {
		t.Error("told although somebody waits")
	}
	tab.Close(&b, true)
	if fmt.Sprint(one.told, two.told, left.told) != "[3] [4] []" {
		t.Errorf("told %v, %v and %v", one.told, two.told, left.told)
	}
	tab.Leave(&one.Child)
	tab.Leave(&two.Child)
	open(&a)
	join(&one, 6)
	tab.Close(&a, false)
	if len(one.told) > 1 {
		t.Error("told although its caller has its answer")
	}
	tab.Leave(&one.Child)
}

// TestOrderlyEnd: what outlives a request that has ended in order is not ended by another one of the same trace that
// comes later and is given up.
func TestOrderlyEnd(t *testing.T) {
	tab := kin.New()
	id, trace := tab.Key([]byte("1")), tab.Key([]byte("t"))
	var a, b kin.Parent
	var byID, byTrace, later child
	tab.Open(&a, kin.Names{ID: id, Trace: trace}, kin.Said{})
	tab.Join(&byID.Child, kin.Names{ID: id, Trace: 0}, &byID, 1)
	tab.Join(&byTrace.Child, kin.Names{ID: 0, Trace: trace}, &byTrace, 2)
	tab.Close(&a, false)
	tab.Open(&b, kin.Names{ID: id, Trace: trace}, kin.Said{})
	tab.Join(&later.Child, kin.Names{ID: 0, Trace: trace}, &later, 3)
	tab.Close(&b, true)
	if fmt.Sprint(byID.told, byTrace.told, later.told) != "[] [] [3]" {
		t.Errorf("told %v, %v and %v", byID.told, byTrace.told, later.told)
	}
	for _, c := range []*child{&byID, &byTrace, &later} {
		tab.Leave(&c.Child)
	}
}

// TestClassOfTwo: the least strict class counts, whoever came first; nobody's word is default.
func TestClassOfTwo(t *testing.T) {
	none := kin.Said{}
	is := func(c model.Class) kin.Said { return kin.Said{Class: c, Classed: true} }
	batch, usual, critical := is(model.ClassBatch), is(model.ClassDefault), is(model.ClassCritical)
	for _, c := range [][3]kin.Said{{none, batch, none}, {none, usual, usual}, {none, critical, critical}, {batch, usual, usual}, {batch, critical, critical},
		{usual, critical, critical}, {none, none, none}, {batch, batch, batch}} {
		for _, two := range [][2]kin.Said{{c[0], c[1]}, {c[1], c[0]}} {
			tab := kin.New()
			var a, b kin.Parent
			var made child
			tab.Open(&a, kin.Names{ID: 7, Trace: 0}, two[0])
			tab.Open(&b, kin.Names{ID: 7, Trace: 0}, two[1])
			if said, _ := tab.Join(&made.Child, kin.Names{ID: 7, Trace: 0}, &made, 1); said != c[2] {
				t.Errorf("%+v: %+v", two, said)
			}
		}
	}
}

// TestManyAlike: what one request costs does not grow with how many others have the identifier that a client has chosen.
func TestManyAlike(t *testing.T) {
	tab := kin.New()
	parents := make([]kin.Parent, 200_000)
	var c child
	began := time.Now()
	for i := range parents {
		tab.Open(&parents[i], kin.Names{ID: 7, Trace: 0}, kin.Said{Deadline: time.Hour})
		if _, ok := tab.Join(&c.Child, kin.Names{ID: 7, Trace: 0}, &c, 1); ok != (i < kin.MostAlike) {
			t.Fatalf("of %d: joined %t", i+1, ok)
		}
		tab.Leave(&c.Child)
	}
	for i := range parents {
		tab.Close(&parents[i], i%2 == 0) // the oldest first
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("it took %s", d)
	}
	if _, ok := tab.Join(&c.Child, kin.Names{ID: 7, Trace: 0}, &c, 1); ok {
		t.Error("somebody is left")
	}
}

func TestTraceID(t *testing.T) {
	for text, want := range map[string]string{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "4bf92f3577b34da6a3ce929d0e0e4736",
		"": "", "00-4bf92f3577b34da6a3ce929d0e0e4736": "", "00x4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "",
	} {
		if got := string(kin.TraceID([]byte(text))); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// counter is told from many goroutines.
type counter struct {
	kin.Child
	n atomic.Int64
}

func (c *counter) Orphaned(uint64) { c.n.Add(1) }

// TestTogether: many loops at once, few keys; nothing is told twice for one Join, and nothing is left.
func TestTogether(t *testing.T) {
	tab := kin.New()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 20_000 {
				id, trace := tab.Key([]byte{byte(r.IntN(4))}), tab.Key([]byte{9, byte(r.IntN(4))})
				var p kin.Parent
				tab.Open(&p, kin.Names{ID: id, Trace: trace}, kin.Said{})
				c := &counter{}
				_, ok := tab.Join(&c.Child, kin.Names{ID: id, Trace: trace}, c, 1)
				tab.Close(&p, r.IntN(2) == 0)
				tab.Leave(&c.Child)
				if n := c.n.Load(); !ok || n > 1 {
					t.Errorf("joined %t, told %d times", ok, n)
				}
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		var c child
		if _, ok := tab.Join(&c.Child, kin.Names{ID: tab.Key([]byte{byte(i)}), Trace: tab.Key([]byte{9, byte(i)})}, &c, 1); ok {
			t.Error("somebody is left")
		}
	}
}

func TestNoAllocation(t *testing.T) {
	tab := kin.New()
	id := []byte("0b0e4c5c-9c1f-4d6e-8d5e-1c2b3a495867")
	var p kin.Parent
	c := &child{}
	if n := testing.AllocsPerRun(1000, func() {
		k := tab.Key(id)
		tab.Open(&p, kin.Names{ID: k, Trace: 0}, kin.Said{Deadline: time.Second})
		tab.Join(&c.Child, kin.Names{ID: k, Trace: 0}, c, 1)
		tab.Leave(&c.Child)
		tab.Close(&p, false)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJoin(b *testing.B) {
	tab := kin.New()
	id := []byte("0b0e4c5c-9c1f-4d6e-8d5e-1c2b3a495867")
	var p kin.Parent
	c := &child{}
	for b.Loop() {
		tab.Open(&p, kin.Names{ID: tab.Key(id), Trace: 0}, kin.Said{})
		tab.Join(&c.Child, kin.Names{ID: tab.Key(id), Trace: 0}, c, 1)
		tab.Leave(&c.Child)
		tab.Close(&p, false)
	}
}

// TestOwnOnly: a call joins the request that it says it is for, by its span where that tells, and none once that has ended,
// whatever else of the same trace is open.
func TestOwnOnly(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-"
	first, second, own := trace+"00f067aa0ba902b7-01", trace+"00f067aa0ba902b8-01", trace+"1111111111111111-01"
	soon, late := kin.Said{Deadline: time.Second}, kin.Said{Deadline: 9 * time.Second}
	tab := kin.New()
	names := func(id, traceparent string) kin.Names { return tab.Names([]byte(id), []byte(traceparent)) }
	join := func(id, traceparent string) (kin.Said, bool) {
		var c child
		said, ok := tab.Join(&c.Child, names(id, traceparent), &c, 1)
		tab.Leave(&c.Child)
		return said, ok
	}
	var a, b kin.Parent
	var ofA, ofB, ofAny child
	tab.Open(&a, names("a", first), soon)
	tab.Open(&b, names("b", second), late)
	for _, c := range []struct {
		id, traceparent string
		want            kin.Said
	}{
		{"", first, soon}, {"", second, late}, {"", own, late}, {"a", own, soon}, {"b", first, late}, {"new", first, soon}, {"new", own, late},
	} {
		if said, ok := join(c.id, c.traceparent); !ok || said != c.want {
			t.Errorf("both open, %q %q: %+v %t", c.id, c.traceparent, said, ok)
		}
	}
	tab.Join(&ofA.Child, names("", first), &ofA, 1)
	tab.Join(&ofB.Child, names("", second), &ofB, 2)
	tab.Join(&ofAny.Child, names("", own), &ofAny, 3)
	tab.Close(&b, true)
	if fmt.Sprint(ofA.told, ofB.told, ofAny.told) != "[] [2] []" {
		t.Errorf("the second has gone: %v %v %v", ofA.told, ofB.told, ofAny.told)
	}
	tab.Open(&b, names("b2", trace+"00f067aa0ba902b9-01"), late)
	tab.Close(&a, false)
	for _, c := range []struct {
		id, traceparent string
		ok              bool
	}{
		{"", first, false}, {"a", own, false}, {"a", "", false}, {"new", first, false}, {"b2", first, false}, {"b2", own, true},
		{"new", own, true}, // it cannot be told whose that is
	} {
		if said, ok := join(c.id, c.traceparent); ok != c.ok || !ok && said != (kin.Said{}) {
			t.Errorf("the first has ended, %q %q: %+v %t", c.id, c.traceparent, said, ok)
		}
	}
	tab.Close(&b, true)
	if fmt.Sprint(ofA.told, ofB.told, ofAny.told) != "[] [2] []" {
		t.Errorf("after orderly ends: %v %v %v", ofA.told, ofB.told, ofAny.told)
	}
	tab.Open(&a, names("a", first), soon) // once more
	if said, ok := join("a", first); !ok || said != soon {
		t.Errorf("open again: %+v %t", said, ok)
	}
	tab.Close(&a, false)
	for _, c := range []*child{&ofA, &ofB, &ofAny} {
		tab.Leave(&c.Child)
	}
}
