package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tulle-mesh/tulle/control/store"
)

func (s *suite) watch(t *testing.T, kind string, after int64) store.Watch {
	t.Helper()
	w, err := s.Watch(s.ctx, kind, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// next answers the next batch as "+name=value@revision" and "-name@revision".
func (s *suite) next(t *testing.T, w store.Watch) []string {
	t.Helper()
	select {
	case batch, ok := <-w.Events():
		if !ok {
			t.Fatalf("the watch ended: %v", w.Err())
		}
		var list []string
		for _, e := range batch {
			if e.Deleted {
				list = append(list, fmt.Sprintf("-%s@%d", e.Name, e.Revision))
			} else {
				list = append(list, fmt.Sprintf("+%s=%s@%d/%d", e.Name, e.Value, e.Revision, e.Created))
			}
		}
		slices.Sort(list)
		return list
	case <-s.ctx.Done():
		t.Fatal("no event came")
		return nil
	}
}

func (s *suite) expect(t *testing.T, w store.Watch, want ...string) {
	t.Helper()
	if got := s.next(t, w); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func watch(t *testing.T, s *suite) {
	start, _ := s.Revision(s.ctx)
	w, all := s.watch(t, "Service", start), s.watch(t, "", start)
	r1 := s.put(t, key("a"), "1")
	r2 := s.put(t, store.Key{Kind: "HTTPRoute", Namespace: "default", Name: "x"}, "other")
	r3 := s.put(t, key("a"), "2")
	r4, err := s.Delete(s.ctx, key("a"), store.Any)
	if err != nil {
		t.Fatal(err)
	}
	s.expect(t, w, fmt.Sprintf("+a=1@%d/%d", r1, r1))
	s.expect(t, w, fmt.Sprintf("+a=2@%d/%d", r3, r1))
	s.expect(t, w, fmt.Sprintf("-a@%d", r4))
	s.expect(t, all, fmt.Sprintf("+a=1@%d/%d", r1, r1))
	s.expect(t, all, fmt.Sprintf("+x=other@%d/%d", r2, r2))
}

func watchApply(t *testing.T, s *suite) {
	start := s.put(t, key("old"), "")
	w := s.watch(t, "Service", start)
	rev, err := s.Apply(s.ctx, []store.Change{{Key: key("a"), Value: []byte("1")}, {Key: key("b"), Value: []byte("2")},
		{Key: key("old"), Delete: true}, {Key: store.Key{Kind: "Other", Name: "n"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.expect(t, w, fmt.Sprintf("+a=1@%d/%d", rev, rev), fmt.Sprintf("+b=2@%d/%d", rev, rev), fmt.Sprintf("-old@%d", rev))
}

func watchFromPast(t *testing.T, s *suite) {
	var revs []int64
	for i := range 5 {
		revs = append(revs, s.put(t, key("a"), fmt.Sprint(i)))
	}
	w, first := s.watch(t, "Service", revs[1]), s.watch(t, "Service", 0)
	for i := 2; i < 5; i++ {
		s.expect(t, w, fmt.Sprintf("+a=%d@%d/%d", i, revs[i], revs[0]))
	}
	for i := range 5 {
		s.expect(t, first, fmt.Sprintf("+a=%d@%d/%d", i, revs[i], revs[0]))
	}
	future := s.watch(t, "Service", revs[4]+1)
	s.put(t, key("a"), "skipped")
	last := s.put(t, key("a"), "seen")
	s.expect(t, future, fmt.Sprintf("+a=seen@%d/%d", last, revs[0]))
}

func watchCompacted(t *testing.T, s *suite) {
	first := s.put(t, key("a"), "1")
	s.put(t, key("a"), "2")
	third := s.put(t, key("a"), "3")
	if err := s.compact(third); err != nil {
		t.Fatal(err)
	}
	w := s.watch(t, "Service", first)
	for range w.Events() {
		t.Fatal("an event of a forgotten revision")
	}
	is(t, w.Err(), store.ErrCompacted)
	ok := s.watch(t, "Service", third)
	fourth := s.put(t, key("a"), "4")
	s.expect(t, ok, fmt.Sprintf("+a=4@%d/%d", fourth, first))
}

func watchEnds(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	byContext, err := s.Watch(ctx, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	byClose, byStore := s.watch(t, "", 0), s.watch(t, "", 0)
	s.put(t, key("a"), "nobody reads this") // a watch that nobody reads must end too
	cancel()
	byClose.Close()
	drain(byContext)
	drain(byClose)
	if byContext.Err() != nil || byClose.Err() != nil {
		t.Fatalf("asked for, and yet: %v, %v", byContext.Err(), byClose.Err())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	drain(byStore)
	is(t, byStore.Err(), store.ErrClosed)
}

func drain(w store.Watch) {
	for range w.Events() {
	}
}

func closed(t *testing.T, s *suite) {
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Get(s.ctx, key("a"))
	is(t, err, store.ErrClosed)
	_, _, err = s.List(s.ctx, "Service", "")
	is(t, err, store.ErrClosed)
	_, err = s.Put(s.ctx, store.Object{Key: key("a")}, store.Any)
	is(t, err, store.ErrClosed)
	if w, err := s.Watch(s.ctx, "", 0); !errors.Is(err, store.ErrClosed) {
		t.Fatal(w, err)
	}
}

// listThenWatch: no change is missed or seen twice between a list and the watch that follows it.
func listThenWatch(t *testing.T, s *suite) {
	const writes = 200
	done := make(chan error, 1)
	go func() {
		for i := range writes {
			if _, err := s.Put(s.ctx, store.Object{Key: key(fmt.Sprintf("k%03d", i))}, store.Absent); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	seen := map[string]int{}
	objects, rev, err := s.List(s.ctx, "Service", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		seen[o.Name]++
	}
	w := s.watch(t, "Service", rev)
	for len(seen) < writes {
		select {
		case batch := <-w.Events():
			for _, e := range batch {
				if e.Revision <= rev {
					t.Fatalf("revision %d after %d", e.Revision, rev)
				}
				rev = e.Revision
				seen[e.Name]++
			}
		case <-s.ctx.Done():
			t.Fatalf("%d of %d changes seen", len(seen), writes)
		}
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s was seen %d times", name, n)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
