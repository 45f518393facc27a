package outage_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/etcd"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/model/recovery"
)

// TestKept: who is started on the same store knows what was learned before and tells it to proxies at once, with an etcd that
// was restarted as well.
func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	open := func() store.Store {
		s, err := etcd.Embed(t.Context(), dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open()
	k := &outage.Keeper{Memory: &outage.Memory{}, Store: s}
	k.Memory.Report(report(reviews.String(), 7, time.Second, begin), begin)
	save(t, k, begin, false)
	k.Memory.Report(report(reviews.String(), 2, time.Second, begin.Add(time.Minute)), begin.Add(time.Minute))
	save(t, k, begin.Add(time.Minute), false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	k = &outage.Keeper{Memory: &outage.Memory{}, Store: open()}
	if err := k.Load(t.Context(), begin.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	l, err := recovery.DecodeLearned(k.Memory.Learned(reviews))
	if err != nil || l.Service.Weight() < 8.8 || l.Service.Weight() > 9 {
		t.Errorf("weight %v, %v", l.Service.Weight(), err)
	}
	if list := k.Memory.List(); len(list) != 1 || len(list[0].Last) != 2 || !list[0].Last[1].Ended.Equal(begin.Add(time.Minute)) {
		t.Errorf("%+v", list)
	}
	if names := k.Memory.Due(begin.Add(time.Hour)); len(names) != 0 {
		t.Errorf("told again: %v", names)
	}
}

func save(t *testing.T, k *outage.Keeper, now time.Time, all bool) (more bool) {
	t.Helper()
	more, err := k.Save(t.Context(), now, all)
	if err != nil {
		t.Fatal(err)
	}
	return more
}

// counting is a store that counts writes, and may refuse them.
type counting struct {
	store.Store
	applied, values int
	refuse          error
}

func (c *counting) Apply(ctx context.Context, changes []store.Change) (int64, error) {
	if c.refuse != nil {
		return 0, c.refuse
	}
	c.applied, c.values = c.applied+1, c.values+len(changes)
	return c.Store.Apply(ctx, changes)
}

// TestKeptBounded: one destination is written every half minute at most, a hundred at once, and again if it did not work;
// what is stale, pushed out or unreadable does not stay in the store.
func TestKeptBounded(t *testing.T) {
	s := &counting{Store: mem.New(0)}
	defer s.Close()
	k := &outage.Keeper{Memory: &outage.Memory{}, Store: s}
	for i := range 250 {
		k.Memory.Report(report(fmt.Sprintf("s%d.default:80", i), 1, time.Second, begin), begin)
	}
	s.refuse = errors.New("no")
	if more, err := k.Save(t.Context(), begin, false); !more || err == nil {
		t.Error("a refused write is no error")
	}
	s.refuse = nil
	now := begin
	for _, want := range []int{100, 200, 250, 250} {
		now = now.Add(outage.SaveEvery)
		if save(t, k, now, false); s.values != want {
			t.Errorf("%d were written, not %d", s.values, want)
		}
	}
	k.Memory.Report(report("s1.default:80", 1, time.Second, now), now)
	save(t, k, now.Add(time.Second), false)
	k.Memory.Report(report("s1.default:80", 1, time.Second, now), now)
	if save(t, k, now.Add(2*time.Second), false); s.values != 251 {
		t.Errorf("%d writes, not one more within the half minute", s.values)
	}
	if save(t, k, now.Add(2*time.Second), true); s.values != 252 {
		t.Errorf("%d writes: the last one before the end is missing", s.values)
	}
	for _, junk := range []string{"", "{}", `{"learned":"AAAA"}`, "null"} {
		if _, err := s.Put(t.Context(), store.Object{Key: store.Key{Kind: outage.Kind, Namespace: "default", Name: "junk.default:8" + fmt.Sprint(len(junk))}, Value: []byte(junk)}, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	again := &outage.Keeper{Memory: &outage.Memory{}, Store: s}
	if err := again.Load(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n, m := stored(t, s), len(again.Memory.List()); n != 250 || m != 250 {
		t.Errorf("%d are in the store, %d are known", n, m)
	}
	for i := range outage.MaxDestinations {
		again.Memory.Report(report(fmt.Sprintf("t%d.default:80", i), 1, time.Second, now), now)
	}
	for save(t, again, now, true) {
	}
	if n := stored(t, s); n != outage.MaxDestinations {
		t.Errorf("%d are in the store, though %d are known at most", n, outage.MaxDestinations)
	}
	for save(t, again, now.Add(outage.Expires+time.Hour), true) {
	}
	if n := stored(t, s); n != 0 || len(again.Memory.List()) != 0 {
		t.Errorf("%d are in the store after all have expired", n)
	}
}

func stored(t *testing.T, s store.Store) int {
	t.Helper()
	all, _, err := s.List(t.Context(), outage.Kind, "")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
