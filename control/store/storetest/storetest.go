// Package storetest is the contract of a store as tests; every implementation runs them. Start reading at Run.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
)

// Run holds a store to the contract. open answers an empty store and how to compact it; closing is Run's.
func Run(t *testing.T, open func(t *testing.T) (s store.Store, compact func(rev int64) error)) {
	for name, test := range map[string]func(*testing.T, *suite){
		"PutGetDelete": putGetDelete, "Conditions": conditions, "List": list, "Apply": apply, "Bounds": bounds,
		"Race": race, "Watch": watch, "WatchApply": watchApply, "WatchFromPast": watchFromPast,
		"WatchCompacted": watchCompacted, "WatchEnds": watchEnds, "Closed": closed, "ListThenWatch": listThenWatch,
	} {
		t.Run(name, func(t *testing.T) {
			s, compact := open(t)
			t.Cleanup(func() { s.Close() })
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			t.Cleanup(cancel)
			test(t, &suite{Store: s, ctx: ctx, compact: compact})
		})
	}
}

type suite struct {
	store.Store
	ctx     context.Context
	compact func(int64) error
}

func key(name string) store.Key { return store.Key{Kind: "Service", Namespace: "default", Name: name} }

func (s *suite) put(t *testing.T, k store.Key, v string) int64 {
	t.Helper()
	rev, err := s.Put(s.ctx, store.Object{Key: k, Value: []byte(v)}, store.Any)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func putGetDelete(t *testing.T, s *suite) {
	_, err := s.Get(s.ctx, key("a"))
	is(t, err, store.ErrNotFound)
	if !strings.Contains(err.Error(), "Service/default/a") {
		t.Errorf("error does not name the key: %v", err)
	}
	r1 := s.put(t, key("a"), "1")
	r2 := s.put(t, key("a"), "2")
	if r2 <= r1 {
		t.Fatalf("revisions %d, %d do not grow", r1, r2)
	}
	o, err := s.Get(s.ctx, key("a"))
	if err != nil || o.Key != key("a") || string(o.Value) != "2" || o.Revision != r2 || o.Created != r1 {
		t.Fatalf("got %+v, %v; want value 2, revision %d, created %d", o, err, r2, r1)
	}
	r3, err := s.Delete(s.ctx, key("a"), store.Any)
	if err != nil || r3 <= r2 {
		t.Fatal(r3, err)
	}
	_, err = s.Get(s.ctx, key("a"))
	is(t, err, store.ErrNotFound)
	_, err = s.Delete(s.ctx, key("a"), store.Any)
	is(t, err, store.ErrNotFound)
	r4 := s.put(t, key("a"), "")
	o, err = s.Get(s.ctx, key("a"))
	if err != nil || o.Created != r4 || len(o.Value) != 0 {
		t.Fatalf("made again: %+v, %v", o, err)
	}
	if now, err := s.Revision(s.ctx); err != nil || now != r4 {
		t.Fatalf("revision %d, %v; want %d", now, err, r4)
	}
}

func conditions(t *testing.T, s *suite) {
	o := store.Object{Key: key("a"), Value: []byte("1")}
	_, err := s.Put(s.ctx, o, store.At(1))
	is(t, err, store.ErrConflict)
	rev, err := s.Put(s.ctx, o, store.Absent)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(s.ctx, o, store.Absent)
	is(t, err, store.ErrConflict)
	next, err := s.Put(s.ctx, o, store.At(rev))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(s.ctx, o, store.At(rev))
	is(t, err, store.ErrConflict)
	_, err = s.Delete(s.ctx, o.Key, store.At(rev))
	is(t, err, store.ErrConflict)
	if _, err = s.Delete(s.ctx, o.Key, store.At(next)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Delete(s.ctx, o.Key, store.At(next))
	is(t, err, store.ErrNotFound)
}

func list(t *testing.T, s *suite) {
	for _, k := range []store.Key{
		{Kind: "Service", Namespace: "a-b", Name: "x"}, {Kind: "Service", Namespace: "a", Name: "z"},
		{Kind: "Service", Namespace: "a", Name: "y"}, {Kind: "ServiceX", Namespace: "a", Name: "y"},
		{Kind: "Service", Name: "mesh"}, {Kind: "Service", Namespace: "ab", Name: "w"},
	} {
		s.put(t, k, k.String())
	}
	for ns, want := range map[string][]string{
		"":  {"Service/mesh", "Service/a/y", "Service/a/z", "Service/a-b/x", "Service/ab/w"},
		"a": {"Service/a/y", "Service/a/z"}, "none": nil,
	} {
		got, rev, err := s.List(s.ctx, "Service", ns)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range got {
			names = append(names, o.Key.String())
			if string(o.Value) != o.Key.String() || o.Revision == 0 || o.Created == 0 {
				t.Errorf("%+v", o)
			}
		}
		if now, _ := s.Revision(s.ctx); !slices.Equal(names, want) || rev != now {
			t.Errorf("namespace %q: %v at %d, want %v at %d", ns, names, rev, want, now)
		}
	}
}

func apply(t *testing.T, s *suite) {
	s.put(t, key("old"), "1")
	before, _ := s.Revision(s.ctx)
	rev, err := s.Apply(s.ctx, []store.Change{
		{Key: key("a"), Value: []byte("1"), If: store.Absent}, {Key: key("b"), Value: []byte("2")}, {Key: key("old"), Delete: true},
	})
	if err != nil || rev != before+1 {
		t.Fatalf("revision %d, %v; want one more than %d", rev, err, before)
	}
	for _, name := range []string{"a", "b"} {
		if o, err := s.Get(s.ctx, key(name)); err != nil || o.Revision != rev {
			t.Fatal(o, err)
		}
	}
	// One that does not hold undoes all.
	for want, bad := range map[error]store.Change{
		store.ErrConflict: {Key: key("a"), If: store.Absent}, store.ErrNotFound: {Key: key("old"), Delete: true},
	} {
		_, err := s.Apply(s.ctx, []store.Change{{Key: key("c"), Value: []byte("3")}, bad, {Key: key("b"), Delete: true}})
		is(t, err, want)
		if !strings.Contains(err.Error(), bad.Key.String()) {
			t.Errorf("error does not name %s: %v", bad.Key, err)
		}
	}
	_, err = s.Get(s.ctx, key("c"))
	is(t, err, store.ErrNotFound)
	if now, err := s.Apply(s.ctx, nil); err != nil || now != rev {
		t.Fatalf("no changes: %d, %v; want %d", now, err, rev)
	}
}

func bounds(t *testing.T, s *suite) {
	many := make([]store.Change, store.MaxChanges+1)
	for i := range many {
		many[i].Key = key(fmt.Sprint(i))
	}
	if _, err := s.Apply(s.ctx, many[1:]); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]store.Change{
		"too many": many, "twice": {{Key: key("a")}, {Key: key("a")}},
		"too big": {{Key: key("a"), Value: make([]byte, store.MaxValue+1)}},
		"no kind": {{Key: store.Key{Name: "a"}}}, "no name": {{Key: store.Key{Kind: "a"}}},
		"slash": {{Key: key("a/b")}}, "NUL": {{Key: key("a\x00")}}, "long": {{Key: key(strings.Repeat("a", 513))}},
	} {
		if _, err := s.Apply(s.ctx, bad); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Put(s.ctx, store.Object{Key: key("big"), Value: make([]byte, store.MaxValue)}, store.Any); err != nil {
		t.Errorf("the biggest value: %v", err)
	}
}

// race: of all who change the same revision, one wins.
func race(t *testing.T, s *suite) {
	const writers, rounds = 8, 10
	rev := s.put(t, key("a"), "0")
	for range rounds {
		var wg sync.WaitGroup
		won := make(chan int64, writers)
		for i := range writers {
			wg.Go(func() {
				r, err := s.Put(s.ctx, store.Object{Key: key("a"), Value: fmt.Append(nil, i)}, store.At(rev))
				if err == nil {
					won <- r
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		close(won)
		n := 0
		for rev = range won {
			n++
		}
		if n != 1 {
			t.Fatalf("%d writers changed the same revision", n)
		}
	}
}
